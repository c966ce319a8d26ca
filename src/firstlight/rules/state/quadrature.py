"""What the nodes of a source say of a function of it, each number once, and once for all multiples of a function."""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.filled import Kept
from firstlight.graph.signal import Array, Grid, Source, once, replace
from firstlight.theory.quantiles import level_of_scatter

_ROUNDED = 1e-26  # relative variance of u² that is rounding: nothing can be regressed on it
_COUNTED = 1e-4  # share of E f² from which what lies between two nodes counts
_SEEN, _ALIKE = 0.1, 1e-6  # standard deviations from zero at which powers are looked for; of their exponents
_HEAVY = 20.0  # relative variance of u² (2 of a Gaussian) from which its tail decides what is regressed on it


@dataclass(frozen=True, slots=True, eq=False)
class _Draw:
    """A source within one draw of the weights, where its entries are Gaussian: `scatter` is between draws.

    Attributes:
        values: Its values u on the nodes, shape (rows, n).
        square: u² less its mean, shape (rows, n).
        mean: E u² of each row.
        spread: Var u² of each row.
        hermite: Hermite coefficients of `square`, shape (rows, K).
    """

    values: Array
    square: Array
    mean: Array
    spread: Array
    hermite: Array


def _draw(source: Source) -> _Draw:
    values = source.values if source.scatter <= 0.0 else source.bent(0.0)
    square = np.square(values)
    mean = square @ source.grid.weights
    square -= mean[:, None]
    return _Draw(values, square, mean, np.square(square) @ source.grid.weights, square @ source.grid.hermite)


def _one_draw(source: Source) -> _Draw:
    """Worked out once for every source that carries its values."""
    return _draw(source) if source.table is None else once(source, "_draw", source.table, lambda: _draw(source))


def in_one_draw(source: Source, values: Array) -> Array:
    """A chain's values on the nodes within one draw of the weights."""
    if source.scatter <= 0.0:
        return values
    table = source.table
    low, part = _between(source) if table is None else once(source, "_between_nodes", table, lambda: _between(source))
    return values[:, low] * (1.0 - part) + values[:, low + 1] * part


def _between(source: Source) -> tuple[NDArray[np.intp], Array]:
    """Where the values of one draw lie between those on the nodes: alike in all rows, which differ in scale alone."""
    row = int(np.argmax(source.sd))
    plain, bent = _one_draw(source).values[row], source.values[row]
    place: Array = np.asarray(np.interp(plain, bent, np.arange(float(len(bent)))), dtype=np.float64)
    place[np.isnan(place)] = 0.0  # of a source out of range
    low: NDArray[np.intp] = np.minimum(place.astype(np.intp), len(bent) - 2)
    return low, place - low


def by_length(source: Source, values: Array) -> Array:
    """dE[f(u)|V]/dln V of each row, V the variance of u: the regression of f on u², E f·(u² - V)·V/Var u²."""
    draw = _one_draw(source)
    lines = in_one_draw(source, values)
    slope = ((lines * draw.square) @ source.grid.weights) * draw.mean / np.maximum(draw.spread, 1e-300)
    return np.where(draw.spread <= _ROUNDED * np.square(draw.mean), 0.0, slope)


def _homogeneous(source: Source, values: Array) -> float | None:
    """κ if |f| goes like |u|^κ, on each side of zero where it is not zero."""
    row = int(np.argmax(source.sd))
    u, f = np.abs(source.values[row] - source.mean[row]), np.abs(values[row])
    found: list[float] = []
    for side in (source.values[row] > source.mean[row], source.values[row] < source.mean[row]):
        seen = side & (u > _SEEN * source.sd[row])
        if f[seen].any():
            if not f[seen].all():
                return None
            rise, run = np.diff(np.log(f[seen])), np.diff(np.log(u[seen]))
            if rise[run == 0.0].any():
                return None
            found += (rise[run != 0.0] / run[run != 0.0]).tolist()  # a flat law has the same value at several nodes
    return found[0] if found and max(found) - min(found) <= _ALIKE else None


