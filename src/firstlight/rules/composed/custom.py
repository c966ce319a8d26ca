"""Custom functions with a backward pass of their own: results go on as they are, gradients are what it says.

The node's arguments are the results of the operations inside and the inputs of the whole. No formula knows what a user
wrote, so the real function is run on a few sampled entries (`registry.Sampler`). Where its backward pass is the
derivative of its forward pass, the gradient goes on to the operations inside and their rules. Else it goes to the
inputs: times a factor (straight-through estimators, gradient reversal) or as measured.
"""

from __future__ import annotations

from typing import Any

from firstlight.errors import FirstlightError, MissingRuleError
from firstlight.graph.signal import Cotangent, Signal
from firstlight.rules.registry import Call, Grads, rule, several

_SCALED = "has a backward pass that is not the derivative of its forward pass: the gradient is multiplied by a factor"
_MEASURED = (
    "has a backward pass that is not the derivative of its forward pass: gradients are measured on sampled inputs"
)
_CUT = "has a backward pass that hands no gradient on"
_DERIVED = "the derivative of its forward pass is taken for its backward pass"


@rule(
    "autograd_function",
    example='type("Halved", (torch.autograd.Function,), {"forward": staticmethod(lambda _, x: x.tanh()), '
    '"backward": staticmethod(lambda _, g: g / 2), "__module__": "here"}).apply(x)',
)
def autograd_function(call: Call, results: Any, inputs: Any, function: str = "") -> tuple[Signal, ...]:
    """The results of the operations inside; those that came from code that nobody sees are measured."""
    del inputs
    if all(isinstance(r, Signal) for r in results):
        return results
    if call.sampler is None or call.look is None:
        raise MissingRuleError(
            call.node.name, got=f"the custom function {function}, whose inside cannot be seen",
            expected="operations of torch, or a sampler", action='Pass on_missing="measure".',
        )  # fmt: skip
    call.caveat(f"{_named(call, function)} does what cannot be seen: its results are measured on sampled inputs")
    return call.sampler.outputs(call.node, call.look)


@autograd_function.adjoint
def _(call: Call, grad: Any, out: Any, results: Any, inputs: Any, function: str = "") -> Grads:
    """The gradient of the results, or the gradients of the inputs that the function's own backward pass gives.

    Assumes: what is sampled has independent normal entries.
    """
    del out, inputs
    grads: tuple[Cotangent | None, ...] = grad if several(grad) else (grad,)
    name = _named(call, function)
    if call.sampler is None or call.look is None:
        call.caveat(f"{name} is not run: {_DERIVED}")
        return {"results": grads}
    try:
        own = call.sampler.own_backward(call.node, call.look, grads)
    except FirstlightError as error:
        call.caveat(f"{name} cannot be run on sampled inputs ({error.got}): {_DERIVED}")
        return {"results": grads}
    if own.plain:
        return {"results": grads}
    call.caveat(f"{name} {_MEASURED if own.measured else _SCALED if own.gradients else _CUT}")
    given = call.node.args[1]
    return {"inputs": tuple(own.gradients.get(a) for a in given) if several(given) else None}


def _named(call: Call, function: str) -> str:
    where = f" in {call.node.module}" if call.node.module else ""
    return f"{function}{where}{f' at {call.node.source}' if call.node.source else ''}"
