"""Drawn correlations as the state defines them: moments of pairs over draws, E x_i x_j / √(E x_i² E x_j²).

Over all pairs of one kind, Σ E x_i x_j / Σ √(q_i q_j) with q_i = E x_i² of each position (docs/signal.md §1), the mean
over samples and units: the state has no field along them. E x² of single entries, from a few dozen draws, would also
have square roots that are too small where tails are heavy (x³ behind two layers of GELU had .163 for .134). A cosine of
one draw is another number, a ratio inside the mean: it gives a long draw, or a long sample, the weight of a short one.
"""

from __future__ import annotations

import numpy as np
import torch

GROUPS = 8  # of draws, left out one by one


class Pairs:
    """Sums over draws, for pairs of samples and of positions of one tensor; no tensor is kept."""

    def __init__(self, axis: int | None) -> None:
        """Args: axis: That of the units, where the tensor has positions beside them; else it is the last one."""
        self.axis = axis
        self.count = np.zeros(GROUPS)
        self.products = np.zeros((2, GROUPS))  # Σ x_i x_j over pairs of samples, of positions
        self.squares: list[torch.Tensor] = []
        self.drawn = 0
        self.shape = torch.Size()

    def add(self, x: torch.Tensor) -> None:
        """One more draw, the first axis that of samples."""
        group, self.shape = self.drawn % GROUPS, x.shape
        self.drawn += 1
        self.count[group] += 1.0
        self.products[:, group] += self._pairs(x)
        alike = (0, -1 if self.axis is None else self.axis)
        square = x.square().mean(alike, keepdim=True)
        if len(self.squares) <= group:
            self.squares.append(square)
        else:
            self.squares[group] += square

    def _pairs(self, x: torch.Tensor) -> tuple[float, float]:
        samples = _between(x.flatten(1)[None])
        return samples, _between(self._by_place(x)) if self.axis is not None else 0.0

    def _by_place(self, x: torch.Tensor) -> torch.Tensor:
        assert self.axis is not None
        return x.movedim(self.axis, -1).flatten(1, -2)

    def correlations(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(correlation, its error) between samples and between positions, by the jackknife over groups of draws."""
        used = int(np.count_nonzero(self.count))
        everything = self._ratios(range(used))
        if used < 2:
            return (everything[0], np.inf), (everything[1], np.inf)
        left = np.array([self._ratios([g for g in range(used) if g != out]) for out in range(used)])
        middle = left.mean(axis=0)
        found = used * np.array(everything) - (used - 1) * middle
        error = np.sqrt((used - 1) / used * np.square(left - middle).sum(axis=0))
        return (float(found[0]), float(error[0])), (float(found[1]), float(error[1]))

    def _ratios(self, groups: range | list[int]) -> tuple[float, float]:
        draws = sum(self.count[g] for g in groups)
        root = (sum((self.squares[g] for g in groups), start=torch.zeros(())) / draws).sqrt()
        samples, places = self.products[:, list(groups)].sum(axis=1) / draws
        most = self._pairs(root.expand(self.shape))
        return _ratio(samples, most[0]), _ratio(places, most[1])


def _between(x: torch.Tensor) -> float:
    """Σ x_i·x_j over ordered pairs of different rows, of a stack of matrices."""
    return float(x.sum(1).square().sum() - x.square().sum())


def _ratio(products: float, most: float) -> float:
    return products / most if most > 0.0 and np.isfinite(products) else np.nan
