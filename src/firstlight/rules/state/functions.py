"""Functions of Gaussian tensors with something in common: E f(u)g(v) = Σ_k a_k b_k c^k (Mehler), entry by entry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from firstlight.graph.nodes import series
from firstlight.graph.signal import Array, Signal, average
from firstlight.theory.cross import absolute_correlation

Moment = tuple[Array, Array]  # a field at equal indices and a cube over pairs
Cross = Callable[[Signal, Signal], Moment]


def of_functions(x: Signal, y: Signal, cross: Cross) -> Moment | None:
    """E f(u)g(v) of functions of Gaussian tensors, by what those have in common; None of others."""
    u, v = _base(x), _base(y)
    if u is x and v is y:
        return None
    if u is None or v is None or u.atoms != v.atoms or x.atoms != u.atoms:
        return None
    field, cube = cross(u, v)
    level = float(u.mean.mean()) * float(v.mean.mean())
    spread = _deviation(u) * _deviation(v)
    if spread <= 0.0:
        return None
    mixed = float(np.mean(field - u.mean * v.mean)) / spread
    at_pairs = np.asarray(np.clip((cube - level) / spread, -1.0, 1.0))
    at_pairs[(0,) * at_pairs.ndim] = min(max(mixed, -1.0), 1.0)
    kernel = _kernel(x, y)
    out, one = np.asarray(kernel(at_pairs)), (0,) * at_pairs.ndim
    if x.q.size == 1 and y.q.size == 1:
        return np.full((1,) * len(x.atoms), out.item(one)), out
    # entries of different size: those at the border of an image see fewer taps
    root = np.sqrt(np.maximum(u.q - np.square(u.mean), 0.0) * np.maximum(v.q - np.square(v.mean), 0.0))
    there = np.clip((field - u.mean * v.mean) / np.maximum(root, 1e-300), -1.0, 1.0)
    field = kernel(there) * np.sqrt(x.q * y.q) / max((x.mean_q * y.mean_q) ** 0.5, 1e-300)
    out[one] = average(field)
    return field, out


def _kernel(x: Signal, y: Signal) -> Callable[[Array], Array]:
    """E f(u)g(v) of functions of Gaussian tensors as a function of the correlation of those."""
    own, slopes = (x.mean_q * y.mean_q) ** 0.5, _slopes(x)
    if slopes is not None and slopes == _slopes(y):  # in closed form, whatever the lengths of u and v scatter by
        even, odd = (0.5 * (slopes[0] - slopes[1])) ** 2, (0.5 * (slopes[0] + slopes[1])) ** 2
        return lambda c: (odd * c + even * absolute_correlation(c)) * (own / (odd + even))
    a, b = _hermite(x), _hermite(y)
    if a.shape == b.shape and x.source is not None:
        power = x.source.share @ (a * b)
    else:
        count = min(a.shape[1], b.shape[1])
        power = _row_mean(x, a)[:count] * _row_mean(y, b)[:count]
    rest = min(max(own - float(power.sum()), 0.0), abs(own)) if x.source is not None and _one_function(a, b) else 0.0
    return lambda c: series(c, power, rest)


def _base(x: Signal) -> Signal | None:
    """The Gaussian tensor that x is a function of; x itself if of none."""
    source = x.source
    if source is None or x.values is None:
        return x
    return source.of[1] if source.of is not None and source.of[0] == source.key else None


def _hermite(x: Signal) -> Array:
    """Hermite coefficients of x on its source, shape (rows, K); of a Gaussian tensor its mean and deviation."""
    if x.source is None or x.values is None:
        return np.array([[float(x.mean.mean()), _deviation(x)]])
    return x.values @ x.source.grid.hermite


def _slopes(x: Signal) -> tuple[float, float] | None:
    """Slopes above and below zero of a function that is linear on either side, of a tensor around zero."""
    if x.source is None or x.values is None or x.source.mean.any():
        return None
    u = x.source.values
    if u.shape != x.values.shape or not u.any(axis=-1).all():
        return None
    found: list[float] = []
    for side in (u > 0.0, u < 0.0):
        ratio = x.values[side] / u[side]
        if not ratio.size or float(np.ptp(ratio)) > 1e-9:
            return None
        found.append(round(float(ratio[0]), 9))
    return (found[0], found[1]) if any(found) else None


def _row_mean(x: Signal, a: Array) -> Array:
    return a[0] if x.source is None or x.values is None else x.source.share @ a


def _one_function(a: Array, b: Array) -> bool:
    """Whether two have the same coefficients up to scale, so that what the series lacks is E x² of them as well."""
    return a.shape == b.shape and float(np.abs(a - b).max()) <= 0.1 * float(np.abs(a).max())


def _deviation(x: Signal) -> float:
    return max(x.mean_q - float(np.square(x.mean).mean()), 0.0) ** 0.5
