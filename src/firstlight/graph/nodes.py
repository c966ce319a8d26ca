"""Quadrature nodes of a Gaussian source, and powers of its correlations for Mehler's series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Quadrature nodes of N(0, 1) with the orthonormal Hermite polynomials on them.

    Attributes:
        z: Nodes, shape (n,).
        weights: Weights, shape (n,), summing to 1.
        hermite: He_k(z)/√k! times the weight, shape (n, K): values @ hermite are the Hermite coefficients.
        kinks: Where panels end because a function has a kink there.
        level: Panels are graded down to 2^-level.
    """

    z: Array
    weights: Array
    hermite: Array
    kinks: tuple[float, ...] = ()
    level: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Powers:
    """Powers of the entries of a cube: Hermite coefficients (a_k) make Σ a_k² c^k of each (Mehler).

    Attributes:
        shape: Of the cube.
        table: c^0 … c^(K-1) of the levels, shape (levels, K).
        last: c^2K of the levels, with which what K coefficients miss is counted.
        level: Which one each entry has; None where all are kept apart.
    """

    shape: tuple[int, ...]
    table: Array
    last: Array
    level: npt.NDArray[np.intp] | None

    def series(self, power: Array, rest: float) -> Array:
        """Σ_k power_k c^k + rest·c^2K over the cube."""
        line = self.table @ power + rest * self.last
        return (line if self.level is None else line[self.level]).reshape(self.shape)

    def mean(self, weights: Array) -> tuple[Array, float]:
        """Σ weight·c^k over the cube for each k, and Σ weight·c^2K."""
        line = weights.reshape(-1)
        if self.level is not None:
            line = np.bincount(self.level, line, len(self.last))
        return line @ self.table, float(line @ self.last)


_FEW = 32  # correlations up to which equal ones are not sought


def powers(cube: Array, count: int) -> Powers:
    """Powers of a cube's entries below `count`."""
    levels, level = cube.reshape(-1), None
    if cube.size > _FEW:
        levels, level = np.unique(levels, return_inverse=True)
    table = np.empty((len(levels), count))
    table[:, 0] = 1.0
    table[:, 1:] = levels[:, None]
    np.multiply.accumulate(table, axis=1, out=table)
    return Powers(cube.shape, table, np.square(table[:, -1] * levels), level)
