"""A factor of a gradient behind a sum or a product, seen from the source of one of the operands."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.signal import Array, Cotangent, Signal, Source, replace
from firstlight.rules.chains.laws import law_of
from firstlight.rules.chains.source import as_source, mehler
from firstlight.rules.gradients.gradient import factor_of, joined, parts_of, standing_for
from firstlight.rules.state.layout import fit_states
from firstlight.rules.state.views import source_key

_ALIKE = 0.5  # of a source's spread by which its rows may differ on average and still be one function
_LAW = 64  # values of the other operand over which a factor is averaged
_ROWS = 4  # rows of a source for which it is worked out: they are alike
_NODES = 80  # on which it is: the average is smoother than the factor, and costs nodes times values for each row


def through_sum(g: Cotangent, out: Signal, x: Signal, y: Signal, a: float, b: float) -> Cotangent:
    """A factor φ on the source of a sum a·x + b·y, seen from x's own source: E[φ²|x] and E[φ|x].

    A unit that is active behind the sum was more often active before it: the masks of a residual stream are
    dependent, and a gradient that keeps passing them is larger than independent masks would leave it. And a normalised
    term of the sum goes along with a mask of the sum. Pairs keep the correlation that φ has on the sum.
    """
    parts = parts_of(g)
    of_product = x.factors is not None and x.factors[0] == x.ident
    lawless = x.source is None and not (x.gaussian or of_product)
    if x.atoms != out.atoms or lawless or not any(_on_sum(p, out) for p in parts):
        return g
    beside = _Beside(x, y, a, b)
    return joined([beside.seen(p) if _on_sum(p, out) else p for p in parts])


def _on_sum(g: Cotangent, out: Signal) -> bool:
    """Whether the factor is one function of the sum."""
    on_source = g.values is not None and g.source is not None and g.source.key == source_key(out)
    return on_source and g.source is not None and _typical_row(g.source) is not None


class _Beside:
    """One term of a sum a·x + b·y, and the law of the other: how functions of the sum look from x's source."""

    def __init__(self, x: Signal, y: Signal, a: float, b: float) -> None:
        self.x, self.y, self.a, self.b = x, y, a, b
        self.source, self.mine = as_source(x)
        self.laws = _laws_beside(self.source, b, y) if _typical_row(self.source) is not None else None
        self.order: NDArray[np.intp] = np.argsort(self.source.sd)
        self.thin, self.few = _thin(self.mine.shape[1]), _thin(len(self.mine), _ROWS)
        self.kernels: dict[int, tuple[Source, list[tuple[int, Array]]]] = {}

    def seen(self, g: Cotangent) -> Cotangent:
        """E[φ²|x] and E[φ|x] of a factor φ on the sum's source."""
        assert g.values is not None
        assert g.source is not None
        if self.laws is None:
            return g
        source, first = self.source, g.values if g.expected is None else g.expected
        square, expected = (np.empty((len(self.few), len(self.thin))) for _ in range(2))
        for k, (row, kernel) in enumerate(self._kernels(g.source, self.laws)):
            square[k], expected[k] = kernel @ np.square(g.values[row]), kernel @ first[row]
        # rows between take the next smaller one's
        near = np.argsort(self.order) * (len(self.few) - 1) // max(len(self.mine) - 1, 1)
        square, expected = (_everywhere(t, self.mine.shape[1])[near] for t in (square, expected))
        apart = np.maximum(square - np.square(expected), 0.0)
        factor = np.sqrt(np.square(expected) + apart)
        seen = Cotangent(g.base, source, factor, self.x)
        known = factor_of(g)
        level, rest = source.average(np.square(factor)), source.average(apart)
        if known is None or rest <= 1e-9 * level:
            return seen
        of_mean = mehler(expected, source, source.average(np.square(expected)))
        stray = np.clip((fit_states(known.corr, source.corr.shape) * level - of_mean) / rest, -1.0, 1.0)
        return standing_for(replace(seen, expected=expected, stray=stray), known)

    def _kernels(self, of: Source, laws: list[tuple[Array, Array]]) -> list[tuple[int, Array]]:
        """For some rows of x's source the row of the sum's, and the matrix that takes φ on its nodes to E[φ|x].

        φ is linear between nodes; all factors of a gradient that stand on one source share the matrices.
        """
        known = self.kernels.get(id(of))
        if known is not None:
            return known[1]
        beside, nodes = _rows_beside(self.source, of.row), of.values.shape[1]
        found: list[tuple[int, Array]] = []
        for rank in self.few:
            i = int(self.order[rank])
            row, (values, weights) = beside[i], laws[i]
            own: Array = self.a * self.mine[i][self.thin]
            place: Array = np.interp(own[:, None] + values, of.values[row], np.arange(nodes, dtype=float))
            at: NDArray[np.intp] = np.minimum(place.astype(np.intp), nodes - 2)
            upper: Array = (place - at) * weights
            at += np.arange(len(own))[:, None] * nodes
            size = len(own) * nodes
            lower = np.bincount(at.ravel(), (weights - upper).ravel(), size)
            kernel: Array = np.asarray(lower + np.bincount(at.ravel() + 1, upper.ravel(), size), dtype=np.float64)
            found.append((row, kernel.reshape(len(own), nodes)))
        self.kernels[id(of)] = of, found
        return found