def _exponents(line: Array, u: Array, w: Array) -> tuple[float, float]:
    """The smallest and the largest of d ln|f|/d ln|u| between the nodes that make up E f²."""
    f, x, both = (0.5 * (v[1:] + v[:-1]) for v in (line, u, np.square(line) * w))
    local = np.diff(line) / np.maximum(np.diff(u), 1e-300) * x / np.maximum(f, 1e-300)
    local = local[both > _COUNTED * float(both.sum())]
    return float(local.min(initial=0.0)), float(local.max(initial=0.0))


@dataclass(frozen=True, slots=True, eq=False)
class OfUnit:
    """f² of one unit over its mean: on the nodes, also to five digits, and its second and third central moments."""

    ratio: Array
    rounded: bytes
    second: float
    third: float


class Law:
    """Moments of a function f of a source, whatever the correlations of its entries; each when it is first asked for.

    Args:
        source: Of u.
        values: f(u) on its nodes, shape (rows, n).
    """

    def __init__(self, source: Source, values: Array) -> None:
        self._source, self._values, self._grid, self._share = source, values, source.grid, source.share
        self._units: dict[float, OfUnit] = {}

    def _average(self, field: Array) -> float:
        return float(self._share @ (field @ self._grid.weights))

    @Kept
    def first(self) -> Array:
        """E f of each row."""
        return self._values @ self._grid.weights

    @Kept
    def second(self) -> Array:
        """E f² of each row."""
        return np.square(self._values) @ self._grid.weights

    @Kept
    def total(self) -> float:
        """E f²."""
        return float(self._share @ self.second)

    @Kept
    def power(self) -> Array:
        """a_k², a_k the Hermite coefficients of f, mean over the rows."""
        return self._share @ np.square(self._values @ self._grid.hermite)

    @Kept
    def cumulants(self) -> tuple[float, float]:
        """Third and fourth cumulants, all rows together."""
        d = self._values - float(self._share @ self.first)
        square = d * d
        second = self._average(square)
        return self._average(square * d), self._average(square * square) - 3.0 * second * second

    @Kept
    def squares(self) -> tuple[Array, Array]:
        """f² within one draw of the weights on the nodes, and its Hermite coefficients."""
        squares = np.square(in_one_draw(self._source, self._values))
        return squares, squares @ self._grid.hermite

    @Kept
    def in_one_draw(self) -> tuple[float, Array]:
        """`total` and `power` within one draw of the weights."""
        lines = in_one_draw(self._source, self._values)
        return self._average(np.square(lines)), self._share @ np.square(lines @ self._grid.hermite)

    @Kept
    def degree(self) -> float:
        """κ of E[f²|V] ~ V^κ, V the variance of u: f's own power where it is one, else d ln E[f²|V]/d ln V."""
        power = _homogeneous(self._source, self._values)
        if power is not None:
            return power
        return float(self._share @ by_length(self._source, np.square(self._values))) / self.in_one_draw[0]

    @Kept
    def inherited(self) -> tuple[float, Array, float]:
        """Of f² within one draw: how it goes with u², s = d ln E f²/d ln E u², and what it has besides.

        Of that the squares of the Hermite coefficients, and what they miss, over (E f²)². The regression on u² is s
        for a Gaussian u. Where few entries of a heavy tail decide it, it is at least a mean of f's own exponents.
        """
        squares, coefficients = self.squares
        draw = _one_draw(self._source)
        w = self._grid.weights
        apart = squares - (squares @ w)[:, None]  # or rounding would be divided by what an entry hardly scatters by
        slope = ((apart * draw.square) @ w) / np.maximum(draw.spread, 1e-300)
        slope[draw.spread <= _ROUNDED * np.square(draw.mean)] = 0.0
        for row in np.flatnonzero(draw.spread > _HEAVY * np.square(draw.mean)):
            low, high = _exponents(np.sqrt(squares[row]), draw.values[row], w)
            slope[row] *= draw.mean[row] / max(float(squares[row] @ w), 1e-300)
            slope[row] = np.clip(slope[row], low, high) * float(squares[row] @ w) / draw.mean[row]
        fourth = self._average(np.square(squares - slope[:, None] * draw.square))
        power = self._share @ np.square(coefficients - slope[:, None] * draw.hermite)
        tail = max(fourth - float(power.sum()), 0.0)
        total = self.total
        return float(self._share @ (slope * draw.mean)) / total, power / total / total, tail / total / total

    def of_unit(self, shared: float) -> OfUnit:
        """f² of one unit of a source with one row, a mean over sites whose u have so much in common.

        E[f(u)² | z] for u = √c z + √(1-c) e has each Hermite coefficient of f² times c^(k/2). The series of a function
        with a jump swings beyond it at the outermost nodes, by more than their small weights take back in the third
        moment: for c near 1 that had made gradients of rectifiers longer at each layer.
        """
        known = self._units.get(shared)
        if known is None:
            squares, coefficients = self.squares
            one, w = squares[0], self._grid.weights
            if shared < 1.0:
                powers = np.power(shared, 0.5 * np.arange(len(coefficients[0]), dtype=np.float64))
                series = (self._grid.hermite @ (coefficients[0] * powers)) / w
                one = np.clip(series, squares[0].min(), squares[0].max())  # a mean of f² lies between its values
            ratio = one / float(one @ w)
            centred = ratio - 1.0
            moments = float(np.square(centred) @ w), float((centred * centred * centred) @ w)
            known = self._units[shared] = OfUnit(ratio, ratio.round(5).tobytes(), *moments)
        return known

    @Kept
    def energies(self) -> tuple[Array, float]:
        """Of f²/E f²: the squares of the Hermite coefficients, and what they miss."""
        squares = np.square(self._values)
        return self._energies(squares, squares @ self._grid.hermite)

    @Kept
    def energies_in_one_draw(self) -> tuple[Array, float]:
        """`energies` without what the source's variance scatters between draws."""
        return self.energies if self._source.scatter <= 0.0 else self._energies(*self.squares)

    def _energies(self, squares: Array, coefficients: Array) -> tuple[Array, float]:
        total = self._average(squares)
        power = self._share @ np.square(coefficients)
        rest = self._average(np.square(squares)) - float(power.sum())
        return (power / total / total, rest / total / total) if total > 0.0 else (np.zeros(len(power)), 0.0)


