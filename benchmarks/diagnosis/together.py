"""Train one network from the same drawn weights under many rates and batch orders at once: stacked matrix products.

The same runs as `label.train`, some ten times as fast for narrow stacks, where calls cost more than products. Only
for stacks of linear layers, gates, residual and dense blocks; others are trained one run after the other.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.diagnosis.nets import Case, Dense, Gated, Residual
from benchmarks.diagnosis.tasks import BATCH, SAMPLES

Apply = Callable[[Tensor], Tensor]
PLAIN = (nn.Linear, nn.LayerNorm, nn.BatchNorm1d, nn.Sequential, Gated, Dense, Residual)


def possible(model: nn.Module, x: Tensor) -> bool:
    """Whether all layers with parameters are of the kinds known here, in float32, on tables."""
    holders = [m for m in model.modules() if next(m.children(), None) or next(m.parameters(False), None) is not None]
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        return False  # a stacked copy would not call them
    kinds = all(isinstance(m, PLAIN) or (isinstance(m, nn.Module) and not list(m.parameters())) for m in holders)
    trained = [p for p in model.parameters() if p.requires_grad]
    return kinds and bool(trained) and x.dim() == 2 and all(p.dtype == torch.float32 for p in trained)


class Stack:
    """R copies of a model's parameters, each kind in one tensor, and the function of the stacked model."""

    def __init__(self, model: nn.Module, runs: int) -> None:
        self.runs = runs
        self.trained: list[Tensor] = []
        params = [p for p in model.parameters() if p.requires_grad]
        self.flat = torch.cat([p.detach().flatten() for p in params]).repeat(runs, 1)
        self.at: dict[int, Tensor] = {}
        place = 0
        for p in params:
            leaf = self.flat[:, place : place + p.numel()].view(runs, *p.shape).requires_grad_(True)
            self.at[id(p)] = leaf.detach().requires_grad_(True)
            self.trained.append(self.at[id(p)])
            place += p.numel()
        self.call = self._of(model)

    def _stacked(self, p: Tensor) -> Tensor:
        return self.at[id(p)] if p.requires_grad else p.detach().expand(self.runs, *p.shape)

    def _of(self, m: nn.Module) -> Apply:
        if isinstance(m, nn.Sequential):
            parts = [self._of(x) for x in m]

            def chain(x: Tensor) -> Tensor:
                for part in parts:
                    x = part(x)
                return x

            return chain
        if isinstance(m, nn.Linear):
            w, b = self._stacked(m.weight), self._stacked(m.bias)
            return lambda x: torch.baddbmm(b.unsqueeze(1), x, w.transpose(1, 2))
        if isinstance(m, nn.LayerNorm | nn.BatchNorm1d):
            g, b, eps = self._stacked(m.weight).unsqueeze(1), self._stacked(m.bias).unsqueeze(1), m.eps
            axis = -1 if isinstance(m, nn.LayerNorm) else 1

            def norm(x: Tensor) -> Tensor:
                variance, mean = torch.var_mean(x, axis, correction=0, keepdim=True)
                return (x - mean) * torch.rsqrt(variance + eps) * g + b

            return norm
        if isinstance(m, Gated):
            a, gate, act = self._of(m.a), self._of(m.b), m.act
            return lambda x: act(a(x)) * gate(x)
        if isinstance(m, Dense):
            a, act = self._of(m.a), m.act
            return lambda x: torch.cat([x, act(a(x))], -1)
        if isinstance(m, Residual):
            branch, scale, after = self._of(m.branch), m.scale, m.after or nn.Identity()
            return lambda x: after(x + scale * branch(x))
        return m


def _losses(name: str, out: Tensor, y: Tensor) -> Tensor:
    """One loss per run, of outputs (runs, samples, units) and targets (runs, samples)."""
    flat = out.flatten(0, 1)
    each = {
        "cross_entropy": lambda: F.cross_entropy(flat, y.flatten(), reduction="none"),
        "bce": lambda: F.binary_cross_entropy_with_logits(flat.flatten(), y.flatten(), reduction="none"),
        "mse": lambda: F.mse_loss(flat.flatten(), y.flatten(), reduction="none"),
        "prob_cross_entropy": lambda: F.nll_loss((flat + 1e-7).log(), y.flatten(), reduction="none"),
        "prob_bce": lambda: F.binary_cross_entropy(flat.flatten().clamp(0, 1), y.flatten(), reduction="none"),
    }[name]()
    return each.view(len(y), -1).mean(1)


