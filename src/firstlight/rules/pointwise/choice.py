"""One of two tensors, entry by entry: masks, `where`, the larger and the smaller, comparisons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from firstlight.graph.signal import INFINITY, Array, Cotangent, Signal, next_id, replace
from firstlight.rules.attention.hiding import hides, settled
from firstlight.rules.chains.grids import Bend
from firstlight.rules.chains.laws import law_of
from firstlight.rules.chains.operands import through_sum
from firstlight.rules.chains.source import as_source, from_values, mehler, on_source
from firstlight.rules.gradients.gradient import scale, scaled, times, whole
from firstlight.rules.pointwise.elementwise import Pointwise, apply, chain_values
from firstlight.rules.pointwise.merge import is_number, plus, reduce_to, unit
from firstlight.rules.registry import Call, Grads, rule
from firstlight.rules.state import course
from firstlight.rules.state.cross import cross
from firstlight.rules.state.empirical import constant, uniform
from firstlight.rules.state.layout import align, correlations, fit_states, moments

_SURE, _SCATTERED = 12.0, 2.0  # standard deviations between two tensors of which one is always the larger; lengths


def masked(x: Signal, share: Signal, fill: float) -> Signal:
    """Entries replaced by a number where a mask holds (share: the mask as 0/1 entries).

    Infinity is kept as ±`INFINITY`.
    """
    x, m = align(x, share)
    m = settled(m, x.atoms[-1]) if hides(fill) and x.atoms else m
    fill = fill if math.isfinite(fill) else math.copysign(INFINITY, fill)
    keep = 1.0 - m.mean
    mean = keep * x.mean + m.mean * fill
    q = keep * x.q + m.mean * fill * fill
    ident = next_id()
    return replace(
        x, mean=mean, q=q, source=None, values=None, value=None, terms=(), weights=None, courses=course.kept(x, ident),
        ident=ident,
    )  # fmt: skip


def seen_through(g: Signal, share: Signal, fill: Any) -> Signal:
    """The gradient of what a mask has filled with a number elsewhere."""
    g, m = align(g, share)
    return masked(g, settled(m, g.atoms[-1]) if is_number(fill) and hides(float(fill)) and g.atoms else m, 0.0)


@rule("masked_fill", example="x.masked_fill(torch.eye(64, dtype=torch.bool)[:x.shape[0]], 0.0)")
def masked_fill(call: Call, input: Signal, mask: Signal, value: Any) -> Signal:
    """Entries under the mask become the value; -inf marks keys that a softmax does not see."""
    del call
    number = float(value) if is_number(value) else value.mean_mean
    chosen = _on_one_source(mask, number, input)
    if chosen is not None and mask.source is not None:
        return from_values(mask, mask.source, chosen)
    return masked(input, mask, number)


@masked_fill.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, mask: Signal, value: Any) -> Grads:
    del call, out
    return {"input": reduce_to(Cotangent(seen_through(whole(grad), mask, value)), input)}


@rule("where", example="torch.where(x > 0, x, 0.1 * x)")
def where(call: Call, condition: Signal, input: Any = None, other: Any = None) -> Any:
    """Choose between two tensors: exact where all stand on one source, else an unknown condition is independent."""
    if input is None or other is None:  # the indices of the true entries
        return tuple(uniform(o.shape, 0.0, 1.0, integer=True) for o in call.node.outputs)
    chosen = _on_one_source(condition, input, other)
    if chosen is not None and condition.source is not None:
        return from_values(condition, condition.source, chosen)
    if condition.value is None:
        call.caveat("the condition depends on the signal: taken as independent of the branches")
    p = condition.mean
    like = (
        next(t for t in (input, other) if isinstance(t, Signal))
        if not (is_number(input) and is_number(other))
        else condition
    )
    a = unit(like, float(input)) if is_number(input) else input
    b = unit(like, float(other)) if is_number(other) else other
    if is_number(other) and isinstance(input, Signal):
        complement = replace(condition, mean=1.0 - p, q=1.0 - p)
        return masked(input, complement, float(other))
    if is_number(input) and isinstance(other, Signal):
        return masked(other, condition, float(input))
    a, b = align(a, b)
    a, c = align(a, condition)
    b, _ = align(b, condition)
    mean = c.mean * a.mean + (1.0 - c.mean) * b.mean
    q = c.mean * a.q + (1.0 - c.mean) * b.q
    share = float(c.mean.mean())
    corr = share * a.corr + (1.0 - share) * b.corr
    return replace(
        a, mean=mean, q=q, corr=corr, source=None, values=None, value=None, terms=(), weights=None,
        gaussian=a.gaussian and b.gaussian, ident=next_id(),
    )  # fmt: skip


def _on_one_source(condition: Signal, *branches: Any) -> Array | None:
    """What a condition chooses, on the nodes of the source on which it stands; None if a branch does not."""
    source = condition.source
    if source is None or condition.values is None:
        return None
    sides: list[Array] = []
    for x in branches:
        if not isinstance(x, Signal):
            sides.append(np.full_like(condition.values, float(x)))
            continue
        side = on_source(x, source) if x.shape == condition.shape else None
        if side is None:
            return None
        sides.append(side)
    return np.where(condition.values > 0.5, sides[0], sides[1])


@where.adjoint
def _(call: Call, grad: Cotangent, out: Signal, condition: Signal, input: Any, other: Any) -> Grads:
    del call
    if condition.source is not None and out.source is not None and out.source.key == condition.source.key:
        mask = _on_one_source(condition, 1.0, 0.0)
        if mask is not None:
            pairs = (("input", input, mask), ("other", other, 1.0 - mask))
            return {n: times(grad, out, condition.source, m) for n, x, m in pairs if isinstance(x, Signal)}
    g = whole(grad)
    complement = replace(condition, mean=1.0 - condition.mean, q=1.0 - condition.mean, value=None)
    grads: dict[str, Any] = {}
    if isinstance(input, Signal):
        grads["input"] = reduce_to(Cotangent(seen_through(g, complement, other)), input)
    if isinstance(other, Signal):
        grads["other"] = reduce_to(Cotangent(seen_through(g, condition, input)), other)
    return grads


def extreme(call: Call, x: Any, y: Any, sign: float) -> Signal:
    """max(x, y) = (x + y + |x - y|)/2 (min with the other sign) on a common source or as a difference."""
    if is_number(x):
        x, y = y, x
    if is_number(y):
        k = float(y)
        pick = np.maximum if sign > 0 else np.minimum
        return apply(call, x, Pointwise(lambda v: pick(v, k), lambda v: np.where(sign * v > sign * k, 1.0, 0.0)))
    difference = plus(call, x, y, -1.0)
    if (sure := _surely(difference)) != 0.0:
        return _like(x if sure * sign > 0.0 else y, difference)
    size = apply(call, difference, Pointwise(np.abs, np.sign))
    both = plus(call, x, y)
    out = plus(call, scale(both, 0.5), size, 0.5 * sign)
    out = out if out.source is not None else _in_step(out, x, y, difference, size, sign)
    return replace(out, chosen=(out.ident, x, y, difference, sign))


def _in_step(out: Signal, x: Signal, y: Signal, difference: Signal, size: Signal, sign: float) -> Signal:
    """What x + y has in common with |d|, d = x - y: E (x + y)|d| = β·E d|d| + the product of what is left of the means.

    β = (var x - var y)/var d is the regression of x + y on d: exact for jointly Gaussian x and y, and pairs at every
    index of the cube alike. Of independent ones of which one is no Gaussian, E max² is the sum over both laws.
    """
    if size.source is None or size.values is None:
        return out
    x, y = align(x, y)
    spreads = [max(t.mean_q - t.mean_mean**2, 0.0) for t in (x, y, difference)]
    if spreads[2] <= 0.0 or out.mean_q <= 0.0:
        return out
    source = size.source
    values = chain_values(difference, source)
    if values is None:
        values = source.values
    slope = 0.5 * sign * (spreads[0] - spreads[1]) / spreads[2]
    total = source.average(values * size.values)
    more = slope * (mehler(values, source, total, size.values) - difference.mean_mean * size.mean_mean)
    mean, q = out.mean, out.q + float(more.flat[0])
    raw = moments(out) * out.mean_q + fit_states(more, out.corr.shape)
    if (exact := _of_both(x, y, sign)) is not None:
        raw = raw + (exact[0] ** 2 - out.mean_mean**2)
        mean, q = mean + (exact[0] - out.mean_mean), q + (exact[1] - float(q.mean()))
        raw[(0,) * raw.ndim] = exact[1]
    return replace(out, mean=mean, q=np.maximum(q, np.square(mean)), corr=correlations(raw, q))


def _unrelated(x: Signal, y: Signal) -> bool:
    """Whether two tensors have no more in common than their means."""
    return bool(np.allclose(cross(x, y)[0], x.mean * y.mean, rtol=0.0, atol=1e-9 * x.mean_q))


def _of_both(x: Signal, y: Signal, sign: float) -> tuple[float, float] | None:
    """E max(x, y) and E max² (or min) of independent tensors, of which one is no Gaussian; None of others."""
    if (x.gaussian and y.gaussian) or not _unrelated(x, y):
        return None
    one, other = law_of(1.0, x), law_of(1.0, y)
    if one is None or other is None:
        return None
    chosen = (np.maximum if sign > 0.0 else np.minimum)(one[0][:, None], other[0])
    return float(one[1] @ chosen @ other[1]), float(one[1] @ np.square(chosen) @ other[1])


def _surely(difference: Signal) -> float:
    """The sign of x - y, where it is the same in all entries: a maximum may start from a type's lowest number."""
    sd = np.sqrt(np.maximum(difference.q - np.square(difference.mean), 0.0))
    far = np.abs(difference.mean) > _SURE * sd
    if not bool(far.all()) or difference.scatter > _SCATTERED:
        return 0.0
    least, most = float(difference.mean.min()), float(difference.mean.max())
    return 1.0 if least > 0.0 else -1.0 if most < 0.0 else 0.0


