"""The walk of the log-length through any nonlinearity, to leading order in the inverse width.

Let x = ln q, q the variance of the pre-activations, and h(x) = ln(g² Eφ(e^{x/2} z)²). A layer of n units
gives x' = h(x) + ε, where ε has mean -v/(2n) and variance v/n, v = Eφ⁴/(Eφ²)² - 1. Noise that came from
before is multiplied by h′: 1 for homogeneous φ, less for saturating ones, which forget.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstlight.errors import InputError
from firstlight.theory.activations import Activation, get
from firstlight.theory.gaussian import second_moment, square_slope
from firstlight.theory.lengths import check_widths
from firstlight.theory.log_moments import fluctuation
from firstlight.theory.random_walk import Walk

_STEP = 1e-3


def elasticity(act: str | Activation, q: float) -> float:
    """Factor h′ = d ln q_out/d ln q_in by which a nonlinearity passes on the noise of a log-length.

    Equal to the degree for homogeneous φ (relu 1, relu² 2), below 1 for saturating φ.

    Args:
        act: Name or record.
        q: Variance of the pre-activations, > 0.

    References:
        sussillo2014
    """
    act = get(act)
    return float(q * square_slope(act, q) / second_moment(act, q))


def wide_walk(act: str | Activation, widths: Sequence[int], gain: float, mean_square: float = 1.0) -> tuple[Walk, ...]:
    """Law of ln(M_l/M_0) after each layer, for any φ, to leading order in 1/n.

    x' = h(x) - v/(2n) + ½h″(x)s², s²' = h′(x)²s² + v/n, with x the mean and s² the variance of the log.

    Args:
        act: Name or record.
        widths: n_1 … n_d; the weights have variance g²/fan_in, biases are zero.
        gain: g.
        mean_square: M_0 of the input.

    Returns:
        One `Walk` per layer (p_alive from φ's exact zeros).

    Raises:
        InputError: mean_square ≤ 0 or a width that is no whole number ≥ 1.

    Valid for:
        Depth/width small; corrections are of order (depth/width)².

    References:
        sussillo2014, hanin2020products
    """
    act = get(act)
    if not (np.isfinite(mean_square) and mean_square > 0 and np.isfinite(gain) and gain > 0):
        raise InputError("walk", got=f"mean square {mean_square}, gain {gain}", expected="finite numbers > 0")
    log_m, variance, log_alive, walks = float(np.log(mean_square)), 0.0, 0.0, list[Walk]()
    for n in check_widths(widths):
        log_q = log_m + 2.0 * float(np.log(gain))
        q = float(np.exp(log_q))
        slope = elasticity(act, q)
        bend = elasticity(act, q * float(np.exp(_STEP))) - elasticity(act, q * float(np.exp(-_STEP)))
        noise = fluctuation(act, q) / float(n)
        log_m = float(np.log(second_moment(act, q))) - 0.5 * noise + 0.25 * bend / _STEP * variance
        variance = slope**2 * variance + noise
        if act.dead_below is not None and act.dead_below == 0.0:
            log_alive += float(np.log1p(-(2.0**-n)))
        walks.append(Walk(log_m - float(np.log(mean_square)), variance, float(np.exp(log_alive))))
    return tuple(walks)
