"""Pairs of entries of a field: how many there are of each kind, and how large they are together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, average


def state_weights(n: int, states: int) -> Array:
    """Ordered pairs per index: same, other (far) and, with three states, next neighbour."""
    if states == 2:
        return np.array([1.0, n - 1.0])
    near = 2.0 * (n - 1.0) / n
    return np.array([1.0, n - 1.0 - near, near])


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
    for kinds in np.ndindex(cube.shape):
        gone = tuple(a for a, kind in zip(axes, kinds, strict=True) if kind == 1)
        turns = [((0, 1), (1, 0)) if kind == 2 else ((0, 0),) for kind in kinds]
        cube[kinds] = np.mean([_together(root, axes, kinds, turn, gone) for turn in itertools.product(*turns)])
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


def _together(
    root: Array, axes: Sequence[int], kinds: Sequence[int], turn: Sequence[tuple[int, int]], gone: tuple[int, ...]
) -> float:
    """Mean of √q_i √q_j over places that differ by one along the axes of kind 2, and freely in `gone`."""
    one = other = root
    for a, kind, (i, j) in zip(axes, kinds, turn, strict=True):
        if kind == 2:
            n = root.shape[a] - 1
            one, other = np.take(one, range(i, n + i), axis=a), np.take(other, range(j, n + j), axis=a)
    return float(np.mean(one.mean(axis=gone) * other.mean(axis=gone) if gone else one * other))
