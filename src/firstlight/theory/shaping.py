"""Shaping the nonlinearity instead of the weights: tailored rectifiers for deep plain networks.

With φ_a(u) = √(2/(1+a²))·(max(u,0) + a·min(u,0)) and variance 1/fan_in lengths are kept; correlations follow

    C(c) = c + (1-a)²/(π(1+a²))·(√(1-c²) - c·arccos c).

Deeper networks need a slope a nearer to 1, chosen so that the whole network takes c = 0 to a fixed value η.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError
from firstlight.theory.log_moments import check_width

Array = NDArray[np.float64]
_optimize: Any = import_module("scipy.optimize")


def tailored_correlation(slope: float, c: ArrayLike, depth: int = 1) -> Array:
    """Correlation after `depth` layers with the rectifier of slope a, from c; vectorised over c.

    References:
        zhang2022tat
    """
    c = np.asarray(c, dtype=np.float64)
    push = (1.0 - slope) ** 2 / (np.pi * (1.0 + slope**2))
    for _ in range(depth):
        c = np.clip(c, -1.0, 1.0)
        c = c + push * (np.sqrt((1.0 - c) * (1.0 + c)) - c * np.arccos(c))
    return np.clip(c, -1.0, 1.0)


def tailored_slope(depth: int, eta: float = 0.9) -> float:
    """Slope a in [0, 1) at which `depth` layers take orthogonal inputs to correlation η.

    A network so shallow that even ReLU (a = 0) stays below η keeps ReLU: 0 is returned.

    Args:
        depth: Layers, ≥ 1.
        eta: Correlation at the output of two inputs that were orthogonal, in (0, 1); published choice 0.9.

    Raises:
        InputError: depth < 1, or η outside (0, 1).

    Example:
        >>> round(float(tailored_correlation(tailored_slope(50), 0.0, 50)), 9)
        0.9

    References:
        zhang2022tat, martens2021
    """
    depth = check_width(depth)
    if not 0.0 < eta < 1.0:
        raise InputError("eta", got=repr(eta), expected="a correlation in (0, 1)")

    def gap(slope: float) -> float:
        return float(tailored_correlation(slope, 0.0, depth)) - eta

    if gap(0.0) <= 0.0:
        return 0.0
    return float(_optimize.brentq(gap, 0.0, 1.0, xtol=1e-14))
