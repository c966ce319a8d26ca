"""Special functions and others that networks seldom use: quadrature on the function itself needs no more than this."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal
from firstlight.rules.chains.grids import Bend
from firstlight.rules.pointwise.elementwise import apply, back, simple
from firstlight.rules.pointwise.homogeneous import Pointwise
from firstlight.rules.reductions.ordering import indices
from firstlight.rules.registry import GAUSSIAN_INPUT, Call, Grads, rule
from firstlight.theory import special

_EDGE = 1.0 - 1e-12  # functions on (-1, 1) or (0, 1) are taken up to here: torch's are infinite at the end
_PERIODS = 8  # of a remainder at each side of zero whose jumps the quadrature is split at


def _inside(x: Array) -> Array:
    return np.clip(x, -_EDGE, _EDGE)


def _share(x: Array) -> Array:
    return np.clip(x, 1.0 - _EDGE, _EDGE)


def _above(x: Array) -> Array:
    """Arguments of some are positive; a law's lowest nodes may lie below."""
    return np.maximum(x, 1e-12)


def _over(top: Array, x: Array, at_zero: float) -> Array:
    """top/x with its limit at 0."""
    away = np.abs(x) > 1e-6
    return np.where(away, top / np.where(away, x, 1.0), at_zero)


_i0, _i1 = partial(special.bessel_i, 0), partial(special.bessel_i, 1)
_i0e, _i1e = partial(special.bessel_i_scaled, 0), partial(special.bessel_i_scaled, 1)
_j0, _j1 = partial(special.bessel_j, 0), partial(special.bessel_j, 1)

simple("positive", lambda x: x, np.ones_like)
simple("sgn", np.sign, np.zeros_like, (0.0,))
simple("deg2rad", np.deg2rad, lambda x: np.full_like(x, np.pi / 180.0))
simple("rad2deg", np.rad2deg, lambda x: np.full_like(x, 180.0 / np.pi))
simple("sinc", np.sinc, lambda x: _over(np.cos(np.pi * x) - np.sinc(x), x, 0.0))
simple(
    "acosh", lambda x: np.arccosh(np.maximum(x, 1.0)), lambda x: 1.0 / np.sqrt(np.maximum(x * x - 1.0, 1e-300)),
    example="torch.acosh(x * x + 1.5)",
)  # fmt: skip
simple(
    "log10", lambda x: np.log10(np.maximum(x, 1e-300)), lambda x: 1.0 / (np.log(10.0) * np.maximum(x, 1e-300)),
    example="torch.log10(x * x + 0.5)", positive=True,
)  # fmt: skip
simple(
    "erfinv", lambda x: special.erfinv(_inside(x)),
    lambda x: 0.5 * np.sqrt(np.pi) * np.exp(np.square(special.erfinv(_inside(x)))),
    example="torch.erfinv(0.9 * x.tanh())",
)  # fmt: skip
simple("lgamma", lambda x: special.gammaln(_above(x)), lambda x: special.digamma(_above(x)),
       example="torch.lgamma(x * x + 1.0)", positive=True)  # fmt: skip
simple("digamma", lambda x: special.digamma(_above(x)), lambda x: special.trigamma(_above(x)),
       example="torch.digamma(x * x + 1.0)", positive=True)  # fmt: skip
simple("i0", _i0, _i1, steep=True)
simple("special_i0e", _i0e, lambda x: _i1e(x) - np.sign(x) * _i0e(x), (0.0,), "torch.special.i0e(x)")
simple("special_i1", _i1, lambda x: _i0(x) - _over(_i1(x), x, 0.5), example="torch.special.i1(x)", steep=True)
simple("special_i1e", _i1e, lambda x: _i0e(x) - _over(_i1e(x), x, 0.5) - np.sign(x) * _i1e(x), (0.0,),
       "torch.special.i1e(x)")  # fmt: skip
simple("special_bessel_j0", _j0, lambda x: -_j1(x), example="torch.special.bessel_j0(x.detach()) + x")
simple("special_bessel_j1", _j1, lambda x: _j0(x) - _over(_j1(x), x, 0.5),
       example="torch.special.bessel_j1(x.detach()) + x")  # fmt: skip
