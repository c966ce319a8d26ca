"""Table look-ups: two positions are alike with the probability that they hold the same index."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.gradients.gradient import scale, whole
from firstlight.rules.linear.tied import row_of
from firstlight.rules.moves.structural import from_sample, like_shape
from firstlight.rules.registry import WEIGHTS_IID, Call, Grads, rule
from firstlight.rules.state import course, sites
from firstlight.rules.state.empirical import coincidence, uniform
from firstlight.rules.state.layout import axis_atoms, offset, state_weights
from firstlight.rules.state.noise import fresh_linear
from firstlight.rules.state.summation import sum_atoms

_ROWS = 1 << 12  # normal rows of which a norm is cut
_PLACES = 3  # from which they are told apart


@rule(
    "embedding",
    assumes=(WEIGHTS_IID,),
    example="F.embedding(torch.randint(0, 50, (16, 4)), torch.randn(50, 64)) + 0 * x.sum()",
)
def embedding(
    call: Call, input: Signal, weight: Signal, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0,
) -> Signal:  # fmt: skip
    """Rows of a table, longer ones cut to a norm: q of the table, r = P(same index)·q + P(other)·mean²."""
    rows = weight.shape[0]
    del padding_idx, call
    if max_norm is not None:
        weight = _cut(weight, float(max_norm), float(norm_type))
    groups = (*input.groups, weight.groups[1])
    k = len(input.atoms)
    if input.value is not None:
        flat = np.asarray(input.value)
        same = coincidence(flat) if flat.size > 1 else np.ones(())
        ids = tuple(n for g in input.groups for n in g)
        if same.ndim != len(ids):
            same = np.full((2,) * len(ids), 1.0 / rows)
    else:
        same = np.full((2,) * k, 1.0 / max(rows, 1))
        same[(0,) * k] = 1.0
    state = weight.corr
    if rows > 1:
        at = offset(weight, 0)
        equal, other = np.take(state, 0, axis=at), np.take(state, 1, axis=at)
    else:
        equal = other = state
    extra = (1,) * equal.ndim
    cube = same.reshape(same.shape + extra)
    corr = cube * equal + (1.0 - cube) * other
    one = (1,) * corr.ndim
    feature = weight.batch[len(weight.groups[0]) :]
    out = Signal(
        groups, np.full(one, weight.mean_mean), np.full(one, weight.mean_q), corr, (*input.batch, *feature),
        gaussian=True, cumulants=weight.cumulants, wander=_wander(same, input.atoms, equal, other),
    )  # fmt: skip
    tag = None if weight.weights is None else row_of(weight.weights.name)
    made = sites.of_row(weight.weights, weight.mean_mean, weight.shape[-1])
    out = replace(out, noise=fresh_linear(out, []), tag=tag, sites=made)
    return out if input.value is None else _by_place(out, input, float(equal.flat[0]), float(other.flat[0]))


def _by_place(out: Signal, ids: Signal, equal: float, other: float) -> Signal:
    """Look-ups of a batch of sequences: how often which places hold one index (the first token may be the same in all).

    Args:
        out: What was looked up.
        ids: Indices.
        equal: Correlation of a row with itself.
        other: That of two rows.
    """
    if ids.batch != (True, False) or ids.ndim != 2 or ids.shape[1] < _PLACES or ids.value is None:
        return out
    same = course.agreeing(np.asarray(ids.value))
    return course.given(out, [(1, same * equal + (1.0 - same) * other)])


def _cut(weight: Signal, longest: float, order: float) -> Signal:
    """A table whose rows of a norm above `longest` are scaled down to it (torch writes that over the table itself).

    The share of E |w|² that is left is that of normal rows, drawn: E |w|²·min(1, m/|w|_p)²/E |w|².
    """
    q, width = weight.mean_q, weight.shape[-1]
    if q <= 0.0:
        return weight
    rows = np.random.default_rng(0).standard_normal((_ROWS, width))
    norms = np.linalg.norm(rows, order, axis=1) * q**0.5
    energy = np.square(rows).sum(axis=1)
    share = float(energy @ np.square(np.minimum(longest / np.maximum(norms, 1e-300), 1.0)) / energy.sum())
    return scale(weight, share**0.5) if share < 1.0 else weight


def _wander(same: Array, sizes: tuple[int, ...], equal: Array, other: Array) -> float:
    """`Signal.wander` of look-ups: most pairs of places hold different rows, a share π the same.

    E c² = π·c_equal² + (1 - π)·c_other² is more than the square of their mean, which keys of equal tokens feel.

    Args:
        same: π, a cube over the axes that count look-ups.
        sizes: Of these axes.
        equal: Correlations of a row with itself, in the same unit first.
        other: Those of two rows.
    """
    shares = np.ones((1,) * same.ndim)
    for i, (n, s) in enumerate(zip(sizes, same.shape, strict=True)):
        shares = shares * state_weights(n, s).reshape([-1 if k == i else 1 for k in range(same.ndim)])
    shares = shares.copy()
    shares[(0,) * same.ndim] = 0.0
    total = float(shares.sum())
    if total <= 0.0:
        return 0.0
    pi = float(np.vdot(shares, same)) / total
    one, two = float(equal.flat[0]), float(other.flat[0])
    mean, square = pi * one + (1.0 - pi) * two, pi * one**2 + (1.0 - pi) * two**2
    return float(np.clip((square - mean**2) / max(1.0 - mean**2, 1e-12), 0.0, 1.0))


@embedding.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, weight: Signal, padding_idx: int | None = None,
    max_norm: float | None = None, norm_type: float = 2.0,
) -> Grads:  # fmt: skip
    del call, out, padding_idx, max_norm, norm_type  # cut rows are the table itself: no gradient of the norm
    g = whole(grad)
    looked = [a for k in range(input.ndim) for a in axis_atoms(g, k)]
    total = sum_atoms(g, looked, keep_axes=True)
    number = max(input.numel, 1)
    rows = weight.shape[0]
    # each site's gradient lands on one of the rows: Σ over sites, spread over the rows
    q = g.mean_q * number / rows
    table = uniform(weight.shape, 0.0, max(q, 1e-300), noise=total.noise)
    return {"weight": Cotangent(replace(table, ident=next_id()))}


@rule("one_hot", example="x + F.one_hot(torch.arange(16), 64)")
def one_hot(call: Call, input: Signal, num_classes: int = -1) -> Signal:
    """One 1 per row."""
    del input, num_classes
    return one_of(call.node.outputs[0].shape, (-1,))


def one_of(shape: tuple[int, ...], axes: Sequence[int], *, same: float | None = None, kept: float = 1.0) -> Signal:
    """A single 1 along some axes, anywhere: two entries of one row are never both 1, rows are independent.

    Args:
        shape: Of the mask.
        axes: Along which the 1 has its place; all others tell rows apart.
        same: Probability that two rows have it at the same place; None for places that are equally likely.
        kept: Share of the rows that have one at all.
    """
    places = prod(shape[axis] for axis in axes)
    same = 1.0 / places if same is None else same
    out = uniform(shape, kept / places, kept / places)
    at = [a for axis in axes for a in axis_atoms(out, axis % len(shape))]
    corr = np.full(out.corr.shape, kept * (1.0 - same) / max(places - 1, 1))
    corr[tuple(slice(0, 1) if a in at else slice(None) for a in range(corr.ndim))] = kept * same
    corr[tuple(slice(None) if a in at else slice(0, 1) for a in range(corr.ndim))] = 0.0
    corr[(0,) * corr.ndim] = 1.0
    return replace(out, corr=corr)


@rule(
    "gather",
    "take_along_dim",
    assumes=("the indices are independent of the entries",),
    example="x.gather(1, torch.arange(8).expand(x.shape[0], 8))",
)
def gather(call: Call, input: Signal, dim: Any = None, index: Any = None) -> Signal:
    """Entries chosen by an index tensor: taken as a random sample of the axis."""
    del dim, index
    call.caveat("gathered by an index tensor: taken as a random sample of the entries")
    return like_shape(input, call.node.outputs[0].shape)


@gather.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: Any = None, index: Any = None) -> Grads:
    del call, dim, index
    return {"input": Cotangent(from_sample(grad, out, input))}
