"""Torch-free facts on a batch and an optimizer, for the checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.capture.tensors import dense, is_sparse
from firstlight.checks.evidence import InputFacts, OptimizerFacts


def input_facts(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[InputFacts, ...]:
    """Facts on every tensor among the arguments, under its position or keyword."""
    named = [(str(i), a) for i, a in enumerate(args)] + list(kwargs.items())
    return tuple(_facts(name, t) for key, value in named for name, t in _tensors(key, value))


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(f"{name}.{key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _tensors(f"{name}.{i}", item)


@torch.no_grad()
def _facts(name: str, t: Tensor) -> InputFacts:
    shape, dtype = tuple(t.shape), str(t.dtype).removeprefix("torch.")
    if t.numel() == 0:
        return InputFacts(name, shape, dtype, math.nan, math.nan, math.nan, math.nan, 0, math.nan)
    if is_sparse(t):  # a graph in most cases, which nobody normalises as one does samples
        t, dtype = dense(t), f"sparse {dtype}"
    if t.is_complex():
        t = torch.view_as_real(t.resolve_conj())
    x = t.detach().to(torch.float64)
    finite = torch.isfinite(x)
    bad = int((~finite).sum())
    if bad:
        x = torch.where(finite, x, torch.zeros_like(x))
    mean = float(x.mean())
    sd = float(x.std(unbiased=False))
    spread = float((x - x.mean(0, keepdim=True)).square().mean().sqrt()) if x.dim() else 0.0
    ratio = 1.0
    if x.dim() == 2 and 2 <= x.shape[1] <= 4096 and x.shape[0] > 1:
        size = x.square().mean(0).sqrt()
        middle = float(size[size > 0].median()) if bool((size > 0).any()) else 0.0
        ratio = float(size.max()) / middle if middle > 0.0 else 1.0
    return InputFacts(name, shape, dtype, mean, sd, float(x.min()), float(x.max()), bad, spread, ratio)


def optimizer_facts(optimizer: torch.optim.Optimizer, model: nn.Module) -> OptimizerFacts:
    """Class, learning rate, momentum, and the names of the model's parameters that it holds."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    names = frozenset(n for n, p in model.named_parameters() if id(p) in held)
    lr = max((float(group["lr"]) for group in optimizer.param_groups if "lr" in group), default=math.nan)
    momentum = max((float(group.get("momentum", 0.0)) for group in optimizer.param_groups), default=0.0)
    return OptimizerFacts(type(optimizer).__name__, lr, names, momentum)


def unregistered(model: nn.Module) -> tuple[str, ...]:
    """Attributes of the model's modules that hold modules in a plain list, tuple or dict, which torch does not see."""
    found: list[str] = []
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            held = list(value.values()) if isinstance(value, dict) else value
            if name.startswith("_") or not isinstance(held, list | tuple) or not held:
                continue
            inside = [m for m in held if isinstance(m, nn.Module)]
            known = {id(m) for m in model.modules()}
            if len(inside) == len(held) and any(
                id(m) not in known and any(True for _ in m.parameters()) for m in inside
            ):
                found.append(f"{path}.{name}" if path else name)
    return tuple(found)
