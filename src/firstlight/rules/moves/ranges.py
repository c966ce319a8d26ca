"""Parts of an axis taken out of a signal, and a part's gradient put back among zeros."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import numpy as np

from firstlight.graph.signal import Array, Signal, next_id, replace
from firstlight.rules.state import course, pieces, sites, unitwise
from firstlight.rules.state.empirical import as_given, constant
from firstlight.rules.state.layout import keep_first, merge_axis, offset, transform

_LONG = 1 << 15  # entries of a field beyond which zeros among a part's gradient are not kept one by one


def take_range(x: Signal, dim: int, start: int, stop: int, step: int) -> Signal:
    """x[start:stop:step] along an axis."""
    dim %= x.ndim
    n = x.shape[dim]
    index = range(*slice(start, stop, step).indices(n))
    if len(index) == n and step == 1:
        return x
    value = None if x.value is None else np.take(x.value, list(index), axis=dim)

    def pick(f: Array) -> Array:
        at = offset(merged, dim)
        return np.take(f, list(index), axis=at)

    merged = merge_axis(x, dim) if len(x.groups[dim]) > 1 else x
    if value is not None and value.size:
        return constant(value)
    out = keep_first(merged, dim, len(index), pick, ("range", dim, start, stop, step), None)
    if index and step == 1:
        out = pieces.taken(out, x, dim, index[0], len(index))
    if len(index) == 1:
        out = unitwise.at_one_place(out, x, dim)
    return as_given(out) if x.sites is None else replace(out, sites=sites.piece(x, dim, start, len(index)))


def range_of(x: Signal, dim: int) -> range | None:
    """Which indices of an axis of its root a signal is, if it is a range of it and nothing else; else None."""
    _, steps = x.viewed
    step = cast("tuple[Any, ...]", steps[0]) if len(steps) == 1 and isinstance(steps[0], tuple) else ()
    if step[:2] != ("range", dim) or x.root.ndim <= dim:
        return None
    return range(*slice(*step[2:]).indices(x.root.shape[dim]))


def same_entries(x: Signal, y: Signal) -> bool:
    """Whether two signals are the same entries of one tensor, in whatever order: no two ranges of it."""
    (one, steps), (other, more) = x.viewed, y.viewed
    return one == other and [s for s in steps if _selects(s)] == [s for s in more if _selects(s)]


def _selects(step: Hashable) -> bool:
    return isinstance(step, tuple) and step[0] in ("range", "index", "put")


def take_index(x: Signal, dim: int, index: Any) -> Signal:
    """Entries of an axis by a list of indices, in any order and number."""
    dim %= x.ndim
    merged = merge_axis(x, dim) if len(x.groups[dim]) > 1 else x
    ids = np.asarray(index).reshape(-1)

    def pick(f: Array) -> Array:
        return np.take(f, ids, axis=offset(merged, dim))

    return as_given(keep_first(merged, dim, len(ids), pick, ("index", dim, ids.tobytes()), None))


def put_range(g: Signal, like: Signal, dim: int, start: int, stop: int, step: int) -> Signal:
    """The gradient of a slice in a tensor of zeros.

    Long fields of mean 0 have their mean over the axis instead: parts that fill it together have in sum, and in each
    pair moment, what they would have place by place.
    """
    dim %= like.ndim
    n = like.shape[dim]
    index = list(range(*slice(start, stop, step).indices(n)))
    if len(index) == n:
        return g
    if not index:
        return replace(g, q=g.q * 0.0)
    g = merge_axis(g, dim) if len(g.groups[dim]) > 1 else g
    at = offset(g, dim)
    lone = not g.groups[dim]
    if not lone and n * g.q.size > _LONG and not g.mean.any():
        return _thinned(g, dim, n, ("put", dim, start, stop, step))

    def on_field(f: Array) -> Array:
        if lone:
            f = np.expand_dims(f, at)
        out = np.zeros((*f.shape[:at], n, *f.shape[at + 1 :]))
        where: list[Any] = [slice(None)] * out.ndim
        where[at] = index
        out[tuple(where)] = f
        return out

    def on_cube(c: Array) -> Array:
        return np.stack([c, np.zeros_like(c)], axis=at) if lone else c

    groups = (*g.groups[:dim], (n,), *g.groups[dim + 1 :])
    flag = like.batch[offset(like, dim)] if like.groups[dim % like.ndim] else False
    batch = (*g.batch[:at], flag, *g.batch[at:]) if lone else g.batch
    bare = replace(g, source=None, values=None, ident=next_id())
    out = transform(bare, groups, batch, on_field, on_cube, ("put", dim, start, stop, step))
    return course.beside(out, g, at, lone)


def _thinned(g: Signal, dim: int, n: int, tag: Hashable) -> Signal:
    """Entries of mean 0 among the n of an axis as if all had their share: moments are means over all pairs."""
    at, few = offset(g, dim), g.groups[dim][0]

    def on_field(f: Array) -> Array:
        return f.mean(axis=at, keepdims=True) * (few / n)

    def on_cube(c: Array) -> Array:
        met = np.array([1.0, (few - 1.0) / (n - 1.0), 1.0][: c.shape[at]])  # both of a pair are there
        return c * met.reshape([-1 if i == at else 1 for i in range(c.ndim)])

    groups = (*g.groups[:dim], (n,), *g.groups[dim + 1 :])
    bare = replace(g, source=None, values=None, ident=next_id())
    return transform(bare, groups, g.batch, on_field, on_cube, tag)


def drop_axis(x: Signal, dim: int) -> Signal:
    """Remove an axis of size 1."""
    dim %= x.ndim
    value = None if x.value is None else np.squeeze(x.value, axis=dim)
    ident = next_id()
    given = {} if x.given is None or x.given[0] != x.ident else {"given": (ident, x.given[1])}
    out = replace(x, groups=(*x.groups[:dim], *x.groups[dim + 1 :]), value=value, terms=(), ident=ident, **given)
    return pieces.without_axis(out, x, dim)


def unsqueezed(x: Signal, dim: int) -> Signal:
    """With an axis of size 1 in front of axis `dim`."""
    value = None if x.value is None else np.expand_dims(x.value, dim)
    return replace(x, groups=(*x.groups[:dim], (), *x.groups[dim:]), value=value)
