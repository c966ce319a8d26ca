"""Tensors that fresh weights made of one: their correlations between sites stray together from draw to draw.

Given a tensor h, two linear maps of it are independent, and the correlation c of two sites of either is that of h. A
product of functions of both therefore has E r₁(c)·r₂(c), which is more than r₁(c̄)·r₂(c̄) by r₁'·r₂'·Var c.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from firstlight.graph.course import Course
from firstlight.graph.nodes import series
from firstlight.graph.signal import Array, Signal, replace
from firstlight.rules.state import course
from firstlight.rules.state.views import parts


def of(x: Signal) -> Hashable:
    """The tensor whose sites are as alike, draw by draw, as those of x: what weights made x of, else x itself."""
    source = x.source
    if source is not None:
        return source.kin[1] if source.kin is not None and source.kin[0] == source.key else ("source", source.key)
    root = x.root
    steps = tuple(s for s in x.viewed[1] if not _units(s, x.ndim))
    if root.kin is not None and root.kin[0] == root.ident:
        return root.kin[1], steps
    drawn = [t for _, t in root.terms if t.weights is None and t.value is None]
    if len(drawn) == 1 and len(root.terms) == 2 and drawn[0].shape == root.shape:  # a bias is the same at every site
        return of(drawn[0]), steps
    return root.ident, steps


def _units(step: Hashable, ndim: int) -> bool:
    """Whether a step picks some of the units alone."""
    return parts(step)[:2] == ("range", ndim - 1)


def met(out: Signal, x: Signal, y: Signal) -> Signal:
    """The product of x and y with what the correlations of their sites stray by together.

    Cov(c_x, c_y) = C'_x·C'_y·√(Var c_x·Var c_y), Var c = wander·(1 - c²), where sites differ and units do not.
    """
    like = x.groups == y.groups == out.groups and x.corr.shape == y.corr.shape == out.corr.shape
    first = len(x.atoms) - len(x.groups[-1]) if like and x.groups else 0
    if not 0 < first < len(x.atoms) or of(x) != of(y) or not out.mean_q:  # zeros have no correlations
        return out
    sites = (..., *(0,) * (len(x.atoms) - first))
    more = (_strays(x, _base(x)) * _strays(y, _base(y)))[sites]
    if not more.any():
        return out
    corr = out.corr.copy()
    corr[sites] = np.minimum(corr[sites] + more, 1.0)
    out = replace(out, corr=corr)
    pairs = [(c.atom, c.pairs + _strays(x, _pairs(x, c)) * _strays(y, _pairs(y, c))) for c in out.course]
    return course.given(out, pairs)


def _base(x: Signal) -> Array:
    """Correlations of the Gaussian that a tensor is a function of."""
    return x.corr if x.source is None else x.source.corr


def _pairs(x: Signal, like: Course) -> Array:
    """Those of the pairs of its positions; of all of them on average where they are not told apart."""
    found = next((c for c in (x.course if x.source is None else x.source.courses) if c.atom == like.atom), None)
    kinds = len(like.pairs)
    rest = course.constant(_base(x), x.batch, like.atom)[:kinds]
    if found is None:
        return rest
    rest = np.broadcast_to(rest, (kinds, *found.pairs.shape[1:]))
    return np.concatenate([found.pairs[:kinds], rest[len(found.pairs) :]])


def _strays(x: Signal, c: Array) -> Array:
    """Standard deviation of the correlations of sites over draws, with the sign of their slope C'(c)."""
    source = x.source
    if source is None or x.values is None:
        return np.sqrt(x.wander * np.maximum(1.0 - np.square(c), 0.0))
    power = source.share @ np.square(x.values @ source.grid.hermite)
    slope = series(np.asarray(c), power[1:] * np.arange(1.0, len(power)), 0.0) / x.mean_q
    return slope * np.sqrt(source.wander * np.maximum(1.0 - np.square(c), 0.0))
