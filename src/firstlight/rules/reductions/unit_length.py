"""Vectors divided by their length: x/|x|."""

from __future__ import annotations

from math import prod

from firstlight.graph.signal import Cotangent, Signal, replace
from firstlight.rules.composed.composed import gradients_of
from firstlight.rules.composed.orders import normalize_of_order
from firstlight.rules.composed.tape import Tape
from firstlight.rules.gradients.gradient import scale, whole
from firstlight.rules.reductions.normalization import normalise, normalise_back
from firstlight.rules.registry import CONCENTRATED, Call, Grads, rule
from firstlight.rules.state.layout import axis_atoms


@rule("normalize", assumes=(CONCENTRATED,), example="F.normalize(x, dim=-1)")
def normalize(call: Call, input: Signal, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Signal:
    """x/|x| along an axis."""
    if p != 2.0:
        return normalize_of_order(Tape(call), input, p, dim, eps)
    atoms = axis_atoms(input, dim)
    n = prod(input.atoms[a] for a in atoms)
    out = scale(normalise(call, input, atoms, centre=False, eps=0.0).signal, n**-0.5)
    return replace(out, tag=input.tag) if input.tag is not None and input.tag[0] == "image" else out


@normalize.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, p: float = 2.0, dim: int = 1, eps: float = 1e-12
) -> Grads:
    del out
    if p != 2.0:
        return gradients_of(normalize_of_order, call, grad, input=input, p=p, dim=dim, eps=eps)
    atoms = axis_atoms(input, dim)
    n = prod(input.atoms[a] for a in atoms)
    return {"input": Cotangent(scale(normalise_back(call, whole(grad), input, atoms, centre=False, eps=0.0), n**-0.5))}
