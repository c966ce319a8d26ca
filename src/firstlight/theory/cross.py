"""E f(u)g(v) for correlated Gaussians, three ways, the first that applies.

1. Closed forms: degree 1 (arc-cosine kernel), erf, sin.
2. Smooth functions: Mehler's series Σ a_k b_k c^k in Hermite coefficients, if the bound on its tail,
   c^K √((Ef² - Σa²)(Eg² - Σb²)), is under 1e-12 times √(Ef²·Eg²).
3. Iterated quadrature, whose outer panels follow the kinks of both functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError
from firstlight.theory import gaussian
from firstlight.theory.activations import Activation
from firstlight.theory.special import normal_density

Array = NDArray[np.float64]
_SERIES_TERMS = 160
_SERIES_POINTS = 20
_SERIES_PANEL = 0.5
_SERIES_REACH = 8.0  # largest sd, in units of the function's scale, that panels of this width resolve
_SERIES_ROWS = 256


def absolute_cross(p: ArrayLike, q: ArrayLike, c: ArrayLike) -> Array:
    """E|u||v| = (2/π)√(pq)(√(1-c²) + c·arcsin c), centred u, v with variances p, q and correlation c."""
    p, q, c = (np.asarray(a, dtype=np.float64) for a in (p, q, c))
    return np.sqrt(p * q) * absolute_correlation(c)


def absolute_correlation(c: Array) -> Array:
    """`absolute_cross` of variances 1."""
    return 2.0 / np.pi * (np.sqrt((1.0 - c) * (1.0 + c)) + c * np.arcsin(c))


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
    arrays = [np.asarray(a, dtype=np.float64) for a in (variance, other_variance, correlation, mean, other_mean)]
    p, q, c, m, k = np.broadcast_arrays(*arrays)
    gaussian.check(m, p)
    gaussian.check(k, q)
    if not np.all(np.abs(c) <= 1.0 + 1e-9):
        raise InputError("correlation", got=str(c.ravel()[np.argmax(np.abs(c))]), expected="values in [-1, 1]")
    c = np.clip(c, -1.0, 1.0)
    centred = not (np.any(m) or np.any(k))
    sides, other = _symmetric(f), _symmetric(g)
    if centred and sides is not None and other is not None:
        if derivative:
            return sides[0] * other[0] + sides[1] * other[1] * 2.0 / np.pi * np.arcsin(c)
        return sides[0] * other[0] * c * np.sqrt(p * q) + sides[1] * other[1] * absolute_cross(p, q, c)
    if centred and f is g and f.cross is not None and not derivative:
        return f.cross(p, q, c)
    left, right = (f.df, g.df) if derivative else (f.f, g.f)
    rows = [np.ravel(a) for a in (p, q, c, m, k)]
    values = np.full(rows[0].shape, np.nan)
    if not (f.kinks or g.kinks):
        values = _by_series(left, right, min(f.scale, g.scale), *rows)
    for i in np.flatnonzero(np.isnan(values)):
        a, b, r, s, t = (float(row[i]) for row in rows)
        values[i] = _iterated(f, g, left, right, a, b, r, s, t)
    return values.reshape(p.shape)


@functools.cache
def _hermite() -> tuple[Array, Array]:
    """Nodes z, shape (n,), and weights times normalised Hermite polynomials, shape (n, terms)."""
    x, w = np.polynomial.legendre.leggauss(_SERIES_POINTS)
    edges = np.arange(-gaussian.REACH, gaussian.REACH, _SERIES_PANEL)
    z = (edges[:, None] + 0.5 * _SERIES_PANEL * (1.0 + x)).ravel()
    weights = np.tile(0.5 * _SERIES_PANEL * w, len(edges)) * normal_density(z)
    rows = [np.ones_like(z), z]
    for k in range(1, _SERIES_TERMS - 1):
        rows.append((z * rows[k] - np.sqrt(k) * rows[k - 1]) / np.sqrt(k + 1.0))
    return z, weights[:, None] * np.array(rows).T


def _by_series(
    left: Callable[[Array], Array],
    right: Callable[[Array], Array],
    scale: float,
    p: Array,
    q: Array,
    c: Array,
    m: Array,
    k: Array,
) -> Array:
    """Mehler's series row by row; NaN where its tail is not negligible or the function bends too fast."""
    z, basis = _hermite()
    out = np.full(p.shape, np.nan)
    able = np.flatnonzero(np.sqrt(np.maximum(p, q)) <= _SERIES_REACH * scale)
    for start in range(0, len(able), _SERIES_ROWS):
        rows = able[start : start + _SERIES_ROWS]
        f = left(m[rows, None] + np.sqrt(p[rows, None]) * z)
        g = right(k[rows, None] + np.sqrt(q[rows, None]) * z)
        a, b = f @ basis, g @ basis
        squares = (f * f) @ basis[:, 0], (g * g) @ basis[:, 0]
        tail = np.maximum(squares[0] - np.sum(a * a, axis=1), 0.0)
        tail = np.sqrt(tail * np.maximum(squares[1] - np.sum(b * b, axis=1), 0.0))
        powers = c[rows, None] ** np.arange(_SERIES_TERMS)
        good = np.abs(c[rows]) ** _SERIES_TERMS * tail <= 1e-12 * np.sqrt(squares[0] * squares[1])
        out[rows[good]] = np.sum(a * b * powers, axis=1)[good]
    return out


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
    inner = gaussian.expectations([right], np.full_like(centre, q * rest * rest), centre, **gaussian.shape_of(g))[0]
    return float(np.sum(left(m + np.sqrt(p) * z) * inner * weights))
