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
    return LogMoments(mean + float(np.log(2.0 / width)), float(p @ special.trigamma(0.5 * m)) + spread, 2.0**-width)


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
    law = on_nodes(square / scale, weights, width)
    return LogMoments(law.mean + float(np.log(scale / q)), law.variance, law.p_dead)


def on_nodes(ratio: Array, weights: Array, width: float, step: float = 0.05) -> LogMoments:
    """Law of ln of the mean of `width` independent copies of a variable ≥ 0 of mean 1, given on quadrature nodes.

    Args:
        ratio: Its values, shape (n,), with mean 1.
        weights: Their probabilities, shape (n,), summing to 1.
        width: Number of copies, ≥ 1; need not be whole (an effective number).
        step: Largest step of the trapezoidal sum in ln t.

    Returns:
        Mean and variance, given that it is not zero, and the probability of zero.

    Error:
        That of the nodes: on the 160 nodes of the rules .4 % of the variance at 8 copies of a ReLU, 1e-4 at 16.
    """
    p_dead = float(weights[ratio == 0.0].sum()) ** width
    step = min(step, 1.0 / np.sqrt(width))
    tau = np.arange(-37.0, 40.0 + 160.0 / width, step)
    transform = np.exp(np.multiply.outer(np.exp(tau), ratio / -width)) @ weights
    law = (np.exp(width * np.log(np.maximum(transform, 1e-300))) - p_dead) / (1.0 - p_dead)
    gap = np.exp(-np.exp(tau)) - law
    mean = float(step * gap.sum())
    square_mean = -2.0 * float(step * (gap @ tau)) - 2.0 * float(np.euler_gamma) * mean
    return LogMoments(mean, square_mean - mean * mean, p_dead)


def second_order(variance: float, third: float, width: float) -> LogMoments:
    """The same up to 1/width², from the variance σ² and the third cumulant κ₃ of one copy.

    E ln = -σ²/2n + (κ₃/3 - 3σ⁴/4)/n², Var ln = σ²/n + (5σ⁴/2 - κ₃)/n² (of ln(1 + ε), term by term).

    Args:
        variance: σ² of a variable of mean 1.
        third: κ₃.
        width: Number n of copies.
    """
    n, s2 = width, variance
    return LogMoments(-0.5 * s2 / n + (third / 3.0 - 0.75 * s2 * s2) / n**2, s2 / n + (2.5 * s2 * s2 - third) / n**2)


def fluctuation(act: Activation, q: float = 1.0) -> float:
    """Eφ⁴/(Eφ²)² - 1 at u ~ N(0, q): n times the log-variance that a wide layer adds (ReLU 5, linear 2)."""
    return float(moment(act, 4, q) / moment(act, 2, q) ** 2) - 1.0
