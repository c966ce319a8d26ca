"""Predictions of operations beside what is drawn: a function behind linear maps, and gradients of any network."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

import firstlight


class Behind(nn.Module):
    """f(W₁x, W₂x, …), each map as wide as x."""

    def __init__(self, f: Callable[..., Any], width: int, maps: int = 1) -> None:
        super().__init__()
        self.maps, self.f = nn.ModuleList([nn.Linear(width, width) for _ in range(maps)]), f

    def forward(self, x: torch.Tensor) -> Any:
        return self.f(*(layer(x) for layer in self.maps))


def compared(f: Callable[..., Any], shape: tuple[int, ...], draws: int, maps: int = 1) -> Any:
    """Operations of f behind maps of a normal batch, predicted and drawn under He's law."""
    torch.manual_seed(0)
    model, x = Behind(f, shape[-1], maps), torch.randn(shape)
    measured = firstlight.measure(model, x, draws=draws, scheme="he")
    return firstlight.compare(firstlight.predict(model, x, "he"), measured).nodes


def gradient_ratios(
    model: nn.Module, batch: Any, names: Iterable[str], draws: int, scheme: str = "he", **how: Any
) -> Iterator[tuple[str, float, float]]:
    """(node, its predicted over its mean drawn gradient's mean square, relative standard error); `how` to measure."""
    found = firstlight.predict(model, batch, scheme)
    known = {n.name: n for n in firstlight.measure(model, batch, draws=draws, scheme=scheme, **how).nodes}
    for name in names:
        drawn, predicted = known[name].log_grad_q, found[name].grad
        assert drawn is not None
        assert predicted is not None
        q = np.exp(drawn.values)
        yield name, float(predicted.q / q.mean()), float(q.std(ddof=1) / q.mean() / draws**0.5)
