"""Cotangents: gradients that still know which factors they have met since they came through a random map.

A cotangent is a sum of roots times factors: a root is what came out of independent weights, a factor a function of
a forward source (or any forward signal). Paths that lead one root back to one tensor add their factors: x·σ(x) and
a gate written out are exact, and E[(g·a + g·b)²] = E g²·E(a + b)² follows from the forward signals' cross moments.
Different roots add as independent tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, Source, next_id, replace
from firstlight.rules.contraction import INNER, product
from firstlight.rules.cross import add
from firstlight.rules.source import as_source, from_values, law_of, on_grid

_EXPANSIONS = 24  # bases that are taken apart in search of a common root
_ALIKE = 0.5  # of a source's spread by which its rows may differ on average and still be one function
_PARTS = 4  # summands with factors that are followed one by one


def parts_of(g: Cotangent) -> tuple[Cotangent, ...]:
    """The summands, each with one root; how far the whole goes along its tensor is not known of them."""
    if g.rest:
        return (replace(g, rest=(), whole=None, along=None), *g.rest)
    return (alone(g),)


def alone(g: Cotangent) -> Cotangent:
    """A gradient that goes to another tensor: nothing is known of how far it goes along that one."""
    return g if g.along is None else replace(g, along=None)


def joined(parts: Sequence[Cotangent]) -> Cotangent:
    """Summands with different roots as one cotangent."""
    first = parts[0]
    return replace(first, rest=tuple(parts[1:]), whole=None) if len(parts) > 1 else first


def factor_of(g: Cotangent) -> Signal | None:
    """The factor of a single summand as a signal; None for 1."""
    if g.values is not None and g.source is not None and g.layout is not None:
        return from_values(g.layout, g.source, g.values)
    return g.factor


def whole(g: Cotangent) -> Signal:
    """The gradient as one signal."""
    if g.rest:
        if g.whole is None:
            found = [whole(p) for p in parts_of(g)]
            out = found[0]
            for signal in found[1:]:
                out = add(out, signal)
            g.whole = out
        return g.whole
    if g.whole is None:
        factor = factor_of(g)
        if factor is None:
            return g.base
        g.whole = replace(product(g.base, factor), gaussian=False)
    return g.whole


def times(g: Cotangent, layout: Signal, source: Source, factor: Array) -> Cotangent:
    """Multiply by a function of a forward source, given by its values on the nodes."""
    return joined([_times(p, layout, source, factor) for p in parts_of(g)])


def _times(g: Cotangent, layout: Signal, source: Source, factor: Array) -> Cotangent:
    if g.source is not None and g.values is not None and g.source.key == source.key:
        return Cotangent(g.base, source, on_grid(g.values, g.source, source) * factor, layout)
    mine = factor_of(g)
    if mine is None:
        return Cotangent(g.base, source, np.broadcast_to(factor, source.values.shape), layout)
    other = from_values(layout, source, np.broadcast_to(factor, source.values.shape))
    if other.shape != mine.shape:
        return Cotangent(whole(g), source, np.broadcast_to(factor, source.values.shape), layout)
    return Cotangent(g.base, factor=product(mine, other))


def times_signal(g: Cotangent, factor: Signal) -> Cotangent:
    """Multiply by a forward signal."""
    if factor.shape != whole_shape(g):
        return Cotangent(product(whole(g), factor))
    found: list[Cotangent] = []
    for p in parts_of(g):
        mine = factor_of(p)
        found.append(Cotangent(p.base, factor=factor if mine is None else product(mine, factor)))
    return joined(found)


def whole_shape(g: Cotangent) -> tuple[int, ...]:
    """The shape of the gradient, without working it out."""
    return (g.layout or g.factor or g.base).shape


def scaled(g: Cotangent, a: float) -> Cotangent:
    """Multiply by a constant."""
    if a == 1.0:
        return alone(g)
    return joined([_scaled(p, a) for p in parts_of(g)])


def _scaled(g: Cotangent, a: float) -> Cotangent:
    if g.source is not None and g.values is not None:
        return replace(g, values=g.values * a, whole=None)
    return Cotangent(scale(g.base, a), factor=g.factor)


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
        tag=x.tag if x.tag is not None and x.tag[0] in ("softmax", INNER) else None,
        ident=next_id(),
    )


def total(parts: Sequence[Cotangent]) -> Cotangent:
    """Sum of the gradients that arrive at one tensor, root by root."""
    flat = [p for g in parts for p in parts_of(g)]
    bent = [p for p in flat if p.values is not None or p.factor is not None]
    if not bent:
        return Cotangent(_added([p.base for p in flat]))
    by_root: dict[int, tuple[Signal, list[tuple[float, Cotangent]]]] = {}
    for part, roots in zip(flat, _roots([p.base for p in flat]), strict=True):
        for coefficient, root in roots:
            by_root.setdefault(root.ident, (root, []))[1].append((coefficient, part))
    found = [_one_root(root, terms) for root, terms in by_root.values()]
    plain = [p.base for p in found if p.values is None and p.factor is None]
    kept = [p for p in found if p.values is not None or p.factor is not None]
    if len(kept) > _PARTS:  # a long residual stream: what has met no common root so far is taken as independent
        return Cotangent(_added([*(whole(p) for p in kept), *plain]))
    if plain:
        kept.append(Cotangent(_added(plain)))
    return joined(kept)


def _added(bases: Sequence[Signal]) -> Signal:
    out = bases[0]
    for b in bases[1:]:
        out = add(out, b)
    return out


def _roots(bases: Sequence[Signal]) -> list[list[tuple[float, Signal]]]:
    """Each base as a combination of roots: bases are taken apart, latest first, until they have met or cannot."""
    open_: list[dict[int, tuple[float, Signal]]] = [{b.ident: (1.0, b)} for b in bases]
    closed: list[list[tuple[float, Signal]]] = [[] for _ in bases]
    for _ in range(_EXPANSIONS):
        waiting = [i for i, d in enumerate(open_) if d]
        if len(waiting) < 2:
            break
        latest = max(max(open_[i]) for i in waiting)
        holders = [i for i in waiting if latest in open_[i]]
        signal = open_[holders[0]][latest][1]
        alone = len(holders) == 1 and bool(signal.terms)
        for i in holders:
            coefficient, signal = open_[i].pop(latest)
            if not alone:
                closed[i].append((coefficient, signal))
                continue
            for factor, term in signal.terms:
                old = open_[i].get(term.ident)
                open_[i][term.ident] = (coefficient * factor + (old[0] if old else 0.0), term)
    return [found + list(left.values()) for found, left in zip(closed, open_, strict=True)]


def _one_root(root: Signal, terms: Sequence[tuple[float, Cotangent]]) -> Cotangent:
    """root·Σ (coefficient · factor)."""
    constant = 0.0
    on_source: dict[object, Cotangent] = {}
    others: list[Signal] = []
    for coefficient, part in terms:
        if part.values is not None and part.source is not None:
            old = on_source.get(part.source.key)
            values = coefficient * part.values
            if old is not None and old.source is not None:
                values = on_grid(values, part.source, old.source)
            on_source[part.source.key] = (
                Cotangent(root, part.source, values, part.layout)
                if old is None or old.values is None
                else replace(old, values=old.values + values)
            )
        elif part.factor is not None:
            others.append(part.factor if coefficient == 1.0 else scale(part.factor, coefficient))
        else:
            constant += coefficient
    if not on_source and not others:
        return Cotangent(root if constant == 1.0 else scale(root, constant))
    if len(on_source) == 1 and not others:
        only = next(iter(on_source.values()))
        assert only.values is not None
        return replace(only, values=only.values + constant)
    signals = [s for s in (factor_of(p) for p in on_source.values()) if s is not None] + others
    factor = _added(signals)
    if constant:
        factor = add(factor, _constant(factor, constant))
    return Cotangent(root, factor=factor)


def _constant(like: Signal, value: float) -> Signal:
    one = (1,) * len(like.atoms)
    return Signal(
        like.groups, np.full(one, value), np.full(one, value * value), np.ones_like(like.corr), like.batch, ident=0
    )


def through_sum(g: Cotangent, out: Signal, x: Signal, y: Signal, a: float, b: float) -> Cotangent:
    """A factor on the source of a sum a·x + b·y, seen from x's own source: its mean square given x.

    A unit that is active behind the sum was more often active before it: the masks of a residual stream are
    dependent, and a gradient that keeps passing them is larger than independent masks would leave it.
    """
    if g.rest:
        return joined([through_sum(p, out, x, y, a, b) for p in parts_of(g)])
    if g.values is None or g.source is None or g.source.key != ("source", out.ident):
        return g
    row = _typical_row(g.source)
    if x.source is None or x.values is None or x.shape != out.shape or row is None:
        return g
    mine = _typical_row(x.source)
    if mine is None:
        return g
    law = law_of(b, y)
    if law is None:
        return g
    values, weights, _ = law
    keep = slice(None, None, max(1, len(values) // 200))
    values, weights = values[keep], weights[keep] / weights[keep].sum()
    place: Array = np.interp(
        a * x.values[mine, :, None] + values, g.source.values[row], np.arange(g.values.shape[1], dtype=float)
    )
    line: Array = g.values[row]
    square = np.interp(place, np.arange(g.values.shape[1], dtype=float), np.square(line))
    factor = np.sqrt(np.maximum(square @ weights, 0.0))
    return Cotangent(g.base, x.source, np.broadcast_to(factor, x.values.shape), x)


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
    values, weights, _ = law
    keep = slice(None, None, max(1, len(values) // 100))
    values, weights = values[keep], weights[keep] / weights[keep].sum()
    at = np.asarray(np.interp(mine[..., None] * values, g.source.values[wide], g.values[wide]), dtype=np.float64)
    mean: Array = at @ weights
    return Cotangent(g.base, source, mean, x)