def _like(x: Signal, wide: Signal) -> Signal:
    return x if x.shape == wide.shape else replace(align(x, wide)[0], ident=next_id())


@rule("maximum", example="torch.maximum(x, 0.5 * x)")
def maximum(call: Call, input: Any, other: Any) -> Signal:
    """The larger of two."""
    return extreme(call, input, other, 1.0)


@rule("minimum", example="torch.minimum(x, 0.5 * x)")
def minimum(call: Call, input: Any, other: Any) -> Signal:
    """The smaller of two."""
    return extreme(call, input, other, -1.0)


def _extreme_back(call: Call, grad: Cotangent, out: Signal, input: Any, other: Any) -> Grads:
    """g where the operand is the one chosen: (1 ± sign(x - y))/2 on the source of the difference."""
    del out
    return extreme_back(call, grad, input, other, 1.0 if call.node.op in ("maximum", "max") else -1.0)


def extreme_back(call: Call, grad: Cotangent, x: Any, y: Any, sign: float) -> dict[str, Any]:
    """Gradients of max(x, y) (sign 1) or min(x, y) (sign -1)."""
    difference = plus(call, x, y, -1.0) if isinstance(x, Signal) else plus(call, scale(y, -1.0), float(x))
    if (sure := _surely(difference)) != 0.0:
        parts = (("input", x, sure * sign > 0.0), ("other", y, sure * sign < 0.0))
        return {n: reduce_to(scaled(grad, float(on)), t) for n, t, on in parts if isinstance(t, Signal)}
    source, values = as_source(difference, Bend((0.0,)))
    grads: dict[str, Any] = {}
    apart = isinstance(x, Signal) and isinstance(y, Signal) and x.atoms == y.atoms and _unrelated(x, y)
    for name, mine, other, way in (("input", x, y, sign), ("other", y, x, -sign)):
        if isinstance(mine, Signal):
            chosen = times(grad, difference, source, 0.5 + 0.5 * np.sign(way * values))
            if apart:  # large entries are chosen more often than others: the mask seen from x
                a = 1.0 if mine is x else -1.0
                chosen = through_sum(chosen, difference, mine, other, a, -a)
            grads[name] = reduce_to(chosen, mine)
    return grads


