"""Pairs of entries of a field: how many there are of each kind, and how large they are together."""

from __future__ import annotations

import functools
import itertools
import string
from collections.abc import Iterator, Sequence

import numpy as np

from firstlight.graph.signal import Array, average


@functools.lru_cache(maxsize=1024)
def state_weights(n: int, states: int) -> Array:
    """Ordered pairs per index: same, other (far) and, with three states, next neighbour."""
    near = 0.0 if states == 2 else 2.0 * (n - 1.0) / n
    out = np.array([1.0, n - 1.0] if states == 2 else [1.0, n - 1.0 - near, near])
    out.setflags(write=False)
    return out


def profile(q: Array, states: Sequence[int]) -> Array:
    """Mean of √(q_i q_j) over the pairs at each index of a cube, relative to the mean of q; 1 where q is uniform.

    With it a cube of normalised correlations becomes one of mean pair moments: M = corr·profile·(mean q).
    """
    if q.size == 1:
        return np.ones((1,) * len(states))
    key = id(q), tuple(states)
    found = _profiles.get(key)
    if found is None or found[0] is not q:
        while len(_profiles) >= _REMEMBERED:
            _profiles.pop(next(iter(_profiles)), None)
        found = _profiles[key] = (q, _profile(q, key[1]))
    return found[1]


_REMEMBERED = 16
_profiles: dict[tuple[int, tuple[int, ...]], tuple[Array, Array]] = {}  # a sum asks for them again and again


def _profile(q: Array, states: tuple[int, ...]) -> Array:
    total = average(q)
    if total <= 0.0:
        return np.ones((1,) * len(states))
    root = np.sqrt(q)
    axes = [i for i, n in enumerate(q.shape) if n > 1]
    if len(axes) == 1:  # most fields vary along positions alone
        line = _along_one(root.ravel(), total, states[axes[0]])
        return (line / total).reshape([len(line) if i == axes[0] else 1 for i in range(q.ndim)])
    cube = np.empty(tuple(3 if states[a] == 3 else 2 for a in axes))  # same, all, next
    means: dict[tuple[int, ...], Array] = {(): root}
    for gone in itertools.product((False, True), repeat=len(axes)):
        over = tuple(a for a, free in zip(axes, gone, strict=True) if free)
        if over:  # from the mean over all of these axes but the last
            means[over] = means[over[:-1]].mean(axis=over[-1], keepdims=True)
    for kinds in np.ndindex(cube.shape):
        mean = means[tuple(a for a, kind in zip(axes, kinds, strict=True) if kind == 1)]
        cube[kinds] = np.mean([_together(mean, axes, kinds, way) for way in _directions(kinds)])
    shape = [1] * len(states)
    for k, a in enumerate(axes):
        weights = state_weights(q.shape[a], states[a])
        parts = [np.take(cube, i, axis=k) for i in range(cube.shape[k])]
        every, beside = q.shape[a] * parts[1] - parts[0], weights[2] * parts[2] if states[a] == 3 else 0.0
        parts[1] = (every - beside) / weights[1] if weights[1] > 1e-9 else every / (q.shape[a] - 1.0)
        cube = np.stack(parts, axis=k)
        shape[a] = states[a]
    return np.asarray(np.maximum(cube / total, 0.0)).reshape(shape)


def _along_one(root: Array, same: float, states: int) -> Array:
    """The means over the pairs of each kind for a field along a single axis."""
    n = root.size
    every = n * average(root) ** 2 - same
    if states == 2:
        return np.array([same, max(every / (n - 1.0), 0.0)])
    _, far, near = state_weights(n, states).tolist()
    beside = float(root[:-1] @ root[1:]) / (n - 1.0)
    rest = (every - near * beside) / far if far > 1e-9 else every / (n - 1.0)
    return np.array([same, max(rest, 0.0), beside])


def _directions(kinds: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """1 or -1 for each axis of kind 2: which way the second of two neighbours lies; not also all ways turned round."""
    free = sum(kind == 2 for kind in kinds) - 1
    for signs in itertools.product((1, -1), repeat=max(free, 0)):
        left = iter((1, *signs))
        yield tuple(next(left) if kind == 2 else 0 for kind in kinds)


def _together(root: Array, axes: Sequence[int], kinds: Sequence[int], way: Sequence[int]) -> float:
    """Mean of √q_i √q_j over places that differ by `way` along the axes of kind 2; `root` is a mean over kind 1."""
    one, other = [slice(None)] * root.ndim, [slice(None)] * root.ndim
    for a, kind, step in zip(axes, kinds, way, strict=True):
        if kind == 2:
            one[a], other[a] = (slice(-1), slice(1, None))[::step]
    first, second = root[tuple(one)], root[tuple(other)]
    every = string.ascii_letters[: root.ndim]  # along the first axis at last: without copies, a third of `vdot`'s time
    return float(np.einsum(f"{every},{every}->{every[axes[0]]}", first, second).sum()) / first.size