simple("special_ndtr", special.ndtr, special.normal_density, example="torch.special.ndtr(x)")
simple("special_log_ndtr", special.log_ndtr, lambda x: np.exp(np.log(special.normal_density(x)) - special.log_ndtr(x)),
       example="torch.special.log_ndtr(x)")  # fmt: skip
simple(
    "special_ndtri", lambda x: special.ndtri(_share(x)),
    lambda x: 1.0 / special.normal_density(special.ndtri(_share(x))), example="torch.special.ndtri(x.sigmoid())",
)  # fmt: skip
simple("special_erfcx", special.erfcx, lambda x: 2.0 * x * special.erfcx(x) - 2.0 / np.sqrt(np.pi),
       example="torch.special.erfcx(x.abs())")  # fmt: skip
simple("special_entr", special.entropy, lambda x: -np.log(np.maximum(x, 1e-300)) - 1.0,
       example="torch.special.entr(x.sigmoid())")  # fmt: skip


def _with_number(name: str, example: str, argument: str, make: Any) -> None:
    """Register a pointwise operation that has one more number."""

    def forward(call: Call, input: Signal, **given: Any) -> Signal:
        return apply(call, input, make(given.get(argument)))

    def backward(call: Call, grad: Cotangent, out: Signal, input: Signal, **given: Any) -> Grads:
        return {"input": back(grad, out, input, make(given.get(argument)), call)}

    entry = rule(name, assumes=(GAUSSIAN_INPUT,), example=example, kind="special")(forward)
    entry.parameters = ("input", argument)
    entry.adjoint(backward)


def _logit(eps: float | None) -> Pointwise:
    low = 1.0 - _EDGE if eps is None else float(eps)
    kinks = (low, 1.0 - low) if low < 0.5 else ()

    def slope(x: Array) -> Array:
        p = np.clip(x, low, 1.0 - low)
        return np.where((x >= low) & (x <= 1.0 - low), 1.0 / (p * (1.0 - p)), 0.0)

    return Pointwise(lambda x: special.logit(np.clip(x, low, 1.0 - low)), slope, Bend(kinks))


def _step(value: Any) -> Pointwise:
    at_zero = value.mean_mean if isinstance(value, Signal) else float(value or 0.0)
    return Pointwise(lambda x: np.heaviside(x, at_zero), np.zeros_like, Bend((0.0,)))


_with_number("logit", "torch.logit(x.sigmoid())", "eps", _logit)
_with_number("heaviside", "torch.heaviside(x.detach(), torch.tensor(0.5)) + x", "values", _step)


def _rest(of: Any, divisor: float) -> Pointwise:
    """What is left when multiples of the divisor are taken away: it jumps at each of them."""
    jumps = tuple(k * divisor for k in range(-_PERIODS, _PERIODS + 1))
    return Pointwise(lambda x: of(x, divisor), np.ones_like, Bend(jumps))


@rule("fmod", "remainder", assumes=(GAUSSIAN_INPUT,), example="torch.fmod(x, 0.7)")
def fmod(call: Call, input: Signal, other: Any) -> Signal:
    """x - c·trunc(x/c), or with floor for `remainder`."""
    if input.integer or isinstance(other, Signal):
        return indices.forward(call, input)[0]
    of = np.fmod if call.node.op == "fmod" else np.mod
    return apply(call, input, _rest(of, float(other)))


@fmod.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, other: Any) -> Grads:
    if input.integer or isinstance(other, Signal):
        return {}
    return {"input": back(grad, out, input, _rest(np.fmod, float(other)), call)}


@rule("polygamma", assumes=(GAUSSIAN_INPUT,), example="torch.polygamma(1, x * x + 1.0)")
def polygamma(call: Call, n: int, input: Signal) -> Signal:
    """The n-th derivative of the digamma function."""
    return apply(call, input, _polygamma(int(n)))


@polygamma.adjoint
def _(call: Call, grad: Cotangent, out: Signal, n: int, input: Signal) -> Grads:
    return {"input": back(grad, out, input, _polygamma(int(n)), call)}


def _polygamma(n: int) -> Pointwise:
    return Pointwise(lambda x: special.polygamma(n, x), lambda x: special.polygamma(n + 1, x), Bend(positive=True))
