"""Signals from data: the empirical statistics of arrays, parameters' laws, token ids."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from firstlight.graph.ir import Law, Parameter, TensorSpec
from firstlight.graph.signal import INFINITY, Array, Groups, Signal, Weights, number, replace
from firstlight.rules.state.layout import axis_atoms, state_weights

_LARGEST = 1 << 18  # entries that the cube of an array is computed from
_ROWS = 256  # samples whose pairs are looked at
_NEAR = 4  # shortest axis on which neighbours are told from other positions


def groups_of(shape: tuple[int, ...]) -> Groups:
    """One atom per axis, none for axes of size 1."""
    return tuple([() if n == 1 else (int(n),) for n in shape])


def uniform(
    shape: tuple[int, ...],
    mean: float,
    q: float,
    *,
    pair: float | None = None,
    batch_axis: int | None = None,
    **more: Any,
) -> Signal:
    """Independent entries of one law: pairs have the moment mean² (or the given one)."""
    groups = groups_of(shape)
    batch = tuple([axis == batch_axis for axis, g in enumerate(groups) if g])
    n = len(batch)
    r = (mean * mean if pair is None else pair) / q if q > 0 else 1.0
    corr = np.full((2,) * n, min(max(r, -1.0), 1.0))
    corr[(0,) * n] = 1.0
    return Signal(groups, number(mean, n), number(q, n), corr, batch, **more)


def cube_of(a: Array, near: tuple[bool, ...]) -> Array:
    """Pair moments of an array over all ways in which two indices can differ, unnormalised.

    With M[S] the mean over everything of the product of means over the axes S, one axis gives
    M = same/n + (1 - 1/n)·other, solved for `other`.
    """
    n = a.ndim
    cube = np.empty((2,) * n)
    for subset in itertools.product((0, 1), repeat=n):
        axes = tuple(i for i in range(n) if subset[i])
        kept: Array = a.mean(axis=axes) if axes else a
        cube[subset] = float(np.mean(np.square(kept)))
    for i, size in enumerate(a.shape):
        same, mixed = np.take(cube, 0, axis=i), np.take(cube, 1, axis=i)
        cube = np.stack([same, (size * mixed - same) / (size - 1.0)], axis=i)
    for i in range(n):
        if near[i]:
            cube = _with_neighbour(a, cube, i, near)
    return cube


def _with_neighbour(a: Array, cube: Array, i: int, near: tuple[bool, ...]) -> Array:
    """Insert the state "next index" along axis i; other axes in state same or other are measured alike."""
    first, second = np.take(a, range(a.shape[i] - 1), axis=i), np.take(a, range(1, a.shape[i]), axis=i)
    size = a.shape[i]
    same, far = np.take(cube, 0, axis=i), np.take(cube, 1, axis=i)
    ratio = float(np.mean(first * second))
    origin = (0,) * same.ndim
    base, other = same[origin], far[origin]
    # how far neighbours lie between "same" and "other", the same for all states of the other axes
    part = (ratio - other) / (base - other) if base != other else 0.0
    w = state_weights(size, 3)
    mixed = far * (size - 1.0)
    nearer = far + part * (same - far)
    rest = (mixed - w[2] * nearer) / w[1] if w[1] > 0 else far
    del near
    return np.stack([same, rest, nearer], axis=i)


def constant(a: npt.NDArray[Any], like: Signal | None = None, batch_axis: int | None = None) -> Signal:
    """A tensor whose entries are known: every entry is its own mean."""
    del like
    a = np.asarray(a)
    if a.dtype.kind == "c":
        return _complex_constant(a, batch_axis)
    integer = a.dtype.kind in "iub"
    if a.size == 0:
        return uniform(a.shape, 0.0, 0.0, integer=integer)
    if not any(a.strides) and a.size > 1:  # one number in all places, and in memory once
        one = float(np.clip(a.flat[0], -INFINITY, INFINITY))
        return replace(uniform(a.shape, one, one * one, integer=integer), value=a)
    data = a.astype(np.float64)
    finite = np.nan_to_num(data, nan=0.0, posinf=INFINITY, neginf=-INFINITY)
    groups = groups_of(a.shape)
    squeezed = finite.reshape(tuple(n for n in a.shape if n > 1))
    corr = _normalised(thin(squeezed))
    batch = tuple(axis == batch_axis for axis, g in enumerate(groups) for _ in g)
    return Signal(groups, _shrink(squeezed), _shrink(np.square(squeezed)), corr, batch, value=a, integer=integer)


def _complex_constant(a: npt.NDArray[Any], batch_axis: int | None) -> Signal:
    """Known complex entries: E|a|², Re E a a', and the means of the real parts."""
    re, im = constant(np.real(a), batch_axis=batch_axis), constant(np.imag(a), batch_axis=batch_axis)
    level = re.mean_q + im.mean_q
    corr = (re.corr * re.mean_q + im.corr * im.mean_q) / level if level > 0.0 else re.corr
    return replace(re, q=_shrink(re.q + im.q), corr=corr, value=None, complex=True)


