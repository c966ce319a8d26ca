"""Lengths of activations in fully connected ReLU nets: exact moments at any width, and death.

M_l = |h_l|²/n_l is the mean square of the entries after layer l. Unless said otherwise weights are
independent, symmetric, with variance 2/fan_in, biases are zero and the input is fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError
from firstlight.theory import special
from firstlight.theory.log_moments import living_units

Array = NDArray[np.float64]


def check_widths(widths: Sequence[int] | Array) -> Array:
    """Widths as a float array.

    Raises:
        InputError: A width that is no whole number ≥ 1.
    """
    n = np.atleast_1d(np.asarray(widths, dtype=np.float64))
    if n.size == 0:
        return n.astype(np.float64)
    if n.ndim != 1 or not np.all(np.isfinite(n)) or np.any(n < 1) or np.any(n != np.floor(n)):
        raise InputError("widths", got=str(widths)[:80], expected="a list of whole numbers ≥ 1")
    return n


def inverse_width_sum(widths: Sequence[int]) -> float:
    """S = Σ 1/n_l over the hidden layers: to leading order it alone sets all fluctuations.

    References:
        hanin2018
    """
    return float(np.sum(1.0 / check_widths(widths)))


def mean_path(depth: int, mean_square: float = 1.0, weight_factor: float = 2.0, bias_variance: float = 0.0) -> Array:
    """E M_l = (c/2) E M_{l-1} + ν/2 for layers 0 … depth; exact at any width, for any symmetric law.

    Args:
        depth: Layers.
        mean_square: M_0.
        weight_factor: c in the weight variance c/fan_in (He 2, LeCun and square Glorot 1, torch 1/3).
        bias_variance: ν.

    References:
        hanin2018
    """
    path = [float(mean_square)]
    for _ in range(depth):
        path.append(0.5 * weight_factor * path[-1] + 0.5 * bias_variance)
    return np.array(path)


def square_path(widths: Sequence[int], *, excess: float = 5.0) -> Array:
    """E M_l²/M_0² = Π(1 + v/n_j) for layers 0 … d, Gaussian weights; exact.

    Args:
        widths: n_1 … n_d.
        excess: v of the nonlinearity: ReLU 5, leaky by `leaky_excess`, linear 2.

    References:
        hanin2018
    """
    return np.concatenate([[1.0], np.cumprod(1.0 + excess / check_widths(widths))])


def square_path_bound(widths: Sequence[int]) -> float:
    """exp(5S) ≥ E M_d²/M_0²: only an upper bound (n=10, d=10: 147 against 56.7).

    References:
        hanin2018
    """
    return float(np.exp(5.0 * inverse_width_sum(widths)))


def relative_variance(widths: Sequence[int], *, excess: float = 5.0) -> float:
    """Var M_d / (E M_d)² = Π(1 + v/n_j) - 1."""
    return float(square_path(widths, excess=excess)[-1] - 1.0)


def moment_ratio(widths: Sequence[int], order: float) -> float:
    """E M_d^p/M_0^p = Π_l Σ_m C(n_l,m)2^{-n_l}(4/n_l)^p Γ(m/2+p)/Γ(m/2), Gaussian weights; exact.

    Args:
        widths: n_1 … n_d.
        order: p > 0, real.

    Raises:
        InputError: order ≤ 0 (a dead net has M = 0).
    """
    if not order > 0:
        raise InputError("order of the moment", got=repr(order), expected="a number > 0")
    total = 0.0
    for n in check_widths(widths):
        m, p = living_units(int(n))
        log_terms = special.gammaln(0.5 * m + order) - special.gammaln(0.5 * m) + order * np.log(4.0 / n)
        top = float(np.max(log_terms))
        total += top + float(np.log(p @ np.exp(log_terms - top)))
    return float(np.exp(total))


def kurtosis_path(
    widths: Sequence[int],
    kurtosis: float,
    inputs: ArrayLike,
    *,
    weight_factor: float = 2.0,
) -> tuple[Array, Array]:
    """(A_l, Q_l) = (E M_l², E mean h⁴) for layers 0 … d and a weight law of any kurtosis κ; exact.

    A_l = (1+5/n_l)A_{l-1} + 2(κ-3)/(n_l n_{l-1}) Q_{l-1};  Q_l = 6A_{l-1} + 2(κ-3)/n_{l-1} Q_{l-1};
    both times (c/2)² for weights of variance c/fan_in.

    Args:
        widths: n_1 … n_d.
        kurtosis: κ = E w⁴/(E w²)² ≥ 1.
        inputs: The input vector, shape (n_0,).
        weight_factor: c.

    Raises:
        InputError: κ < 1, or an input that is no finite vector.

    References:
        hanin2018
    """
    x = np.asarray(inputs, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.all(np.isfinite(x)):
        raise InputError("input", got=f"an array of shape {x.shape}", expected="a finite vector")
    if not kurtosis >= 1.0:
        raise InputError("kurtosis", got=repr(kurtosis), expected="E w⁴/(E w²)² ≥ 1")
    scale, extra, before = (0.5 * weight_factor) ** 2, 2.0 * (kurtosis - 3.0), float(x.size)
    a, q = [float(np.mean(x * x)) ** 2], [float(np.mean(x**4))]
    for n in check_widths(widths):
        ahead = (1.0 + 5.0 / n) * a[-1] + extra / (n * before) * q[-1]
        q.append(scale * (6.0 * a[-1] + extra / before * q[-1]))
        a.append(scale * float(ahead))
        before = float(n)
    return np.array(a), np.array(q)


def empirical_variance(widths: Sequence[int], *, excess: float = 5.0) -> float:
    """E V̂ = (1/d²) Σ_j (2j-d-1) E M_j²: expected variance of M over the d layers of one net, M_0 = 1.

    About (5/6)d/n while that is small.

    References:
        hanin2018
    """
    second = square_path(widths, excess=excess)[1:]
    d = len(second)
    return float(np.sum((2.0 * np.arange(1, d + 1) - d - 1.0) * second)) / d**2 if d else 0.0


def p_dead(widths: Sequence[int]) -> float:
    """Probability that the net outputs its biases at a given input: 1 - Π(1 - 2^{-n_l}).

    References:
        lu2019, hanin2018
    """
    return float(-np.expm1(np.sum(np.log1p(-np.exp2(-check_widths(widths))))))


def leaky_excess(slope: float) -> float:
    """Excess v = Eφ⁴/(Eφ²)² - 1 = 6(1+a⁴)/(1+a²)² - 1 for slope a below zero: relu 5, linear 2."""
    return 6.0 * (1.0 + slope**4) / (1.0 + slope**2) ** 2 - 1.0


def leaky_variance(slope: float) -> float:
    """Factor c = 2/(1+a²): the weight variance c/fan_in that keeps the mean for slope a below zero.

    References:
        he2015
    """
    return 2.0 / (1.0 + slope**2)


def orthogonal_square(widths: Sequence[int]) -> float:
    """E M_d²/M_0² = Π (n+5)/(n+2) for square Haar-orthogonal weights with gain √2; exact.

    References:
        saxe2013
    """
    n = check_widths(widths)
    return float(np.prod((n + 5.0) / (n + 2.0)))


def orthogonal_mean(fan_in: int, fan_out: int, gain: float = float(np.sqrt(2.0))) -> float:
    """E M'/M through ReLU for Haar weights with orthonormal columns (fan_out > fan_in) or rows.

    Orthonormal rows keep the mean square at gain √2. Orthonormal *columns* put the same energy on more units:
    the mean square falls by fan_in/fan_out.
    """
    n, m = check_widths([fan_in, fan_out])
    return float(0.5 * gain**2 * min(1.0, n / m))


def zero_padding_factor(side: int) -> float:
    """Energy kept per 3×3 layer with zero padding on an H×H image in the long run: ((1+2cos(π/(H+1)))/3)².

    The factor is the largest eigenvalue of the averaging over taps; circular padding keeps all energy.

    References:
        hanin2018
    """
    return float(((1.0 + 2.0 * np.cos(np.pi / (check_widths([side])[0] + 1.0))) / 3.0) ** 2)


def zero_padding_path(height: int, width: int, depth: int, kernel: int = 3) -> Array:
    """E M_l/M_0 for layers 0 … depth of stride-1 'same' convolutions with He variance and zero padding.

    Exact for an input whose mean square is the same at every position; kernel odd.

    Raises:
        InputError: An even kernel.
    """
    sides = check_widths([height, width, kernel])
    if kernel % 2 == 0:
        raise InputError("kernel", got=repr(kernel), expected="an odd size")
    reach = (int(sides[2]) - 1) // 2
    profiles = [np.ones(int(side)) for side in sides[:2]]
    path = [1.0]
    for _ in range(depth):
        profiles = [
            np.convolve(p, np.ones(2 * reach + 1), mode="full")[reach : -reach or None] / kernel for p in profiles
        ]
        path.append(float(np.mean(profiles[0]) * np.mean(profiles[1])))
    return np.array(path)


def conv_square_bound(channels: Sequence[int]) -> float:
    """E M_d²/M_0² ≤ Π(1 + 5/channels): in a conv net the fluctuation follows channels, not fan_in.

    References:
        hanin2018
    """
    return float(square_path(channels)[-1])
