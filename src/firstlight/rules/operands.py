"""A factor of a gradient behind a sum or a product, seen from the source of one of the operands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.signal import Array, Cotangent, Signal, Source, replace
from firstlight.rules.gradient import factor_of, joined, parts_of
from firstlight.rules.layout import fit_states
from firstlight.rules.source import as_source, law_of, mehler

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
    if g.rest:
        return joined([through_sum(p, out, x, y, a, b) for p in parts_of(g)])
    if g.values is None or g.source is None or g.source.key != ("source", out.ident):
        return g
    if _typical_row(g.source) is None or x.atoms != out.atoms or (x.source is None and not x.gaussian):
        return g
    source, mine = as_source(x)
    laws = _laws_beside(source, b, y)
    if _typical_row(source) is None or laws is None:
        return g
    first = g.values if g.expected is None else g.expected
    thin, few = _thin(mine.shape[1]), _thin(len(mine), _ROWS)
    square, expected = np.empty((len(few), len(thin))), np.empty((len(few), len(thin)))
    nodes, order = np.arange(g.values.shape[1], dtype=float), np.argsort(source.sd)
    beside = _rows_beside(source, g.source.row)
    for k, rank in enumerate(few):
        i = int(order[rank])
        row, (values, weights) = beside[i], laws[i]
        own: Array = a * mine[i][thin]
        place: Array = np.interp(own[:, None] + values, g.source.values[row], nodes)
        at: NDArray[np.intp] = np.minimum(place.astype(np.intp), len(nodes) - 2)
        part: Array = place - at
        second: Array = np.square(g.values[row])
        line: Array = first[row]
        square[k] = (second[at] + part * (second[at + 1] - second[at])) @ weights
        expected[k] = (line[at] + part * (line[at + 1] - line[at])) @ weights
    # rows between take the next smaller one's
    near: NDArray[np.intp] = np.argsort(order) * (len(few) - 1) // max(len(mine) - 1, 1)
    square, expected = (_everywhere(t, thin, mine.shape[1])[near] for t in (square, expected))
    apart = np.maximum(square - np.square(expected), 0.0)
    factor = np.sqrt(np.square(expected) + apart)
    seen = Cotangent(g.base, source, factor, x)
    known = factor_of(g)
    level = source.average(np.square(factor))
    rest = source.average(apart)
    if known is None or rest <= 1e-9 * level:
        return seen
    pairs = fit_states(known.corr, source.corr.shape) * level - mehler(
        expected, source, source.average(np.square(expected))
    )
    stray = np.clip(pairs / rest, -1.0, 1.0)
    return replace(seen, expected=expected, stray=stray)


def _thin(count: int, most: int = _NODES) -> NDArray[np.intp]:
    """About that many of so many places, the first and the last one among them."""
    even: Array = np.rint(np.linspace(0.0, count - 1.0, min(count, most)))
    return np.unique(even.astype(np.intp))


def _everywhere(table: Array, thin: NDArray[np.intp], count: int) -> Array:
    """What stands on some of the nodes, on all of them."""
    if len(thin) == count:
        return table
    out: Array = np.empty((len(table), count))
    for line, known in zip(out, table, strict=True):
        line[:] = np.interp(np.arange(count), thin, known)
    return out


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


def through_product(g: Cotangent, out: Signal, x: Signal, y: Signal) -> Cotangent:
    """A factor φ on the source of a product x·y, seen from x's own source: E φ(x·y) given x.

    For a gate y of one sign the mask of relu(x·y) is that of x, so that Σ g·x over positions adds up in phase.
    """
    if g.rest:
        return joined([through_product(p, out, x, y) for p in parts_of(g)])
    if g.values is None or g.source is None or g.source.key != ("source", out.ident):
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
