"""Products and quotients of two tensors: on one source node by node, otherwise as independent factors."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.along import Along
from firstlight.graph.signal import SILENT, Array, Cotangent, Signal, Source, once, replace
from firstlight.rules.attention.shares import are_shares, shares_back
from firstlight.rules.chains import levels
from firstlight.rules.chains.grids import Bend, finer, on_grid
from firstlight.rules.chains.operands import gated, on_product, through_product
from firstlight.rules.chains.partly import met
from firstlight.rules.chains.source import from_values
from firstlight.rules.gradients import images
from firstlight.rules.gradients.along import ITSELF, against, begun, energy, uneven
from firstlight.rules.gradients.gradient import (
    alone,
    forked,
    joined,
    parts_of,
    scale,
    scaled,
    times,
    times_signal,
    whole,
)
from firstlight.rules.gradients.leaning import along_length, divided
from firstlight.rules.linear.contraction import energy_cube, product
from firstlight.rules.pointwise import averages, own_sum
from firstlight.rules.pointwise.elementwise import Pointwise, apply, back, chain_values
from firstlight.rules.pointwise.merge import is_number, number_of, on_common_source, plus, reduce_to
from firstlight.rules.pointwise.powers import product_of
from firstlight.rules.registry import INDEPENDENT_FACTORS, Call, Grads, rule
from firstlight.rules.state import kin
from firstlight.rules.state.cross import of_twins
from firstlight.rules.state.empirical import constant, uniform
from firstlight.rules.state.layout import align, axis_atoms
from firstlight.rules.state.summation import is_centred, rooted

_TABLE = 1 << 15  # entries of a table whose places count one by one; a rotary embedding has all positions × channels
_MANY, _SCATTERED, _COMMON = 16, 0.1, 0.2  # entries per gate, and variance of ln|x|² or correlation of x, that show


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
        if other.value is None and (number := number_of(one, other)) is not None:
            return scale(other, number)
    for one, other in ((x, y), (y, x)):
        if _is_inverse_rms(other, one):
            return _by_own_norm(one, other)
    x, y = on_common_source(x, y)
    if x.source is not None and y.source is not None and x.source.key == y.source.key and x.atoms == y.atoms:
        x, y = align(x, y)
        assert x.source is not None
        assert x.values is not None
        assert y.values is not None
        assert y.source is not None
        both = finer(x.source, y.source)
        return from_values(x, both, on_grid(x.values, x.source, both) * on_grid(y.values, y.source, both))
    x, y = _levelled(x), _levelled(y)
    out = of_twins(kin.met(product(x, y), *align(x, y)), *align(x, y))
    still = (x.gaussian and _unvaried(y)) or (y.gaussian and _unvaried(x))
    if (
        not still
        and not (x.weights or y.weights or x.value is not None or y.value is not None)
        and (x.mean_mean**2 < 0.5 * x.mean_q and y.mean_mean**2 < 0.5 * y.mean_q)
    ):
        call.caveat("product of two fluctuating tensors: treated as independent factors")
    out = replace(out, gaussian=still, terms=_terms(x, y), factors=None if still else (out.ident, x, y))
    standing = None if still else levels.of_product(x, y)
    return out if standing is None else replace(out, source=standing[0], values=standing[1])


def _levelled(x: Signal) -> Signal:
    """A long known table with the means over its last axes for fields; a mask's zeros stay where they are.

    What is turned by angles, x·cos + x̃·sin, has the mean square of x in each channel, and in the mean over channels.
    """
    if x.value is None or x.q.size <= _TABLE:
        return x
    return once(x, "_level", x.q, lambda: _in_the_mean(x))


def _in_the_mean(x: Signal) -> Signal:
    if x.value is None or np.count_nonzero(x.value) < 0.9 * x.value.size:
        return x
    q, mean = np.broadcast_arrays(x.q, x.mean)
    while q.size > _TABLE:
        last = max(i for i, n in enumerate(q.shape) if n > 1)
        q, mean = q.mean(axis=last, keepdims=True), mean.mean(axis=last, keepdims=True)
    return replace(x, q=q, mean=mean)


def _by_own_norm(x: Signal, inverse_rms: Signal) -> Signal:
    """x divided by its own root mean square, written out: the mean square is exactly that of a normalisation.

    E x²/(q̂ + ε) = q/(q̂ + ε) where independence would give E x²·E 1/(q̂ + ε), which is more; q̂ is the mean of q over
    the axes that the root mean square lacks, place by place (it may differ by far between the positions of a text).
    """
    out = product(x, inverse_rms)
    assert inverse_rms.tag is not None
    like, _ = align(x, inverse_rms)
    groups = ((),) * (like.ndim - inverse_rms.ndim) + inverse_rms.groups
    gone = tuple([a for axis, group in enumerate(groups) if not group for a in axis_atoms(like, axis)])
    factor = 1.0 if inverse_rms.tag[1] == x.ident else rooted(x)[0]  # x = a·z of the z whose norm it is
    eps = max(inverse_rms.tag[2] ** -2 - x.mean_q / factor**2, 0.0)
    q = like.q / np.maximum(like.q.mean(axis=gone, keepdims=True) / factor**2 + eps, 1e-300)
    n = x.numel / max(inverse_rms.numel, 1)
    terms = (((inverse_rms.mean_q * max(1.0 - 2.0 / n, 0.0)) ** 0.5, x),)  # E 1/v of n normal entries is n/(n - 2)/E v
    return replace(out, q=q, noise=SILENT, scatter=-2.0 / n, data=True, gaussian=x.gaussian, sites=None, terms=terms)


def _unvaried(x: Signal, most: float = 0.02) -> bool:
    """Whether a factor is (nearly) the same for every entry."""
    return x.mean.size == 1 and bool(np.all(x.q - np.square(x.mean) <= most * x.q))


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
    grads: dict[str, Any] = {}
    form = begun(grad, out) if isinstance(input, Signal) and isinstance(other, Signal) else grad.along
    for name, mine, factor in (("input", input, other), ("other", other, input)):
        if isinstance(mine, Signal):
            levelled = levels.back(grad, out, mine, factor) if isinstance(factor, Signal) else None
            met = times_factor(grad, out, mine, factor) if levelled is None else levelled
            grads[name] = _along(reduce_to(met, mine), mine, factor, out, form, grad)
            if isinstance(factor, Signal):
                grads[name] = images.of_factor(grads[name], grad, mine, factor, out)
            else:
                grads[name] = images.kept(grads[name], grad, mine, out)
            if mine.weights is None and mine.value is None and isinstance(factor, Signal) and mine.batch:
                _warn_gate(call, out, mine, factor)
            if _is_inverse_rms(factor, mine):
                grads[name] = divided(_without_return(call, grads[name], mine, factor, out), mine)
    return grads


def _along(g: Cotangent, mine: Signal, factor: Any, out: Signal, form: Along | None, grad: Cotangent) -> Cotangent:
    """Both factors of a product have its Σ g·x; a factor of one entry a site has a gradient of just that size."""
    if form is None or not _one_site(mine, out):
        return alone(g)
    if mine.numel == out.numel:
        apart = isinstance(factor, Signal) and factor.numel == out.numel and out.source is None
        if apart and grad.along is not None:
            kurtosis = 1.0 + float(energy_cube(factor).flat[0])
            g = scaled(g, uneven(grad, out, energy(grad) * met(grad, out), kurtosis) ** 0.5)
        return replace(g, along=form)
    free = against(grad, out)
    level = (form.variance / free.mean_q) ** 0.5 if free.mean_q > 0.0 else 1.0
    if mine.tag is not None and mine.tag[0] == "inverse rms" and mine.source is not None and mine.values is not None:
        # Σ g·x = s/r where x·r has one length whatever r is
        values = along_length(whole(grad), mine, mine.source, mine.values)
        return Cotangent(scale(free, level), mine.source, values, mine, along=form)
    return replace(scaled(g, level), along=form)


def _without_return(call: Call, g: Cotangent, x: Signal, length: Signal, out: Signal) -> Cotangent:
    """The gradient of x in x/|x| less twice what comes back through |x|, 1/n of it, where no form of Σ g·x says it."""
    if g.along is not None and _one_site(length, out):
        return g
    call.caveat(
        "a norm written out, over another axis than that of the units: the gradient along the tensor itself, Σ g·x, is "
        "taken as that of independent g and x; the gradients inside the norm can be off by tens of per cent"
    )
    return scaled(g, max(1.0 - 2.0 * length.numel / x.numel, 0.0) ** 0.5)


def _one_site(mine: Signal, out: Signal) -> bool:
    """Whether a factor has all sites of the product, and all of its units or one entry for all of them."""
    return mine.ndim == out.ndim > 0 and mine.shape[:-1] == out.shape[:-1] and mine.shape[-1] in (1, out.shape[-1])


def _warn_gate(call: Call, out: Signal, gate: Signal, x: Signal) -> None:
    """Say so where a gate stands for many entries that are alike, or of a length that scatters from draw to draw."""
    many = out.numel // max(gate.numel, 1)
    if many < _MANY or _is_inverse_rms(gate, x):
        return
    if x.noise.variance > _SCATTERED or _alike(gate, x) > _COMMON:
        call.caveat(
            f"the gradient of a gate is Σ g·x over {many} entries, g and x taken as independent: in a draw in which "
            "both are large, or their entries alike, they are so together; it can come out too small"
        )


def _alike(gate: Signal, x: Signal) -> float:
    """Correlation of two entries of x that meet one entry of a gate."""
    if gate.ndim != x.ndim:
        return 0.0
    met = [a for axis in range(x.ndim) if not gate.groups[axis] for a in axis_atoms(x, axis)]
    return float(x.corr[tuple(1 if a in met else 0 for a in range(x.corr.ndim))]) if met else 0.0


def _is_inverse_rms(factor: Any, x: Signal) -> bool:
    """Whether a factor is 1/√(mean x²), written out, or 1/√var(y) of x = y - ȳ."""
    if not isinstance(factor, Signal) or factor.tag is None:
        return False
    return factor.tag[0] == "inverse rms" and (factor.tag[1] in (x.ident, rooted(x)[1]) or is_centred(x, factor.tag[1]))


def times_factor(grad: Cotangent, out: Signal, mine: Signal, factor: Any) -> Cotangent:
    """g·y: node by node if the product stands on one source, else as independent factors."""
    if is_number(factor) or isinstance(factor, complex):
        return scaled(grad, abs(factor) if isinstance(factor, complex) else float(factor))
    if factor.value is not None and factor.numel == 1:
        return scaled(grad, float(factor.value.reshape(-1)[0]))
    if mine.value is None and (number := number_of(factor, mine)) is not None:
        return scaled(grad, number)
    if mine.numel == out.numel and _unvaried(factor, 1e-12):  # a gain before any training
        return scaled(grad, factor.mean_mean)
    if out.source is None and any(on_product(p, out, mine, factor) for p in parts_of(grad)):
        return _behind_gate(grad, out, mine, factor)
    if out.source is None and isinstance(factor, Signal):
        grad = through_product(grad, out, factor, mine)
        if factor.source is None and factor.shape == out.shape:
            values = _on_grads_source(grad, factor)
            if values is not None:
                source, line = values
                return times(grad, factor, source, line)
    if out.source is not None and mine.shape == factor.shape:
        values = chain_values(factor, out.source)
        if values is not None:
            return forked(times(grad, out, out.source, values))
    if factor.source is not None and factor.values is not None and factor.shape == out.shape:
        return times(grad, factor, factor.source, factor.values)
    return times_signal(grad, _levelled(factor))


def _behind_gate(grad: Cotangent, out: Signal, mine: Signal, factor: Signal) -> Cotangent:
    """g·x, of which some summands go on as functions of x·y, summand by summand."""
    found: list[Cotangent] = []
    for p in parts_of(grad):
        seen = gated(p, out, mine, factor) if on_product(p, out, mine, factor) else None
        found += parts_of(times_signal(p, _levelled(factor)) if seen is None else seen)
    return joined(found)


def _on_grads_source(grad: Cotangent, factor: Signal) -> tuple[Source, Array] | None:
    """The factor on the nodes of the source on which a summand of the gradient stands, if it is that source."""
    for p in parts_of(grad):
        if p.source is not None and (values := chain_values(factor, p.source)) is not None:
            return p.source, values
    return None


@rule("neg", example="-x")
def neg(call: Call, input: Signal) -> Signal:
    """-x."""
    del call
    return scale(input, -1.0)


@neg.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal) -> Grads:
    del call, out, input
    return {"input": replace(scaled(grad, -1.0), along=grad.along)}


_INVERSE = Pointwise(lambda x: 1.0 / x, lambda x: -1.0 / np.square(x), Bend(positive=True))


def inverse(call: Call, y: Signal) -> Signal:
    """1/y."""
    if y.complex:
        from firstlight.rules.linear.cartesian import reciprocal

        return reciprocal(call, y)
    out = apply(call, y, _INVERSE)
    if y.tag is not None and y.tag[0] == "rms":
        out = replace(out, tag=("inverse rms", y.tag[1], 1.0 / max(y.tag[2], 1e-300)))
    return out


def _met_factor(x: Any, y: Signal) -> tuple[Signal, Signal] | None:
    """(a, b) of x = a·b if one factor stands on y's source: (σε)²/2σ², the exponent of a density, is ε²/2."""
    if not isinstance(x, Signal) or y.source is None or (product := product_of(x)) is None:
        return None
    scaling, a, b = product
    for one, other in ((a, b), (b, a)):
        if one.source is not None and one.source.key == y.source.key and one.atoms == y.atoms:
            return scale(one, scaling), other
    return None


