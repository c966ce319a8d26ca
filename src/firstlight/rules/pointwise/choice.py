"""One of two tensors, entry by entry: masks, `where`, the larger and the smaller, comparisons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from firstlight.graph.signal import INFINITY, Array, Cotangent, Signal, next_id, replace
from firstlight.rules.chains.grids import Bend
from firstlight.rules.chains.source import as_source, from_values, on_source
from firstlight.rules.gradients.gradient import scale, scaled, times, whole
from firstlight.rules.pointwise.elementwise import Pointwise, apply
from firstlight.rules.pointwise.merge import is_number, plus, reduce_to, unit
from firstlight.rules.registry import Call, Grads, rule
from firstlight.rules.state import course
from firstlight.rules.state.empirical import constant, uniform
from firstlight.rules.state.layout import align

_SURE, _SCATTERED = 12.0, 2.0  # standard deviations between two tensors of which one is always the larger; lengths


def masked(x: Signal, share: Signal, fill: float) -> Signal:
    """Entries replaced by a number where a mask holds (share: the mask as 0/1 entries).

    Infinity is kept as ±`INFINITY`.
    """
    x, m = align(x, share)
    fill = fill if math.isfinite(fill) else math.copysign(INFINITY, fill)
    keep = 1.0 - m.mean
    mean = keep * x.mean + m.mean * fill
    q = keep * x.q + m.mean * fill * fill
    ident = next_id()
    return replace(
        x, mean=mean, q=q, source=None, values=None, value=None, terms=(), weights=None, courses=course.kept(x, ident),
        ident=ident,
    )  # fmt: skip


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
    del call, out, value
    return {"input": reduce_to(Cotangent(masked(whole(grad), mask, 0.0)), input)}


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
        grads["input"] = reduce_to(Cotangent(masked(g, complement, 0.0)), input)
    if isinstance(other, Signal):
        grads["other"] = reduce_to(Cotangent(masked(g, condition, 0.0)), other)
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
    return plus(call, scale(plus(call, x, y), 0.5), size, 0.5 * sign)


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
    for name, mine, way in (("input", x, sign), ("other", y, -sign)):
        if isinstance(mine, Signal):
            grads[name] = reduce_to(times(grad, difference, source, 0.5 + 0.5 * np.sign(way * values)), mine)
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
