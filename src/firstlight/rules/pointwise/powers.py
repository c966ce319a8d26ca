"""Powers: of a tensor, of a number, and what a square knows of the product that it squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import Cotangent, Signal, replace
from firstlight.rules.chains.grids import Bend
from firstlight.rules.composed.composed import gradients_of
from firstlight.rules.composed.orders import pow_between
from firstlight.rules.composed.tape import Tape
from firstlight.rules.gradients.gradient import scale
from firstlight.rules.pointwise.elementwise import TINY, apply, back, tagged
from firstlight.rules.pointwise.homogeneous import Pointwise
from firstlight.rules.registry import GAUSSIAN_INPUT, Call, Grads, rule


def power(exponent: float) -> Pointwise:
    """x^p; odd and fractional powers as torch takes them."""
    if float(exponent).is_integer():
        n = int(exponent)
        kinks = () if n >= 0 else (0.0,)
        return Pointwise(lambda x: x.astype(float) ** n, lambda x: n * x ** (n - 1.0), Bend(kinks, positive=n < 0))
    return Pointwise(
        lambda x: np.maximum(x, 0.0) ** exponent,
        lambda x: exponent * np.maximum(x, TINY) ** (exponent - 1.0),
        Bend((0.0,), positive=True),
    )


@rule("pow", assumes=(GAUSSIAN_INPUT,), example="x ** 3")
def pow_(call: Call, input: Any, exponent: Any) -> Signal:
    """x to a constant power, or a constant to the power of x."""
    if isinstance(input, Signal) and not isinstance(exponent, Signal):
        out = apply(call, input, power(float(exponent)))
        if float(exponent) == 2.0:
            out = replace(out, tag=("square", input.ident, 0.0), sites=input.sites)
            if (product := product_of(input)) is not None:  # (c·a·b)² = c²·a²·b²
                times, *factors = product
                a, b = (apply(call, y, power(2.0)) for y in factors)
                out = replace(out, factors=(out.ident, scale(a, times * times), b))
            return out
        tag = "rms" if float(exponent) > 0.0 else "inverse rms"
        return tagged(out, input, tag, float(exponent))
    if isinstance(input, Signal):
        if exponent.numel > 1:
            return pow_between(Tape(call), input, exponent)
        return apply(call, input, power(exponent.mean_mean))
    base = float(input)
    return apply(call, exponent, _exponential(base))


@pow_.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Any, exponent: Any) -> Grads:
    if isinstance(input, Signal):
        if isinstance(exponent, Signal) and exponent.numel > 1:
            return gradients_of(pow_between, call, grad, input=input, exponent=exponent)
        p = float(exponent.mean_mean if isinstance(exponent, Signal) else exponent)
        return {"input": back(grad, out, input, power(p), call)}
    return {"exponent": back(grad, out, exponent, _exponential(float(input)))}


def product_of(x: Signal) -> tuple[float, Signal, Signal] | None:
    """(c, a, b) of x = c·a·b for independent a and b, also where x is what a sum has left of it: (y + ab) - y."""
    times = 1.0
    while len(x.terms) == 1 and (x.factors is None or x.factors[0] != x.ident):
        times, x = times * x.terms[0][0], x.terms[0][1]
    return (times, *x.factors[1:]) if x.factors is not None and x.factors[0] == x.ident else None


def _exponential(base: float) -> Pointwise:
    return Pointwise(lambda x: base**x, lambda x: np.log(base) * base**x, Bend(steep=True))
