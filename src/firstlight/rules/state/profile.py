"""Pairs of entries of a field: how many there are of each kind, and how large they are together."""

from __future__ import annotations

import functools
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, average


@functools.lru_cache(maxsize=1024)
def state_weights(n: int, states: int) -> Array:
    """Ordered pairs per index: same, other (far) and, with three states, next neighbour."""
    near = 0.0 if states == 2 else 2.0 * (n - 1.0) / n
    out = np.array([1.0, n - 1.0] if states == 2 else [1.0, n - 1.0 - near, near])
    out.setflags(write=False)
    return out


def narrowed(field: Array) -> Array:
    """Size 1 along axes on which a field does not vary: parts that were cut out of a tensor have filled it again."""
    top = float(field.max())
    for axis, n in enumerate(field.shape):
        if n > 1 and float(np.ptp(field, axis=axis).max()) <= 1e-9 * top:
            field = np.take(field, [0], axis=axis)
    return field


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
_LONG = 1 << 14  # entries of a field that is worth no copy
_profiles: dict[tuple[int, tuple[int, ...]], tuple[Array, Array]] = {}  # a sum asks for them again and again


def _profile(q: Array, states: tuple[int, ...]) -> Array:
    total = average(q)
    if total <= 0.0:
        return np.ones((1,) * len(states))
    axes = [i for i, n in enumerate(q.shape) if n > 1]
    cube = _Pairs(np.sqrt(q), [states[i] for i in axes], axes).cube(0, (), {})
    return np.maximum(cube / total, 0.0).reshape([states[i] if n > 1 else 1 for i, n in enumerate(q.shape)])


class _Pairs:
    """Means of r_i·r_j over pairs of entries of a field, axis by axis.

    Others are all pairs, of which only the field's mean along the axis counts, without the same and the next ones.
    """

    def __init__(self, field: Array, states: Sequence[int], axes: Sequence[int]) -> None:
        self._means: dict[tuple[int, ...], Array] = {(): field}
        self._states, self._axes = states, axes

    def _mean(self, over: tuple[int, ...]) -> Array:
        if over not in self._means:
            wide, axis = self._mean(over[:-1]), over[-1]
            self._means[over] = np.add.reduce(wide, axis=axis, keepdims=True) / wide.shape[axis]
        return self._means[over]

    def cube(self, level: int, over: tuple[int, ...], ways: dict[int, int]) -> Any:
        """The means over pairs of each kind along the axes from this level on.

        Args:
            level: Of the axes.
            over: Axes before it along which all pairs are meant.
            ways: Axes before it along which the second entry lies behind (1) or before (-1) the first.
        """
        if level == len(self._axes):
            return self._together(self._mean(over), ways)
        axis, states = self._axes[level], self._states[level]
        n = self._means[()].shape[axis]
        same = self.cube(level + 1, over, ways)
        every = n * self.cube(level + 1, (*over, axis), ways) - same
        if states == 2:
            return np.array([same, every / (n - 1.0)])
        beside = self.cube(level + 1, over, ways | {axis: 1})
        if ways:  # else it is the same the other way round
            beside = 0.5 * (beside + self.cube(level + 1, over, ways | {axis: -1}))
        _, far, near = state_weights(n, states).tolist()
        return np.array([same, (every - near * beside) / far if far > 1e-9 else every / (n - 1.0), beside])

    @staticmethod
    def _together(field: Array, ways: dict[int, int]) -> float:
        if not ways:
            return _dot(field, field) / field.size
        one, other = [slice(None)] * field.ndim, [slice(None)] * field.ndim
        for axis, way in ways.items():
            one[axis], other[axis] = (slice(-1), slice(1, None))[::way]
        left, right = field[tuple(one)], field[tuple(other)]
        return _dot(left, right) / left.size


def _dot(left: Array, right: Array) -> float:
    """Σ l·r: `vdot` copies what was cut out of a field, `einsum` costs more to call."""
    if left.size < _LONG:
        return float(np.vdot(left, right))
    every = string.ascii_letters[: left.ndim]
    return float(np.einsum(f"{every},{every}->{every[0]}", left, right).sum())
