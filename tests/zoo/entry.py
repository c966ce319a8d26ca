"""One network of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """A family of networks.

    Attributes:
        name: Unique.
        build: (depth, width) -> module; draws from the global generator.
        inputs: width -> (args, kwargs); draws from the global generator.
        width: Default width.
        depths: The two depths at which the zoo has it.
        tags: Kinds, for choosing.
    """

    name: str
    build: Callable[[int, int], nn.Module]
    inputs: Callable[[int], Arguments]
    width: int = 64
    depths: tuple[int, int] = (3, 8)
    tags: frozenset[str] = frozenset()

    def make(
        self, depth: int | None = None, width: int | None = None, seed: int = 0
    ) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        """The network and arguments for one call of it."""
        width = width or self.width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build(depth or self.depths[0], width)
            torch.manual_seed(seed + 1_000_003)
            args, kwargs = self.inputs(width)
        return model, args, kwargs


def vectors(width: int, batch: int = 16) -> Arguments:
    return (torch.randn(batch, width),), {}


def images(_width: int, size: int = 16, channels: int = 3, batch: int = 8) -> Arguments:
    return (torch.randn(batch, channels, size, size),), {}


def tokens(_width: int, length: int = 12, batch: int = 8, vocabulary: int = 50) -> Arguments:
    return (torch.randint(vocabulary, (batch, length)),), {}


def sequences(width: int, length: int = 12, batch: int = 8) -> Arguments:
    return (torch.randn(batch, length, width),), {}


class Residual(nn.Module):
    """x + scale · branch(x), then `after`."""

    def __init__(self, branch: nn.Module, scale: float = 1.0, after: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.scale = scale
        self.after = after or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(x + self.scale * self.branch(x))


class Apply(nn.Module):
    """A plain function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)
