"""An ensemble of deep stacks in preallocated buffers, with the forward and backward pass as bound programs.

Axes: E members (networks), B samples, n_out and n_in units; features × batch, so that every signal is
contiguous. A layer's bias is the last column of its weight, and a row of ones stands under its input: k =
n_in + 1.

Layers of equal shape form a *run*: one tensor (c, E, n_out, k) of weights and one (c, E, k, B) of their
inputs. The backward pass goes through a run in chunks: the derivatives of a chunk are one call, and so is
its update; only the chain itself (one product and one multiplication a layer) is stepped through. No
gradient of the weights outlives its chunk, so memory stays below that of an autograd step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from firstlight.errors import InputError
from firstlight.lab.kernels import Kernel, kernel
from firstlight.lab.models import StackConfig
from firstlight.lab.products import Step, product

Apply = Callable[[int, int, int, Tensor], object]  # (run, start, stop, gradient of the run's weights start … stop)


class Stack:
    """Weights, signals and programs of E networks of one shape.

    Args:
        config: A plain or residual stack.
        members: E, the number of networks.
        batch: B, the number of samples of a step.
        device: Of all buffers.
        dtype: float32 or float64.
        chunk: Layers whose weight gradients are formed together.
        library: Matrix products by "numpy" or "torch"; None takes NumPy's on a CPU.

    Attributes:
        weights: One tensor (c, E, n_out, k) per run; the bias is the last column.
        input: Buffer of the samples (inputs, B), shared by all members.
        logits: Output of the readout (E, outputs, B).
        cotangent: Gradient of the loss with respect to the logits, to be filled before `backward`.
        signals: Per hidden layer, a view (E, n, B) of its output.
        deltas: Gradient with respect to the first hidden layer's pre-activation after `backward`.

    Raises:
        InputError: A conv stack (see `lab.conv`), or sizes below one.
    """

    def __init__(
        self,
        config: StackConfig,
        members: int = 1,
        batch: int = 100,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        chunk: int = 16,
        library: str | None = None,
    ) -> None:
        if config.kind == "conv":
            raise InputError("stack", got="a conv stack", expected="a plain or residual one")
        if members < 1 or batch < 1:
            raise InputError("stack", got=f"{members} members, batch {batch}", expected="at least one of each")
        self.config, self.members, self.batch = config, members, batch
        self.device, self.dtype = torch.device(device), dtype
        self.library = library or ("numpy" if self.device.type == "cpu" else "torch")
        self.kernel: Kernel = kernel(config.activation)
        self._one = int(config.bias)
        self._chunk = chunk
        self._allocate()
        self._forward = self._bind_forward()
        self._backward = self._bind_backward()

    # buffers
    # -------------------------------------------------------------------------------------------------------

    def _new(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.device, dtype=self.dtype)

    def _allocate(self) -> None:
        widths, E, B, one = self.config.widths, self.members, self.batch, self._one
        pairs = list(pairwise(widths))
        # a run never crosses the first hidden layer (its input is shared) or the readout
        self.runs: list[tuple[int, int]] = []
        for layer, pair in enumerate(pairs):
            lonely = layer in (0, 1, len(pairs) - 1)
            if self.runs and not lonely and pairs[self.runs[-1][0]] == pair:
                self.runs[-1] = (self.runs[-1][0], layer + 1)
            else:
                self.runs.append((layer, layer + 1))
        self.weights: list[Tensor] = []
        self._inputs: list[Tensor] = []  # per run (c, E, k, B)
        self._landing: list[Tensor | None] = []  # per run: pre-activations whose φ is the run's input
        self._branch: list[Tensor | None] = []  # per run: saved branch values of residual layers
        self._where: list[tuple[int, int]] = []  # layer -> (run, place)
        residual = self.config.kind == "residual"
        for run, (start, stop) in enumerate(self.runs):
            n_in, n_out = pairs[start]
            count, shared = stop - start, start == 0
            self.weights.append(self._new(count, E, n_out, n_in + one))
            signal = self._new(count, 1 if shared else E, n_in + one, B)
            if one:
                signal[:, :, n_in] = 1.0
            self._inputs.append(signal)
            own_source = not shared and not self.kernel.saves_output and (not residual or start == 1)
            self._landing.append(self._new(count, E, n_in, B) if own_source else None)
            in_branch = residual and 0 < start < len(pairs) - 1
            self._branch.append(self._new(count, E, n_out, B) if in_branch else None)
            self._where += [(run, place) for place in range(count)]
        self.input = self._inputs[0][0, 0, : widths[0]]
        self.logits = self._new(E, widths[-1], B)
        self.cotangent = self._new(E, widths[-1], B)
        self._scratch = self._new(E, max(self.config.hidden), B) if residual and not self.kernel.saves_output else None

    def load(self, x: Tensor) -> None:
        """Copy samples (B, inputs) into `input`."""
        self.input.copy_(x.T)

    def _signal(self, layer: int) -> Tensor:
        """Input of layer `layer` without the row of ones, (E, n_in, B)."""
        run, place = self._where[layer]
        return self._inputs[run][place, :, : self.config.widths[layer]]

    @property
    def signals(self) -> list[Tensor]:
        """Outputs of the hidden layers, views (E, n, B)."""
        return [self._signal(layer) for layer in range(1, self.config.depth + 1)]

    def weight(self, layer: int) -> Tensor:
        """Weight of a layer (0 … depth, the last is the readout), a view (E, n_out, n_in)."""
        run, place = self._where[layer]
        return self.weights[run][place, :, :, : self.config.widths[layer]]

    def bias(self, layer: int) -> Tensor | None:
        """Bias of a layer, a view (E, n_out), or None."""
        run, place = self._where[layer]
        return self.weights[run][place, :, :, self.config.widths[layer]] if self._one else None

    # programs
    # ------------------------------------------------------------------------------------------------------

    def _is_branch(self, layer: int) -> bool:
        return self.config.kind == "residual" and 0 < layer < self.config.depth

    def _inplace(self, z: Tensor) -> Step | None:
        if self.kernel.name == "linear":
            return None
        ufunc = self.kernel.numpy_inplace
        if ufunc is not None and self.device.type == "cpu":
            return partial(ufunc, z.numpy(), z.numpy())
        assert self.kernel.inplace is not None
        return partial(self.kernel.inplace, z)

    def _activate(self, z: Tensor, h: Tensor) -> Step:
        f = self.kernel.f
        return lambda: h.copy_(f(z))

    def _bind_forward(self) -> list[Step]:
        steps: list[Step | None] = []
        for layer in range(self.config.depth + 1):
            run, place = self._where[layer]
            w, h = self.weights[run][place], self._inputs[run][place]
            if layer == self.config.depth:
                steps.append(product(w, h, self.logits, library=self.library))
                continue
            after = self._signal(layer + 1)
            branch = self._branch[run]
            if branch is not None:
                f = branch[place]
                steps.append(product(w, h, f, library=self.library))
                value = f
                if self.kernel.saves_output:
                    steps.append(self._inplace(f))
                else:
                    assert self._scratch is not None
                    value = self._scratch[:, : f.shape[1]]
                    steps.append(self._activate(f, value))
                eta = self.config.etas[layer - 1]
                steps.append(partial(torch.add, self._signal(layer), value, alpha=eta, out=after))
                continue
            next_run, next_place = self._where[layer + 1]
            landing = self._landing[next_run]
            z = after if landing is None else landing[next_place]
            steps.append(product(w, h, z, library=self.library))
            steps.append(self._inplace(z) if landing is None else self._activate(z, after))
        return [step for step in steps if step is not None]

    def _bind_backward(self) -> list[tuple[list[Step], int, int, int, Tensor]]:
        """Chunks from the readout down: (steps, run, start, stop, gradient buffer)."""
        chunks = []
        pieces = [
            (run, at, min(at + self._chunk, stop - start))
            for run, (start, stop) in enumerate(self.runs)
            for at in range(0, stop - start, self._chunk)
        ]
        pool: dict[tuple[int, ...], Tensor] = {}

        def buffer(role: int, *shape: int) -> Tensor:
            size = int(np.prod(shape))
            key = (role,)
            if key not in pool or pool[key].numel() < size:
                pool[key] = self._new(size)
            return pool[key][:size].view(shape)

        # the largest of each role first, so that one allocation serves all chunks
        E, B = self.members, self.batch
        shapes = [(stop - start, E, *self.weights[run].shape[2:]) for run, start, stop in pieces]
        for c, e, n, k in shapes:
            sizes = ((c, e, n, B), (c, e, n, B), (c, e, B, k), (c, e, n, k), (c, e, k, B), (e, k, B))
            for role, size in enumerate(sizes):
                buffer(role, *size)
        delta: Tensor = self.cotangent.unsqueeze(0)
        for number, (run, start, stop) in enumerate(reversed(pieces)):
            first = self.runs[run][0] + start  # first layer of this chunk
            below: Tensor | None = None
            if first > 0:
                run_below, start_below, stop_below = pieces[len(pieces) - 2 - number]
                n_below = self.weights[run_below].shape[2]
                below = buffer(number % 2, stop_below - start_below, E, n_below, B)
            steps = self._chunk_steps(run, start, stop, delta, below, buffer)
            gradient = buffer(3, stop - start, *self.weights[run].shape[1:])
            chunks.append((steps, run, start, stop, gradient))
            if below is not None:
                delta = below
        self.deltas = delta
        return chunks

    def _chunk_steps(
        self,
        run: int,
        start: int,
        stop: int,
        delta: Tensor,
        below: Tensor | None,
        buffer: Callable[..., Tensor],
    ) -> list[Step]:
        """Gradients of one chunk's weights, and δ of the layer below it.

        `delta` (c, E, n_out, B): its last entry is filled already, unless the chunk is residual: then the
        buffer 5 carries the gradient with respect to the stream above, and every entry is made here.
        """
        steps: list[Step] = []
        first, E, B = self.runs[run][0], self.members, self.batch
        n_in = self.config.widths[first]
        weights, inputs, branch = self.weights[run], self._inputs[run], self._branch[run]
        carry = buffer(5, E, n_in, B)
        if branch is not None:
            saved = branch[start:stop]
            slopes = buffer(4, *saved.shape)
            steps.append(partial(self.kernel.derivative, saved, slopes))
            etas = self.config.etas[first - 1 + start : first - 1 + stop]
            factors = torch.tensor(etas, device=self.device, dtype=self.dtype).view(-1, 1, 1, 1)
            steps.append(partial(slopes.mul_, factors))
            part = buffer(6, E, n_in, B)
            for place in range(stop - 1, start - 1, -1):
                back = weights[place, :, :, :n_in].transpose(-1, -2)
                at = place - start
                steps.append(partial(torch.mul, carry, slopes[at], out=delta[at]))
                steps.append(product(back, delta[at], part, library=self.library))
                steps.append(partial(carry.add_, part))
        elif first + start > 0:
            to_stream = self._is_branch(first + start - 1)
            saved = self._saved(run, start, stop)
            slopes = buffer(4, stop - start, E, n_in, B)
            if not to_stream:
                steps.append(partial(self.kernel.derivative, saved, slopes))
            for place in range(stop - 1, start - 1, -1):
                back = weights[place, :, :, :n_in].transpose(-1, -2)
                at = place - start
                steps.append(product(back, delta[at], carry, library=self.library))
                if not to_stream:
                    target = delta[at - 1] if at else below[-1]  # type: ignore[index]
                    steps.append(self._multiply(carry, slopes[at], target))
        if branch is not None and not self._is_branch(first + start - 1):
            # below the first branch stands the plain first layer: pass the stream through its φ
            assert below is not None
            slopes_0 = buffer(4, E, n_in, B)
            steps.append(partial(self.kernel.derivative, self._saved(run, start, start + 1)[0], slopes_0))
            steps.append(self._multiply(carry, slopes_0, below[-1]))
        gradient = buffer(3, stop - start, *weights.shape[1:])
        signal = inputs[start:stop]
        if self.library == "numpy":
            turned = buffer(2, stop - start, signal.shape[1], B, signal.shape[2])
            steps.append(partial(np.copyto, turned.numpy(), signal.transpose(-1, -2).numpy()))
            if E == 1:
                steps += [product(delta[i], turned[i], gradient[i]) for i in range(stop - start)]
            else:
                steps.append(product(delta, turned, gradient))
        else:
            right = signal.transpose(-1, -2).expand(stop - start, E, B, signal.shape[2])
            flat = (delta.reshape(-1, *delta.shape[2:]), right.reshape(-1, *right.shape[2:]))
            steps.append(product(*flat, gradient.view(-1, *gradient.shape[2:]), library="torch"))
        return steps

    def _saved(self, run: int, start: int, stop: int) -> Tensor:
        """What φ′ of the layers below start … stop of a run needs: their output or pre-activation."""
        landing = self._landing[run]
        if landing is not None:
            return landing[start:stop]
        return self._inputs[run][start:stop, :, : self.config.widths[self.runs[run][0]]]

    def _multiply(self, a: Tensor, b: Tensor, out: Tensor) -> Step:
        if self.device.type == "cpu":
            return partial(np.multiply, a.numpy(), b.numpy(), out.numpy())
        return partial(torch.mul, a, b, out=out)

    # the two passes
    # ------------------------------------------------------------------------------------------------

    def forward(self) -> Tensor:
        """Run the network on `input`; returns `logits`."""
        for step in self._forward:
            step()
        return self.logits

    def backward(self, apply: Apply) -> None:
        """Gradients of all weights from `cotangent`, each handed to `apply(run, start, stop, gradient)`.

        The gradient's buffer is used again by the next chunk, and `apply` may change the weights of its own
        chunk.
        """
        for steps, run, start, stop, gradient in self._backward:
            for step in steps:
                step()
            apply(run, start, stop, gradient)

    def gradients(self) -> list[Tensor]:
        """Gradients in the layout of `weights`, for the current `cotangent`; allocates them."""
        grads = [torch.zeros_like(w) for w in self.weights]
        self.backward(lambda run, start, stop, g: grads[run][start:stop].copy_(g))
        return grads
