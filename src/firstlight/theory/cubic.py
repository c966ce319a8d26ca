"""SciPy's cubics that keep what is monotone so (Fritsch and Carlson 1980), with types."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

_interpolate: Any = import_module("scipy.interpolate")
Array = NDArray[np.float64]


def between(x: Array, y: Array, at: Array) -> Array:
    """y at other places, flat beyond the ends.

    Args:
        x: Where y is known, ascending, shape (n,).
        y: Shape (…, n).
        at: Shape (m,).

    Returns:
        Shape (…, m).
    """
    inside = np.clip(at, x[0], x[-1])
    return np.asarray(_interpolate.PchipInterpolator(x, y, axis=-1)(inside), dtype=np.float64)


def roots(x: Array, y: Array) -> list[float]:
    """Where y, shape (n,), is zero between its ends; stretches on which it is zero are left out."""
    if not np.any(y[:-1] * y[1:] < 0.0):
        return []
    found = np.asarray(_interpolate.PchipInterpolator(x, y).roots(extrapolate=False), dtype=np.float64)
    return [float(z) for z in found if np.isfinite(z)]