def _shrink(field: Array) -> Array:
    """Size 1 along axes on which a field does not vary."""
    for i in range(field.ndim):
        first = np.take(field, [0], axis=i)
        if field.shape[i] > 1 and np.array_equal(np.broadcast_to(first, field.shape), field):
            field = first
    return field


def thin(a: Array) -> Array:
    """A regular sample of a large array (whole axes are kept as long as they can)."""
    while a.size > _LARGEST:
        axis = int(np.argmax(a.shape))
        a = np.take(a, range(0, a.shape[axis], 2), axis=axis)
    return a


def _normalised(a: Array) -> Array:
    cube = cube_of(a, (False,) * a.ndim)
    origin = (0,) * cube.ndim
    if cube[origin] <= 0.0:
        return np.ones_like(cube)
    return np.clip(cube / cube[origin], -1.0, 1.0)


def from_data(a: npt.NDArray[Any], batch_axis: int | None = 0) -> Signal:
    """The input's statistics: mean, mean square and correlations between samples, positions, features.

    Axes behind the second one of an array with three or more are positions of a grid: their neighbours are told
    from other positions. The mean square keeps the axes (other than the batch) along which it varies beyond what
    as many independent Gaussian entries would show.
    """
    data = np.asarray(a, dtype=np.float64)
    groups = groups_of(data.shape)
    keep = [i for i, n in enumerate(data.shape) if n > 1]
    squeezed = data.reshape(tuple(data.shape[i] for i in keep))
    spatial = tuple(i >= 2 and data.ndim >= 4 and data.shape[i] >= _NEAR for i in keep)
    some = thin(squeezed)
    cube = cube_of(some, spatial)
    origin = (0,) * cube.ndim
    q = float(np.mean(np.square(squeezed))) if squeezed.size else 0.0
    corr = np.clip(cube / cube[origin], -1.0, 1.0) if cube[origin] > 0 else np.ones_like(cube)
    field = _profile(np.square(squeezed), keep, batch_axis)
    batch = tuple(axis == batch_axis for axis in keep)
    mean = np.full((1,) * len(keep), float(squeezed.mean()) if squeezed.size else 0.0)
    scale = q / float(field.mean()) if field.mean() > 0 else 1.0
    field = np.maximum(field * scale, np.square(mean))
    return Signal(
        groups,
        mean,
        field,
        corr,
        batch,
        gaussian=True,
        scatter=_scatter(squeezed, batch, spatial, keep.index(1) if data.ndim == 3 and {1, 2} <= set(keep) else None),
        split=_split(squeezed) if batch == (True, False, False) else None,
        wander=_wander(some) if batch[:1] == (True,) and len(batch) == 2 else 0.0,
        data=True,
    )


def as_given(x: Signal) -> Signal:
    """A part of an input that is given, such as a step of a sequence: its own statistics, not those of the whole."""
    if x.given is None or x.given[0] != x.ident or not x.numel:
        return x
    axis = next((k for k in range(x.ndim) if any(x.batch[a] for a in axis_atoms(x, k))), None)
    seen = from_data(np.broadcast_to(x.given[1], x.atoms).reshape(x.shape), axis)
    if seen.groups != x.groups or seen.corr.shape != x.corr.shape:
        return x
    fields = ("mean", "q", "corr", "scatter", "split", "wander")
    return replace(x, **{name: getattr(seen, name) for name in fields})


def _wander(rows: Array) -> float:
    """`Signal.wander` of samples (rows) that are given: what the mean of c² over their pairs has beyond c̄²."""
    gram = rows[:_ROWS] @ rows[:_ROWS].T / rows.shape[1]
    count, level = len(gram), float(np.mean(np.diag(gram)))
    if count < 2 or level <= 0.0:
        return 0.0
    pairs = count * (count - 1)
    mean = (float(gram.sum()) / level - count) / pairs
    square = (float(np.square(gram).sum()) - float(np.square(np.diag(gram)).sum())) / level**2 / pairs
    return float(np.clip((square - mean**2) / max(1.0 - mean**2, 1e-12), 0.0, 1.0))


