"""Quantiles of laws near a Gaussian: of random variance, skewed, flat; from their moments."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from firstlight.theory import special

Array = npt.NDArray[np.float64]

_LEVELS = 21  # values of the variance
_POINTS = 160  # inputs at which the distribution function is taken
_REACH = 10.5  # standard deviations of the normal that the quantiles are given for
_STEPS = 50  # laws kept per decade of the relative variance
_WIDEST = 1e4  # relative variance beyond which the law is not followed
_FLAT, _UNIFORM = -0.8, -1.2  # excess kurtosis down to which a cubic bends a Gaussian, and of a uniform law


def _cubics() -> tuple[Array, Array]:
    """(excess, b): the excess kurtosis of z + b·(z³ - 3z) at variance 1, from E of products of Hermite polynomials."""
    b = np.linspace(-0.06, 0.1, 161)
    variance = 1.0 + 6.0 * b * b
    fourth = 3.0 + 24.0 * b + 252.0 * b**2 + 1296.0 * b**3 + 3348.0 * b**4
    return fourth / variance**2 - 3.0, b


_CUBIC = _cubics()


def mixture(scatter: float) -> tuple[Array, Array]:
    """(z, t): the quantiles t = F⁻¹(Φ(z)), z ≥ 0, of √V·z' with E V = 1 and ln V normal, Var V = τ².

    F(t) = E Φ(t/√V), by Gauss and Hermite over ln V of variance ln(1 + τ²). The law is symmetric, its kurtosis
    3(1 + τ²). The variance of a layer over sites and draws is a product of many factors, so that ln V is near normal.

    Args:
        scatter: τ² > 0, rounded to a fiftieth of a decade, so that equal laws are found again.

    Example:
        >>> z, t = mixture(1e-9)
        >>> bool(abs(t - z).max() < 1e-6)
        True
    """
    return _mixture(_step(scatter))


def _step(scatter: float) -> int:
    return round(_STEPS * math.log10(min(max(scatter, 1e-12), _WIDEST)))


def level_of_scatter(scatter: float) -> float:
    """A relative variance with the same `mixture` as this one, of which there are few; negative ones stay."""
    return 10.0 ** (_step(scatter) / _STEPS) if scatter > 0.0 else scatter


@functools.lru_cache(maxsize=512)
def _mixture(step: int) -> tuple[Array, Array]:
    variance = math.log1p(10.0 ** (step / _STEPS))
    nodes, weights = np.polynomial.hermite_e.hermegauss(_LEVELS)
    weights = weights / weights.sum()
    log_v = math.sqrt(variance) * nodes
    sd = np.exp(0.5 * (log_v - math.log(float(np.exp(log_v) @ weights))))
    # up to where the widest component reaches as far as the quantiles are wanted, denser near zero
    t = _REACH * float(sd.max()) * np.linspace(0.0, 1.0, _POINTS) ** (2.0 + math.sqrt(variance))
    z = -special.ndtri(special.ndtr(-t[:, None] / sd) @ weights)
    z[0] = 0.0
    z.setflags(write=False)
    t.setflags(write=False)
    return z, t


def bent(z: Array, weights: Array, scatter: float, skew: float, excess: float) -> Array:
    """Values at the normal quantiles z of a law with mean 0, variance 1 and these moments.

    Where the variance scatters, z first goes to the quantiles of the mixture. Skewness and kurtosis beyond it bend
    (Cornish and Fisher): z + γ₃/6·(z² - 1) + b·(z³ - 3z) - γ₃²/36·(2z³ - 5z), brought back to variance 1, with b such
    that the kurtosis is right without skewness (γ₄/24 to first order). A law flatter than a cubic can make it goes
    over into the uniform one, which a bias is that is most of a unit.

    Args:
        z: Nodes of N(0, 1), ascending.
        weights: Their weights.
        scatter: Relative variance τ² of the variance; negative on a sphere, where it counts as kurtosis 3τ².
        skew: Third cumulant.
        excess: Fourth cumulant, without what the scatter makes.
    """
    skew = min(max(skew, -1.5), 1.5)
    if (
        scatter > 0.0 and excess != 0.0 and skew == 0.0
    ):  # a cubic of heavy tails cuts them off, or makes far heavier ones
        total = 3.0 * scatter + excess
        scatter, excess = max(total / 3.0, 0.0), min(total, 0.0)
    excess = min(max(3.0 * min(scatter, 0.0) + excess, _UNIFORM), 5.5)
    if scatter <= 0.0 and skew == 0.0 and excess == 0.0:
        return z
    plain = z
    if scatter > 0.0:
        z = np.copysign(np.interp(np.abs(z), *mixture(scatter)), z)
    if skew != 0.0 or excess != 0.0:
        b = float(np.interp(max(excess, _FLAT), *_CUBIC))
        if b < 0.0:  # beyond its turning point a flat law ends: quantiles must not fall
            end = (1.0 - 1.0 / (3.0 * b)) ** 0.5
            z = np.clip(z, -end, end)
        line = z + b * (z * (z * z - 3.0))
        if skew != 0.0:
            line += skew / 6.0 * (z * z - 1.0) - skew * skew / 36.0 * (plain * (2.0 * plain * plain - 5.0))
        if excess < _FLAT:
            share = (_FLAT - excess) / (_FLAT - _UNIFORM)
            line = (1.0 - share) * line + share * 3.0**0.5 * (2.0 * special.ndtr(plain) - 1.0)
        z = line
    z = z - float(z @ weights)
    return z / float((z * z) @ weights) ** 0.5
