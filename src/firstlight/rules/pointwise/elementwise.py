"""Pointwise operations: quadrature on the operation itself, exact along chains over one Gaussian source."""

from __future__ import annotations

import functools
from math import isfinite, pi, sqrt
from typing import Any

import numpy as np

from firstlight.graph.ir import Ref
from firstlight.graph.signal import INFINITY, Array, Cotangent, Signal, Source, replace, vanishes
from firstlight.rules.chains.grids import Bend
from firstlight.rules.chains.laws import changes_sign
from firstlight.rules.chains.source import as_source, from_values, on_source
from firstlight.rules.composed.composed import gradients_of
from firstlight.rules.composed.orders import clamp_between
from firstlight.rules.composed.tape import Tape
from firstlight.rules.gradients import images, places
from firstlight.rules.gradients.along import beside_factor, energy, mixed, of_chain, uneven
from firstlight.rules.gradients.gradient import scaled, seen_from, times, whole
from firstlight.rules.pointwise.homogeneous import Function, Pointwise, linear_pieces, steepness
from firstlight.rules.registry import GAUSSIAN_INPUT, Call, Grads, rule
from firstlight.rules.state import pieces, sites
from firstlight.rules.state.quadrature import remember
from firstlight.rules.state.views import source_key
from firstlight.theory import special
from firstlight.theory.activations import Activation, get

_CALM, _STEEP = 0.03, 0.15  # relative variance of a length, and exponent, from which a gradient's mean is uncertain
_EXPONENTIAL = ("sigmoid",)  # the inverse of 1 - f grows like e^u
_LUCK = 0.05  # and their product, where lengths scatter so much that a small exponent is enough
GUARD = 1e-3  # of a positive mean: bounds and numbers up to there keep a division from zero and change nothing else
_SQUARE = 0.9  # exponent from which correlations behind it are those of long samples


def of(act: Activation) -> Pointwise:
    """The pointwise function of a record in the list of nonlinearities."""
    return Pointwise(act.f, act.df, Bend(act.kinks, act.scale, act.slopes, steep=act.name in _EXPONENTIAL))


def apply(call: Call, x: Signal, p: Pointwise) -> Signal:
    """f(x): values on the nodes of x's source; on entries that are known, the function itself."""
    if x.value is not None:
        return known(x, p.f)
    if x.complex:
        call.caveat("a pointwise function of complex numbers, taken as if they were real")
    raw = x.source is None
    source, values = as_source(x, p.bend)
    linear = linear_pieces(source, p) if raw and source.key == source_key(x) else None  # and no y + c on y's source
    if raw and not x.gaussian and x.weights is None and x.numel > 1 and source.quantiles is None:
        call.caveat("the input is treated as Gaussian, but it is not a sum over many independent weights")
    if linear is None:
        out = _on_nodes(p.f, values)
    else:
        out = linear.values * source.sd[0]
        remember(source, out, linear.law, float(source.sd[0]))
    made = from_values(x, source, out, p.bend.slopes if raw and vanishes(x.mean) and not changes_sign(x) else None)
    return made if x.pieces is None else pieces.bent(made, x)


def _on_nodes(f: Function, nodes: Array) -> Array:
    with np.errstate(all="ignore"):
        values = f(nodes)
        if isfinite(float(values.sum())):
            return values
    return np.nan_to_num(values, nan=0.0, posinf=INFINITY, neginf=-INFINITY)


