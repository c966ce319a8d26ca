"""Losses on the batch below which no training can go, whatever the answers, or the weights of a linear network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from firstlight.capture.answers import finite_or_none, simplex
from firstlight.checks.mainline import REARRANGE
from firstlight.graph.measurement import Measurement

Loss = Callable[[Any], Tensor]

# Functions whose range is not the line, as the last operation: a parametrisation of that range by real numbers.
_RANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "SigmoidBackward0": torch.sigmoid,
    "TanhBackward0": torch.tanh,
    "ReluBackward0": torch.nn.functional.softplus,
}
_SIMPLICES = {"SoftmaxBackward0": torch.softmax, "LogSoftmaxBackward0": torch.log_softmax}
# Operations of autograd that only rearrange what the last function gave.
_VIEWS = ("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Clone", "ToCopy", "Permute", "Transpose")
# Share of the best constant answer's loss that is a start: a search that gets below it has shown that there is room.
ROOM = 0.9
# The same where the outputs' range is bounded: above it, the range costs more than a tenth of chance.
RANGE_ROOM = 0.1
_ROUNDS, _ITERATIONS = 12, 8
# Answers beyond this many are not searched: the search would cost more than the model.
_ENTRIES = 1 << 16


def free_answers(out: Any, f: Tensor, loss: Loss | None, constant: float | None) -> float | None:
    """Least loss of any answers that the last operation can give; None where there is room.

    Looked for only where the outputs' range is bounded, or where the loss pulls all samples alike at the answer 0: then
    it may not know which answer belongs to which sample, as when targets are broadcast against the outputs.
    """
    if loss is None or constant is None or out is not f or f.dim() < 1 or len(f) < 2 or f.numel() > _ENTRIES:
        return None
    shaped, enough = _range_of(f), RANGE_ROOM
    if shaped is None:
        if not _alike(f, loss):
            return None
        shaped, enough = _identity, ROOM
    z = torch.randn(f.shape, generator=torch.Generator().manual_seed(0)).to(f.device)
    found = _least([z], lambda z: loss(shaped(z[0]).to(f.dtype)), enough * constant)
    if found is None or found >= ROOM * constant or _pushes_out(shaped(z.detach()), f.dtype, loss) >= 0.1 * found:
        return found
    return None  # what is left is the targets' own entropy: the best answers lie inside the range


def _pushes_out(best: Tensor, dtype: torch.dtype, loss: Loss) -> float:
    """What the loss would fall by to first order, if every sample's best answer could leave the range by one.

    Among probabilities that add up to one only differences count: the gradient there is taken without its mean.
    """
    answers = best.to(dtype).requires_grad_(True)
    with torch.enable_grad():
        (r,) = torch.autograd.grad(loss(answers), answers)
    r = r.detach().float()
    along = simplex(best)
    if along is not None and bool((best >= 0.0).all()):
        r = r - r.mean(along, keepdim=True)
    return float(r.flatten(1).norm(dim=1).sum()) if r.dim() > 1 else float(r.abs().sum())


def linear_answers(x: Tensor, shape: Sequence[int], loss: Loss, constant: float) -> float | None:
    """Least loss of any linear function of the inputs: a convex problem, which bounds every linear network.

    Args:
        x: Inputs, samples first.
        shape: Of the outputs.
        loss: On the outputs.
        constant: Loss of the best constant answer.

    Returns:
        None where there is room for a start.
    """
    h = x.detach().flatten(1).float()
    h = h - h.mean(0)
    size = h.square().mean(0).sqrt()
    size[size <= 1e-6 * size.max()] = torch.inf  # what does not vary but by rounding
    h = h / size
    outputs = math.prod(shape[1:])
    weight, bias = torch.zeros(outputs, h.shape[1], device=h.device), torch.zeros(outputs, device=h.device)

    def value(z: list[Tensor]) -> Tensor:
        return loss(torch.nn.functional.linear(h, z[0], z[1]).view(*shape))

    return _least([weight, bias], value, ROOM * constant)


def is_linear(m: Measurement) -> bool:
    """Whether every operation between inputs and outputs is linear in what it reads, several matrices at least."""
    matrices = sum(n.op in _MATRICES for n in m.nodes)
    scaled = [n for n in m.nodes if n.op in ("mul", "div", "truediv") and len(n.inputs) == 1]
    return matrices > 0 and all(n.op in _LINEAR or n in scaled for n in m.nodes)


_MATRICES = frozenset(["linear", "conv1d", "conv2d", "conv3d"])
_LINEAR = REARRANGE | _MATRICES | {"add", "sub", "neg", "dropout", "identity", "avg_pool1d", "avg_pool2d",
                                   "adaptive_avg_pool1d", "adaptive_avg_pool2d", "sum", "mean"}  # fmt: skip


def _least(start: list[Tensor], value: Callable[[list[Tensor]], Tensor], enough: float) -> float | None:
    """Descend to the minimum; None where it is below `enough`, not finite, or not shown to be one.

    Of a convex function the minimum is at least f - |g|·|z - z*|. Entries of z* are taken to be at most as far as those
    of z again, and 1 + √(loss): the size of answers under squared errors, and more than logits need.
    """
    z = [t.requires_grad_(True) for t in start]
    search = torch.optim.LBFGS(z, lr=1.0, max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        now = value(z)
        now.backward()
        return now

    try:
        with torch._C.DisableTorchFunction(), torch.enable_grad():
            for _ in range(_ROUNDS):
                search.step(closure)
                found = finite_or_none(lambda: closure().detach())
                if found is None or found < enough:
                    return None
                slope = math.hypot(*(float(t.grad.norm()) for t in z if t.grad is not None))
                size = math.sqrt(sum(t.numel() for t in z)) * (1.0 + math.sqrt(enough))
                reach = 2.0 * (math.hypot(*(float(t.detach().norm()) for t in z)) + size)
                if slope * reach < 0.01 * found:
                    return found
    except RuntimeError:
        pass
    return None


def _alike(f: Tensor, loss: Loss) -> bool:
    """Whether the loss pulls all samples alike where all answers are 0."""
    zero = torch.zeros_like(f, requires_grad=True)
    try:
        with torch.enable_grad():
            (r,) = torch.autograd.grad(loss(zero), zero)
    except RuntimeError:
        return False
    r = r.detach().double()
    size = float(r.norm())
    return size > 0.0 and float((r - r.mean(0)).norm()) <= 1e-5 * size


def _range_of(f: Tensor) -> Callable[[Tensor], Tensor] | None:
    """The parametrisation of the last function's range; None where it is the whole line, or not known."""
    step: Any = f.grad_fn
    while step is not None and step.name().startswith(_VIEWS):
        step = step.next_functions[0][0]
    name, along = "" if step is None else step.name(), simplex(f.detach())
    if name in _SIMPLICES and along is not None:
        return lambda z: _SIMPLICES[name](z, along)
    return _RANGES.get(name)


def _identity(z: Tensor) -> Tensor:
    return z
