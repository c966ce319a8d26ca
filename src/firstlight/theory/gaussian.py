"""Expectations of functions of Gaussians: E f(u) and E f(u)g(v), by quadrature split at kinks.

Composite Gauss-Legendre rule in the standardised variable z on [-10, 10] (the mass outside is 1.5e-23).
Panels end at the declared kinks and at inputs ±2s, ±6s, ±20s, … (s the scale over which f bends), so that
neither a kink nor a transition that is narrow beside the standard deviation ever lies inside a panel. Closed
forms are used where a record has one. Error: ≤ 1e-10 relative to max(1, |E f|) for functions of at most
quadratic growth (tests enforce it).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError
from firstlight.theory.activations import Activation
from firstlight.theory.special import normal_density

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

REACH = 10.0
_POINTS = 20
_EDGES = (-REACH, -4.0, 0.0, 4.0, REACH)
_GRADES = (2.0, 6.0, 20.0, 60.0, 200.0, 600.0, 2e3, 6e3, 2e4, 6e4, 2e5, 2e6, 2e7)
_PERIODS = 400  # panels of a periodic function on each side: up to a standard deviation of 40 periods
_CHUNK = 1 << 16  # nodes evaluated at a time, so that the temporaries stay in the cache


@functools.cache
def _legendre() -> tuple[Array, Array]:
    x, w = np.polynomial.legendre.leggauss(_POINTS)
    return x, w


@dataclass(frozen=True)
class Nodes:
    """Quadrature nodes of a standard Gaussian source z.

    A pointwise chain carries its values on ``u = mean + sd·z``; products of two chains with the same source
    are then products of their values, and moments are `expectation` of those.

    Attributes:
        z: Nodes, shape (n,), ascending.
        weights: Weights, shape (n,); they sum to 1.
    """

    z: Array
    weights: Array

    def expectation(self, values: Array) -> Array:
        """E of values on the nodes; the nodes are the last axis."""
        return np.asarray(values @ self.weights, dtype=np.float64)

    def source(self, variance: float, mean: float = 0.0) -> Array:
        """Values of u ~ N(mean, variance) on the nodes."""
        return mean + np.sqrt(variance) * self.z


def _rule(edges: Array) -> tuple[Array, Array]:
    """Nodes and weights for rows of edges in z, shape (rows, edges) → (rows, panels × points)."""
    edges = np.sort(np.clip(edges, -REACH, REACH), axis=1)
    width = np.diff(edges, axis=1)
    if width.shape[1] > 4:  # panels that are empty in every row cost nothing
        used = np.any(width > 0, axis=0)
        left, width = edges[:, :-1][:, used], width[:, used]
    else:
        left = edges[:, :-1]
    x, w = _legendre()
    half = 0.5 * width[:, :, None]
    z = (left[:, :, None] + half * (1.0 + x)).reshape(len(edges), -1)
    weights = (half * w).reshape(len(edges), -1) * normal_density(z)
    return z, weights


def marks(kinks: Sequence[float], scale: float, reach: float, period: float | None = None) -> Array:
    """Inputs at which a panel has to end: kinks and graded steps up to the largest reachable input."""
    steps = [s * scale for s in _GRADES if s * scale < reach]
    if period is not None:
        steps = [period * k for k in range(1, min(_PERIODS, int(reach / period)) + 1)]
    return np.array([*kinks, *steps, *(-s for s in steps)], dtype=np.float64)


def _edges(mean: Array, sd: Array, ends: Array) -> Array:
    """Edges in z for rows (mean, sd): the fixed ones and the marks seen from each row."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        moved = (ends[None, :] - mean[:, None]) / sd[:, None]
    fixed = np.broadcast_to(np.array(_EDGES), (len(mean), len(_EDGES)))
    return np.concatenate([fixed, np.nan_to_num(moved, nan=REACH, posinf=REACH, neginf=-REACH)], axis=1)


def rule_in_z(mean: float, sd: float, act: Activation, extra: Array) -> tuple[Array, Array]:
    """Nodes and weights in z for one Gaussian, with further panel ends `extra` given in z."""
    reach = abs(mean) + REACH * sd
    edges = _edges(np.array([mean]), np.array([sd]), marks(**shape_of(act), reach=reach))
    z, weights = _rule(np.concatenate([edges, extra[None, :]], axis=1))
    return z[0], weights[0]


@functools.lru_cache(maxsize=4096)
def gauss_nodes(
    kinks: tuple[float, ...] = (), *, variance: float = 1.0, mean: float = 0.0, scale: float = 1.0
) -> Nodes:
    """Nodes for a source u ~ N(mean, variance) with panels ending at the kinks (given as values of u).

    Args:
        kinks: Inputs at which any function of the chain has a kink.
        variance: Variance of the source, finite and ≥ 0.
        mean: Mean of the source.
        scale: Size of the inputs over which the functions bend.

    Raises:
        InputError: A negative or non-finite variance.

    Example:
        >>> nodes = gauss_nodes((0.0,), variance=4.0)
        >>> round(float(nodes.expectation(abs(nodes.source(4.0)) ** 2)), 12)
        4.0
    """
    check(np.asarray(mean), np.asarray(variance))
    sd = np.sqrt(np.array([variance], dtype=np.float64))
    centre = np.array([mean], dtype=np.float64)
    z, weights = _rule(_edges(centre, sd, marks(kinks, scale, abs(mean) + REACH * float(sd[0]))))
    z, weights = z[0], weights[0] / weights[0].sum()
    z.setflags(write=False)
    weights.setflags(write=False)
    return Nodes(z, weights)


