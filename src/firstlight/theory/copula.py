"""Correlations of Gaussians behind monotone functions, and which ones give a wanted correlation."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_POINTS = 160  # correlations that are tabulated, on each side of zero
_NEAREST = 1e-15  # distance from 1 down to which they are told apart


@functools.lru_cache(maxsize=4)
def _table(count: int) -> tuple[Array, Array, Array]:
    """(1 - c of the tabulated correlations, 1 - c^k of each for k < count and k = 2·count, c^k likewise)."""
    apart = np.geomspace(_NEAREST, 1.0, _POINTS)
    apart[-1] = 1.0 - 1e-9
    orders = np.append(np.arange(float(count)), 2.0 * count)
    exponent = np.multiply.outer(np.log1p(-apart), orders)
    return apart, -np.expm1(exponent), np.exp(exponent)


def under(corr: Array, coefficients: Array) -> Array:
    """The correlations c_z of two Gaussians for which T(z), T(z') have the given ones, T increasing, E T = 0, E T² = 1.

    r(c_z) = Σ_k a_k² c_z^k (Mehler) is inverted on a table of log(1 - r), so that 1 - c_z is right to some digits
    however near 1 it is. A law with heavy tails would otherwise drive like pairs apart: 1 - r = (1 - c_z)·E T'².

    Args:
        corr: Wanted correlations, any shape, in [-1, 1].
        coefficients: Hermite coefficients a_k of T, k < K; what they leave of E T² counts at the power 2K.

    Example:
        >>> wanted = np.array([1.0, 0.5, 0.0, -0.5])
        >>> bool(np.allclose(under(wanted, np.array([0.0, 1.0])), wanted))  # T(z) = z
        True
    """
    power = np.square(coefficients)
    power[0] = 0.0
    power = np.append(power, max(1.0 - float(power.sum()), 0.0))
    power /= power.sum()
    apart, gap, powers = _table(len(coefficients))
    out = np.array(np.clip(corr, -1.0, 1.0))
    above, below = out > 0.0, out < 0.0
    if above.any():
        wanted = np.log(np.maximum(1.0 - out[above], 1e-300))
        found = np.exp(np.interp(wanted, np.log(gap @ power), np.log(apart)))
        out[above] = np.where(out[above] >= 1.0 - _NEAREST, 1.0, 1.0 - found)
    if below.any():
        signs = np.where(np.arange(len(power)) % 2 == 1, 1.0, -1.0)
        signs[-1] = 1.0
        reached = (powers @ (signs * power))[::-1]
        out[below] = -np.interp(-out[below], np.maximum.accumulate(reached), (1.0 - apart)[::-1])
    return out