@rule("div", assumes=(INDEPENDENT_FACTORS,), example="x / (1.0 + x.abs())")
def div(call: Call, input: Any, other: Any, rounding_mode: str | None = None) -> Any:
    """x/y."""
    del rounding_mode
    if is_number(other):
        return scale(input, 1.0 / float(other)) if other else scale(input, 0.0)
    if other.value is not None and other.numel == 1:
        d = float(other.value.reshape(-1)[0])
        return scale(input, 1.0 / d if d else 0.0) if isinstance(input, Signal) else input / d
    inv = averages.inverse_in(inverse(call, other), input, other)
    parts = _met_factor(input, other)
    out = multiply(call, input, inv) if parts is None else multiply(call, multiply(call, parts[0], inv), parts[1])
    if isinstance(input, Signal) and own_sum.divides_by_own_sum(input, other):
        out = own_sum.shares(out, input, other)
    return out


@div.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Any, other: Any, rounding_mode: str | None = None) -> Grads:
    if rounding_mode is not None:
        return {}
    if is_number(other):
        found = replace(scaled(grad, 1.0 / float(other) if other else 0.0), along=grad.along)
        return {"input": images.kept(found, grad, input, out)}
    if other.value is not None and other.numel == 1:
        d = float(other.value.reshape(-1)[0])
        return {"input": replace(scaled(grad, 1.0 / d if d else 0.0), along=grad.along)}
    if isinstance(input, Signal) and are_shares(input, other):
        return shares_back(grad, out, input, other)
    inv = averages.inverse_in(inverse(call, other), input, other)
    if out.source is not None and other.source is None and chain_values(other, out.source) is not None:
        inv = replace(inv, source=out.source)
    grads: dict[str, Any] = {}
    form = begun(grad, out) if isinstance(input, Signal) else grad.along
    if isinstance(input, Signal):
        direct = reduce_to(times_factor(grad, out, input, inv), input)
        if own_sum.divides_by_own_sum(input, other):
            return own_sum.back(grad, direct, out, input, other)
        grads["input"] = _along(direct, input, inv, out, form, grad)
    over = _met_by(call, grad, out, other, input)
    if other.complex:  # -1/z²
        grads["other"] = Cotangent(product(product(whole(reduce_to(over, other)), inv), inv))
        return grads
    grads["other"] = back(_along(reduce_to(over, other), other, input, out, form, grad), inv, other, _INVERSE)
    return grads


def _met_by(call: Call, grad: Cotangent, out: Signal, other: Signal, input: Any) -> Cotangent:
    """g·x, the gradient of 1/y in x/y; of a whole matrix x/σ with the gradient G, Σ G·x where that is known."""
    if not isinstance(input, Signal):
        return scaled(grad, float(input))
    tag = grad.base.tag
    if grad.rest or tag is None or tag[0] != ITSELF or other.numel != 1:
        if input.weights is not None and other.numel == 1:
            call.caveat(
                "a weight divided by a number made from it (a power iteration): the gradient of the number, Σ G·W, is "
                "taken as that of a gradient G that is independent of the weight"
            )
        parts = _met_factor(input, other)
        if parts is None:
            return times_factor(grad, out, other, input)
        own, rest = parts
        return times_factor(Cotangent(whole(times_factor(grad, out, other, rest))), out, other, own)
    return Cotangent(uniform(other.shape, 0.0, tag[2] * other.mean_q, noise=grad.base.noise))


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
        "input": reduce_to(alone(grad), input),
        "tensor1": reduce_to(times_factor(g, out, tensor1, tensor2), tensor1),
        "tensor2": reduce_to(times_factor(g, out, tensor2, tensor1), tensor2),
    }
