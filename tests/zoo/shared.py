"""Networks that use one weight several times: loops over a block, stages of a solver, two views of one input."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.entry import Arguments, Entry, images, tokens, vectors
from tests.zoo.sequence import VOCABULARY, Attention


class Looped(nn.Module):
    """x + f(x), again and again with one f: an equation solved in steps of one."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.depth = depth
        self.f = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.depth):
            x = x + self.f(x)
        return x


class RungeKutta(nn.Module):
    """Steps of the classical method of order four."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.depth = depth
        self.f = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = 1.0 / self.depth
        for _ in range(self.depth):
            a = self.f(x)
            b = self.f(x + 0.5 * h * a)
            c = self.f(x + 0.5 * h * b)
            d = self.f(x + h * c)
            x = x + h / 6.0 * (a + 2.0 * b + 2.0 * c + d)
        return x


class LoopedImages(nn.Module):
    """One convolution in all blocks."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.depth = depth
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.block = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for _ in range(self.depth):
            x = x + 0.5 * self.block(F.relu(x))
        return x


class LoopedGPT(nn.Module):
    """A transformer whose blocks are one block (a universal transformer)."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.depth = depth
        self.table = nn.Embedding(VOCABULARY, width)
        self.first, self.attention = nn.LayerNorm(width), Attention(width)
        self.second = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        for _ in range(self.depth):
            x = x + self.attention(self.first(x))
            x = x + self.mlp(self.second(x))
        return x


class Siamese(nn.Module):
    """Two views through one encoder: what they have in common, and what they differ by."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
        self.encoder = nn.Sequential(*layers, nn.Linear(width, width))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = self.encoder(x), self.encoder(y)
        return (F.normalize(a, dim=-1) * F.normalize(b, dim=-1)).sum(-1), a - b


def views(width: int, batch: int = 16) -> Arguments:
    """Two views of each sample."""
    x = torch.randn(batch, width)
    return (x, x + 0.5 * torch.randn(batch, width)), {}


_SHARED = frozenset({"shared"})

ENTRIES = (
    Entry("looped_residual", Looped, vectors, tags=_SHARED | {"residual"}),
    Entry("looped_runge_kutta", RungeKutta, vectors, tags=_SHARED | {"residual"}),
    Entry("looped_images", LoopedImages, partial(images, size=8), tags=_SHARED | {"conv"}),
    Entry("looped_gpt", LoopedGPT, tokens, tags=_SHARED | {"attention"}),
    Entry("siamese", Siamese, views, tags=_SHARED),
)
