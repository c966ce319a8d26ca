"""One recorded pass through a module, cut into layers: what each passes on, and the gradient that comes back to it.

A layer begins at an operation that reads a weight matrix or kernel and ends before the next one. Its pre-activation z
is what that operation gives; its activation is the first known nonlinearity after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from firstlight.capture.preserve import preserved
from firstlight.capture.record import Event, recording
from firstlight.theory import activations

FloatArray = npt.NDArray[np.float64]
# ln of the smallest number that counts as a length: below it float32 has no normal numbers left
_TINY = 1e-300
LOG10_LOW, LOG10_HIGH, BINS = -10.0, 5.0, 30
SAMPLE = 4096


@dataclass(slots=True)
class Layer:
    """One layer during a pass.

    Attributes:
        name: Module path, or the node's name where the root module itself ran it.
        node: Name of the operation that gave z, as in graphs and predictions.
        z: Pre-activation.
        h: Output of the nonlinearity; z itself where there is none.
        phi: Name of the nonlinearity; "" where there is none.
        delta: ∂cost/∂z.
    """

    name: str
    node: str
    z: Tensor
    h: Tensor
    phi: str = ""
    delta: Tensor | None = None


def record(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], cost: Callable[[Any], Tensor] | None
) -> list[Layer]:
    """Run the module forward, and backward from `cost`; it is left as it was found.

    Args:
        model: Any module.
        args: Positional arguments.
        kwargs: Keyword arguments.
        cost: The cost of an output; None leaves the gradients out.
    """
    wide = {name for name, p in model.named_parameters() if p.ndim >= 2}
    found: list[Layer] = []

    def sink(event: Event) -> None:
        out = event.outputs[0]
        if not event.signal or not out.is_floating_point():
            return
        if any(name in wide for name in event.parameters):
            found.append(Layer(event.module or event.name, event.name, out, out))
        elif found and not found[-1].phi and activations.find(event.op) is not None:
            found[-1].h, found[-1].phi = out, event.op

    with preserved(model), torch.enable_grad():
        with recording(model, sink) as recorder:
            recorder.start(args, kwargs)
            output = model(*args, **kwargs)
        if cost is not None:
            _differentiate(found, cost(output))
    return found


def _differentiate(found: list[Layer], cost: Tensor) -> None:
    reached = [layer for layer in found if layer.z.requires_grad]
    if not reached or not cost.requires_grad:
        return
    gradients = torch.autograd.grad(cost, [layer.z for layer in reached], allow_unused=True)
    for layer, gradient in zip(reached, gradients, strict=True):
        layer.delta = gradient


def log_length(tensor: Tensor | None) -> float:
    """ln of the mean square, in double precision; -inf for zeros, NaN for a missing or unbounded tensor."""
    if tensor is None or not tensor.numel():
        return float("nan")
    q = float(tensor.detach().double().square().mean())
    return float(np.log(q)) if q > _TINY else (float("-inf") if q == q else float("nan"))


def walks_alone(run: Any) -> bool:
    """Whether walks follow one sample, as the random walk of the theory does, or the whole batch.

    Batch normalization mixes samples, and of an own model nobody knows which axis holds them.
    """
    return run.problem.own is None and run.config.normalization != "batch"


def walks(found: list[Layer], *, alone: bool) -> dict[str, npt.NDArray[np.float32]]:
    """Ln length layer by layer: "forward" of z, "backward" of ∂cost/∂z counted from the last layer.

    Args:
        found: Layers of one pass.
        alone: Only the first sample, or the mean square over all of them.
    """

    def lengths(tensors: list[Tensor | None]) -> npt.NDArray[np.float32]:
        chosen = [t[:1] if alone and t is not None else t for t in tensors]
        return np.array([log_length(t) for t in chosen], dtype=np.float32)

    backward = lengths([layer.delta for layer in found])
    if len(backward) and np.isfinite(backward[-1]):
        backward = backward - backward[-1]
    return {"forward": lengths([layer.z for layer in found]), "backward": backward}


def histogram(tensor: Tensor | None) -> tuple[npt.NDArray[np.float32], float, int, int]:
    """Shares of |entries| in `BINS` bins of equal width in log10, the share of zeros, and how many are NaN, infinite.

    At most `SAMPLE` entries, evenly spread, are looked at; shares and counts are of those.
    """
    if tensor is None or not tensor.numel():
        return np.zeros(BINS, dtype=np.float32), 0.0, 0, 0
    flat = tensor.detach().reshape(-1)
    if flat.numel() > SAMPLE:
        flat = flat[:: -(-flat.numel() // SAMPLE)]
    values = flat.abs().float()
    nan, inf = int(values.isnan().sum()), int(values.isinf().sum())
    zero = float((values == 0).float().mean())
    values = values[(values > 0) & values.isfinite()]
    counts = torch.histc(values.log10().clamp(LOG10_LOW, LOG10_HIGH), BINS, LOG10_LOW, LOG10_HIGH)
    return (counts / flat.numel()).numpy(), zero, nan, inf


def zero_units(layer: Layer) -> float:
    """Share of units whose output is exactly zero for every sample and position."""
    h = layer.h.detach()
    axes = tuple(axis for axis in range(h.ndim) if axis != _unit_axis(h))
    return float((h == 0).all(dim=axes).float().mean()) if axes else float((h == 0).float().mean())


def saturated(layer: Layer) -> float:
    """Share of entries on a flat piece of a bounded nonlinearity; NaN where the nonlinearity has none."""
    if not layer.phi:
        return float("nan")
    low, high = activations.get(layer.phi).saturation
    if not (np.isfinite(low) and np.isfinite(high)):
        return float("nan")
    z = layer.z.detach()
    return float(((z < low) | (z > high)).float().mean())


def same_units(layer: Layer) -> float:
    """Share of units that give the same as the first one for every sample, of layers with more than one unit.

    Units that are all zero count as dead, not as equal.
    """
    z = layer.z.detach()
    axis = _unit_axis(z)
    if z.shape[axis] < 2 or not bool((z != 0).any()):
        return 1.0 if z.shape[axis] >= 2 else 0.0
    first = z.select(axis, 0).unsqueeze(axis)
    others = z.narrow(axis, 1, z.shape[axis] - 1)
    axes = tuple(a for a in range(z.ndim) if a != axis % z.ndim)
    return float((others == first).all(dim=axes).float().mean()) if axes else 0.0


def _unit_axis(tensor: Tensor) -> int:
    return 1 if tensor.ndim >= 4 else tensor.ndim - 1
