"""Cotangents: gradients that still know which factors they have met since they came through a random map.

A cotangent is a sum of roots times factors: a root is what came out of independent weights, a factor a function of
a forward source (or any forward signal). Paths that lead one root back to one tensor add their factors: x·σ(x) and
a gate written out are exact, and E[(g·a + g·b)²] = E g²·E(a + b)² follows from the forward signals' cross moments.
Different roots add as independent tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from operator import is_
from typing import NamedTuple

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, Source, average, next_id, replace
from firstlight.rules.chains.grids import finer, on_grid
from firstlight.rules.chains.partly import behind, blurred, mixed, raised, summed
from firstlight.rules.chains.source import from_values, spread
from firstlight.rules.gradients.roots import multiple_of, roots_of
from firstlight.rules.linear.contraction import INNER, product
from firstlight.rules.state import course, twins
from firstlight.rules.state.cross import add
from firstlight.rules.state.profile import narrowed
from firstlight.rules.state.quadrature import scaled as scaled_values
from firstlight.rules.state.summation import TOTAL

_PARTS = 4  # summands with factors that are followed one by one
_LONG = 1 << 15  # entries of a field that is worth a look at whether it varies
_PRODUCT = ("base", "source", "values", "layout", "factor", "expected", "stray")  # fields of a single summand


def parts_of(g: Cotangent) -> tuple[Cotangent, ...]:
    """The summands, each with one root; how far the whole goes along its tensor is not known of them."""
    if not g.rest:
        return (alone(g),)
    first = g.__dict__.get("_first")
    if first is None or any(getattr(first, name) is not getattr(g, name) for name in _PRODUCT):
        first = g.__dict__["_first"] = replace(g, rest=(), whole=None, along=None)
    return (first, *g.rest)


def alone(g: Cotangent) -> Cotangent:
    """A gradient that goes to another tensor: nothing is known of how far it goes along that one."""
    return g if g.along is None else replace(g, along=None)


def joined(parts: Sequence[Cotangent]) -> Cotangent:
    """Summands with different roots as one cotangent."""
    first = parts[0]
    if len(parts) == 1:
        return first
    out = replace(first, rest=tuple(parts[1:]), whole=None)
    if not first.rest:
        out.__dict__["_first"] = alone(first)  # with what has been worked out of it
    return out


def factor_of(g: Cotangent) -> Signal | None:
    """The factor of a single summand as a signal; None for 1."""
    if g.values is None or g.source is None or g.layout is None:
        return g.factor
    out = _known_factor(g)
    if out is None:
        out = from_values(g.layout, g.source, g.values)
        if g.expected is not None and g.stray is not None:
            bent = blurred(out, g.source, g.expected, g.stray)
            shared = twins.known(g.base) is not None
            out = twins.around(bent, from_values(g.layout, g.source, g.expected)) if shared else bent
        _keep_factor(g, out)
    return out


def standing_for(g: Cotangent, factor: Signal) -> Cotangent:
    """A summand whose factor is another one, seen from a source: behind shared weights it meets others as that one."""
    if twins.known(g.base) is not None and (seen := factor_of(g)) is not None:
        _keep_factor(g, twins.around(seen, factor))
    return g


def _fields_of_factor(g: Cotangent) -> tuple[object, ...]:
    return g.source, g.values, g.layout, g.expected, g.stray


def _keep_factor(g: Cotangent, factor: Signal) -> None:
    g.__dict__["_factor"] = _fields_of_factor(g), factor


def _known_factor(g: Cotangent) -> Signal | None:
    """The factor of a summand on a source, if it has been worked out of these fields."""
    of, factor = g.__dict__.get("_factor", ((), None))
    return factor if of and all(map(is_, of, _fields_of_factor(g))) else None


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
        g.whole = product(g.base, factor)
    return g.whole


def moved(g: Cotangent, move: Callable[[Signal], Signal]) -> Cotangent:
    """The same gradient laid out anew: a factor on a source stays one, on that source laid out anew."""
    if not any(p.values is not None and p.stray is None for p in parts_of(g)):
        return Cotangent(move(whole(g)))
    return joined([_moved(p, move) for p in parts_of(g)])


def _moved(g: Cotangent, move: Callable[[Signal], Signal]) -> Cotangent:
    if g.source is None or g.values is None or g.layout is None or g.stray is not None:
        return Cotangent(move(whole(g)))
    on = move(replace(g.layout, source=g.source, values=g.values, ident=next_id()))
    return Cotangent(move(g.base), on.source, on.values, on, forked=g.forked)


def times(g: Cotangent, layout: Signal, source: Source, factor: Array) -> Cotangent:
    """Multiply by a function of a forward source, given by its values on the nodes."""
    return joined([_times(p, layout, source, factor) for p in (parts_of(g) if g.rest else (g,))])


def _times(g: Cotangent, layout: Signal, source: Source, factor: Array) -> Cotangent:
    here = g.layout is None or g.layout.atoms == layout.atoms
    if g.source is not None and g.values is not None and g.source.key == source.key and here:
        both = finer(source, g.source)
        factor = on_grid(factor, source, both)
        values = on_grid(g.values, g.source, both) * factor
        expected = None if g.expected is None else on_grid(g.expected, g.source, both) * factor
        return Cotangent(g.base, both, values, layout, expected=expected, stray=g.stray, forked=g.forked)
    before, met = factor_of(g), _chain_of(g)
    if met is not None and met.source.key == source.key and met.layout.atoms == layout.atoms:
        both = finer(source, met.source)  # what it has met on this source already, behind another factor
        factor, source = on_grid(factor, source, both) * on_grid(met.values, met.source, both), both
        before = met.before
    factor = factor if factor.shape == source.values.shape else np.broadcast_to(factor, source.values.shape)
    if before is None:
        return Cotangent(g.base, source, factor, layout)
    if layout.shape != before.shape:
        return Cotangent(whole(g), source, factor, layout)
    return _linked(g.base, _Chain(before, before, source, factor, layout))


class _Chain(NamedTuple):
    """What a factor is made of that is no function of one source: one that is, and what was there before."""

    whole: Signal
    before: Signal
    source: Source
    values: Array
    layout: Signal


def _linked(base: Signal, chain: _Chain) -> Cotangent:
    """A base times what a chain says, which it goes on knowing."""
    factor = product(chain.before, from_values(chain.layout, chain.source, chain.values))
    out = Cotangent(base, factor=factor)
    out.__dict__["_chain"] = chain._replace(whole=factor)
    return out


def _chain_of(g: Cotangent) -> _Chain | None:
    """How the factor of a summand came about, as long as it is that."""
    chain: _Chain | None = g.__dict__.get("_chain")
    return chain if chain is not None and chain.whole is g.factor else None


def seen_from(g: Cotangent, source: Source) -> Cotangent:
    """The same gradient with what it has met on a source for its factors, and all else in their bases."""
    if not any(map(_chain_of, (g, *g.rest))):
        return g
    return replace(joined([_seen_from(p, source) for p in parts_of(g)]), along=g.along, image=g.image)


def _seen_from(g: Cotangent, source: Source) -> Cotangent:
    met = _chain_of(g)
    if met is None or met.source.key != source.key:
        return g
    return Cotangent(product(g.base, met.before), met.source, met.values, met.layout)


def forked(g: Cotangent) -> Cotangent:
    """One of the paths through a product of two functions of one source."""
    return joined([replace(p, forked=True) for p in parts_of(g)])


def times_signal(g: Cotangent, factor: Signal) -> Cotangent:
    """Multiply by a forward signal."""
    if factor.shape != whole_shape(g):
        one = not g.rest and g.values is not None and g.stray is None and g.factor is None
        if one:  # a gate for all places, of whose source each place knows little
            return Cotangent(product(g.base, factor), g.source, g.values, g.layout, forked=g.forked)
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
    out = joined([_scaled(p, a) for p in parts_of(g)])
    if g.rest and g.whole is not None:
        out.whole = scale(g.whole, a)
    return out


def _scaled(g: Cotangent, a: float) -> Cotangent:
    """A single summand times a constant, with what has been worked out of it."""
    if a == 1.0:
        return alone(g)
    if g.source is None or g.values is None:
        out = Cotangent(scale(g.base, a), factor=g.factor)
        out.__dict__["_chain"] = _chain_of(g)
        return out
    out = replace(
        g,
        values=scaled_values(g.source, g.values, a),
        expected=None if g.expected is None else g.expected * a,
        whole=None,
    )
    if (factor := _known_factor(g)) is not None:
        _keep_factor(out, scale(factor, a))
    if g.whole is not None:
        out.whole = scale(g.whole, a)
    return out


def scale(x: Signal, a: float) -> Signal:
    """a·x: everything but the scale stays, the law of a weight included."""
    values = None if x.values is None else x.values * a
    value = None if x.value is None else x.value * a
    corr = x.corr if a != 0.0 else np.ones_like(x.corr)
    ident = next_id()
    out = replace(
        x,
        mean=x.mean * a,
        q=x.q * a * a,
        corr=corr,
        cumulants=(x.cumulants[0] * a**3, x.cumulants[1] * a**4),
        values=values,
        value=value,
        terms=((a, x),),
        tag=_scaled_tag(x, a),
        courses=course.kept(x, ident),
        ident=ident,
    )
    return twins.inherited(out, x) if x.made is not None else out


def _scaled_tag(x: Signal, a: float) -> tuple[str, int, float] | None:
    """What a·x is of an earlier signal, if that is known of x and no matter of size."""
    if x.tag is not None and x.tag[0] in (TOTAL, "sum") and a != 0.0:
        return (TOTAL, x.tag[1], x.tag[2] / a)
    return x.tag if x.tag is not None and x.tag[0] in ("softmax", INNER) else None


def total(parts: Sequence[Cotangent]) -> Cotangent:
    """Sum of the gradients that arrive at one tensor, root by root."""
    flat = [p for g in parts for p in parts_of(g)]
    bent = [p for p in flat if p.values is not None or p.factor is not None]
    if not bent:
        return Cotangent(_added([p.base for p in flat]))
    by_root: dict[int, tuple[Signal, list[tuple[float, Cotangent]]]] = {}
    taken_apart = roots_of([p.base for p in flat])
    met = Counter(root.ident for roots in taken_apart for _, root in roots)
    alone: list[Cotangent] = []
    for part, roots in zip(flat, taken_apart, strict=True):
        if all(met[root.ident] == 1 for _, root in roots):
            alone.append(part)  # its roots are nobody else's: to add them up again would give the same
            continue
        for coefficient, root in roots:
            by_root.setdefault(root.ident, (root, []))[1].append((coefficient, part))
    found = alone + [_one_root(root, terms) for root, terms in by_root.values()]
    plain = [p.base for p in found if p.values is None and p.factor is None]
    kept = [p for p in found if p.values is not None or p.factor is not None]
    if len(kept) > _PARTS:
        kept, more = _fewer(kept)
        plain += more
    if plain:
        kept.append(Cotangent(_added(plain)))
    return joined(kept)


def _fewer(parts: Sequence[Cotangent]) -> tuple[list[Cotangent], list[Signal]]:
    """At most `_PARTS` summands, and what has to be taken as independent of its factor.

    The smallest ones on one source become one: Σ q_k E[φ_k²|u] and Σ q_k E[φ_k|u]² stay what they are, and what their
    factors have in common with others behind shared weights.
    """
    found = sorted(parts, key=_size, reverse=True)
    small = found[_PARTS - 1 :]
    key = next((p.source.key for p in small if p.source is not None and p.values is not None), None)  # of the largest
    same = [p for p in small if p.source is not None and p.values is not None and p.source.key == key]
    rest = [whole(p) for p in small if not any(p is q for q in same)]
    if not same:
        return found[: _PARTS - 1], rest
    one = mixed(same, _added([p.base for p in same]))
    if twins.known(one.base) is not None:
        level = max(sum(p.base.mean_q for p in same), 1e-300)
        factors = [scale(f, p.base.mean_q / level) for p in same if (f := factor_of(p)) is not None]
        one = standing_for(one, _added(factors))
    return [*found[: _PARTS - 1], one], rest


def _size(g: Cotangent) -> float:
    """E g² of a single summand, but for what the lengths of base and factor have in common over draws."""
    if g.whole is not None or g.source is None or g.values is None or g.layout is None:
        return whole(g).mean_q
    if g.layout.atoms != g.base.atoms:
        return whole(g).mean_q
    square = spread(g.source, np.square(g.values) @ g.source.grid.weights, g.base.q.ndim)
    return average(g.base.q * square)


def _added(bases: Sequence[Signal]) -> Signal:
    """Their sum; multiples of one signal add up to a multiple of it."""
    found: dict[int, tuple[float, Signal]] = {}
    for b in bases:
        a, root = multiple_of(1.0, b) if len(bases) > 1 else (1.0, b)
        found[root.ident] = (a + found[root.ident][0], root) if root.ident in found else (a, root)
    if len(found) < len(bases):
        bases = [root if a == 1.0 else scale(root, a) for a, root in found.values()]
    out = bases[0]
    for b in bases[1:]:
        out = add(out, b)
    return replace(out, q=narrowed(out.q)) if out.q.size > _LONG else out


def _one_root(root: Signal, terms: Sequence[tuple[float, Cotangent]]) -> Cotangent:
    """root·Σ (coefficient · factor)."""
    constant = 0.0
    on_source: dict[object, Cotangent] = {}
    others: list[Signal] = []
    for coefficient, part in _on_their_source(terms):
        if part.values is not None and part.source is not None:
            old = on_source.get(part.source.key)
            mine = _scaled(part, coefficient)
            mine = mine if mine.base is root else replace(mine, base=root, along=None, whole=None)
            on_source[part.source.key] = mine if old is None else summed(old, mine)
        elif part.factor is not None:
            others.append(part.factor if coefficient == 1.0 else scale(part.factor, coefficient))
        else:
            constant += coefficient
    if not on_source and not others:
        return Cotangent(root if constant == 1.0 else scale(root, constant))
    if len(on_source) == 1 and not others:
        only = next(iter(on_source.values()))
        return raised(only, constant)
    signals = [s for s in (factor_of(p) for p in on_source.values()) if s is not None] + others
    factor = _added(signals)
    if constant:
        factor = add(factor, _one(factor), constant)
    return Cotangent(root, factor=factor)


def _on_their_source(terms: Sequence[tuple[float, Cotangent]]) -> Sequence[tuple[float, Cotangent]]:
    """The summands, where those behind another factor are seen from the source that more than one of them stands on.

    A constant stands on any source: of 1 - m/x the next function of x meets both summands.
    """
    sources = [(_chain_of(p) or p).source for _, p in terms]
    met = Counter([s.key for s in sources if s is not None])
    if any(p.values is None and p.factor is None for _, p in terms):
        met.update(set(met))
    found: list[tuple[float, Cotangent]] = []
    for coefficient, part in terms:
        chain = _chain_of(part)
        if chain is not None and met[chain.source.key] > 1:
            part = behind(part.base, chain.before, chain.source, chain.values, chain.layout)
        found.append((coefficient, part))
    return found


def _one(like: Signal) -> Signal:
    """The number 1, of which all numbers are multiples: ident 0 is its own."""
    one = (1,) * len(like.atoms)
    return Signal(like.groups, np.ones(one), np.ones(one), np.ones_like(like.corr), like.batch, ident=0)
