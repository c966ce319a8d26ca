"""Grouped queries: fewer heads of keys and values than of queries."""

from __future__ import annotations

from firstlight.graph.signal import Signal, replace
from firstlight.rules.state.layout import axis_atoms, expand, reshape
from firstlight.rules.state.summation import sum_atoms


def shared(query: Signal, key: Signal) -> bool:
    """Whether several heads of queries look at one of keys: asked for, or one head that is broadcast."""
    return query.ndim == key.ndim > 3 and query.shape[-3] > key.shape[-3]


def repeat(x: Signal, like: Signal) -> Signal:
    """Repeat key/value heads to the number of query heads."""
    h, k = like.shape[-3], x.shape[-3]
    axis = x.ndim - 3
    n = h // max(k, 1)
    if n <= 1:
        return x
    wide = replace(x, groups=(*x.groups[: axis + 1], (), *x.groups[axis + 1 :]), value=None)
    wide = expand(wide, (*wide.groups[: axis + 1], (n,), *wide.groups[axis + 2 :]))
    return replace(
        wide, groups=(*wide.groups[:axis], wide.groups[axis] + wide.groups[axis + 1], *wide.groups[axis + 2 :])
    )


def gather(g: Signal, like: Signal) -> Signal:
    """The sum of a gradient over the query heads that share a key/value head."""
    h, k = g.shape[-3], like.shape[-3]
    if h == k:
        return g
    lead, beside = g.shape[:-3], g.beside
    g = reshape(g, (*lead, k, h // k, *g.shape[-2:]))
    g = sum_atoms(g, list(axis_atoms(g, len(lead) + 1)))
    return replace(reshape(g, like.shape), beside=beside)