@lru_cache(maxsize=64)
def _thin(count: int, most: int = _NODES) -> NDArray[np.intp]:
    """About that many of so many places, the first and the last one among them."""
    even: Array = np.rint(np.linspace(0.0, count - 1.0, min(count, most)))
    return np.unique(even.astype(np.intp))


def _everywhere(table: Array, count: int) -> Array:
    """What stands on some of the nodes, on all of them."""
    if table.shape[1] == count:
        return table
    low, part = _between(count)
    return table[:, low] * (1.0 - part) + table[:, low + 1] * part


@lru_cache(maxsize=64)
def _between(count: int) -> tuple[NDArray[np.intp], Array]:
    """Which of the thin places lies below each of so many, and how far that one is on the way to the next."""
    thin = _thin(count)
    place: Array = np.asarray(np.interp(np.arange(count), thin, np.arange(float(len(thin)))), dtype=np.float64)
    low: NDArray[np.intp] = np.minimum(place.astype(np.intp), len(thin) - 2)
    return low, place - low


def _rows_beside(source: Source, row: Array | None) -> list[int]:
    """For each row of a source, that of another one at the same entries (on average over them)."""
    if row is None:
        return [0] * len(source.sd)
    if source.row is None:
        return [round(float(row.mean()))]
    return [round(float(v)) for v in _at_rows(source, row)]


def _at_rows(source: Source, field: Array) -> Array:
    """Mean of a field over the entries of each row of a source; over all of them for a row without any."""
    at, there = np.broadcast_arrays(np.zeros((1,) * field.ndim) if source.row is None else source.row, field)
    index = np.rint(at).astype(int).ravel()
    n = np.bincount(index, minlength=len(source.sd))
    found = np.bincount(index, there.ravel(), len(source.sd)) / np.maximum(n, 1)
    return np.where(n > 0, found, there.mean())


def _laws_beside(source: Source, b: float, y: Signal) -> list[tuple[Array, Array]] | None:
    """For each row of a source, the law of b·y at the same entries."""
    if y.source is not None and y.values is not None:
        lines = [b * y.values[row] for row in _rows_beside(source, y.source.row)]
        return [_thinned(v, y.source.grid.weights, _LAW) for v in lines]
    law = law_of(b, y)
    if law is None:
        return None
    values, weights = _thinned(law[0], law[1], _LAW)
    return [(level * values, weights) for level in np.sqrt(_at_rows(source, y.q) / max(y.mean_q, 1e-300))]