def back(grad: Cotangent, out: Signal, x: Signal, p: Pointwise, call: Call | None = None) -> Cotangent:
    """g·f′(x) on the same nodes."""
    if out.source is None:
        return grad
    if out.tag is not None and out.tag[0] == "inverse rms" and (heavy := sites.behind_inverse_root(whole(grad), x)):
        return Cotangent(heavy, along=None if grad.along is None else mixed([(-0.5, grad.along)]))
    values = chain_values(x, out.source)
    if values is None:
        values = out.source.values
    linear = linear_pieces(out.source, p) if x.source is None and out.source.key == source_key(x) else None
    slope = _on_nodes(p.df, values) if linear is None else linear.slopes
    after = _on_nodes(p.f, values) if out.values is None else out.values
    if linear is not None:
        remember(out.source, slope, linear.law_of_slopes, 1.0)
    unsure = out.source.noise.variance + out.source.scatter
    if call is not None and unsure >= _CALM:
        _warn_luck(call, steepness(out.source, slope) if linear is None else linear.steep, unsure)
    found, grad = times(grad, out, out.source, slope), seen_from(grad, out.source)
    if grad.along is not None and not any(p.forked for p in (grad, *grad.rest)):  # paths add up before they are scaled
        if linear is not None and grad.values is None and not grad.rest:
            beside = energy(grad), linear.kurtosis
        else:
            beside = beside_factor(grad, out.source, after, slope)
        found = scaled(found, uneven(grad, out, *beside) ** 0.5)
    image = images.of_chain(grad, x, out, out.source, after, values, slope)
    if image is not None and (more := places.gain(images.lean_of(grad, out), out.source, after, slope)) != 1.0:
        found = scaled(found, more**0.5)
    if linear is not None and grad.along is not None:
        return replace(found, along=grad.along, image=image)  # Σ g·f'(x)x = Σ g·f(x) (Euler)
    return replace(found, along=of_chain(grad, out, out.source, after, values, slope), image=image)


def _warn_luck(call: Call, steep: float, unsure: float) -> None:
    """Say so where E f'(u)² depends so much on the length of u that the luck of a draw decides the mean gradient."""
    if abs(steep) > _STEEP or abs(steep) * unsure > _LUCK:
        longest = ", and correlations behind it on how its longest samples and draws are" if steep > _SQUARE else ""
        call.caveat(
            f"the slopes' mean square goes like length^{2 * steep:.1f}: the mean gradient over draws depends on the "
            f"luck of the forward pass, of which the first order is followed{longest}"
        )


def chain_values(x: Signal, source: Source) -> Array | None:
    """Values of x on the nodes of a source, if it stands on it or is (a multiple of) it."""
    return on_source(x, source)


def known(x: Signal, f: Function) -> Signal:
    """A function of entries that are known."""
    from firstlight.rules.state.empirical import constant

    assert x.value is not None
    with np.errstate(all="ignore"):
        return constant(np.asarray(f(np.asarray(x.value, dtype=np.float64))), like=x)


def tagged(out: Signal, x: Signal, tag: str, exponent: float) -> Signal:
    """Remember that a signal is the (inverse) root of another's mean square, with its concentrated value."""
    if x.tag is None:
        return out
    kind, ident, level = x.tag
    if kind == "mean square" and exponent in (0.5, -0.5):
        out = sites.power(out, x, exponent)
        return replace(out, tag=(tag, ident, max(level, 1e-300) ** exponent))
    if kind == "rms" and tag == "inverse rms":
        return replace(out, tag=(tag, ident, 1.0 / max(level, 1e-300)))
    return out


def simple(
    name: str, f: Function, df: Function, kinks: tuple[float, ...] = (), example: str = "", positive: bool = False,
    steep: bool = False,
) -> None:  # fmt: skip
    """Register a pointwise operation without parameters."""
    p = Pointwise(f, df, Bend(kinks, positive=positive, steep=steep))

    def forward(call: Call, input: Signal) -> Signal:
        out = apply(call, input, p)
        if name == "square":
            return replace(out, tag=("square", input.ident, 0.0), sites=input.sites)
        if name == "sqrt":
            return tagged(out, input, "rms", 0.5)
        if name == "rsqrt":
            return tagged(out, input, "inverse rms", -0.5)
        return tagged(out, input, "inverse rms", -0.5) if name == "reciprocal" else out

    def backward(call: Call, grad: Cotangent, out: Signal, input: Signal) -> Grads:
        return {"input": back(grad, out, input, p, call)}

    text = example or f"torch.{name}(x)"
    rule(name, assumes=(GAUSSIAN_INPUT,), example=text, kind="elementwise")(forward).adjoint(backward)


