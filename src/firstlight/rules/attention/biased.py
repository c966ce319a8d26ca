"""Softmax over logits with known biases: slopes that grow with the distance of a key (ALiBi), tables of positions.

Without anything else in the logits the weights are w_j = e^{b_j}/Σe^b, as sharp as those of n = 1/Σw² equal keys.
With independent logits of variance v on top, Σ p² is that of n keys: exact for v = 0 and, while e^v is small beside n,
e^v/n. Two rows meet in Σ w_j w'_j instead of 1/n.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from firstlight.graph.signal import Array, Signal, replace
from firstlight.rules.state.layout import moments

_FLAT = 1e-3  # variance of biases over the keys of a row that changes nothing


class Biased(NamedTuple):
    """Weights of a softmax of known biases alone.

    Attributes:
        weights: w, a field that varies along the keys.
        keys: 1/Σw² of each row, with size 1 on the keys' axis.
        meet: Mean Σ w_j w'_j over pairs of rows that differ as a cube without the keys' axis says.
    """

    weights: Array
    keys: Array
    meet: Array


def biased(mean: Array, seen: npt.NDArray[np.bool_], at: int, cube: Array) -> Biased | None:
    """What known biases make of a softmax; None where all visible keys of a row have the same.

    Args:
        mean: Of the logits, a field.
        seen: Where they are visible, likewise.
        at: Atom of the keys.
        cube: Any cube of the logits, for its shape.
    """
    if mean.shape[at] == 1:
        return None
    top = np.where(seen, mean, -np.inf).max(axis=at, keepdims=True)
    raised = np.where(seen, np.exp(np.where(seen, mean - top, 0.0)), 0.0)
    count = np.maximum(seen.sum(axis=at, keepdims=True), 1)
    level = np.where(seen, mean, 0.0).sum(axis=at, keepdims=True) / count
    if float((np.where(seen, np.square(mean - level), 0.0).sum(axis=at, keepdims=True) / count).mean()) <= _FLAT:
        return None
    w = raised / np.maximum(raised.sum(axis=at, keepdims=True), 1e-300)
    square = np.square(w).sum(axis=at, keepdims=True)
    return Biased(w, 1.0 / np.maximum(square, 1e-300), _meetings(w, at, cube))


def _meetings(w: Array, at: int, cube: Array) -> Array:
    """Mean Σ_j w_j w'_j over pairs of rows, for each way in which they may differ."""
    shape = tuple(n for i, n in enumerate(cube.shape) if i != at)
    out = np.empty(shape)
    for index in np.ndindex(shape):
        pair = list(index)
        pair.insert(at, 0)
        differ = [i for i, d in enumerate(pair) if d and w.shape[i] > 1]
        out[index] = _mean_over_pairs(w, differ)
    return out * w.shape[at]


def _mean_over_pairs(w: Array, differ: list[int]) -> float:
    """Mean of w·w' over pairs whose indices differ along these axes and are equal along all others."""
    if not differ:
        return float(np.square(w).mean())
    axis, rest = differ[0], differ[1:]
    n = w.shape[axis]
    every = _mean_over_pairs(w.mean(axis=axis, keepdims=True), rest)  # pairs with equal indices among them
    return (n * every - _mean_over_pairs(w, rest)) / (n - 1.0)


def without(x: Signal, variance: float, seen: npt.NDArray[np.bool_]) -> Signal:
    """The logits without their biases; behind a mask, which has hidden some of these, as if they were independent.

    Args:
        x: The logits.
        variance: Of a visible one.
        seen: Where they are visible, a field.
    """
    one = (1,) * len(x.atoms)
    corr = np.zeros(x.corr.shape)
    if variance > 0.0 and bool(seen.all()):
        pairs = moments(x) * x.mean_q
        for index in np.ndindex(corr.shape):
            known = _mean_over_pairs(x.mean, [i for i, d in enumerate(index) if d and x.mean.shape[i] > 1])
            corr[index] = np.clip((pairs[index] - known) / variance, -1.0, 1.0)
    corr[(0,) * corr.ndim] = 1.0
    return replace(x, mean=np.zeros(one), q=np.full(one, variance), corr=corr)


def shares(biases: Biased, found: Array, less: Array) -> Array:
    """Σ p² of rows of a number of keys between two whole ones: 1/Σp² is linear between them.

    Args:
        biases: The rows.
        found: Σ p² of ⌊n⌋ + 1 keys.
        less: Of ⌊n⌋ keys.
    """
    part = biases.keys - np.floor(biases.keys)
    return 1.0 / ((1.0 - part) / less + part / found)