def _scatter(a: Array, batch: tuple[bool, ...], spatial: tuple[bool, ...], positions: int | None) -> float:
    """Relative variance of the mean square from site to site (sample, or sample and position before features)."""
    sites = [i for i in range(a.ndim) if batch[i] or spatial[i] or i == positions]
    features = tuple(i for i in range(a.ndim) if i not in sites)
    energy = np.square(a).mean(axis=features) if features else np.square(a)
    level = float(energy.mean())
    return float(energy.var() / level**2) if level > 0.0 and sites else 0.0


def _split(a: Array) -> tuple[float, float]:
    """`Signal.split` of samples of tokens: the relative variance of a whole sample's mean square."""
    energy = np.square(a).mean(axis=(1, 2))
    level = float(energy.mean())
    return (float(energy.var()) / level**2 if level > 0.0 else 0.0), 0.0


def _profile(square: Array, keep: list[int], batch_axis: int | None) -> Array:
    """Mean square by position along the non-batch axes where it varies significantly, else size 1."""
    for k in range(square.ndim):
        others = tuple(i for i in range(square.ndim) if i != k)
        along = square.mean(axis=others) if others else square
        n = square.size / square.shape[k]
        expected = 2.0 / n  # relative variance of a mean of n squared Gaussians
        spread = float(np.var(along)) / max(float(np.mean(along)) ** 2, 1e-300)
        if keep[k] == batch_axis or spread < 4.0 * expected:
            square = square.mean(axis=k, keepdims=True)
    return square


def unseen(spec: TensorSpec, batch_axis: int | None = 0) -> Signal:
    """An input of which only the shape is known: standard normal entries."""
    return uniform(spec.shape, 0.0, 1.0, batch_axis=batch_axis, gaussian=True, data=True)


def from_parameter(p: Parameter, law: Law) -> Signal:
    """A parameter by its law: independent entries, rows of their own size where the law says so.

    Rows that are all alike, and short lists, are known entry by entry. Entries that are not Gaussian keep their
    fourth cumulant, (κ - 3)·variance², which a bias hands on to the units and a table to what is looked up.
    """
    if law.row is not None and law.row.shape in (p.spec.shape, p.spec.shape[1:]):
        whole = law.row.shape == p.spec.shape
        out = constant(law.row if whole else np.broadcast_to(law.row, (2, *law.row.shape)))
        return replace(out, groups=groups_of(p.spec.shape), value=None, weights=Weights(p.name, structure="constant"))
    mean, q = law.mean, law.variance + law.mean**2
    if law.chance(p.spec.numel):
        mean = 0.0
    bent = law.structure == "iid" and law.kurtosis != 3.0
    fourth = (law.kurtosis - 3.0) * law.variance * law.variance if bent else 0.0  # ** raises where * overflows
    paired = p.spec.dtype.startswith("complex")
    law_of = Weights(p.name, law.kurtosis, law.structure)
    out = uniform(p.spec.shape, mean, q, weights=law_of, cumulants=(0.0, fourth), complex=paired)
    if law.row_q is not None and p.spec.shape and len(law.row_q) == p.spec.shape[0] and p.spec.shape[0] > 1:
        rows = np.asarray(law.row_q, dtype=np.float64)
        shape = (len(rows), *(1,) * (len(out.atoms) - 1))
        field = np.maximum(rows.reshape(shape), out.mean**2)
        return Signal(out.groups, out.mean, field, out.corr, out.batch, weights=out.weights, cumulants=out.cumulants)
    return out


def coincidence(ids: npt.NDArray[Any], pairs: int = 4096) -> Array:
    """Probability that two entries of an index tensor are equal, by how their positions differ."""
    a = ids.reshape(tuple(n for n in ids.shape if n > 1))
    rng = np.random.default_rng(0)
    cube = np.ones((2,) * a.ndim)
    for subset in itertools.product((0, 1), repeat=a.ndim):
        if not any(subset):
            continue
        left = tuple(rng.integers(0, n, pairs) for n in a.shape)
        right = tuple(
            (i + rng.integers(1, n, pairs)) % n if s else i for i, n, s in zip(left, a.shape, subset, strict=True)
        )
        same: npt.NDArray[np.bool_] = a[left] == a[right]
        cube[subset] = float(np.mean(same))
    return cube