def _activation(name: str, record: str, example: str, *arguments: str, **defaults: float | str) -> None:
    """Register a nonlinearity of `theory.activations` under torch's name and argument order."""

    @functools.cache
    def made(given: tuple[tuple[str, Any], ...]) -> Pointwise:
        return of(get(record, **dict(given)))

    def build(given: dict[str, Any]) -> Pointwise:
        wanted = {k: given.get(k, defaults.get(k)) for k in arguments}
        return made(tuple((k, v) for k, v in wanted.items() if v is not None))

    def forward(call: Call, input: Signal, **given: Any) -> Signal:
        return apply(call, input, build(given))

    def backward(call: Call, grad: Cotangent, out: Signal, input: Signal, **given: Any) -> Grads:
        return {"input": back(grad, out, input, build(given), call)}

    refs = (get(record).reference,)
    entry = rule(name, assumes=(GAUSSIAN_INPUT,), refs=refs, example=example, kind="elementwise")(forward)
    entry.parameters = ("input", *arguments)
    entry.adjoint(backward)


_activation("relu", "relu", "F.relu(x)")
_activation("relu6", "relu6", "F.relu6(x)")
_activation("leaky_relu", "leaky_relu", "F.leaky_relu(x, 0.2)", "negative_slope")
_activation("elu", "elu", "F.elu(x)", "alpha")
_activation("celu", "celu", "F.celu(x)", "alpha")
_activation("selu", "selu", "F.selu(x)")
_activation("gelu", "gelu", "F.gelu(x)", "approximate")
_activation("silu", "silu", "F.silu(x)")
_activation("mish", "mish", "F.mish(x)")
_activation("softplus", "softplus", "F.softplus(x)", "beta", "threshold")
_activation("tanh", "tanh", "torch.tanh(x)")
_activation("sigmoid", "sigmoid", "torch.sigmoid(x)")
_activation("hardtanh", "hardtanh", "F.hardtanh(x)", "min_val", "max_val")
_activation("hardsigmoid", "hardsigmoid", "F.hardsigmoid(x)")
_activation("hardswish", "hardswish", "F.hardswish(x)")
_activation("softsign", "softsign", "F.softsign(x)")
_activation("sin", "sin", "torch.sin(x)")
_activation("erf", "erf", "torch.erf(x)")
_activation("logsigmoid", "logsigmoid", "F.logsigmoid(x)")
_activation("log_sigmoid", "logsigmoid", "F.logsigmoid(x)")
_activation("tanhshrink", "tanhshrink", "F.tanhshrink(x)")

TINY = 1e-300


def _positive(x: Array) -> Array:
    """Above zero; what a law has below, where torch would give NaN and the network is not, is as the mean above."""
    below = x < 0.0
    if below.any() and not below.all():
        x = np.where(below, x[~below].mean(), x)
    return np.maximum(x, TINY)


simple("expm1", np.expm1, np.exp, steep=True)
simple("exp2", np.exp2, lambda x: np.log(2.0) * np.exp2(x), steep=True)
simple("cos", np.cos, lambda x: -np.sin(x))
simple("tan", np.tan, lambda x: 1.0 + np.square(np.tan(x)), example="torch.tan(0.1 * x)")
simple("atan", np.arctan, lambda x: 1.0 / (1.0 + x * x))
# outside of [-1, 1] torch returns NaN; what they are given lies inside
simple("asin", lambda x: np.arcsin(np.clip(x, -1.0, 1.0)), lambda x: 1.0 / np.sqrt(_positive(1.0 - x * x)),
        example="torch.asin(0.2 * torch.tanh(x))")  # fmt: skip
simple("acos", lambda x: np.arccos(np.clip(x, -1.0, 1.0)), lambda x: -1.0 / np.sqrt(_positive(1.0 - x * x)),
        example="torch.acos(0.2 * torch.tanh(x))")  # fmt: skip
