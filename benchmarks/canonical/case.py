"""The register of canonical cases: one function each, from a seed to a drawn network and its task."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.canonical.problems import Problem

Make = Callable[[], tuple[nn.Module, Problem]]


@dataclass(frozen=True)
class Canonical:
    """One case.

    Attributes:
        name: Of the function.
        make: Draws the network, after `torch.manual_seed`.
        seeds: How many draws are labelled.
        cause: Codes of which one should come first if it never starts.
    """

    name: str
    make: Make
    seeds: int
    cause: tuple[str, ...]

    def draw(self, seed: int) -> tuple[nn.Module, Problem]:
        """The network of that seed, in training mode."""
        torch.manual_seed(seed)
        model, problem = self.make()
        return model.train(), problem


CASES: dict[str, Canonical] = {}


def canonical(*cause: str, seeds: int = 2) -> Callable[[Make], Make]:
    """Register a case under its function's name."""

    def register(make: Make) -> Make:
        if make.__name__ in CASES:
            raise ValueError(f"case {make.__name__} stands twice")
        CASES[make.__name__] = Canonical(make.__name__, make, seeds, cause)
        return make

    return register


def cases() -> dict[str, Canonical]:
    """All cases, in the order of their files."""
    from benchmarks.canonical import data, sound, tokens, weights, wiring  # noqa: F401  they register themselves

    return CASES


def mlp(*sizes: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with a function between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1])


def linears(model: nn.Module) -> list[nn.Linear]:
    return [m for m in model.modules() if isinstance(m, nn.Linear)]
