"""Pointwise functions, and what can be said at once of those that are linear on each side of zero, for all lengths."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from firstlight.graph.signal import Array, Source
from firstlight.rules.chains.grids import SMOOTH, Bend
from firstlight.rules.chains.partly import together_on
from firstlight.rules.state.quadrature import Law, unit

Function = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Pointwise:
    """A pointwise function with what its quadrature needs."""

    f: Function
    df: Function
    bend: Bend = SMOOTH


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """A function that is linear on each side of zero on the nodes of a source of length 1, its slope, and both laws.

    `steep` is `steepness`, `kurtosis` E f'²f²/(E f'²·E f²).
    """

    values: Array
    law: Law
    slopes: Array
    law_of_slopes: Law
    steep: float
    kurtosis: float


def linear_pieces(source: Source, p: Pointwise) -> Pieces | None:
    """What only the length of u tells apart from f(u): the quadrature of one length does for all."""
    one = unit(source) if p.bend.slopes is not None else None
    return None if one is None else _pieces(one, p)


@functools.lru_cache(maxsize=512)
def _pieces(one: Source, p: Pointwise) -> Pieces:
    values, slopes = p.f(one.values), p.df(one.values)
    laws = Law(one, values), Law(one, slopes)
    return Pieces(values, laws[0], slopes, laws[1], steepness(one, slopes), together_on(one, slopes, values))


def steepness(source: Source, slope: Array) -> float:
    """d ln E f'(u)²/d ln E u²."""
    square, length = np.square(slope), np.square(source.values)
    w = source.grid.weights
    level = float(source.share @ (square @ w))
    spread = float(source.share @ (np.square(length) @ w)) - float(source.share @ (length @ w)) ** 2
    if level <= 0.0 or spread <= 0.0:
        return 0.0
    both = float(source.share @ ((square * length) @ w)) - level * float(source.share @ (length @ w))
    return both / spread * float(source.share @ (length @ w)) / level
