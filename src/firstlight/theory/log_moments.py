"""Exact mean and variance of ln of a layer's mean square at finite width, for any nonlinearity.

For independent z_i ~ N(0,1) let X = Σ_i φ(√q z_i)² / (n q). Its Laplace transform is L(t)ⁿ with
L(t) = E exp(-tφ²/(nq)), and with ℓ(t) the transform of X given X > 0 and γ Euler's constant

    E ln X = ∫ (e^{-t} - ℓ(t))/t dt,    E ln²X = -2 ∫ (e^{-t} - ℓ(t)) ln t / t dt - 2γ E ln X,

both a trapezoidal sum in ln t, which converges geometrically.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import InputError
from firstlight.theory import special
from firstlight.theory.activations import Activation
from firstlight.theory.gaussian import moment, rule_in_z

Array = NDArray[np.float64]
_WINDOW = 14.0  # standard deviations of the binomial that are summed


@dataclass(frozen=True)
class LogMoments:
    """Law of ln X of one layer, given that at least one unit lives.

    Attributes:
        mean: E ln X.
        variance: Var ln X.
        p_dead: Probability that every unit gives exactly 0.
    """

    mean: float
    variance: float
    p_dead: float = 0.0


def check_width(width: int | float) -> int:
    """The width as an integer ≥ 1.

    Raises:
        InputError: Not a positive whole number.
    """
    if isinstance(width, bool) or not np.isfinite(width) or width < 1 or int(width) != width:
        raise InputError("width (fan)", got=repr(width), expected="a whole number ≥ 1")
    return int(width)


def living_units(width: int) -> tuple[Array, Array]:
    """Numbers m ≥ 1 of living ReLU units of a layer and their unconditional probabilities C(n,m) 2^{-n}."""
    spread = _WINDOW * 0.5 * np.sqrt(width) + 1.0
    low, high = max(1, int(0.5 * width - spread)), min(width, int(0.5 * width + spread) + 1)
    m = np.arange(low, high + 1, dtype=np.float64)
    log_p = special.gammaln(width + 1.0) - special.gammaln(m + 1.0) - special.gammaln(width - m + 1.0)
    return m, np.exp(log_p - width * np.log(2.0))


@functools.lru_cache(maxsize=4096)
def _relu(width: int) -> LogMoments:
    m, p = living_units(width)
    p = p / p.sum()
    psi = special.digamma(0.5 * m)
    mean = float(p @ psi)
    spread = float(p @ np.square(psi - mean))
    return LogMoments(
        mean + float(np.log(2.0 / width)), float(p @ special.trigamma(0.5 * m)) + spread, 2.0**-width
    )


def _linear(width: int) -> LogMoments:
    half = 0.5 * width
    return LogMoments(float(special.digamma(half)) - float(np.log(half)), float(special.trigamma(half)))


def log_moments(act: Activation, width: int, q: float = 1.0) -> LogMoments:
    """Exact law of ln(Σφ(u_i)²/(n q)), u_i ~ N(0, q) independent, given that it is not zero.

    Args:
        act: The nonlinearity.
        width: Number n of units, ≥ 1.
        q: Variance of the pre-activations (irrelevant for φ of degree 1).

    Returns:
        Mean, variance and the probability of a dead layer.

    Raises:
        InputError: A width that is no positive whole number, or q ≤ 0.

    Error:
        ≤ 1e-9 against the closed forms of linear and ReLU.

    References:
        sussillo2014
    """
    width = check_width(width)
    if not (np.isfinite(q) and q > 0):
        raise InputError("q", got=repr(q), expected="a finite variance > 0")
    if act.slopes in ((1.0, 1.0), (1.0, -1.0)):
        return _linear(width)
    if act.slopes == (1.0, 0.0):
        return _relu(width)
    return _by_transform(act, width, 1.0 if act.degree == 1.0 else float(q))


@functools.lru_cache(maxsize=4096)
def _by_transform(act: Activation, width: int, q: float) -> LogMoments:
    sd = float(np.sqrt(q))
    ladder = np.array([10.0**-k for k in range(1, 13)] + [0.5, 1.0, 2.0, 3.0, 6.0, 8.0])
    zeros = [0.0, *(k / sd for k in act.kinks)]
    extra = np.concatenate([z + s * ladder for z in zeros for s in (-1.0, 1.0)])
    z, weights = rule_in_z(0.0, sd, act, extra)
    weights = weights / weights.sum()
    square = np.square(act.f(sd * z))
    scale = float(weights @ square)  # X is measured in units of its mean, so that ln t is centred at 0
    ratio = square / (scale * width)
    zero = float(weights[square == 0.0].sum())
    p_dead = zero**width
    step = min(0.05, 1.0 / np.sqrt(width))
    ends = -37.0, 40.0 + 160.0 / width
    tau = np.arange(ends[0], ends[1], step)
    log_transform = np.array([np.log(max(weights @ np.exp(-t * ratio), 1e-300)) for t in np.exp(tau)])
    law = (np.exp(width * log_transform) - p_dead) / (1.0 - p_dead)
    gap = np.exp(-np.exp(tau)) - law
    mean = float(step * gap.sum())
    square_mean = -2.0 * float(step * (gap @ tau)) - 2.0 * float(np.euler_gamma) * mean
    return LogMoments(mean + float(np.log(scale / q)), square_mean - mean * mean, p_dead)


def fluctuation(act: Activation, q: float = 1.0) -> float:
    """Eφ⁴/(Eφ²)² - 1 at u ~ N(0, q): n times the log-variance that a wide layer adds (ReLU 5, linear 2)."""
    return float(moment(act, 4, q) / moment(act, 2, q) ** 2) - 1.0
