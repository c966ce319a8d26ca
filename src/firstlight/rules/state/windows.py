"""Fixed linear maps along positions: windows of convolutions and poolings, padding, interpolation.

Each axis has a matrix A (outputs × inputs). A convolution with independent weights sums mean squares,
q'(s) = Σ_i A_si q(i); a fixed map with entries A adds pairs,
q'(s) = Σ_i A_si² q(i) + ĉ·[(Σ_i A_si √q(i))² - Σ_i A_si² q(i)].
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from firstlight.graph.signal import Array, Signal, next_id, replace
from firstlight.rules.state.layout import (
    axis_atoms,
    correlations,
    expand,
    merge_axis,
    moments,
    offset,
    profile,
    state_weights,
)


def single(x: Signal, axes: Sequence[int]) -> Signal:
    """Each of the axes as one atom."""
    for axis in axes:
        if len(x.groups[axis]) > 1:
            x = merge_axis(x, axis)
    return x


def with_atom(x: Signal, axis: int) -> Signal:
    """An atom of size 1 for an axis that has none (fields and cubes of window maps then need no exception)."""
    if x.groups[axis]:
        return x
    at = offset(x, axis)

    def stretch(c: Array) -> Array:
        return np.stack([c, c], axis=at)

    groups = (*x.groups[:axis], (1,), *x.groups[axis + 1 :])
    batch = (*x.batch[:at], False, *x.batch[at:])
    return replace(
        x, groups=groups, batch=batch, mean=np.expand_dims(x.mean, at), q=np.expand_dims(x.q, at),
        corr=stretch(x.corr), source=None, values=None, ident=next_id(),
    )  # fmt: skip


def drop_single(x: Signal) -> Signal:
    """Remove atoms of size 1."""
    gone = [i for i, n in enumerate(x.atoms) if n == 1]
    if not gone:
        return x
    corr = x.corr
    for i in reversed(gone):
        corr = np.take(corr, 0, axis=i)
    keep = [i for i in range(len(x.atoms)) if i not in gone]
    groups = tuple(tuple(n for n in g if n != 1) for g in x.groups)
    at = tuple(gone)
    mean, q = x.mean.squeeze(axis=at), x.q.squeeze(axis=at)
    return replace(x, groups=groups, mean=mean, q=q, corr=corr, batch=tuple(x.batch[i] for i in keep))


def along(field: Array, at: int, a: Array) -> Array:
    """A applied to a field along one atom; the field stays of size 1 where it stays uniform."""
    if field.shape[at] > 1:
        return np.moveaxis(np.tensordot(a, field, axes=([1], [at])), 0, at)
    rows = a.sum(axis=1)
    if float(rows.max() - rows.min()) <= 1e-12 * max(float(np.abs(rows).max()), 1e-300):
        return field * rows[0]
    return field * rows.reshape((1,) * at + (-1,) + (1,) * (field.ndim - at - 1))


@functools.lru_cache(maxsize=1024)
def _pair_states(key: bytes, out: int, size: int) -> Array:
    """Weights of input pair states (same, far, next) for output pairs (same, far, next), shape (3, 3)."""
    a = np.frombuffer(key).reshape(out, size)
    table = np.zeros((3, 3))

    def states(rows: Array, others: Array) -> Array:
        same = float(np.sum(rows * others))
        near = float(np.sum(rows[:, 1:] * others[:, :-1]) + np.sum(rows[:, :-1] * others[:, 1:]))
        total = float(np.sum(rows.sum(axis=1) * others.sum(axis=1)))
        return np.array([same, total - same - near, near]) / len(rows)

    table[0] = states(a, a)
    table[2] = states(a[1:], a[:-1]) if out > 1 else table[0]
    column = a.sum(axis=0)
    everything = states(column[None], column[None]) / 1.0
    pairs = out * (out - 1.0)
    if pairs > 0:
        rest = everything - out * table[0] - 2.0 * (out - 1.0) * table[2]
        far = out * (out - 1.0) - 2.0 * (out - 1.0)
        table[1] = rest / far if far > 0 else table[2]
    else:
        table[1] = table[0]
    return table


def pair_means(cube: Array, at: int, a: Array) -> Array:
    """Mean over the pairs of entries that two outputs (same, far, next) of a matrix of taps see, along one atom."""
    table = _pair_states(np.ascontiguousarray(a).tobytes(), *a.shape)
    table = table / np.maximum(table.sum(axis=1, keepdims=True), 1e-12)
    three = cube if cube.shape[at] == 3 else np.take(cube, [0, 1, 1], axis=at)
    return np.moveaxis(np.moveaxis(three, at, -1) @ table.T, -1, at)


def fixed_map(x: Signal, maps: Mapping[int, Array]) -> Signal:
    """Apply a known matrix along each of some axes (average pooling, interpolation, padding and their adjoints)."""
    x = single(replace(x, source=None, values=None, value=None), list(maps))
    for axis in maps:
        x = with_atom(x, axis)
    mean, diagonal, root = x.mean, x.q, np.sqrt(x.q)
    first = corr = np.broadcast_to(moments(x), x.corr.shape)
    groups = list(x.groups)
    for axis, a in maps.items():
        at = offset(x, axis)
        mean, root = along(mean, at, a), along(root, at, a)
        diagonal = along(diagonal, at, np.square(a))
        table = _pair_states(np.ascontiguousarray(a).tobytes(), *a.shape)
        three = corr if corr.shape[at] == 3 else np.concatenate([corr, np.take(corr, [1], axis=at)], axis=at)
        moved = np.moveaxis(three, at, -1)
        corr = np.moveaxis(moved @ table.T, -1, at)
        groups[axis] = (a.shape[0],)
    origin = (0,) * corr.ndim
    # ĉ of a window: what the cube says of its energy, split into the diagonal and the pairs
    uniform_diagonal, uniform_all = _uniform(x, maps)
    pairs = uniform_all - uniform_diagonal
    hat = (float(corr[origin]) - uniform_diagonal) / pairs if abs(pairs) > 1e-12 else 0.0
    q = np.maximum(diagonal + hat * (np.square(root) - diagonal), np.square(mean))
    corr = correlations(_apart(replace(x, corr=first), maps, corr, uniform_diagonal), q)
    out = replace(
        x, groups=tuple(groups), mean=mean, q=q, corr=corr, terms=(), weights=None,
        gaussian=x.gaussian, integer=False, cumulants=_summed_cumulants(x, maps, hat), ident=next_id(),
    )  # fmt: skip
    return drop_single(out)


def _summed_cumulants(x: Signal, maps: Mapping[int, Array], hat: float) -> tuple[float, float]:
    """Third and fourth cumulants of y = Σ A_i x_i, from those of the entries.

    The r-th one is κ_r·[Σ A^r + ρ^(r-1)·((Σ A)^r - Σ A^r)]: r different entries, each of which goes with the others by
    the correlation ρ alone, have a joint cumulant of order ρ^(r-1) (a tree of r - 1 links).

    Args:
        x: The signal.
        maps: The matrix along each axis.
        hat: Mean correlation of two entries that an output sums, means included.
    """
    if x.cumulants == (0.0, 0.0) or x.mean_q <= 0.0:
        return x.cumulants
    level = min(x.mean_mean * (x.mean_mean / x.mean_q), 1.0)
    rho = min(max((hat - level) / (1.0 - level), 0.0), 1.0) if level < 1.0 else 0.0
    found: list[float] = []
    for r, kappa in zip((3, 4), x.cumulants, strict=True):
        own = prod(float(np.power(a, r).sum(axis=1).mean()) for a in maps.values())
        every = prod(float(np.power(a.sum(axis=1), r).mean()) for a in maps.values())
        found.append(kappa * (own + rho ** (r - 1) * (every - own)))
    return found[0], found[1]


def _apart(x: Signal, maps: Mapping[int, Array], averaged: Array, diagonal: float) -> Array:
    """Keep what tells samples (or units) apart through an average over positions.

    Two entries that differ by v = 1 - c at each position differ on average over them by v·Σ A² at least, where
    differences do not cancel between positions, and by what is left of that where entries themselves cancel. The
    cube's means over all displacements may say less, down to nothing at all, where a few positions carry the signal
    (dark borders of images).
    """
    at = {offset(x, axis) for axis in maps}
    here = tuple(slice(0, 1) if i in at else slice(None) for i in range(averaged.ndim))
    own = float(averaged[(0,) * averaged.ndim])
    most = own - (1.0 - x.corr[here]) * min(diagonal, own)
    out = averaged.copy()
    out[here] = np.where(x.corr[here] > 0.0, np.minimum(averaged[here], most), averaged[here])
    return out


def _uniform(x: Signal, maps: Mapping[int, Array]) -> tuple[float, float]:
    """Mean over outputs of Σ A² and (Σ A)² for all axes together."""
    diagonal, everything = 1.0, 1.0
    for a in maps.values():
        diagonal *= float(np.square(a).sum(axis=1).mean())
        everything *= float(np.square(a.sum(axis=1)).mean())
    return diagonal, everything


def pair_average(x: Signal, atoms: Sequence[int], cube: Array | None = None) -> float:
    """Mean correlation over pairs that differ in at least one of the atoms and in no other; or that of another cube."""
    cube = x.corr if cube is None else cube
    if len(atoms) == 1 and cube.shape[atoms[0]] == 2:  # the same entries but for one index
        return cube.item(tuple([int(i == atoms[0]) for i in range(cube.ndim)])) if x.atoms[atoms[0]] > 1 else 0.0
    weights, total = _pair_weights(x.atoms, cube.shape, tuple(atoms))
    return float(np.vdot(weights, cube)) / total if total > 0 else 0.0


def pair_correlation(x: Signal, atoms: Sequence[int]) -> float:
    """Σ E x_i x_j / Σ √(q_i q_j) over the same pairs: each counts with the energy that it has."""
    if x.q.size == 1:
        return pair_average(x, atoms)
    weights, _ = _pair_weights(x.atoms, x.corr.shape, tuple(atoms))
    weights = weights * profile(x.q, x.corr.shape)
    total = float(weights.sum())
    return float(np.vdot(weights, x.corr)) / total if total > 0.0 else 0.0


@functools.lru_cache(maxsize=4096)
def _pair_weights(sizes: tuple[int, ...], states: tuple[int, ...], atoms: tuple[int, ...]) -> tuple[Array, float]:
    """Ordered pairs at each index of a cube that differ in at least one of the atoms and in no other, and their sum."""
    weights = np.ones((1,) * len(states))
    for i, s in enumerate(states):
        w = state_weights(sizes[i], s) if i in atoms else np.eye(1, s)[0]
        weights = weights * w.reshape((1,) * i + (-1,) + (1,) * (len(states) - i - 1))
    weights[(0,) * len(states)] = 0.0
    return weights, float(weights.sum())


__all__ = ["axis_atoms", "expand", "fixed_map", "pair_average", "pair_correlation", "pair_means"]
