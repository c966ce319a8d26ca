"""GroupNorm: a layer norm of each group of channels over all positions."""

from __future__ import annotations

from firstlight.graph.signal import Cotangent, Signal, replace
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.reductions.normalization import affine_after, affine_back, all_but, normalise, normalise_back
from firstlight.rules.registry import BACKWARD_INDEPENDENT, CONCENTRATED, Call, Grads, rule
from firstlight.rules.state import pieces
from firstlight.rules.state.layout import align, reshape


@rule(
    "group_norm", assumes=(CONCENTRATED, BACKWARD_INDEPENDENT), refs=("wu2018",),
    example="F.group_norm(x.view(-1, 16, 4), 4)",
)  # fmt: skip
def group_norm(
    call: Call, input: Signal, num_groups: int, weight: Signal | None = None, bias: Signal | None = None,
    eps: float = 1e-5,
) -> Signal:  # fmt: skip
    """GroupNorm: LayerNorm over the channels of a group and all positions."""
    x, atoms = _grouped(input, num_groups)
    hat = normalise(call, x, atoms, centre=True, eps=eps).signal
    out = pieces.reweighed(_ungrouped(hat, x, input), input)
    return affine_after(call, out, weight, bias, input.ndim - 2)


def _grouped(x: Signal, num_groups: int) -> tuple[Signal, list[int]]:
    shape = x.shape
    x = reshape(x, (shape[0], num_groups, shape[1] // num_groups, *shape[2:]))
    return x, all_but(x, (0, 1))


def _ungrouped(y: Signal, x: Signal, given: Signal) -> Signal:
    """y in the shape of `given`, which it is a multiple of and a rest, if it is one of x, `given` by groups."""
    out = reshape(y, given.shape)
    if not y.terms or out.groups != given.groups:
        return out
    return replace(
        out, terms=tuple([(a, given if t.ident == x.ident else reshape(t, given.shape)) for a, t in y.terms])
    )


@group_norm.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, num_groups: int, weight: Signal | None = None,
    bias: Signal | None = None, eps: float = 1e-5,
) -> Grads:  # fmt: skip
    del out
    g = whole(grad)
    x, atoms = _grouped(input, num_groups)
    hat = normalise(call, x, atoms, centre=True, eps=eps).signal
    inner, grads = affine_back(g, reshape(hat, input.shape), weight, bias, input.ndim - 2)
    split = reshape(inner, x.shape)
    split, x = align(split, x)
    atoms = all_but(x, (0, 1))
    back = normalise_back(call, split, x, atoms, centre=True, eps=eps)
    grads["input"] = Cotangent(_ungrouped(back, split, inner))
    return grads
