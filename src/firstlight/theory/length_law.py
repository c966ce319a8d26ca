"""The law of M_d, the mean square after d layers: M_d/M_0 = Π ξ_l, ξ = (2/n)χ²_K, K ~ Bin(n, ½).

Exact for Gaussian He weights and zero biases. Its log is a sum of independent terms, so its distribution
function follows from the product of their characteristic functions E ξ^{it} (Gil-Pelaez inversion).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError
from firstlight.theory import special
from firstlight.theory.lengths import check_widths, inverse_width_sum
from firstlight.theory.log_moments import living_units
from firstlight.theory.random_walk import Walk, walk

Array = NDArray[np.float64]
_special: Any = import_module("scipy.special")
_BLOCK = 256


def log_law(widths: Sequence[int], gain: float = float(np.sqrt(2.0))) -> Walk:
    """Exact mean and variance of ln(M_d/M_0), given that no layer is dead.

    References:
        hanin2020products, sussillo2014
    """
    return walk("relu", [int(n) for n in check_widths(widths)], gain)


def leading_law(widths: Sequence[int]) -> tuple[float, float]:
    """(mean, variance) of the 1/n law ln(M_d/M_0) ≈ N(-5S/2, 5S).

    References:
        hanin2020products
    """
    s = inverse_width_sum(widths)
    return -2.5 * s, 5.0 * s


def sample(widths: Sequence[int], draws: int, rng: np.random.Generator) -> Array:
    """Draws of M_d/M_0 from the exact mixture law, shape (draws,); dead nets give 0.

    Args:
        widths: n_1 … n_d.
        draws: Number of draws.
        rng: Source of randomness.
    """
    product = np.ones(draws)
    for n in check_widths(widths):
        alive = rng.binomial(int(n), 0.5, size=draws)
        product *= np.where(alive > 0, 2.0 / n * rng.chisquare(np.maximum(alive, 1)), 0.0)
    return product


def _log_characteristic(width: int, t: NDArray[np.floating[Any]]) -> NDArray[np.complex128]:
    """Logarithm of E[ξ^{it} | alive], t of shape (k,), up to multiples of 2πi, which exp ignores."""
    m, p = living_units(width)
    keep = p > 1e-18
    half, p = 0.5 * m[keep], p[keep] / p[keep].sum()
    log_gamma = _special.loggamma(half[None, :] + 1j * t[:, None]) - special.gammaln(half)[None, :]
    value = np.exp(log_gamma) @ p
    with np.errstate(divide="ignore"):
        return np.log(value) + 1j * t * np.log(4.0 / width)


@functools.lru_cache(maxsize=512)
def _transform(groups: tuple[tuple[int, int], ...], step: float) -> NDArray[np.complex128]:
    """Product of the characteristic functions at t = (k+½)·step, until it is below 1e-17."""
    blocks: list[NDArray[np.complex128]] = []
    while True:
        start = _BLOCK * len(blocks)
        t = (np.arange(start, start + _BLOCK) + 0.5) * step
        log_value = np.zeros(_BLOCK, dtype=np.complex128)
        for width, count in groups:
            log_value += count * _log_characteristic(width, t)
        blocks.append(np.exp(log_value))
        if np.max(np.abs(blocks[-1][-16:])) < 1e-17 or start > 1 << 17:
            return np.concatenate(blocks)


def log_cdf(widths: Sequence[int], x: ArrayLike) -> Array:
    """P(ln(M_d/M_0) ≤ x | no dead layer), exact up to 1e-9; vectorised over x.

    Args:
        widths: n_1 … n_d, at least one.
        x: Values of ln(M_d/M_0).

    Raises:
        InputError: No layer.

    Error:
        ≤ 1e-9 (one layer is compared with the χ² mixture's own distribution function).

    References:
        hanin2020products
    """
    x = np.asarray(x, dtype=np.float64)
    groups = tuple(sorted(Counter(int(n) for n in check_widths(widths)).items()))
    if not groups:
        raise InputError("widths", got="no layer", expected="at least one")
    law = log_law(widths)
    # The period of the trapezoidal sum must hold the law (its lower tail is exponential, rate ½) and x.
    reach = 14.0 * law.sd + 60.0 + float(np.max(np.abs(x - law.mean), initial=0.0))
    step = 2.0 * np.pi / (2.0 * 2.0 ** np.ceil(np.log2(reach)))  # rounded, so that near calls share the cache
    transform = _transform(groups, float(step))
    k = np.arange(len(transform)) + 0.5
    waves = np.exp(-1j * np.multiply.outer(x, k * step)) * transform
    return np.clip(0.5 - np.imag(waves / k).sum(axis=-1) / np.pi, 0.0, 1.0)


def p_off(widths: Sequence[int], factor: ArrayLike = 10.0) -> Array:
    """P(M_d/M_0 outside [1/r, r]), dead nets counted as outside; exact for Gaussian He weights.

    Args:
        widths: n_1 … n_d; an empty list gives 0.
        factor: r > 1, any shape.

    Raises:
        InputError: A factor ≤ 1.

    References:
        hanin2018, hanin2020products
    """
    r = np.asarray(factor, dtype=np.float64)
    if not np.all(r > 1.0):
        raise InputError("factor", got=str(factor), expected="numbers > 1")
    if len(widths) == 0:
        return np.zeros_like(r)
    inside = log_cdf(widths, np.log(r)) - log_cdf(widths, -np.log(r))
    return 1.0 - log_law(widths).p_alive * inside


def p_off_normal(mean: ArrayLike, variance: ArrayLike, factor: ArrayLike = 10.0) -> Array:
    """P(|ln M| > ln r) for ln M ~ N(mean, variance); for `leading_law` and for any graph's walk."""
    r = np.log(np.asarray(factor, dtype=np.float64))
    m, sd = np.asarray(mean, dtype=np.float64), np.sqrt(np.asarray(variance, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            sd > 0,
            special.ndtr((-r - m) / sd) + special.ndtr((m - r) / sd),
            (np.abs(m) > r).astype(np.float64),
        )