simple("atanh", lambda x: np.arctanh(np.clip(x, -0.999999, 0.999999)), lambda x: 1.0 / _positive(1.0 - x * x),
        example="torch.atanh(0.2 * torch.tanh(x))")  # fmt: skip
simple("asinh", np.arcsinh, lambda x: 1.0 / np.sqrt(1.0 + x * x))
simple("sinh", np.sinh, np.cosh, example="torch.sinh(0.3 * x)", steep=True)
simple("cosh", np.cosh, np.sinh, example="torch.cosh(0.3 * x)", steep=True)
simple("square", np.square, lambda x: 2.0 * x)
simple("sqrt", lambda x: np.sqrt(np.maximum(x, 0.0)), lambda x: 0.5 / np.sqrt(_positive(x)),
       example="torch.sqrt(x * x + 0.5)", positive=True)  # fmt: skip
simple(
    "rsqrt",
    lambda x: 1.0 / np.sqrt(_positive(x)),
    lambda x: -0.5 * _positive(x) ** -1.5,
    example="torch.rsqrt(x * x + 0.5)",
    positive=True,
)
simple(
    "reciprocal",
    lambda x: 1.0 / x,
    lambda x: -1.0 / np.square(x),
    example="torch.reciprocal(x * x + 0.5)",
    positive=True,
)
simple(
    "log",
    lambda x: np.log(_positive(x)),
    lambda x: 1.0 / _positive(x),
    example="torch.log(x * x + 0.5)",
    positive=True,
)
simple("log1p", lambda x: np.log(_positive(1.0 + x)), lambda x: 1.0 / _positive(1.0 + x), example="torch.log1p(x * x)")
simple(
    "log2",
    lambda x: np.log2(_positive(x)),
    lambda x: 1.0 / (np.log(2.0) * _positive(x)),
    example="torch.log2(x * x + 0.5)",
    positive=True,
)
simple("sign", np.sign, np.zeros_like, (0.0,))
simple("erfc", lambda x: 1.0 - special.erf(x), lambda x: -2.0 / sqrt(pi) * np.exp(-x * x))
simple("round", np.round, np.zeros_like, (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5))
simple("floor", np.floor, np.zeros_like, (-2.0, -1.0, 0.0, 1.0, 2.0))
simple("ceil", np.ceil, np.zeros_like, (-2.0, -1.0, 0.0, 1.0, 2.0))
simple("frac", lambda x: x - np.trunc(x), np.ones_like)
simple("trunc", np.trunc, np.zeros_like, (-2.0, -1.0, 1.0, 2.0))
simple(
    "relu_squared",
    lambda x: np.square(np.maximum(x, 0.0)),
    lambda x: 2.0 * np.maximum(x, 0.0),
    (0.0,),
    "F.relu(x) ** 2",
)


@rule("nan_to_num", example="torch.nan_to_num(x)")
def nan_to_num(call: Call, input: Signal, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Signal:
    """Numbers stay as they are."""
    del call, nan, posinf, neginf
    return input


@nan_to_num.adjoint
def _(call: Call, grad: Cotangent, out: Signal, **given: Any) -> Grads:
    del call, out, given
    return {"input": grad}


def _clamp(low: Any, high: Any) -> Pointwise:
    a = -np.inf if low is None else float(low)
    b = np.inf if high is None else float(high)
    kinks = tuple(k for k in (a, b) if np.isfinite(k))
    slopes = (1.0, 0.0) if (a, b) == (0.0, np.inf) else None
    return Pointwise(
        lambda x: np.clip(x, a, b), lambda x: np.where((x >= a) & (x <= b), 1.0, 0.0), Bend(kinks, 1.0, slopes)
    )


@rule("clamp", assumes=(GAUSSIAN_INPUT,), example="x.clamp(-1.0, 0.5)")
def clamp(call: Call, input: Signal, min: Any = None, max: Any = None) -> Signal:
    """Clip to [min, max]. Of a sum of what is never below zero a small bound takes nothing."""
    if isinstance(min, Signal) or isinstance(max, Signal):
        return clamp_between(Tape(call), input, min, max)
    if max is None and _is_guard(call, input, min):
        return input
    return apply(call, input, _clamp(min, max))


def _is_guard(call: Call, x: Signal, least: float | None) -> bool:
    """Whether a lower bound only keeps a division from zero: x is never below it, and the bound far below its mean."""
    known = call.node.args and isinstance(call.node.args[0], Ref) and call.node.args[0].node in call.signs.never_below
    return bool(known) and least is not None and x.mean_mean > 0.0 and least <= GUARD * x.mean_mean


@clamp.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, min: Any = None, max: Any = None) -> Grads:
    if isinstance(min, Signal) or isinstance(max, Signal):
        return gradients_of(clamp_between, call, grad, input=input, min=min, max=max)
    if max is None and _is_guard(call, input, min):
        return {"input": grad}
    return {"input": back(grad, out, input, _clamp(min, max))}


