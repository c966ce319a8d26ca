"""Random masks inside the forward pass, and tensors of one number."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import Cotangent, Signal, next_id, replace
from firstlight.rules.gradients.gradient import scaled, whole
from firstlight.rules.registry import Call, Grads, rule
from firstlight.rules.state import course
from firstlight.rules.state.empirical import uniform
from firstlight.rules.state.layout import axis_atoms
from firstlight.theory.activations import SELU_ALPHA, SELU_SCALE


def _drop(x: Signal, rate: float, shared_axes: tuple[int, ...] = ()) -> Signal:
    """q/(1-p); pairs with masks of their own keep their moment, pairs under one mask are scaled like q."""
    if rate <= 0.0:
        return x
    if rate >= 1.0:
        return replace(x, mean=x.mean * 0.0, q=x.q * 0.0, source=None, values=None, ident=next_id())
    keep = 1.0 - rate
    shared = [a for axis in shared_axes for a in axis_atoms(x, axis)]
    factor = np.full_like(x.corr, keep)
    same = tuple(slice(None) if i in shared else 0 for i in range(x.corr.ndim))
    factor[same] = 1.0
    out = replace(
        x, q=x.q / keep, corr=x.corr * factor, source=None, values=None, terms=((1.0, x),), gaussian=False,
        value=None, weights=None, ident=next_id(),
    )  # fmt: skip
    return out if any(c.atom in shared for c in x.course) else course.mapped(out, x, lambda pairs: pairs * keep)


@rule("dropout", refs=("srivastava2014",), example="F.dropout(x, 0.2, training=True)")
def dropout(call: Call, input: Signal, p: float = 0.5, training: bool = True) -> Signal:
    """Independent masks per entry, survivors divided by 1-p."""
    del call
    return _drop(input, float(p)) if training else input


@dropout.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, p: float = 0.5, training: bool = True) -> Grads:
    del call, out, input
    if not training or p <= 0.0:
        return {"input": grad}
    return {"input": Cotangent(_drop(whole(grad), float(p)), along=grad.along)}


@rule(
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_dropout",
    example="F.dropout1d(x.view(-1, 8, 8), 0.2)",
)
def channel_dropout(call: Call, input: Signal, p: float = 0.5, training: bool = True) -> Signal:
    """One mask per channel."""
    del call
    return _drop(input, float(p), tuple(range(2, input.ndim))) if training else input


@channel_dropout.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, p: float = 0.5, training: bool = True) -> Grads:
    del call, out
    if not training or p <= 0.0:
        return {"input": grad}
    g = whole(grad)
    return {"input": Cotangent(_drop(g, float(p), tuple(range(2, input.ndim))), along=grad.along)}


_LOWEST = -SELU_SCALE * SELU_ALPHA  # what a dropped entry becomes: where SELU saturates


@rule("alpha_dropout", "feature_alpha_dropout", refs=("klambauer2017",), example="F.alpha_dropout(x + 0.5, 0.3, True)")
def alpha_dropout(call: Call, input: Signal, p: float = 0.5, training: bool = False) -> Signal:
    """a(x·d + α'(1-d)) + b with a = ((1-p)(1 + pα'²))^(-1/2), b = -apα': mean 0 and variance 1 stay.

    A mask of its own leaves a pair E a²(1-p)² x x', one mask (of a channel) a²(1-p) E x x' + what follows from α'.
    """
    keep = 1.0 - float(p)
    if not training or p <= 0.0 or keep <= 0.0:
        return input if keep > 0.0 or not training else replace(input, mean=input.mean * 0.0, q=input.q * 0.0)
    axes, a = _shared(call, input), _alpha(float(p))
    out = _drop(input, float(p), axes)
    kept = replace(out, mean=out.mean * keep * a, q=out.q * (keep * a) ** 2, terms=((keep * a, input),))
    more = (a * _LOWEST) ** 2 * p * keep - 2.0 * keep * a * a * p * _LOWEST * input.mean
    q = kept.q + more
    level, added = float(q.mean()), float(np.mean(more))
    corr = np.array(kept.corr * (kept.mean_q / level))
    atoms = [i for axis in axes for i in axis_atoms(input, axis)]
    corr[tuple(slice(None) if i in atoms else 0 for i in range(corr.ndim))] += added / level
    return replace(kept, q=q, corr=corr)


@alpha_dropout.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, p: float = 0.5, training: bool = False) -> Grads:
    del out
    if not training or p <= 0.0 or p >= 1.0:
        return {"input": grad}
    dropped = _drop(whole(grad), float(p), _shared(call, input))
    return {"input": scaled(Cotangent(dropped), (1.0 - float(p)) * _alpha(float(p)))}


def _alpha(p: float) -> float:
    return float(((1.0 - p) * (1.0 + p * _LOWEST**2)) ** -0.5)


def _shared(call: Call, x: Signal) -> tuple[int, ...]:
    """The axes that share one mask."""
    return tuple(range(2, x.ndim)) if call.node.op == "feature_alpha_dropout" else ()


def _filled(call: Call, value: float) -> Signal:
    return uniform(call.node.outputs[0].shape, value, value * value, gaussian=value == 0.0)


@rule("zeros_like", "zeros", "new_zeros", "empty_like", "new_empty", variadic=True, example="x + torch.zeros_like(x)")
def zeros(call: Call, unused: tuple[Any, ...] = ()) -> Signal:
    """Zeros."""
    del unused
    return _filled(call, 0.0)


@rule("ones_like", "ones", "new_ones", variadic=True, example="x + torch.ones_like(x)")
def ones(call: Call, unused: tuple[Any, ...] = ()) -> Signal:
    """Ones."""
    del unused
    return _filled(call, 1.0)


@rule("full_like", "full", "new_full", example="x + torch.full_like(x, 0.5)")
def full(call: Call, input: Any = None, fill_value: Any = 0.0) -> Signal:
    """One number."""
    del input
    b = float(fill_value) if not isinstance(fill_value, Signal) else fill_value.mean_mean
    return _filled(call, b)


def _nothing(call: Call, grad: Cotangent, out: Signal, *_: Any, **__: Any) -> Grads:
    """Constants pass no gradient on."""
    del call, grad, out
    return {}


for _entry in (zeros, ones, full):
    _entry.adjoint(_nothing)
