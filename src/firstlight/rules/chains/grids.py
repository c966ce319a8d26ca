"""Nodes of a Gaussian source on which a chain of functions stands, finer where one of them has a kink."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from firstlight.graph.signal import Array, Grid, Source, replace
from firstlight.theory import cubic
from firstlight.theory.gaussian import gauss_nodes

TERMS = 48  # Hermite coefficients; what is left is counted at the power 2·TERMS
MOST_KINKS = 8  # of all functions of a chain together, in the nodes
_FEW_ROWS = 3  # rows of a source whose kinks are followed however many there are


@dataclass(frozen=True, slots=True)
class Bend:
    """What the quadrature has to know of a pointwise function.

    Attributes:
        kinks: Inputs at which it or a derivative jumps.
        scale: Size of the inputs over which it bends.
        slopes: (above, below) for a map that is linear on each side of zero.
        positive: Whether it is made for positive arguments (log, √, 1/x): their law is then log-normal.
        steep: Whether it grows like e^x: a law's ends, which no entry reaches, must not decide its mean.
    """

    kinks: tuple[float, ...] = ()
    scale: float = 1.0
    slopes: tuple[float, float] | None = None
    positive: bool = False
    steep: bool = False


SMOOTH = Bend()


@functools.lru_cache(maxsize=2048)
def grid(kinks: tuple[float, ...] = (), level: int = 0) -> Grid:
    """Nodes of N(0, 1) split at kinks (given in z) and graded down to 2^-level, with Hermite polynomials."""
    nodes = gauss_nodes(kinks, scale=2.0**-level)
    z, w = nodes.z, nodes.weights
    table = np.empty((TERMS, len(z)))
    table[0], table[1] = 1.0, z
    for k in range(1, TERMS - 1):  # √(k+1) h_{k+1} = z h_k - √k h_{k-1}
        table[k + 1] = (z * table[k] - k**0.5 * table[k - 1]) / (k + 1) ** 0.5
    return Grid(z, w, np.ascontiguousarray((table * w).T), kinks, level)


def level_of(sd: float, scale: float) -> int:
    """How often panels are halved so that they follow a function that bends over `scale`."""
    ratio = sd / scale if scale > 0 and np.isfinite(scale) else 0.0
    return 0 if ratio <= 1.0 else min(24, ceil(log2(ratio)))


def _crossings(z: Array, line: Array) -> list[float]:
    """Where a function that is linear between nodes changes its sign."""
    at = np.flatnonzero(line[:-1] * line[1:] < 0.0)
    return [float(z[i] + (z[i + 1] - z[i]) * line[i] / (line[i] - line[i + 1])) for i in at]


def kinks_of(
    source: Source, values: Array, bend: Bend, crossings: Callable[[Array, Array], list[float]] = _crossings
) -> tuple[float, ...]:
    """Where on the source's z the function has its kinks; z = 0 is always a border.

    Args:
        source: The source.
        values: What the function is given, on the nodes.
        bend: Where it has its kinks.
        crossings: Finds zeros; between nodes a law is nearly a straight line, a chain's values are not.
    """
    if not bend.kinks:
        return ()
    found: set[float] = set()
    for row, sd in zip(values, source.sd, strict=True):
        if sd > 0.0:
            for k in bend.kinks:
                found |= {float(f"{z:.5g}") for z in crossings(source.grid.z, row - k)}
    return (
        tuple(sorted(z for z in found if abs(z) > 1e-4))
        if len(source.sd) <= _FEW_ROWS or len(found) <= MOST_KINKS
        else ()
    )


def refined(source: Source, values: Array, bend: Bend) -> tuple[Source, Array]:
    """A chain whose next function has its kinks elsewhere: on nodes that do not straddle those either."""
    old = source.grid.kinks
    new = [z for z in kinks_of(source, values, bend, cubic.roots) if all(abs(z - k) > 1e-3 for k in (*old, 0.0))]
    if not new or len(old) + len(new) > MOST_KINKS:
        return source, values
    nodes = grid(tuple(sorted((*old, *new))), source.grid.level)
    quantiles = None if source.quantiles is None else cubic.between(source.grid.z, source.quantiles, nodes.z)
    finer = replace(source, grid=nodes, quantiles=quantiles, table=None)
    return replace(finer, table=finer.values), cubic.between(source.grid.z, values, nodes.z)


def finer(one: Source, other: Source) -> Source:
    """Of two chains' views of one source the one with more nodes: it has the kinks of more functions."""
    return one if len(one.grid.z) >= len(other.grid.z) else other


def on_grid(values: Array, source: Source, target: Source) -> Array:
    """Values on one source's nodes, on those of the same source as another chain saw it (with kinks of its own)."""
    if source.grid is target.grid or values.shape[-1] != len(source.grid.z):
        return values
    rows: list[Array] = [np.interp(target.grid.z, source.grid.z, row) for row in values]
    return np.stack(rows)
