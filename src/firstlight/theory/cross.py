"""E f(u)g(v) for correlated Gaussians: closed forms where they exist, else iterated quadrature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError
from firstlight.theory import gaussian
from firstlight.theory.activations import Activation

Array = NDArray[np.float64]


def absolute_cross(p: ArrayLike, q: ArrayLike, c: ArrayLike) -> Array:
    """E|u||v| = (2/π)√(pq)(√(1-c²) + c·arcsin c), centred u, v with variances p, q and correlation c."""
    p, q, c = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (p, q, c)))
    return 2.0 / np.pi * np.sqrt(p * q) * (np.sqrt((1.0 - c) * (1.0 + c)) + c * np.arcsin(c))


def _symmetric(act: Activation) -> tuple[float, float] | None:
    """(α, β) of φ(u) = αu + β|u|."""
    if act.slopes is None:
        return None
    right, left = act.slopes
    return 0.5 * (right + left), 0.5 * (right - left)


def cross_moment(
    f: Activation,
    g: Activation,
    variance: ArrayLike,
    other_variance: ArrayLike,
    correlation: ArrayLike,
    mean: ArrayLike = 0.0,
    other_mean: ArrayLike = 0.0,
    *,
    derivative: bool = False,
) -> Array:
    """E f(u)g(v), u ~ N(mean, variance), v ~ N(other_mean, other_variance) with a given correlation.

    Args:
        f: Record applied to u.
        g: Record applied to v.
        variance: Variance of u; any shape, all arguments are broadcast.
        other_variance: Variance of v.
        correlation: Correlation of u and v in [-1, 1] (values outside by rounding, up to 1e-9, are clipped).
        mean: Mean of u.
        other_mean: Mean of v.
        derivative: E f′(u)g′(v) instead.

    Returns:
        Array of the broadcast shape.

    Raises:
        InputError: Variances or means that are not usable, a correlation outside [-1, 1].

    References:
        cho2009 (relu: arc-cosine kernel), williams1997 (erf), poole2016 (the c-map).
    """
    arrays = [
        np.asarray(a, dtype=np.float64) for a in (variance, other_variance, correlation, mean, other_mean)
    ]
    p, q, c, m, k = np.broadcast_arrays(*arrays)
    gaussian.check(m, p)
    gaussian.check(k, q)
    if not np.all(np.abs(c) <= 1.0 + 1e-9):
        raise InputError(
            "correlation", got=str(c.ravel()[np.argmax(np.abs(c))]), expected="values in [-1, 1]"
        )
    c = np.clip(c, -1.0, 1.0)
    centred = not (np.any(m) or np.any(k))
    sides, other = _symmetric(f), _symmetric(g)
    if centred and sides is not None and other is not None:
        if derivative:
            return sides[0] * other[0] + sides[1] * other[1] * 2.0 / np.pi * np.arcsin(c)
        return sides[0] * other[0] * c * np.sqrt(p * q) + sides[1] * other[1] * absolute_cross(p, q, c)
    if centred and f is g and f.cross is not None and not derivative:
        return f.cross(p, q, c)
    rows = zip(p.ravel(), q.ravel(), c.ravel(), m.ravel(), k.ravel(), strict=True)
    left, right = (f.df, g.df) if derivative else (f.f, g.f)
    values = [
        _iterated(f, g, left, right, float(a), float(b), float(r), float(s), float(t))
        for a, b, r, s, t in rows
    ]
    return np.array(values, dtype=np.float64).reshape(p.shape)


def _iterated(
    f: Activation,
    g: Activation,
    left: Callable[[Array], Array],
    right: Callable[[Array], Array],
    p: float,
    q: float,
    c: float,
    m: float,
    k: float,
) -> float:
    """E left(u)·E[right(v) | u]: the outer panels also end where g's kinks are crossed, graded by √(1-c²)."""
    rest = np.sqrt((1.0 - c) * (1.0 + c))
    slope = c * np.sqrt(q)
    extra: list[float] = []
    if slope != 0.0:
        marks = gaussian.marks(**gaussian.shape_of(g), reach=abs(k) + gaussian.REACH * np.sqrt(q))
        blur = rest / abs(c)
        centres = [(float(mark) - k) / slope for mark in marks]
        extra = [a + s * blur for a in centres for s in (0.0, 3.0, -3.0, 8.0, -8.0)]
    z, weights = gaussian.rule_in_z(m, np.sqrt(p), f, np.array(extra))
    centre = k + slope * z
    inner = gaussian.expectations(
        [right], np.full_like(centre, q * rest * rest), centre, **gaussian.shape_of(g)
    )[0]
    return float(np.sum(left(m + np.sqrt(p) * z) * inner * weights))