def check(mean: Array, variance: Array) -> None:
    """Refuse means and variances that are no Gaussian's.

    Raises:
        InputError: A negative or non-finite variance, a non-finite mean.
    """
    if not (np.all(np.isfinite(variance)) and np.all(np.isfinite(mean))):
        raise InputError("Gaussian", got="a non-finite mean or variance", expected="finite values")
    if np.any(variance < 0):
        raise InputError("Gaussian", got=f"variance {np.min(variance)}", expected="a variance ≥ 0")


class Shape(TypedDict):
    """What a quadrature has to know of a function."""

    kinks: tuple[float, ...]
    scale: float
    period: float | None


def shape_of(act: Activation) -> Shape:
    """Keyword arguments for `expectations` from a record."""
    return {"kinks": act.kinks, "scale": act.scale, "period": act.period}


def expectations(
    functions: Sequence[Function],
    variance: ArrayLike,
    mean: ArrayLike = 0.0,
    *,
    kinks: Sequence[float] = (),
    scale: float = 1.0,
    period: float | None = None,
) -> tuple[Array, ...]:
    """E f(u) for several functions f of the same u ~ N(mean, variance), on shared nodes.

    Args:
        functions: Vectorised functions.
        variance: Variances, any shape.
        mean: Means, broadcast against the variances.
        kinks: Inputs at which a function or a derivative jumps.
        scale: Size of the inputs over which the functions bend.
        period: Period of the functions, if any.

    Returns:
        One array per function, of the broadcast shape.

    Raises:
        InputError: A negative or non-finite variance, a non-finite mean.
    """
    m, q = np.broadcast_arrays(np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64))
    check(m, q)
    shape, m, sd = q.shape, m.ravel(), np.sqrt(q.ravel())
    out = np.empty((len(functions), len(sd)))
    step = max(1, _CHUNK // 256)
    for start in range(0, len(sd), step):
        rows = slice(start, start + step)
        ends = marks(kinks, scale, float(np.max(np.abs(m[rows]) + REACH * sd[rows])), period)
        z, weights = _rule(_edges(m[rows], sd[rows], ends))
        u = m[rows, None] + sd[rows, None] * z
        for k, f in enumerate(functions):
            out[k, rows] = np.einsum("rn,rn->r", f(u), weights)
    return tuple(row.reshape(shape) for row in out)


def expectation(
    f: Activation | Function,
    variance: ArrayLike,
    mean: ArrayLike = 0.0,
    *,
    kinks: Sequence[float] = (),
    scale: float = 1.0,
    period: float | None = None,
) -> Array:
    """E f(u), u ~ N(mean, variance); vectorised over variance and mean.

    Args:
        f: A record (its kinks and scale are used) or any vectorised function.
        variance: Variances, any shape.
        mean: Means, broadcast against the variances.
        kinks: Inputs at which f or a derivative jumps, for a plain function.
        scale: Size of the inputs over which f bends, for a plain function.
        period: Period of f, if any, for a plain function.

    Raises:
        InputError: A negative or non-finite variance, a non-finite mean.

    Example:
        >>> round(float(expectation(abs, 1.0, kinks=(0.0,))), 12)  # sqrt(2/pi)
        0.797884560803
    """
    if isinstance(f, Activation):
        return expectations([f.f], variance, mean, **shape_of(f))[0]
    return expectations([f], variance, mean, kinks=kinks, scale=scale, period=period)[0]


@functools.lru_cache(maxsize=1024)
def _unit_power(act: Activation, power: int, derivative: bool) -> float:
    f = act.df if derivative else act.f
    return float(expectations([lambda u: f(u) ** power], 1.0, **shape_of(act))[0])


def moment(act: Activation, power: int, variance: ArrayLike, mean: ArrayLike = 0.0) -> Array:
    """E φ(u)^power; closed forms for homogeneous φ and where the record has one (zero mean)."""
    q, m = np.asarray(variance, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    if not np.any(m):
        check(m, q)
        shape = np.broadcast_shapes(q.shape, m.shape)
        if act.degree is not None:
            return np.broadcast_to(_unit_power(act, power, False) * q ** (0.5 * power * act.degree), shape)
        if power == 2 and act.square is not None:
            return np.broadcast_to(act.square(q), shape)
    return expectations([lambda u: act.f(u) ** power], q, m, **shape_of(act))[0]


def second_moment(act: Activation, variance: ArrayLike, mean: ArrayLike = 0.0) -> Array:
    """E φ(u)², u ~ N(mean, variance): mean square after the nonlinearity."""
    return moment(act, 2, variance, mean)


def derivative_second_moment(act: Activation, variance: ArrayLike, mean: ArrayLike = 0.0) -> Array:
    """E φ′(u)², the factor on the mean square of a gradient that passes the nonlinearity backward."""
    q, m = np.asarray(variance, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    if act.degree is not None and not np.any(m):
        check(m, q)
        shape = np.broadcast_shapes(q.shape, m.shape)
        return np.broadcast_to(_unit_power(act, 2, True) * q ** (act.degree - 1.0), shape)
    return expectations([lambda u: np.square(act.df(u))], q, m, **shape_of(act))[0]


def square_slope(act: Activation, variance: ArrayLike) -> Array:
    """Slope of the length map, dE φ(√q z)²/dq = E[φ′² + φ″φ] = E[uφ(u)φ′(u)]/q: needs no φ″."""
    q = np.asarray(variance, dtype=np.float64)
    if act.degree is not None:
        return act.degree * moment(act, 2, q) * q**-1.0
    return expectations([lambda u: act.f(u) * act.df(u) * u], q, **shape_of(act))[0] / q
