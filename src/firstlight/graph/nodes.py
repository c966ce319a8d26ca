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


@dataclass(slots=True, eq=False)
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

    def of(self, at: tuple[int, ...]) -> Array:
        """c^0 … c^(K-1) of one entry."""
        row = np.ravel_multi_index(at, self.shape) if at else 0
        return self.table[row if self.level is None else self.level[row]]

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


_BLOCK = 8  # coefficients that share one power in `series`


def series(cube: Array, power: Array, rest: float) -> Array:
    """`Powers.series` of a cube that is asked once, without a table of all its powers where they are many.

    In blocks of eight, Σ_k p_k c^k = Σ_j c^8j·(Σ_i p_{8j+i} c^i), as Paterson and Stockmeyer (1973) evaluate
    polynomials: one matrix product makes the blocks, Horner's rule in c^8 their sum.
    """
    if cube.size <= _FEW:
        return powers(cube, len(power)).series(power, rest)
    line, count = cube.reshape(-1), -(-len(power) // _BLOCK)
    low: Array = np.empty((_BLOCK, line.size))
    low[0], low[1], low[2] = 1.0, line, line * line
    np.multiply(low[1:3], low[2], out=low[3:5])  # by doubling: `accumulate` takes three times as long
    np.multiply(low[1:4], low[4], out=low[5:8])
    step, padded = low[4] * low[4], np.zeros(count * _BLOCK)
    padded[: len(power)] = power
    blocks = padded.reshape(count, _BLOCK) @ low
    out = blocks[-1]
    for block in blocks[-2::-1]:
        out *= step
        out += block
    if rest == 0.0:
        return out.reshape(cube.shape)
    last, at = line ** (2 * (len(power) % _BLOCK)), step  # c^2K by squaring
    for bit in f"{2 * (len(power) // _BLOCK):b}"[::-1]:
        last, at = last * at if bit == "1" else last, np.square(at)
    return (out + rest * last).reshape(cube.shape)


_FEW = 32  # correlations up to which equal ones are not sought, and a table of powers takes less than blocks


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
