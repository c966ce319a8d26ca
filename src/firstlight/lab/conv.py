"""An ensemble of convolutional stacks in preallocated buffers: what `lab.stack` is for plain ones.

Axes: E members, B samples, n channels, H × W positions, T = k² taps. A signal is (E, n, H + 2p, W + 2p, B) with
its zero padding around it. A layer is one matrix product: the weight (E, n_out, n·T + 1) times the T shifted
copies of the signal, with a row of ones under them for the bias. The copies are made again in the backward pass;
so only the signals are kept, and the copies of one layer serve all.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from itertools import product as grid

import torch
from torch import Tensor

from firstlight.errors import InputError
from firstlight.lab.kernels import Kernel, kernel
from firstlight.lab.models import StackConfig
from firstlight.lab.products import Step, product
from firstlight.lab.stack import Apply


class ConvStack:
    """Weights, signals and programs of E convolutional networks of one shape; the face of `Stack`.

    Args:
        config: A conv stack.
        members: E, the number of networks.
        batch: B, the number of samples of a step.
        size: H and W of the images.
        device: Of all buffers.
        dtype: float32 or float64.
        library: Matrix products by "numpy" or "torch"; None takes NumPy's on a CPU.

    Attributes:
        runs: One per layer, as (first, last + 1).
        weights: Per layer (1, E, n_out, k): k = n_in·T + 1, of the readout n_in + 1; the bias is the last column.
        input: Buffer of the samples (inputs, H, W, B), shared by all members.
        logits: Output of the readout (E, outputs, B).
        cotangent: Gradient of the loss with respect to the logits, to be filled before `backward`.
        signals: Per hidden layer, a view (E, n, H, W, B) of its output.

    Raises:
        InputError: Another kind of stack, or sizes below one.
    """

    def __init__(
        self,
        config: StackConfig,
        members: int,
        batch: int,
        size: tuple[int, int],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        library: str | None = None,
    ) -> None:
        if config.kind != "conv":
            raise InputError("stack", got=f"a {config.kind} stack", expected="a conv stack")
        if members < 1 or batch < 1 or min(size) < 1:
            raise InputError(
                "stack", got=f"{members} members, batch {batch}, images {size}", expected="at least one of each"
            )
        self.config, self.members, self.batch, self.size = config, members, batch, size
        self.device, self.dtype = torch.device(device), dtype
        self.library = library or ("numpy" if self.device.type == "cpu" else "torch")
        self.kernel: Kernel = kernel(config.activation)
        self.runs = [(layer, layer + 1) for layer in range(config.depth + 1)]
        self._one, self._taps = int(config.bias), config.kernel**2
        self._allocate()
        self._forward = self._bind_forward()
        self._backward = self._bind_backward()

    def _new(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.device, dtype=self.dtype)

    def _allocate(self) -> None:
        config, E, B, (H, W) = self.config, self.members, self.batch, self.size
        widths, pad, P = config.widths, config.kernel // 2, H * W * B
        self.weights = [
            self._new(1, E, n_out, n_in * (self._taps if layer < config.depth else 1) + self._one)
            for layer, (n_in, n_out) in enumerate(pairwise(widths))
        ]
        self._padded = [
            self._new(E if layer else 1, n, H + 2 * pad, W + 2 * pad, B) for layer, n in enumerate(widths[:-1])
        ]
        self._inside = [t[:, :, pad : pad + H, pad : pad + W] for t in self._padded]
        widest, most = max(config.hidden), max(widths[:-2])
        # of one layer at a time: shifted copies, their gradient, pre-activation or δ (two, in turns), φ′
        self._copies = self._new(E * (most * self._taps + 1) * P)
        self._back = self._new(E * most * self._taps * P)
        self._deltas = [self._new(E * widest * P) for _ in range(2)]
        self._slopes = self._new(E * widest * P)
        self._carry = self._new(E * widest * (H + 2 * pad) * (W + 2 * pad) * B)
        self._landing = [] if self.kernel.saves_output else [self._new(E, n, H, W, B) for n in config.hidden]
        self._pooled = self._new(E, widths[-2] + self._one, B)
        if self._one:
            self._pooled[:, -1] = 1.0
        self._part = self._new(E, widths[-2], B)
        self.input = self._inside[0][0]
        self.logits, self.cotangent = self._new(E, widths[-1], B), self._new(E, widths[-1], B)

    def load(self, x: Tensor) -> None:
        """Copy samples (B, inputs, H, W) into `input`."""
        self.input.copy_(x.permute(1, 2, 3, 0))

    @property
    def signals(self) -> list[Tensor]:
        """Outputs of the hidden layers, views (E, n, H, W, B)."""
        return self._inside[1:]

    def weight(self, layer: int) -> Tensor:
        """Weight of a layer (0 … depth, the last is the readout), a view (E, n_out, n_in·T)."""
        weight = self.weights[layer][0]
        return weight[:, :, : weight.shape[2] - self._one]

    def bias(self, layer: int) -> Tensor | None:
        """Bias of a layer, a view (E, n_out), or None."""
        return self.weights[layer][0, :, :, -1] if self._one else None

    # programs
    # ------------------------------------------------------------------------------------------------------

    def _view(self, buffer: Tensor, *shape: int) -> Tensor:
        return buffer[: math.prod(shape)].view(shape)

    def _shifts(self, layer: int) -> tuple[Tensor, list[Step]]:
        """The shifted copies of a layer's input (E or 1, n·T + 1, P), and the steps that make them."""
        padded, (H, W), k = self._padded[layer], self.size, self.config.kernel
        E, n, P = padded.shape[0], padded.shape[1], H * W * self.batch
        copies = self._view(self._copies, E, n * self._taps + self._one, P)
        taps = copies[:, : n * self._taps].view(E, n, self._taps, H, W, self.batch)
        steps: list[Step] = [
            partial(taps[:, :, tap].copy_, padded[:, :, y : y + H, x : x + W])
            for tap, (y, x) in enumerate(grid(range(k), range(k)))
        ]
        if self._one:
            steps.append(partial(copies[:, -1].fill_, 1.0))  # the buffer serves layers of several widths
        return copies, steps

    def _activate(self, z: Tensor, layer: int) -> list[Step]:
        """φ of a layer's pre-activation z (E, n, P), written inside the next signal's padding."""
        image, after = z.view(self._inside[layer + 1].shape), self._inside[layer + 1]
        if not self.kernel.saves_output:
            f = self.kernel.f
            return [lambda: after.copy_(f(image))]
        steps: list[Step] = []
        if self.kernel.numpy_inplace is not None and self.device.type == "cpu":
            steps.append(partial(self.kernel.numpy_inplace, z.numpy(), z.numpy()))
        elif self.kernel.inplace is not None:
            steps.append(partial(self.kernel.inplace, z))
        return [*steps, partial(after.copy_, image)]

    def _bind_forward(self) -> list[Step]:
        steps: list[Step] = []
        E, P, depth = self.members, self.size[0] * self.size[1] * self.batch, self.config.depth
        for layer, n in enumerate(self.config.hidden):
            copies, make = self._shifts(layer)
            z = self._landing[layer].view(E, n, P) if self._landing else self._view(self._deltas[0], E, n, P)
            steps += [*make, product(self.weights[layer][0], copies, z, library=self.library)]
            steps += self._activate(z, layer)
        pooled = self._pooled[:, : self.config.widths[depth]]
        steps.append(partial(torch.mean, self._inside[depth], (2, 3), out=pooled))
        steps.append(product(self.weights[depth][0], self._pooled, self.logits, library=self.library))
        return steps

    def _slope(self, layer: int) -> tuple[Tensor, Step]:
        """φ′ of hidden layer `layer` (from 0), (E, n, H, W, B), and the step that makes it."""
        saved = self._landing[layer] if self._landing else self._inside[layer + 1]
        slopes = self._view(self._slopes, *saved.shape)
        return slopes, partial(self.kernel.derivative, saved, slopes)

    def _bind_backward(self) -> list[tuple[list[Step], int, Tensor]]:
        """From the readout down: (steps, layer, gradient of its weight)."""
        config, E, B, (H, W) = self.config, self.members, self.batch, self.size
        P, depth, k, n = H * W * B, config.depth, config.kernel, config.hidden[-1]
        pad = k // 2
        room = self._new(max(w.numel() for w in self.weights))
        gradients = [self._view(room, *w.shape) for w in self.weights]  # each is handed on before the next is made
        turned = self._pooled.transpose(-1, -2)
        delta = self._view(self._deltas[depth % 2], E, n, H, W, B)
        slopes, make = self._slope(depth - 1)
        part, spread = self._part, self._part.view(E, n, 1, 1, B)
        steps: list[Step] = [
            product(self.cotangent, turned, gradients[depth][0], library=self.library),
            product(self.weight(depth).transpose(-1, -2), self.cotangent, part, library=self.library),
            partial(part.mul_, 1.0 / (H * W)),
            make,
            partial(torch.mul, slopes, spread, out=delta),
        ]
        programs = [(steps, depth, gradients[depth])]
        for layer in range(depth - 1, -1, -1):
            copies, steps = self._shifts(layer)
            flat = delta.view(E, -1, P)
            right = copies.transpose(-1, -2)
            steps.append(product(flat, right, gradients[layer][0], library=self.library))
            if layer:
                n = config.widths[layer]
                back = self._view(self._back, E, n * self._taps, P)
                carry = self._view(self._carry, E, n, H + 2 * pad, W + 2 * pad, B)
                steps.append(product(self.weight(layer).transpose(-1, -2), flat, back, library=self.library))
                steps.append(carry.zero_)
                taps = back.view(E, n, self._taps, H, W, B)
                steps += [
                    partial(carry[:, :, y : y + H, x : x + W].add_, taps[:, :, tap])
                    for tap, (y, x) in enumerate(grid(range(k), range(k)))
                ]
                delta = self._view(self._deltas[layer % 2], E, n, H, W, B)
                slopes, make = self._slope(layer - 1)
                inside = carry[:, :, pad : pad + H, pad : pad + W]
                steps += [make, partial(torch.mul, inside, slopes, out=delta)]
            programs.append((steps, layer, gradients[layer]))
        return programs

    # the two passes
    # ------------------------------------------------------------------------------------------------------

    def forward(self) -> Tensor:
        """Run the network on `input`; returns `logits`."""
        for step in self._forward:
            step()
        return self.logits

    def backward(self, apply: Apply) -> None:
        """Gradients of all weights from `cotangent`, each handed to `apply(run, 0, 1, gradient)`."""
        for steps, layer, gradient in self._backward:
            for step in steps:
                step()
            apply(layer, 0, 1, gradient)

    def gradients(self) -> list[Tensor]:
        """Gradients in the layout of `weights`, for the current `cotangent`; allocates them."""
        grads = [torch.zeros_like(w) for w in self.weights]
        self.backward(lambda run, start, stop, g: grads[run][start:stop].copy_(g))
        return grads
