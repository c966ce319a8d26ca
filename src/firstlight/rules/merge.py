"""Operations on two or more tensors: sums follow shared sources, products of independent factors multiply."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import SILENT, Cotangent, Signal, next_id, replace
from firstlight.rules import gradient
from firstlight.rules.contraction import product, sum_atoms
from firstlight.rules.cross import add
from firstlight.rules.elementwise import Pointwise, apply, back, chain_values
from firstlight.rules.empirical import constant, uniform
from firstlight.rules.gradient import scale, scaled, through_sum, times, whole
from firstlight.rules.layout import align, axis_atoms, expand, merge_axis, offset, regroup, transform, with_states
from firstlight.rules.registry import INDEPENDENT_FACTORS, Call, Grads, rule
from firstlight.rules.source import Bend, as_source, from_values, on_source

Number = int | float


def is_number(x: Any) -> bool:
    """A Python number (not a signal)."""
    return isinstance(x, int | float) and not isinstance(x, Signal)


def unit(like: Signal, value: float = 1.0) -> Signal:
    """A constant, repeated over the layout of another signal."""
    n = len(like.atoms)
    one = (1,) * n
    return Signal(
        like.groups, np.full(one, value), np.full(one, value * value), np.ones_like(like.corr), like.batch, ident=0
    )


def shifted(x: Signal, b: float) -> Signal:
    """x + b for a number b."""
    if b == 0.0:
        return x
    values = None if x.values is None else x.values + b
    out = add(x, unit(x, b))
    value = None if x.value is None else x.value + b
    source = x.source
    if x.tag is not None and x.tag[0] == "mean square":
        out = replace(out, tag=("mean square", x.tag[1], x.tag[2] + b))
    return replace(out, source=source, values=values, value=value, gaussian=x.gaussian)


def reduce_to(g: Cotangent, like: Signal) -> Cotangent:
    """Sum a gradient over the axes along which an operand was repeated."""
    shape, wanted = (g.layout or g.base).shape, like.shape
    if shape == wanted:
        return g
    base = whole(g)
    lead = base.ndim - len(wanted)
    for axis in range(base.ndim):
        mine = wanted[axis - lead] if axis >= lead else 1
        if mine == 1 and base.groups[axis]:
            base = sum_atoms(base, list(axis_atoms(base, axis)))
    return Cotangent(replace(base, groups=base.groups[lead:]))


def plus(call: Call, x: Any, y: Any, alpha: float = 1.0) -> Any:
    """x + α·y for signals or numbers."""
    if is_number(x) and is_number(y):
        return x + alpha * y
    if is_number(y):
        return shifted(x, alpha * float(y))
    if is_number(x):
        return shifted(scale(y, alpha) if alpha != 1.0 else y, float(x))
    x, y = _on_common_source(x, y)
    del call
    if x.numel > 1 and y.numel == 1 and y.value is not None:
        return shifted(x, alpha * float(y.value.reshape(-1)[0]))
    out = add(x, y, alpha)
    known = (x.value is not None or x.weights is not None) or (y.value is not None or y.weights is not None)
    if known and (x.gaussian or y.gaussian):
        # a position table or a bias added to a Gaussian tensor: still (close to) Gaussian
        out = replace(out, gaussian=True)
    return out


def _on_common_source(x: Signal, y: Signal) -> tuple[Signal, Signal]:
    """If one stands on the Gaussian that the other is, put both on it."""
    if x.shape != y.shape:
        return x, y
    if x.source is None and y.source is not None and (values := on_source(x, y.source)) is not None:
        x = replace(x, source=y.source, values=values)
    elif y.source is None and x.source is not None and (values := on_source(y, x.source)) is not None:
        y = replace(y, source=x.source, values=values)
    elif x.ident == y.ident and x.source is None and x.value is None:
        source, values = as_source(x)
        x = replace(x, source=source, values=values)
        y = x
    return x, y


@rule("add", example="x + F.linear(x, torch.randn(64, 64) / 8)")
def add_(call: Call, input: Any, other: Any, alpha: float = 1.0) -> Any:
    """x + α·y."""
    return plus(call, input, other, alpha)


@add_.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Any, other: Any, alpha: float = 1.0) -> Grads:
    del call
    return _split(grad, input, other, 1.0, alpha, out)


def _split(grad: Cotangent, x: Any, y: Any, a: float, b: float, out: Signal) -> dict[str, Any]:
    grads: dict[str, Any] = {}
    both = isinstance(x, Signal) and isinstance(y, Signal)
    if isinstance(x, Signal):
        g = through_sum(grad, out, x, y, a, b) if both else grad
        grads["input"] = reduce_to(scaled(g, a), x)
    if isinstance(y, Signal):
        g = through_sum(grad, out, y, x, b, a) if both else grad
        grads["other"] = reduce_to(scaled(g, b), y)
    return grads


@rule("sub", example="x - 0.3 * torch.tanh(x)")
def sub(call: Call, input: Any, other: Any, alpha: float = 1.0) -> Any:
    """x - α·y."""
    return plus(call, input, other, -alpha)


@sub.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Any, other: Any, alpha: float = 1.0) -> Grads:
    del call
    return _split(grad, input, other, 1.0, -alpha, out)


def multiply(call: Call, x: Any, y: Any) -> Any:
    """x·y: on one source node by node, with a number a scale, otherwise as independent factors."""
    if is_number(x) and is_number(y):
        return x * y
    if is_number(y):
        return scale(x, float(y))
    if is_number(x):
        return scale(y, float(x))
    if x.value is not None and y.value is not None:
        return constant(np.asarray(x.value * y.value))
    for one, other in ((x, y), (y, x)):
        if one.value is not None and one.numel == 1:
            return _fit(scale(other, float(one.value.reshape(-1)[0])), one)
    for one, other in ((x, y), (y, x)):
        if other.tag is not None and other.tag[0] == "inverse rms" and other.tag[1] == one.ident:
            return _by_own_norm(one, other)
    x, y = _on_common_source(x, y)
    if x.source is not None and y.source is not None and x.source.key == y.source.key and x.shape == y.shape:
        x, y = align(x, y)
        assert x.source is not None and x.values is not None and y.values is not None
        return from_values(x, x.source, x.values * y.values)
    out = product(x, y)
    still = (x.gaussian and _unvaried(y)) or (y.gaussian and _unvaried(x))
    if not still and not (x.weights or y.weights or x.value is not None or y.value is not None) and (
        x.mean_mean**2 < 0.5 * x.mean_q and y.mean_mean**2 < 0.5 * y.mean_q
    ):
        call.caveat("product of two fluctuating tensors: treated as independent factors")
    return replace(out, gaussian=still, terms=_terms(x, y))


def _by_own_norm(x: Signal, inverse_rms: Signal) -> Signal:
    """x divided by its own root mean square, written out: the mean square is exactly that of a normalisation."""
    out = product(x, inverse_rms)
    assert inverse_rms.tag is not None
    # E x²/q̂ = 1 where independence would give E x²·E 1/q̂ > 1
    level = inverse_rms.tag[2] ** 2 * x.mean_q / max(out.mean_q, 1e-300)
    return replace(out, q=out.q * level, noise=SILENT, scatter=0.0, data=True, gaussian=x.gaussian)


def _unvaried(x: Signal) -> bool:
    """Whether a factor is (nearly) the same for every entry."""
    spread = x.q - np.square(x.mean)
    return bool(np.all(spread <= 0.02 * x.q)) and x.mean.size == 1


def _terms(x: Signal, y: Signal) -> tuple[tuple[float, Signal], ...]:
    for one, other in ((x, y), (y, x)):
        if _unvaried(one) and other.numel >= one.numel and not other.weights:
            return ((one.mean_mean, other),)
    return ()


def _fit(x: Signal, like: Signal) -> Signal:
    """Add the leading axes of size 1 that a broadcast with a one-entry tensor gives."""
    missing = like.ndim - x.ndim
    return replace(x, groups=((),) * missing + x.groups) if missing > 0 else x


@rule("mul", assumes=(INDEPENDENT_FACTORS,), example="x * torch.sigmoid(1.7 * x)")
def mul(call: Call, input: Any, other: Any) -> Any:
    """x·y."""
    return multiply(call, input, other)


@mul.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Any, other: Any) -> Grads:
    del call
    grads: dict[str, Any] = {}
    for name, mine, factor in (("input", input, other), ("other", other, input)):
        if isinstance(mine, Signal):
            grads[name] = reduce_to(times_factor(grad, out, mine, factor), mine)
    return grads


def times_factor(grad: Cotangent, out: Signal, mine: Signal, factor: Any) -> Cotangent:
    """g·y: node by node if the product stands on one source, else as independent factors."""
    if is_number(factor):
        return scaled(grad, float(factor))
    if factor.value is not None and factor.numel == 1:
        return scaled(grad, float(factor.value.reshape(-1)[0]))
    if out.source is not None and mine.shape == factor.shape:
        values = chain_values(factor, out.source)
        if values is not None:
            return times(grad, out, out.source, values)
    if factor.source is not None and factor.values is not None and factor.shape == out.shape:
        return times(grad, factor, factor.source, factor.values)
    return Cotangent(product(whole(grad), factor))


@rule("neg", example="-x")
def neg(call: Call, input: Signal) -> Signal:
    """-x."""
    del call
    return scale(input, -1.0)


@neg.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal) -> Grads:
    del call, out, input
    return {"input": scaled(grad, -1.0)}


_INVERSE = Pointwise(lambda x: 1.0 / x, lambda x: -1.0 / np.square(x), Bend(positive=True))


def inverse(call: Call, y: Signal) -> Signal:
    """1/y."""
    out = apply(call, y, _INVERSE)
    if y.tag is not None and y.tag[0] == "rms":
        out = replace(out, tag=("inverse rms", y.tag[1], 1.0 / max(y.tag[2], 1e-300)))
    return out


@rule("div", assumes=(INDEPENDENT_FACTORS,), example="x / (1.0 + x.abs())")
def div(call: Call, input: Any, other: Any, rounding_mode: str | None = None) -> Any:
    """x/y."""
    del rounding_mode
    if is_number(other):
        return scale(input, 1.0 / float(other)) if other else scale(input, 0.0)
    if other.value is not None and other.numel == 1:
        d = float(other.value.reshape(-1)[0])
        return scale(input, 1.0 / d if d else 0.0) if isinstance(input, Signal) else input / d
    return multiply(call, input, inverse(call, other))


@div.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Any, other: Any, rounding_mode: str | None = None) -> Grads:
    del rounding_mode
    if is_number(other):
        return {"input": scaled(grad, 1.0 / float(other) if other else 0.0)}
    if other.value is not None and other.numel == 1:
        d = float(other.value.reshape(-1)[0])
        return {"input": scaled(grad, 1.0 / d if d else 0.0)}
    inv = inverse(call, other)
    if out.source is not None and other.source is None and chain_values(other, out.source) is not None:
        inv = replace(inv, source=out.source)
    grads: dict[str, Any] = {}
    if isinstance(input, Signal):
        grads["input"] = reduce_to(times_factor(grad, out, input, inv), input)
    over = times_factor(grad, out, other, input) if isinstance(input, Signal) else scaled(grad, float(input))
    grads["other"] = back(reduce_to(over, other), inv, other, _INVERSE)
    return grads


def join(parts: list[Signal], dim: int) -> Signal:
    """Concatenate along an axis: fields side by side, pairs weighted by how often they occur."""
    first = parts[0]
    dim %= first.ndim
    if len(parts) == 1:
        return first
    if all(p.value is not None for p in parts):
        return constant(np.concatenate([np.asarray(p.value) for p in parts], axis=dim))
    sizes = [p.shape[dim] for p in parts]
    total = sum(sizes)
    fitted: list[Signal] = []
    for p in parts:
        p = merge_axis(p, dim)
        if not p.groups[dim]:  # an axis of one entry becomes an atom like the others'
            p = _atom(p, dim)
        fitted.append(p)
    fitted = _same_layout(fitted, dim)
    at = offset(fitted[0], dim)
    rank = len(fitted[0].corr.shape)
    qs = [p.mean_q for p in fitted]
    means = [p.mean_mean for p in fitted]
    weight = sum(n * q for n, q in zip(sizes, qs, strict=True))
    same = sum(n * q * np.take(p.corr, 0, axis=at) for n, q, p in zip(sizes, qs, fitted, strict=True))
    other = sum(
        n * (n - 1) * q * np.take(p.corr, 1, axis=at) for n, q, p in zip(sizes, qs, fitted, strict=True)
    )
    cross = sum(
        a * b * m * k
        for i, (a, m) in enumerate(zip(sizes, means, strict=True))
        for j, (b, k) in enumerate(zip(sizes, means, strict=True))
        if i != j
    )
    roots = [n * q**0.5 for n, q in zip(sizes, qs, strict=True)]
    pairs = sum(roots) ** 2 - sum(n * q for n, q in zip(sizes, qs, strict=True))
    corr = np.ones((*(fitted[0].corr.shape[:at]), 2, *(fitted[0].corr.shape[at + 1 :])))
    if weight > 0:
        lower = np.asarray(same) / weight
        upper = (np.asarray(other) + cross) / pairs if pairs > 0 else np.zeros_like(lower)
        corr = np.clip(np.stack([lower, upper], axis=at), -1.0, 1.0)
    fields = {}
    for name in ("mean", "q"):
        arrays = [getattr(p, name) for p in fitted]
        if all(a.size == 1 and float(a.reshape(-1)[0]) == float(arrays[0].reshape(-1)[0]) for a in arrays):
            fields[name] = arrays[0]
            continue
        shape = [max(a.shape[i] for a in arrays) for i in range(rank)]
        wide = []
        for a, n in zip(arrays, sizes, strict=True):
            shape[at] = n
            wide.append(np.broadcast_to(a, shape))
        fields[name] = np.concatenate(wide, axis=at)
    groups = (*fitted[0].groups[:dim], (total,), *fitted[0].groups[dim + 1 :])
    noise = fitted[0].noise
    if weight > 0:
        from firstlight.rules.noise import combine

        inherited = [(n * q / weight, p.noise) for n, q, p in zip(sizes, qs, fitted, strict=True)]
        linear = combine(inherited)
        gain = 0.5 * (sum(w * p.variance for w, p in inherited) - linear.variance)
        noise = combine(inherited, 0.0, gain)
    batch = tuple(any(p.batch[i] for p in fitted) for i in range(rank))
    return Signal(
        groups, fields["mean"], fields["q"], corr, batch, gaussian=all(p.gaussian for p in fitted), noise=noise
    )


def _atom(x: Signal, dim: int) -> Signal:
    """Represent an axis of one entry by an atom (its "other" state is never met)."""
    at = offset(x, dim)

    def on_field(f: Any) -> Any:
        return np.expand_dims(f, at)

    def on_cube(c: Any) -> Any:
        return np.stack([c, np.full_like(c, 0.0)], axis=at)

    groups = (*x.groups[:dim], (1,), *x.groups[dim + 1 :])
    return transform(x, groups, (*x.batch[:at], False, *x.batch[at:]), on_field, on_cube, ("atom", dim))


def _same_layout(parts: list[Signal], dim: int) -> list[Signal]:
    """The same atoms on every axis but one."""
    base = parts[0]
    out = [base]
    for p in parts[1:]:
        for axis in range(base.ndim):
            if axis != dim and p.groups[axis] != base.groups[axis]:
                base, p = merge_axis(base, axis), merge_axis(p, axis)
        out.append(p)
    out[0] = base
    shaped = []
    for p in out:
        groups = tuple(base.groups[a] if a != dim else p.groups[a] for a in range(base.ndim))
        shaped.append(regroup(p, groups))
    states = [max(s) for s in zip(*(p.corr.shape for p in shaped), strict=True)]
    return [with_states(p, states) for p in shaped]


@rule("cat", "hstack", "vstack", example="torch.cat([x, torch.relu(x)], dim=-1)")
def cat(call: Call, tensors: tuple[Signal, ...], dim: int = 0) -> Signal:
    """Concatenation."""
    if call.node.op == "hstack":
        dim = 1 if tensors[0].ndim > 1 else 0
    return join([t for t in tensors if 0 not in t.shape], dim)


@cat.adjoint
def _(call: Call, grad: Cotangent, out: Signal, tensors: tuple[Signal, ...], dim: int = 0) -> Grads:
    from firstlight.rules.structural import take_range

    if call.node.op == "hstack":
        dim = 1 if tensors[0].ndim > 1 else 0
    g = whole(grad)
    parts: list[Cotangent] = []
    start = 0
    for t in tensors:
        n = t.shape[dim]
        parts.append(Cotangent(take_range(g, dim, start, start + n, 1)))
        start += n
    return {"tensors": tuple(parts)}


@rule("stack", example="torch.stack([x, torch.tanh(x)], dim=1).sum(1)")
def stack(call: Call, tensors: tuple[Signal, ...], dim: int = 0) -> Signal:
    """A new axis."""
    del call
    rank = tensors[0].ndim + 1
    dim %= rank
    parts = [replace(t, groups=(*t.groups[:dim], (), *t.groups[dim:]), value=None, ident=next_id()) for t in tensors]
    return join(parts, dim)


@stack.adjoint
def _(call: Call, grad: Cotangent, out: Signal, tensors: tuple[Signal, ...], dim: int = 0) -> Grads:
    from firstlight.rules.structural import take_range

    del call
    g = whole(grad)
    dim %= out.ndim
    parts: list[Cotangent] = []
    for i in range(len(tensors)):
        piece = take_range(g, dim, i, i + 1, 1)
        parts.append(Cotangent(replace(piece, groups=(*piece.groups[:dim], *piece.groups[dim + 1 :]))))
    return {"tensors": tuple(parts)}


def masked(x: Signal, share: Signal, fill: float) -> Signal:
    """Entries replaced by a number where a mask holds (share: the mask as 0/1 entries)."""
    x, m = align(x, share)
    keep = 1.0 - m.mean
    mean = keep * x.mean + m.mean * fill
    q = keep * x.q + m.mean * fill * fill
    return replace(
        x, mean=mean, q=q, source=None, values=None, value=None, terms=(), weights=None, ident=next_id()
    )


@rule("masked_fill", example="x.masked_fill(torch.eye(64, dtype=torch.bool)[:x.shape[0]], 0.0)")
def masked_fill(call: Call, input: Signal, mask: Signal, value: Any) -> Signal:
    """Entries under the mask become the value; -inf marks keys that a softmax does not see."""
    del call
    number = float(value) if is_number(value) else value.mean_mean
    return masked(input, mask, max(min(number, 1e30), -1e30))


@masked_fill.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, mask: Signal, value: Any) -> Grads:
    del call, out, value
    return {"input": reduce_to(Cotangent(masked(whole(grad), mask, 0.0)), input)}


@rule("where", example="torch.where(x > 0, x, 0.1 * x)")
def where(call: Call, condition: Signal, input: Any = None, other: Any = None) -> Any:
    """Choose between two tensors; an unknown condition is taken as independent of both."""
    if input is None or other is None:  # the indices of the true entries
        return tuple(uniform(o.shape, 0.0, 1.0, integer=True) for o in call.node.outputs)
    if condition.value is None:
        call.caveat("the condition depends on the signal: taken as independent of the branches")
    p = condition.mean
    like = next(t for t in (input, other) if isinstance(t, Signal)) if not (is_number(input) and is_number(other)) else condition
    a = unit(like, float(input)) if is_number(input) else input
    b = unit(like, float(other)) if is_number(other) else other
    if is_number(other) and isinstance(input, Signal):
        complement = replace(condition, mean=1.0 - p, q=1.0 - p)
        return masked(input, complement, max(min(float(other), 1e30), -1e30))
    if is_number(input) and isinstance(other, Signal):
        return masked(other, condition, max(min(float(input), 1e30), -1e30))
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


@where.adjoint
def _(call: Call, grad: Cotangent, out: Signal, condition: Signal, input: Any, other: Any) -> Grads:
    del call, out
    g = whole(grad)
    complement = replace(condition, mean=1.0 - condition.mean, q=1.0 - condition.mean, value=None)
    grads: dict[str, Any] = {}
    if isinstance(input, Signal):
        grads["input"] = reduce_to(Cotangent(masked(g, complement, 0.0)), input)
    if isinstance(other, Signal):
        grads["other"] = reduce_to(Cotangent(masked(g, condition, 0.0)), other)
    return grads


@rule("addcmul", example="torch.addcmul(x, x, torch.tanh(x), value=0.5)")
def addcmul(call: Call, input: Signal, tensor1: Signal, tensor2: Signal, value: float = 1.0) -> Signal:
    """x + value·a·b."""
    return plus(call, input, multiply(call, tensor1, tensor2), value)


@addcmul.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, tensor1: Signal, tensor2: Signal, value: float = 1.0
) -> Grads:
    del call
    g = scaled(grad, value)
    return {
        "input": reduce_to(grad, input),
        "tensor1": reduce_to(times_factor(g, out, tensor1, tensor2), tensor1),
        "tensor2": reduce_to(times_factor(g, out, tensor2, tensor1), tensor2),
    }


@rule("lerp", example="torch.lerp(x, torch.tanh(x), 0.3)")
def lerp(call: Call, input: Signal, end: Signal, weight: Any) -> Signal:
    """(1 - w)·x + w·end."""
    w = float(weight) if is_number(weight) else weight.mean_mean
    return plus(call, scale(input, 1.0 - w), scale(end, w))


@lerp.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, end: Signal, weight: Any) -> Grads:
    del call, out
    w = float(weight) if is_number(weight) else weight.mean_mean
    return {"input": reduce_to(scaled(grad, 1.0 - w), input), "end": reduce_to(scaled(grad, w), end)}


def _extreme(call: Call, x: Any, y: Any, sign: float) -> Signal:
    """max(x, y) = (x + y + |x - y|)/2 (min with the other sign) on a common source or as a difference."""
    if is_number(x):
        x, y = y, x
    if is_number(y):
        k = float(y)
        pick = np.maximum if sign > 0 else np.minimum
        return apply(call, x, Pointwise(lambda v: pick(v, k), lambda v: np.where(sign * v > sign * k, 1.0, 0.0)))
    difference = plus(call, x, y, -1.0)
    size = apply(call, difference, Pointwise(np.abs, np.sign))
    return plus(call, scale(plus(call, x, y), 0.5), size, 0.5 * sign)


@rule("maximum", example="torch.maximum(x, 0.5 * x)")
def maximum(call: Call, input: Any, other: Any) -> Signal:
    """The larger of two."""
    return _extreme(call, input, other, 1.0)


@rule("minimum", example="torch.minimum(x, 0.5 * x)")
def minimum(call: Call, input: Any, other: Any) -> Signal:
    """The smaller of two."""
    return _extreme(call, input, other, -1.0)


def _half(call: Call, grad: Cotangent, out: Signal, input: Any, other: Any) -> Grads:
    del call, out
    g = whole(grad)
    half = replace(g, mean=g.mean * 0.5, q=g.q * 0.5, ident=next_id())
    return {
        name: reduce_to(Cotangent(half), s) for name, s in (("input", input), ("other", other)) if isinstance(s, Signal)
    }


maximum.adjoint(_half)
minimum.adjoint(_half)


def _compare(call: Call, input: Any, other: Any = 0.0) -> Signal:
    """A comparison: its entries are 0 or 1, known where the operands are."""
    x = input if isinstance(input, Signal) else other
    a = input.value if isinstance(input, Signal) else input
    b = other.value if isinstance(other, Signal) else other
    if a is not None and b is not None:
        table = {"gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal, "eq": np.equal}
        return constant(np.asarray(table.get(call.node.op, np.not_equal)(a, b)))
    p = 0.5 if call.node.op in ("gt", "ge", "lt", "le") else 0.0
    return uniform(x.shape, p, max(p, 1e-12), integer=True)


rule("gt", "ge", "lt", "le", "eq", "ne")(_compare)

__all__ = ["gradient", "join", "multiply", "plus", "reduce_to", "shifted", "unit"]
_ = expand
