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


def erfinv(y: ArrayLike) -> Array:
    """The inverse of the error function."""
    return _call("erfinv", y)


def logit(p: ArrayLike) -> Array:
    """ln p/(1 - p), the inverse of the logistic function."""
    return _call("logit", p)


def log_ndtr(x: ArrayLike) -> Array:
    """ln Φ(x), also where Φ(x) is below double precision."""
    return _call("log_ndtr", x)


def erfcx(x: ArrayLike) -> Array:
    """exp(x²)·(1 - erf x)."""
    return _call("erfcx", x)


def entropy(p: ArrayLike) -> Array:
    """-p ln p, 0 at 0."""
    return _call("entr", p)


def polygamma(n: int, x: ArrayLike) -> Array:
    """The n-th derivative of ψ(x)."""
    return _call("polygamma", n, x)


def bessel_j(n: int, x: ArrayLike) -> Array:
    """J_n(x), the Bessel function of the first kind and order n."""
    return _call("jv", n, x)


def bessel_i(n: int, x: ArrayLike) -> Array:
    """I_n(x), the modified Bessel function of the first kind and order n."""
    return _call("iv", n, x)


def bessel_i_scaled(n: int, x: ArrayLike) -> Array:
    """exp(-|x|)·I_n(x)."""
    return _call("ive", n, x)
