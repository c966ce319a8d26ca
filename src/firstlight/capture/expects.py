"""What a loss takes the outputs for: read off its gradient, which needs no name and sees through any wrapper."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from firstlight.capture.answers import simplex
from firstlight.checks.evidence import Expected

# Relative rounding error of a sum of single-precision numbers that is zero in exact arithmetic, at most.
_ROUNDING = 1e-3
# Beyond this many entries the answer is read off the first samples.
_ENTRIES = 1 << 20


def expected(f: Tensor, r: Tensor, loss: Callable[[Tensor], Tensor]) -> Expected | None:
    """What the outputs `f` should be to a loss with the gradient `r` = ∂L/∂f, and what they are.

    Cross entropy has r = (p - y)/n, whose lines along the classes add up to zero; the negative log-likelihood has
    -1/n at the right class alone; both whatever the outputs are. None where no axis, or more than one, has that form.
    """
    if f.dim() < 2 or len(f) < 2 or r.shape != f.shape or f.is_complex():
        return None
    f, r = f.detach(), r.detach().double()
    keep = slice(max(2, _ENTRIES * len(f) // max(1, f.numel())))
    there = _elsewhere(f, loss)
    if there is None:
        return None
    axes = [a for a in range(f.dim()) if f.shape[a] > 1]
    found = [a for a in axes if _one_each(r[keep], a)]
    logs = bool(found)
    if logs and not bool(((there - r).abs() <= _ROUNDING * r.abs()).all()):
        return None  # a loss that takes the logarithm itself pulls more where probabilities are small
    found = found or [a for a in axes if _adds_to_zero(r[keep], a) and _adds_to_zero(there[keep], a)]
    if len(found) != 1:
        return None
    classes, ones = found[0], simplex(f[keep].double())
    zero = f == 0
    others = tuple(a for a in range(f.dim()) if a != classes)
    return Expected(
        classes=classes,
        logs=logs,
        ones=ones,
        are="" if ones is None else "probabilities" if bool((f >= 0).all()) else "log-probabilities",
        closed=float(r[zero].square().sum() / r.square().sum()),
        shut=int(zero.all(dim=others).sum()),
        count=f.shape[classes],
    )


def _one_each(r: Tensor, axis: int) -> bool:
    """Whether one entry of each line is not zero, or none (a label to be ignored), and it is negative."""
    return bool((r != 0).sum(axis).max() == 1) and bool((r <= 0).all())


def _adds_to_zero(r: Tensor, axis: int) -> bool:
    size = r.abs().sum(axis)
    return bool(size.max() > 0) and bool((r.sum(axis).abs() <= _ROUNDING * size).all())


def _elsewhere(f: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor | None:
    """The gradient at other outputs, which are no probabilities, nor their logarithms.

    What holds there too is the loss' own doing: p - y of a squared error of probabilities adds up to zero as well.
    """
    other = (0.5 * f).requires_grad_(True)
    try:
        with torch.enable_grad():
            (r,) = torch.autograd.grad(loss(other), other)
    except RuntimeError:
        return None
    return r.detach().double()
