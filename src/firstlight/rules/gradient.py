"""Cotangents: gradients that still know which function of which forward source they carry as a factor.

Two paths that lead the same base gradient back through functions of the same source (x·σ(x), a gate written out)
add as functions, exactly; everything else adds as independent signals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, Source, next_id, replace
from firstlight.rules.contraction import product
from firstlight.rules.cross import add
from firstlight.rules.source import from_values, law_of


def whole(g: Cotangent) -> Signal:
    """The gradient as one signal."""
    if g.source is None or g.values is None or g.layout is None:
        return g.base
    if g.whole is None:
        factor = from_values(g.layout, g.source, g.values)
        out = product(g.base, factor)
        g.whole = replace(out, gaussian=False)
    return g.whole


def times(g: Cotangent, layout: Signal, source: Source, factor: Array) -> Cotangent:
    """Multiply by a function of a forward source, given by its values on the nodes."""
    if g.source is not None and g.values is not None and g.source.key == source.key:
        return Cotangent(g.base, source, g.values * factor, layout)
    return Cotangent(whole(g), source, np.broadcast_to(factor, source.values.shape), layout)


def scaled(g: Cotangent, a: float) -> Cotangent:
    """Multiply by a constant."""
    if a == 1.0:
        return g
    if g.source is not None and g.values is not None:
        return replace(g, values=g.values * a, whole=None)
    return Cotangent(scale(g.base, a))


def scale(x: Signal, a: float) -> Signal:
    """a·x: everything but the scale stays, the law of a weight included."""
    values = None if x.values is None else x.values * a
    value = None if x.value is None else x.value * a
    corr = x.corr if a != 0.0 else np.ones_like(x.corr)
    return replace(
        x,
        mean=x.mean * a,
        q=x.q * a * a,
        corr=corr,
        cumulants=(x.cumulants[0] * a**3, x.cumulants[1] * a**4),
        values=values,
        value=value,
        terms=((a, x),),
        tag=x.tag if x.tag is not None and x.tag[0] == "softmax" else None,
        ident=next_id(),
    )


def total(parts: Sequence[Cotangent]) -> Cotangent:
    """Sum of the gradients that arrive at one tensor."""
    groups: dict[tuple[int, object], Cotangent] = {}
    for g in parts:
        key = (g.base.ident, g.source.key if g.source is not None else None)
        old = groups.get(key)
        if old is None:
            groups[key] = g
        elif g.values is not None and old.values is not None:
            groups[key] = replace(old, values=old.values + g.values, whole=None)
        else:
            groups[key] = Cotangent(add(old.base, g.base))
    found = list(groups.values())
    if len(found) == 1:
        return found[0]
    mixed = _join(found)
    if mixed is not None:
        return mixed
    out = whole(found[0])
    for g in found[1:]:
        out = add(out, whole(g))
    return _on_one_source(found, out)


def _on_one_source(found: Sequence[Cotangent], out: Signal) -> Cotangent:
    """Independent gradients of which some depend on one source: their mean square as a function of its nodes."""
    bent = [g for g in found if g.values is not None and g.source is not None]
    if not bent or len({g.source.key for g in bent if g.source}) != 1 or out.mean_q <= 0.0:
        return Cotangent(out)
    source = bent[0].source
    assert source is not None
    energy = np.zeros(source.values.shape)
    for g in found:
        energy = energy + (whole(g).mean_q if g.values is None else g.base.mean_q * np.square(g.values))
    level = float(source.share @ (energy @ source.grid.weights))
    if level <= 0.0:
        return Cotangent(out)
    return Cotangent(out, source, np.sqrt(energy / level), bent[0].layout, out)


def through_sum(g: Cotangent, out: Signal, x: Signal, y: Signal, a: float, b: float) -> Cotangent:
    """A factor on the source of a sum a·x + b·y, seen from x's own source: its mean square given x.

    A unit that is active behind the sum was more often active before it: the masks of a residual stream are
    dependent, and a gradient that keeps passing them is larger than independent masks would leave it.
    """
    if g.values is None or g.source is None or g.source.key != ("source", out.ident):
        return g
    if x.source is None or x.values is None or x.shape != out.shape or len(g.source.sd) != 1 or g.source.sd[0] <= 0.0:
        return g
    law = law_of(b, y)
    if law is None:
        return g
    values, weights, _ = law
    keep = slice(None, None, max(1, len(values) // 200))
    values, weights = values[keep], weights[keep] / weights[keep].sum()
    place: Array = np.interp(
        a * x.values[..., None] + values, g.source.values[0], np.arange(g.values.shape[1], dtype=float)
    )
    line: Array = g.values[0]
    square = np.interp(place, np.arange(g.values.shape[1], dtype=float), np.square(line))
    factor = np.sqrt(np.maximum(square @ weights, 0.0))
    return Cotangent(g.base, x.source, factor, x)


def _join(found: Sequence[Cotangent]) -> Cotangent | None:
    """One base, once bare and once with a factor: the bare one has the factor 1."""
    if len({g.base.ident for g in found}) != 1:
        return None
    bent = [g for g in found if g.values is not None]
    bare = [g for g in found if g.values is None]
    if len(bent) != 1 or len(bare) != 1:
        return None
    assert bent[0].values is not None
    return replace(bent[0], values=bent[0].values + 1.0, whole=None)
