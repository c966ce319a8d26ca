"""Losses of answers that need no network: the answer 0, the best constant one, the best on features as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from firstlight.checks.budget import ADAM_LR, SGD_LR, STEPS
from firstlight.checks.evidence import EPS, Probe

Loss = Callable[[Any], torch.Tensor]

# A pull below this many units of roundoff of the largest one is rounding error: nothing below the read-out moves.
_NOISE = 16.0


def constant_answers(
    out: Any, f: torch.Tensor, loss: Loss | None, axis: int | None
) -> tuple[float | None, float | None]:
    """Loss of the answer 0 (of a uniform guess), and of the best answer that is the same for every sample."""
    if loss is None or not isinstance(out, torch.Tensor) or out is not f or axis is None:
        return None, None
    start, shaped = _answers(f.detach().float(), axis)
    # Among probabilities and their logarithms 0 is no answer: there a uniform guess stands for it.
    nothing = torch.zeros_like(f) if simplex(f.detach()) is None else shaped(torch.zeros_like(f))
    with torch.no_grad():
        silent = finite_or_none(lambda: loss(nothing))
    best: float | None = None
    for begin in (start, torch.zeros_like(start)):
        guess = begin.clone().requires_grad_(True)
        if not bool(torch.isfinite(guess).all()):
            continue
        search = torch.optim.LBFGS([guess], lr=1.0, max_iter=30, line_search_fn="strong_wolfe")

        def closure(guess: torch.Tensor = guess, search: torch.optim.Optimizer = search) -> torch.Tensor:
            search.zero_grad()
            value = loss(shaped(guess).expand(f.shape).to(f.dtype))
            value.backward()
            return value

        try:
            with torch._C.DisableTorchFunction():  # the model is not called: no need to watch over it
                search.step(closure)
        except RuntimeError:
            continue
        if float(guess.detach().abs().max()) > 1e3 * (1.0 + max(float(start.abs().max()), silent or 0.0)):
            continue  # the search ran away: the loss has no best constant answer
        with torch.no_grad():
            value = finite_or_none(lambda guess=guess: loss(shaped(guess).expand(f.shape).to(f.dtype)))
        if value is not None:
            best = value if best is None else min(best, value)
        if best is not None and (silent is None or best <= silent):
            break  # from the outputs' mean; from 0 only where that failed
    return silent, best


def _answers(f: torch.Tensor, axis: int | None) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Where to begin the search for the best constant answer, and what keeps it among the outputs' kind."""
    along = simplex(f)
    if along is not None:
        inside = torch.softmax if bool((f >= 0).all()) else torch.log_softmax
        return torch.zeros_like(_over(f, axis)), lambda z: inside(z, along)
    if bool(((f >= 0) & (f <= 1)).all()) and bool((f > 0).all()):
        return torch.zeros_like(_over(f, axis)), torch.sigmoid
    return _over(f, axis), lambda z: z


def simplex(f: torch.Tensor) -> int | None:
    """The axis along which positive outputs, or the exponentials of negative ones, add up to one; the last of several.

    Rounding errors of a sum in single precision are far below a thousandth; so is what an ε under a logarithm adds.
    """
    positive = bool((f >= 0).all())
    if f.dim() < 2 or not (positive or bool((f <= 0).all())):
        return None
    p = f if positive else f.exp()
    for a in reversed(range(f.dim())):
        if f.shape[a] > 1 and bool(((p.sum(a) - 1.0).abs() < 1e-3).all()):
            return a
    return None


def finite_or_none(call: Callable[[], torch.Tensor]) -> float | None:
    """The value; None where it raises or is not finite."""
    try:
        value = float(call())
    except RuntimeError:
        return None
    return value if math.isfinite(value) else None


def only_readout(here: Probe, model: nn.Module) -> nn.Linear | None:
    """The linear layer on which alone the loss pulls; None where it pulls on more.

    All others are frozen, cut off, or get a gradient of rounding errors.
    """
    if not here.pulls or not here.finite:
        return None
    largest = max(p.signal for p in here.pulls.values())
    awake = {n for n, p in here.pulls.items() if p.signal > _NOISE * EPS["float32"] * largest}
    owners = {n.rpartition(".")[0] for n in awake}
    if len(owners) != 1 or largest == 0.0:
        return None
    layer = model.get_submodule(owners.pop())
    return layer if isinstance(layer, nn.Linear) else None


def best_readout(forward: Callable[[], Any], layer: nn.Linear, loss: Loss) -> float | None:
    """The lowest loss on this batch of a linear read-out's weights that training can reach: a convex problem in a box.

    Adam moves an entry by its rate a step; plain descent by its rate times |∂L/∂w| ≤ Σ|r||h|, with h the features
    without their mean (what they have in common, the bias takes up, which is free here) and r = ∂L/∂f. The tangent
    keeps the weights in the box; features far smaller than one cannot be made up for by weights outside it.
    """
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def see(_layer: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        seen.append((args[0], out))

    hook = layer.register_forward_hook(see)
    try:
        out = forward()
    finally:
        hook.remove()
    if len(seen) != 1 or out is not seen[0][1]:
        return None
    (r,) = torch.autograd.grad(loss(out), out, retain_graph=True)
    h = seen[0][0].detach().float()
    h = h - h.mean(0, keepdim=True)
    size = h.square().mean().sqrt().clamp_min(1e-30)
    pull = (r.detach().float().flatten(0, -2).abs().T @ h.flatten(0, -2).abs()).max()
    far = STEPS * torch.clamp(SGD_LR * pull, min=ADAM_LR) + layer.weight.detach().float().abs().max()
    h, far = h / size, far * size  # the same functions, better conditioned
    weight = torch.zeros(layer.out_features, layer.in_features, device=h.device, requires_grad=True)
    bias = torch.zeros(layer.out_features, device=h.device, requires_grad=True)

    def answer() -> torch.Tensor:
        return torch.nn.functional.linear(h, far * torch.tanh(weight / far), bias).to(out.dtype)

    search = torch.optim.LBFGS([weight, bias], lr=1.0, max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        search.zero_grad()
        value = loss(answer())
        value.backward()
        return value

    search.step(closure)
    with torch.no_grad():
        return finite_or_none(lambda: loss(answer()))


def _over(x: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Mean over the samples; over all leading axes where the first one is not the batch."""
    if axis is not None:
        return x.mean(0, keepdim=True)
    return x.mean(tuple(range(x.dim() - 1)), keepdim=True)