def reading(source: Source, values: Array) -> tuple[Law, float]:
    """The law of a function on a source's nodes: that of another function, and the number that it is times that one."""
    known = source.__dict__.get("_multiples", {}).get(id(values))
    if known is not None and known[0] is values and known[1] is source.table:
        return known[2:]
    for of, at, found in _last:
        if of is source and at is values:
            return found, 1.0
    found = Law(source, values)
    _last.append((source, values, found))
    return found, 1.0


_last: deque[tuple[Source, Array, Law]] = deque(maxlen=2)  # a chain's end is asked for them again


def remember(source: Source, values: Array, of: Law, times: float) -> None:
    """Note that a function on a source's nodes is a number times one whose law is known."""
    if source.table is not None:
        source.__dict__.setdefault("_multiples", {})[id(values)] = values, source.table, of, times


def scaled(source: Source, values: Array, a: float) -> Array:
    """a·f on the nodes: its law is known if that of f is."""
    out = values * a
    known = source.__dict__.get("_multiples", {}).get(id(values))
    if known is not None and known[0] is values:
        remember(source, out, known[2], known[3] * a)
    return out


def unit(source: Source) -> Source | None:
    """The source of length 1 that differs in length alone; None for one of mean other than 0, of rows, or skewed."""
    plain = len(source.sd) == 1 and source.quantiles is None and source.skew == source.excess == 0.0
    if not plain or source.mean[0] != 0.0 or not source.sd[0] > 0.0:
        return None
    return _unit(source.grid, level_of_scatter(source.scatter))


@functools.lru_cache(maxsize=512)
def _unit(grid: Grid, scatter: float) -> Source:
    one = np.ones(1)
    source = Source(None, np.zeros(1), one, one, None, np.ones(()), grid, scatter=scatter)
    return replace(source, table=source.values)
