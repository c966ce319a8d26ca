"""Logarithms of densities: ln Γ and its derivative, x ln y, the logit."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Signal
from firstlight.rules.composed.composed import composed
from firstlight.rules.composed.tape import Tape
from firstlight.rules.pointwise.elementwise import simple
from firstlight.theory import special

_TINY = 1e-12


def _above(x: Array) -> Array:
    """Arguments of these functions are positive; a law's lowest nodes may lie below."""
    return np.maximum(x, _TINY)


simple("lgamma", lambda x: special.gammaln(_above(x)), lambda x: special.digamma(_above(x)),
       example="torch.lgamma(x * x + 0.5)", positive=True)  # fmt: skip
simple("digamma", lambda x: special.digamma(_above(x)), lambda x: special.trigamma(_above(x)),
       example="torch.digamma(x * x + 0.5)", positive=True)  # fmt: skip
simple("log10", lambda x: np.log10(_above(x)), lambda x: 1.0 / (np.log(10.0) * _above(x)),
       example="torch.log10(x * x + 0.5)", positive=True)  # fmt: skip
simple("logit", lambda p: np.log(_above(p)) - np.log(_above(1.0 - p)), lambda p: 1.0 / _above(p * (1.0 - p)),
       example="torch.logit(0.5 + 0.4 * torch.tanh(x))")  # fmt: skip


@composed("xlogy", example="torch.xlogy(x, x.roll(1, 1).sigmoid())")
def xlogy(tape: Tape, input: Any, other: Any) -> Signal:
    """x ln y; of a number its logarithm."""
    logs = tape("log", other) if isinstance(other, Signal) else float(np.log(other))
    return tape("mul", input, logs)


@composed("clamp_min", "clamp_max", example="x.clamp_min(-0.5)")
def clamp_min(tape: Tape, input: Signal, min: Any = None, max: Any = None) -> Signal:
    """No less (no more) than a number or another tensor."""
    bound = min if max is None else max
    upper = tape.call.node.op == "clamp_max"
    if isinstance(bound, Signal):
        return tape("minimum" if upper else "maximum", input, bound)
    return tape("clamp", input, None, bound) if upper else tape("clamp", input, bound, None)