def levels(
    case: Case, runs: Sequence[tuple[str, int]], steps: int, every: int, started: float, deaf: int
) -> list[float]:
    """The level of every (rate, order); ends early where runs of two orders have started.

    Raises:
        RuntimeError: If there is no gradient path, or a value outside the loss' domain.
    """
    chance = case.task.chance(SAMPLES // 2)
    seeds = {order: case.config.seed + 100_000 * order for _, order in runs}
    data = (case.x, case.task.y)
    return stacked(case.model, data, partial(_losses, case.loss), chance, runs, seeds, (steps, every, deaf), started)


def stacked(
    model: nn.Module, data: tuple[Tensor, Tensor], losses: Callable[[Tensor, Tensor], Tensor], chance: float,
    runs: Sequence[tuple[str, int]], seeds: Mapping[int, int], limits: tuple[int, int, int], started: float,
) -> list[float]:  # fmt: skip
    """The same for any inputs, targets and loss.

    Args:
        model: Of the kinds that are `possible`.
        data: Inputs and targets.
        losses: One per run, of outputs (runs, samples, units) and targets (runs, samples, ...).
        chance: Loss of the best constant answer on the first half of the samples.
        runs: Rates and batch orders.
        seeds: Of each order.
        limits: Steps, steps from one evaluation to the next, evaluations without difference between samples.
        started: Level below which a run has started.
    """
    (x_all, y_all), (steps, every, deaf) = data, limits
    stack = Stack(model.train(), len(runs))
    rates = torch.tensor([float(r.partition(":")[2]) for r, _ in runs])[:, None]
    adam = torch.tensor([r.startswith("adam") for r, _ in runs])[:, None]
    orders = sorted({o for _, o in runs})
    drawn = {o: torch.Generator().manual_seed(seeds[o]) for o in orders}
    first, second = torch.zeros_like(stack.flat), torch.zeros_like(stack.flat)
    best, same, alive = [math.inf] * len(runs), [0] * len(runs), [True] * len(runs)
    head, aim = x_all[: SAMPLES // 2], y_all[: SAMPLES // 2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(steps):
            picks = {o: torch.randint(len(x_all), (BATCH,), generator=drawn[o]) for o in orders}
            x = torch.stack([x_all[picks[o]] for _, o in runs])
            y = torch.stack([y_all[picks[o]] for _, o in runs])
            loss = losses(stack.call(x).float(), y)
            found = torch.autograd.grad(loss.sum(), stack.trained, allow_unused=True)
            g = torch.cat([
                (torch.zeros_like(p) if d is None else d).flatten(1) for d, p in zip(found, stack.trained, strict=True)
            ], 1)  # fmt: skip
            with torch.no_grad():
                first.lerp_(g, 0.1)
                second.mul_(0.999).addcmul_(g, g, value=0.001)
                size = (second / (1 - 0.999 ** (i + 1))).sqrt_().add_(1e-8)
                stack.flat.sub_(rates * torch.where(adam, first / (1 - 0.9 ** (i + 1)) / size, g))
            alive = [a and math.isfinite(v) for a, v in zip(alive, loss.tolist(), strict=True)]
            if i % every == every - 1:
                with torch.no_grad():
                    out = stack.call(head.expand(len(runs), *head.shape)).float()
                    values = (losses(out, aim.expand(len(runs), *aim.shape)) / chance).tolist()
                    equal = (out == out[:, :1]).flatten(1).all(1).tolist()
                for r, value in enumerate(values):
                    if alive[r] and same[r] < deaf:
                        best[r] = min(best[r], value) if math.isfinite(value) else best[r]
                        same[r] = same[r] + 1 if equal[r] else 0
                if len({o for (_, o), b in zip(runs, best, strict=True) if b < started}) >= min(2, len(orders)):
                    break
                if not any(a and s < deaf for a, s in zip(alive, same, strict=True)):
                    break
    return best
