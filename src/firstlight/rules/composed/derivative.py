"""``torch.autograd.grad`` inside a network: forces as gradients of an energy, terms of a differential equation.

What it gives is what the adjoint pass finds in front of the operations that came before. Gradients through it are not
followed: with the loss ⟨v, ∂y/∂x⟩ a weight W with z = W h gets (∂y/∂z) ⊗ ḣ, where ḣ is the derivative of h along v,
and what the curvature φ″ of all functions behind sends back to z.
"""

from __future__ import annotations

from typing import Any

from firstlight.graph.ir import Arg, ParameterRef, Ref
from firstlight.graph.signal import Signal, replace
from firstlight.rules.gradients.seeds import ones
from firstlight.rules.registry import BACKWARD_INDEPENDENT, Call, Grads, rule
from firstlight.rules.state.empirical import uniform
from firstlight.rules.state.layout import reshape


def _each(arg: Arg) -> tuple[Arg, ...]:
    return arg if isinstance(arg, tuple) else (arg,)


@rule(
    "grad",
    assumes=(BACKWARD_INDEPENDENT,),
    example="torch.autograd.grad(F.linear(x, torch.randn(64, 64) / 8).tanh().sum(), x, create_graph=True)[0]",
)
def grad(call: Call, outputs: Any, inputs: Any = None, grad_outputs: Any = None) -> tuple[Signal, ...]:
    """Σ_k v_k ∂y_k/∂x for each input x, v = `grad_outputs`: the adjoint pass from the outputs y back to x."""
    del outputs, inputs, grad_outputs  # as signals; asked for are the tensors themselves
    node = call.node
    named = dict(zip(("outputs", "inputs", "grad_outputs"), node.args, strict=False)) | dict(node.options)
    roots, wanted = _each(named["outputs"]), _each(named["inputs"])
    given = _each(named.get("grad_outputs")) if named.get("grad_outputs") is not None else (None,) * len(roots)
    assert call.look is not None
    assert call.back is not None
    seeds: dict[Ref, Signal] = {}
    for root, v in zip(roots, given, strict=True):
        if isinstance(root, Ref):
            y: Signal = call.look(root)
            seeds[root] = ones(y) if v is None else reshape(call.look(v), y.shape)
    found = call.back(seeds)
    results: list[Signal] = []
    for x, spec in zip(wanted, node.outputs, strict=False):
        gradient = found(x) if isinstance(x, Ref | ParameterRef) else None
        if gradient is None:
            call.caveat("how it depends on a constant, or on nothing, is not followed: the cotangent's length is kept")
            gradient = uniform(spec.shape, 0.0, sum(v.mean_q for v in seeds.values()) / max(len(seeds), 1))
        results.append(replace(gradient, tag=None))
    return tuple(results)


@grad.adjoint
def _(call: Call, grad: Any, out: Any, **arguments: Any) -> Grads:
    del grad, out, arguments
    call.caveat("gradients through a derivative are not followed: behind it are those of other paths alone")
    return {}
