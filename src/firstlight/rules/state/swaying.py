"""What the straying of positions' correlations (`Signal.sway`) does to means over pairs of entries.

A mean over draws of c^k is that of a beta law with the mean and the variance of c: rectifiers, whose squares have
the covariance (2/π)·asin c, are long together in the draws whose positions are alike.
"""

from __future__ import annotations

import functools

import numpy as np

from firstlight.graph.signal import Array, Signal
from firstlight.graph.sway import STILL, Sway
from firstlight.rules.state.layout import axis_atoms
from firstlight.rules.state.windows import pair_average
from firstlight.theory import special

_VALUES = 32
_NOTHING = 1e-6  # variance of a correlation that makes no difference
_LITTLE = 3e-3  # and that changes the law of lengths by less than a hundredth


def positions(x: Signal) -> list[int]:
    """The atoms of the positions, if correlations stray."""
    if x.sway is STILL:
        return []
    axis, count, ndim = x.sway.channels
    if x.sway.variance + x.sway.brief <= _NOTHING or x.ndim != ndim or x.shape[axis] != count:
        return []
    channels = axis_atoms(x, axis)
    return [i for i, batch in enumerate(x.batch) if not batch and i not in channels]


def squares(x: Signal, square: Array) -> Array:
    """E c² over draws where only positions differ, from the mean correlation's c², an array of the caller's own."""
    return _raised(x, square, x.sway.variance, 1.0)


def energies(x: Signal, cube: Array) -> Array:
    """Relative covariance 2·E c² of Gaussian x_i² and x_j², from that of the mean correlation."""
    return _raised(x, cube.copy(), 2.0 * (x.sway.variance + x.sway.brief), 2.0) if positions(x) else cube


def _raised(x: Signal, cube: Array, by: float, most: float) -> Array:
    if moved := positions(x):
        here = tuple(slice(None) if i in moved else slice(0, 1) for i in range(cube.ndim))
        origin = cube.flat[0]
        cube[here] = np.minimum(cube[here] + by, most)
        cube.flat[0] = origin
    return cube


@functools.lru_cache(maxsize=4096)
def beta(mean: float, variance: float) -> Array:
    """Equally likely values of a correlation over draws."""
    size = mean * (1.0 - mean) / variance - 1.0 if variance > _NOTHING else np.inf
    if not 0.0 < mean < 1.0 or not np.isfinite(size):
        return np.full(1, mean)
    size = max(size, 1.0)
    return special.betaincinv(mean * size, (1.0 - mean) * size, (np.arange(_VALUES) + 0.5) / _VALUES)


def values(x: Signal, alike: float) -> list[float]:
    """What positions that are `alike` on average have in common, over draws: equally likely values."""
    strayed = bool(positions(x)) and x.sway.variance > _LITTLE
    return beta(alike, x.sway.variance).tolist() if strayed else [alike]


def met(x: Signal, factor: Signal) -> Sway:
    """`Signal.sway` of a product with an independent factor: its correlations are those of x times the factor's."""
    if x.sway is STILL:
        return STILL
    c = pair_average(factor, positions(x)) if positions(x) else 1.0
    return x.sway._replace(
        variance=x.sway.variance * c * c, covariance=x.sway.covariance * c, brief=x.sway.brief * c * c
    )
