"""The exponential, of real and of complex numbers."""

from __future__ import annotations

import numpy as np

from firstlight.graph.ir import Ref
from firstlight.graph.signal import Array, Cotangent, Signal
from firstlight.rules.chains.grids import Bend
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.linear.cartesian import EXP, exponential
from firstlight.rules.linear.contraction import product
from firstlight.rules.pointwise.elementwise import apply, back
from firstlight.rules.pointwise.homogeneous import Pointwise
from firstlight.rules.registry import GAUSSIAN_INPUT, Call, Grads, rule


@rule("exp", assumes=(GAUSSIAN_INPUT,), example="torch.exp(x)", kind="elementwise")
def exp(call: Call, input: Signal) -> Signal:
    """e^x; where no entry is above zero, e^-|x|, whatever the law that stands for the entries has above it."""
    return exponential(call, input) if input.complex else apply(call, input, _function(call))


@exp.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal) -> Grads:
    """g·e^x, of complex numbers times the conjugate."""
    if not input.complex:
        return {"input": back(grad, out, input, _function(call), call)}
    return {"input": Cotangent(product(whole(grad), out))}


def _fall(x: Array) -> Array:
    return np.exp(-np.abs(x))


_FALL = Pointwise(_fall, _fall, Bend(steep=True))  # its slope is that of e^x: an entry above zero stands for one below


def _function(call: Call) -> Pointwise:
    read = call.node.args[0] if call.node.args else None
    return _FALL if isinstance(read, Ref) and read.node in call.signs.never_above else EXP