def _one_bound(key: str) -> None:
    """Register `clamp_min` and `clamp_max`, clamp with one bound: a number or a tensor."""

    def forward(call: Call, input: Signal, **bound: Any) -> Signal:
        return clamp.forward(call, input, **bound)

    def backward(call: Call, grad: Cotangent, out: Signal, input: Signal, **bound: Any) -> Grads:
        return clamp.backward(call, grad, out, input, **bound) if clamp.backward is not None else {}

    entry = rule(f"clamp_{key}", assumes=(GAUSSIAN_INPUT,), example=f"x.clamp_{key}(-0.5)")(forward)
    entry.parameters = ("input", key)
    entry.adjoint(backward)


_one_bound("min")
_one_bound("max")


def _shrink(name: str, size: float, hard: bool) -> Pointwise:
    def f(x: Array) -> Array:
        return np.where(np.abs(x) > size, x if hard else x - size * np.sign(x), 0.0)

    return Pointwise(f, lambda x: np.where(np.abs(x) > size, 1.0, 0.0), Bend((-size, size)))


def _register_shrink(name: str, hard: bool) -> None:
    def forward(call: Call, input: Signal, lambd: float = 0.5) -> Signal:
        return apply(call, input, _shrink(name, float(lambd), hard))

    def backward(call: Call, grad: Cotangent, out: Signal, input: Signal, lambd: float = 0.5) -> Grads:
        del call
        return {"input": back(grad, out, input, _shrink(name, float(lambd), hard))}

    entry = rule(name, assumes=(GAUSSIAN_INPUT,), example=f"F.{name}(x)", kind="elementwise")(forward)
    entry.adjoint(backward)


_register_shrink("hardshrink", True)
_register_shrink("softshrink", False)


@rule("threshold", assumes=(GAUSSIAN_INPUT,), example="F.threshold(x, 0.1, 0.0)")
def threshold(call: Call, input: Signal, threshold: float = 0.0, value: float = 0.0) -> Signal:
    """x above the threshold, else the value."""
    return apply(call, input, _threshold(float(threshold), float(value)))


@threshold.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, threshold: float = 0.0, value: float = 0.0) -> Grads:
    del call
    return {"input": back(grad, out, input, _threshold(float(threshold), float(value)))}


def _threshold(t: float, v: float) -> Pointwise:
    slopes = (1.0, 0.0) if t == 0.0 and v == 0.0 else None
    return Pointwise(lambda x: np.where(x > t, x, v), lambda x: np.where(x > t, 1.0, 0.0), Bend((t,), 1.0, slopes))


@rule("prelu", assumes=(GAUSSIAN_INPUT,), refs=("he2015",), example="F.prelu(x, torch.tensor([0.25]))")
def prelu(call: Call, input: Signal, weight: Signal) -> Signal:
    """Slope 1 above zero, the weight below (its mean where it differs between channels)."""
    return apply(call, input, of(get("prelu", init=weight.mean_mean)))


@prelu.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, weight: Signal) -> Grads:
    del call
    return {"input": back(grad, out, input, of(get("prelu", init=weight.mean_mean)))}
