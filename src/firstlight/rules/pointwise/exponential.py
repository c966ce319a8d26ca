"""The exponential, of real and of complex numbers."""

from __future__ import annotations

from firstlight.graph.signal import Cotangent, Signal
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.linear.cartesian import EXP, exponential
from firstlight.rules.linear.contraction import product
from firstlight.rules.pointwise.elementwise import apply, back
from firstlight.rules.registry import GAUSSIAN_INPUT, Call, Grads, rule


@rule("exp", assumes=(GAUSSIAN_INPUT,), example="torch.exp(x)", kind="elementwise")
def exp(call: Call, input: Signal) -> Signal:
    """e^x."""
    return exponential(call, input) if input.complex else apply(call, input, EXP)


@exp.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal) -> Grads:
    """g·e^x, of complex numbers times the conjugate."""
    if not input.complex:
        return {"input": back(grad, out, input, EXP, call)}
    return {"input": Cotangent(product(whole(grad), out))}