def _thinned(values: Array, weights: Array, count: int) -> tuple[Array, Array]:
    """A law on fewer values: neighbours are taken together."""
    starts = np.arange(0, len(values), max(1, len(values) // count))
    total = np.add.reduceat(weights, starts)
    return np.add.reduceat(values * weights, starts) / np.maximum(total, 1e-300), total / total.sum()


def _typical_row(source: Source) -> int | None:
    """The row that stands for all of them: entries at the border of an image are a little smaller than inside."""
    order = np.argsort(source.sd)
    row = int(order[np.searchsorted(np.cumsum(source.share[order]), 0.5)])
    sd = float(source.sd[row])
    apart = float(source.share @ (np.abs(source.sd - sd) + np.abs(source.mean - source.mean[row])))
    return row if sd > 0.0 and apart <= _ALIKE * sd else None


def gated(g: Cotangent, out: Signal, mine: Signal, other: Signal) -> Cotangent | None:
    """The gradient φ·x of one factor y of a product x·y, seen from y's source: E[φ²x²|y] and E[φx|y].

    φ is a function of x·y, so that φ and x are not independent: behind a tanh large products have small slopes, and
    those are where x is large.

    Args:
        g: A single summand, whose factor φ stands on the product's source.
        out: The product.
        mine: y.
        other: x, independent of y.
    """
    if g.values is None or g.source is None or (of := _typical_row(g.source)) is None:
        return None
    source, first = as_source(mine)
    laws = _laws_beside(source, 1.0, other)
    known = factor_of(g)
    if laws is None or known is None:
        return None
    square, expected = np.empty_like(first), np.empty_like(first)
    given = g.source.values[of]
    for i, (values, weights) in enumerate(laws):
        place = first[i][:, None] * values
        again = np.asarray(np.interp(place, given, np.square(g.values[of])), dtype=np.float64) * np.square(values)
        square[i] = again @ weights
        line = g.values[of] if g.expected is None else g.expected[of]
        expected[i] = (np.interp(place, given, line) * values) @ weights
    apart = np.maximum(square - np.square(expected), 0.0)
    level, rest = source.average(square), source.average(apart)
    seen = Cotangent(g.base, source, np.sqrt(np.square(expected) + apart), mine)
    if rest <= 1e-9 * level:
        return seen
    both = fit_states(known.corr, source.corr.shape) * fit_states(other.corr, source.corr.shape)
    of_mean = mehler(expected, source, source.average(np.square(expected)))
    return replace(seen, expected=expected, stray=np.clip((both * level - of_mean) / rest, -1.0, 1.0))


def on_product(g: Cotangent, out: Signal, x: Signal, y: Signal) -> bool:
    """Whether the factor of a summand is one function of a product of tensors of one shape."""
    return x.shape == y.shape == out.shape and x.atoms == y.atoms == out.atoms and _on_sum(g, out)


def through_product(g: Cotangent, out: Signal, x: Signal, y: Signal) -> Cotangent:
    """A factor φ on the source of a product x·y, seen from x's own source: E φ(x·y) given x.

    For a gate y of one sign the mask of relu(x·y) is that of x, so that Σ g·x over positions adds up in phase.
    """
    if g.rest:
        return joined([through_product(p, out, x, y) for p in parts_of(g)])
    if g.values is None or g.source is None or g.source.key != source_key(out):
        return g
    wide = int(np.argmax(g.source.sd))  # φ is one function of x·y: the row that covers most of it
    if x.shape != out.shape or g.source.sd[wide] <= 0.0 or y.mean_mean**2 < 0.5 * y.mean_q:
        return g
    law = law_of(1.0, y)
    if law is None:
        return g
    source, mine = as_source(x)
    values, weights = _thinned(law[0], law[1], 100)
    at = np.asarray(np.interp(mine[..., None] * values, g.source.values[wide], g.values[wide]), dtype=np.float64)
    mean: Array = at @ weights
    return Cotangent(g.base, source, mean, x)
