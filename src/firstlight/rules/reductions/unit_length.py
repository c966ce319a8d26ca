"""Vectors divided by their length: x/|x|."""

from __future__ import annotations

from math import prod

from firstlight.graph.signal import Cotangent, Signal, replace
from firstlight.rules.gradients.gradient import scale, whole
from firstlight.rules.reductions.normalization import normalise, normalise_back
from firstlight.rules.registry import CONCENTRATED, Call, Grads, rule
from firstlight.rules.state.layout import axis_atoms


@rule("normalize", assumes=(CONCENTRATED,), example="F.normalize(x, dim=-1)")
def normalize(call: Call, input: Signal, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Signal:
    """x/|x| along an axis."""
    if p != 2.0:
        call.caveat("a norm other than the Euclidean one: taken as the Euclidean one")
    del eps
    atoms = axis_atoms(input, dim)
    n = prod(input.atoms[a] for a in atoms)
    out = scale(normalise(call, input, atoms, centre=False, eps=0.0).signal, n**-0.5)
    return replace(out, tag=input.tag) if input.tag is not None and input.tag[0] == "image" else out


@normalize.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, p: float = 2.0, dim: int = 1, eps: float = 1e-12
) -> Grads:
    del out, p, eps
    atoms = axis_atoms(input, dim)
    n = prod(input.atoms[a] for a in atoms)
    return {"input": Cotangent(scale(normalise_back(call, whole(grad), input, atoms, centre=False, eps=0.0), n**-0.5))}