maximum.adjoint(_extreme_back)


minimum.adjoint(_extreme_back)


def _compare(call: Call, input: Any, other: Any = 0.0) -> Signal:
    """A comparison: its entries are 0 or 1, known where the operands are; a threshold is a function of the source."""
    x = input if isinstance(input, Signal) else other
    a = input.value if isinstance(input, Signal) else input
    b = other.value if isinstance(other, Signal) else other
    if a is not None and b is not None:
        table = {"gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal, "eq": np.equal}
        return constant(np.asarray(table.get(call.node.op, np.not_equal)(a, b)))
    if call.node.op in ("eq", "ne"):
        p = float(call.node.op == "ne")  # of real numbers
        return uniform(x.shape, p, max(p, 1e-12), integer=True)
    sign = 1.0 if call.node.op in ("gt", "ge") else -1.0
    if not isinstance(input, Signal):
        edge, sign = float(input), -sign
    elif not isinstance(other, Signal):
        edge = float(other)
    else:
        x, edge = plus(call, input, other, -1.0), 0.0
    step = Pointwise(lambda v: np.where(sign * v > sign * edge, 1.0, 0.0), np.zeros_like, Bend((edge,)))
    return replace(apply(call, x, step), integer=True)


rule("gt", "ge", "lt", "le", "eq", "ne", example="x * (x > 0)")(_compare)
