"""A chain times numbers that are the same in every draw: still a chain, with a row for each of the numbers.

A function of c·f(u) is one of u again: e^-cδ of δ = softplus(u) is larger the more u scatters, though it is smaller
where δ is large, and the gradient of c, Σ g·e^-cδ·δ, is small where either factor is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.signal import Array, Cotangent, Signal, Source, replace
from firstlight.rules.chains.grids import on_grid
from firstlight.rules.chains.source import shares_of
from firstlight.rules.gradients.gradient import times
from firstlight.rules.state.layout import align, axis_atoms
from firstlight.rules.state.summation import sum_atoms
from firstlight.rules.state.views import parts

_CERTAIN = 1e-9  # of E x²: entries that scatter by less are numbers
_ROWS = 512  # of a source: with more numbers times rows the product has none


def _numbers(x: Signal) -> tuple[Array, NDArray[np.intp]] | None:
    """Several numbers that a tensor has for entries in every draw, and which of them each entry is."""
    if np.any(x.q - np.square(x.mean) > _CERTAIN * x.q):
        return None
    level, which = np.unique(x.mean.round(12), return_inverse=True)
    return (level, which.reshape(x.mean.shape)) if 1 < len(level) <= _ROWS else None


def of_product(x: Signal, y: Signal) -> tuple[Source, Array] | None:
    """The source and values of x·y, f(u)·c with numbers c; None where neither factor is that, or they are too many."""
    for chain, other in ((x, y), (y, x)):
        of, values = chain.source, chain.values
        found = None if of is None or values is None else _numbers(other)
        if of is None or values is None or found is None or len(found[0]) * len(values) > _ROWS:
            continue
        level, which = found
        first, then = align(replace(other, mean=1.0 * len(values) * which), chain)
        on = then.source
        assert on is not None
        row = first.mean if on.row is None else first.mean + on.row
        count = (len(level), 1)
        many = replace(
            on, key=(of.key, "times", other.root.ident), mean=np.tile(of.mean, count[0]), sd=np.tile(of.sd, count[0]),
            share=shares_of(row.ravel(), len(level) * len(values)), row=row, sites=None,
            quantiles=of.quantiles if of.quantiles is None or of.quantiles.ndim == 1 else np.tile(of.quantiles, count),
            table=None if of.table is None else np.tile(of.table, count),
        )  # fmt: skip
        return many, np.concatenate([c * values for c in level])
    return None


def back(grad: Cotangent, out: Signal, mine: Signal, factor: Signal) -> Cotangent | None:
    """The gradient of one factor of such a product, on its source; None where the product is none.

    Of the numbers it is g·f(u), of the chain g·c; summed over the numbers it goes on as a function of u,
    E[(Σ φ_c g_c)²|u] = (1 - ρ)·Σ q_c φ_c² + ρ·(Σ √q_c φ_c)² with the correlation ρ of two of them.
    """
    source = out.source
    key = parts(source.key) if source is not None else ()
    if source is None or len(key) != 3 or key[1] != "times":
        return None
    if factor.source is not None and factor.values is not None and factor.source.key == key[0]:
        values = on_grid(factor.values, factor.source, source)
        return times(grad, out, source, np.tile(values, (len(source.sd) // len(values), 1)))
    found = _numbers(factor) if factor.root.ident == key[2] else None
    if found is None:
        return None
    each = len(source.sd) // len(found[0])
    line = np.repeat(found[0], each)[:, None] * np.ones(len(source.grid.z))
    return _summed(times(grad, out, source, line), mine, factor, found[1], len(found[0]))


def _summed(g: Cotangent, mine: Signal, numbers: Signal, which: NDArray[np.intp], count: int) -> Cotangent:
    """Σ over the numbers on the chain's source, where that can be said; the gradient as it is where not."""
    if g.rest or g.values is None or g.source is None or g.expected is not None or mine.source is None:
        return g
    lead = g.base.ndim - mine.ndim
    axes = [a for a in range(g.base.ndim) if g.base.groups[a] and (a < lead or not mine.groups[a - lead])]
    atoms = [i for a in axes for i in axis_atoms(g.base, a)]
    at, _ = align(replace(numbers, mean=1.0 * which), g.base)
    kept = [i for i in range(at.mean.ndim) if i not in atoms]
    if not atoms or any(at.mean.shape[i] > 1 for i in kept):
        return g
    shape = [n if i in atoms else 1 for i, n in enumerate(g.base.atoms)]
    q = np.broadcast_to(g.base.q.mean(axis=tuple(kept), keepdims=True), shape).ravel()
    index = np.broadcast_to(at.mean, shape).ravel().astype(np.intp)
    lines = g.values.reshape(count, -1, g.values.shape[1])
    base, pair = g.base, float(g.base.corr[tuple(1 if i in atoms[-1:] else 0 for i in range(g.base.corr.ndim))])
    root_of = np.bincount(index, np.sqrt(q), count)
    if sum_atoms(base, atoms).mean_q <= _CERTAIN * float(q.sum()):
        # it sums to nothing, as behind a softmax: what numbers have in common takes no part, the rest is independent
        lines = lines - np.tensordot(root_of, lines, 1) / max(float(root_of.sum()), 1e-300)
        base, q, pair = replace(base, q=base.q * (1.0 - pair), corr=_apart(base.corr, atoms)), q * (1.0 - pair), 0.0
    q_of = np.bincount(index, q, count)
    size = np.sqrt((np.square(lines) @ g.source.grid.weights).mean(axis=1))

    def of_sum(line: Array) -> Array:
        return (1.0 - pair) * np.tensordot(q_of, np.square(line), 1) + pair * np.square(np.tensordot(root_of, line, 1))

    level = max(float(of_sum(size)), _CERTAIN * float(q_of @ np.square(size)), 1e-300)
    factor = np.sqrt(np.maximum(of_sum(lines), 0.0) / level)
    each = size[at.mean.astype(np.intp)]
    base = sum_atoms(replace(base, q=base.q * np.square(each), mean=base.mean * each), atoms)
    return Cotangent(replace(base, groups=base.groups[lead:]), mine.source, factor, mine)


def _apart(corr: Array, atoms: list[int]) -> Array:
    """Correlations of pairs of entries, those of two that lie apart along some atoms left out."""
    out = corr.copy()
    for i in atoms:
        out[(slice(None),) * i + (slice(1, None),)] = 0.0
    return out
