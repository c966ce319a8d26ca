"""Operations on truth values: 0 and 1, functions of the sources that they came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import Signal, replace
from firstlight.rules.pointwise.merge import is_number, plus
from firstlight.rules.pointwise.products import multiply
from firstlight.rules.registry import Call, rule
from firstlight.rules.state.empirical import constant, uniform

_KNOWN = {
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}


@rule(*_KNOWN, example="x * torch.logical_and(x > -1.0, x < 0.5)")
def logical(call: Call, input: Any, other: Any) -> Signal:
    """a·b; a + b - a·b; a + b - 2a·b. Bits of other integers are unknown ones."""
    one, two = (t.value if isinstance(t, Signal) else t for t in (input, other))
    op = call.node.op
    if one is not None and two is not None:
        return constant(np.asarray(_KNOWN[op](one, two)))
    shape = call.node.outputs[0].shape
    if not (_truth(input) and _truth(other)):
        return uniform(shape, 0.5, 0.5, integer=True)
    both = multiply(call, input, other)
    if not op.endswith("and"):
        both = plus(call, plus(call, input, other), both, -1.0 if op.endswith("_or") else -2.0)
    return replace(both, integer=True) if isinstance(both, Signal) else constant(np.full(shape, both))


@rule("logical_not", "bitwise_not", example="x * torch.logical_not(x > -1.0)")
def negation(call: Call, input: Any) -> Signal:
    """1 - a."""
    if isinstance(input, Signal) and input.value is not None:
        return constant(np.logical_not(input.value) if call.node.op == "logical_not" else np.invert(input.value))
    if not _truth(input):
        return uniform(call.node.outputs[0].shape, 0.5, 0.5, integer=True)
    return replace(plus(call, 1.0, input, -1.0), integer=True)


@rule("bitwise_left_shift", "bitwise_right_shift")
def shift(call: Call, input: Any, other: Any) -> Signal:
    """Exact for bits that are known; others are unknown ones."""
    one, two = (t.value if isinstance(t, Signal) else t for t in (input, other))
    if one is None or two is None:
        return uniform(call.node.outputs[0].shape, 0.5, 0.5, integer=True)
    return constant((np.left_shift if "left" in call.node.op else np.right_shift)(one, two))


def _truth(x: Any) -> bool:
    """Whether all entries are 0 or 1: then the mean square is the mean."""
    return x in (0, 1) if is_number(x) else bool(np.allclose(x.q, x.mean, rtol=1e-6, atol=1e-9))
