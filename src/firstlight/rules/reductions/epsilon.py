"""A norm's ε where the variances v that it divides by differ: 1/(v + ε) is no function of their mean.

v = wᵀΣw of a channel over its row of weights goes like a χ²: a gamma law of mean v̄ and relative variance s.
"""

from __future__ import annotations

import functools

import numpy as np

from firstlight.theory import special

_NODES = 48
_ROUNDED = 100.0  # steps of the share and the spread for each unit, so that equal norms are found again


def shares(kept: float, spread: float) -> tuple[float, float]:
    """(E v/(v + ε), E (v̄ + ε)/(v + ε)), the first in units of v̄/(v̄ + ε) = kept.

    Args:
        kept: v̄/(v̄ + ε).
        spread: Relative variance of v.

    Example:
        >>> shares(1.0, 0.2)[0]
        1.0
    """
    if kept >= 1.0 - 1e-3 or spread <= 1e-3:
        return 1.0, 1.0
    return _shares(round(kept * _ROUNDED), round(min(spread, 1.0) * _ROUNDED))


@functools.lru_cache(maxsize=1024)
def _shares(kept: int, spread: int) -> tuple[float, float]:
    share, shape = max(kept, 1) / _ROUNDED, _ROUNDED / max(spread, 1)
    p, w = np.polynomial.legendre.leggauss(_NODES)
    v = special.gammaincinv(shape, 0.5 * (p + 1.0)) / shape
    inverse = 1.0 / (share * v + 1.0 - share)
    return float(0.5 * w @ (v * inverse)), float(0.5 * w @ inverse)
