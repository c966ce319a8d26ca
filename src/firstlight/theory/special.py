"""SciPy's special functions with types: SciPy ships none, so they are wrapped here, once."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_scipy: Any = import_module("scipy.special")
Array = NDArray[np.float64]


def _call(name: str, *args: ArrayLike) -> Array:
    return np.asarray(getattr(_scipy, name)(*args), dtype=np.float64)


def erf(x: ArrayLike) -> Array:
    """The error function."""
    return _call("erf", x)


def ndtr(x: ArrayLike) -> Array:
    """The standard normal distribution function Φ(x)."""
    return _call("ndtr", x)


def expit(x: ArrayLike) -> Array:
    """The logistic function 1/(1+exp(-x)), without overflow."""
    return _call("expit", x)


def digamma(x: ArrayLike) -> Array:
    """ψ(x), the derivative of ln Γ(x)."""
    return _call("digamma", x)


def trigamma(x: ArrayLike) -> Array:
    """ψ₁(x), the second derivative of ln Γ(x)."""
    return _call("polygamma", 1, x)


def gammaln(x: ArrayLike) -> Array:
    """Logarithm of Γ(x) for x > 0."""
    return _call("gammaln", x)


def normal_density(x: ArrayLike) -> Array:
    """Density of N(0,1) at x."""
    x = np.asarray(x, dtype=np.float64)
    return np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)


def softplus(x: ArrayLike) -> Array:
    """ln(1+exp(x)), without overflow."""
    return np.logaddexp(0.0, np.asarray(x, dtype=np.float64))


def ndtri(p: ArrayLike) -> Array:
    """Φ⁻¹(p), the quantile function of N(0,1)."""
    return _call("ndtri", p)


def gammaincinv(a: ArrayLike, p: ArrayLike) -> Array:
    """The quantile function of the gamma law of shape a."""
    return _call("gammaincinv", a, p)


def betaincinv(a: ArrayLike, b: ArrayLike, p: ArrayLike) -> Array:
    """The quantile function of the beta law."""
    return _call("betaincinv", a, b, p)
