"""One third-party network to try, and the arguments that its own documentation would call it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
IDS = 60  # tokens in every vocabulary


@dataclass(frozen=True)
class Candidate:
    """A network that this project did not write.

    Attributes:
        name: Unique.
        source: The package that it comes from, or "written" for the small ones of `written.py`.
        build: Makes the module, with its own default initialization; draws from the global generator.
        inputs: (args, kwargs) of one call.
    """

    name: str
    source: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Arguments]

    def make(self, seed: int = 0) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        """The network and arguments for one call of it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build()
            torch.manual_seed(seed + 1_000_003)
            args, kwargs = self.inputs()
        return model, args, kwargs


def tensor(*sizes: int) -> Callable[[], Arguments]:
    """Standard normal entries."""
    return lambda: ((torch.randn(*sizes),), {})


def tokens(*sizes: int, high: int = IDS) -> Callable[[], Arguments]:
    """Integers below `high`."""
    return lambda: ((torch.randint(1, high, sizes),), {})


def named(**shapes: tuple[int, ...] | Callable[[], Any]) -> Callable[[], Arguments]:
    """Keyword arguments: standard normal entries of a shape, or what a function returns."""
    return lambda: ((), {k: v() if callable(v) else torch.randn(*v) for k, v in shapes.items()})


def ids(*sizes: int, high: int = IDS) -> Callable[[], torch.Tensor]:
    """For `named`: integers from 1 to `high` - 1."""
    return lambda: torch.randint(1, high, sizes)


def ones(*sizes: int) -> Callable[[], torch.Tensor]:
    """For `named`: an attention mask that hides nothing."""
    return lambda: torch.ones(sizes, dtype=torch.long)
