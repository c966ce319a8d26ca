"""The random walk of the log-norm: drift, variance and the gains that cancel the drift.

Weights have variance g²/fan_in. Over one layer of n units the log of a vector's mean square moves by
ln g² + ln z with independent z, so over D layers ln Z is a random walk (Sussillo & Abbott).
A gain can keep the *mean* of Z (He) or its *median* (the random-walk gain), not both: they differ by half
the variance of the walk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError
from firstlight.theory import special
from firstlight.theory.activations import Activation, get
from firstlight.theory.gaussian import expectation, expectations, second_moment, shape_of
from firstlight.theory.log_moments import check_width, fluctuation, living_units, log_moments

_optimize: Any = import_module("scipy.optimize")


@dataclass(frozen=True)
class Walk:
    """Law of ln(M_D/M_0) of a stack of layers, given that no layer is dead.

    Attributes:
        mean: E ln.
        variance: Var ln.
        p_alive: Probability that no layer is dead.
    """

    mean: float
    variance: float
    p_alive: float

    @property
    def sd(self) -> float:
        """Standard deviation of ln."""
        return float(np.sqrt(self.variance))


@functools.lru_cache(maxsize=1024)
def mean_gain(act: str | Activation, q: float = 1.0) -> float:
    """Gain g = √(q/Eφ(√q z)²): keeps the mean of the mean square of pre-activations at q.

    For φ of degree 1 (linear, relu, leaky_relu, abs) this holds at every q; it is He's √2 for relu.

    Args:
        act: Name or record.
        q: Mean square of the pre-activations, > 0.

    Raises:
        InputError: q ≤ 0.

    References:
        he2015
    """
    if not (np.isfinite(q) and q > 0):
        raise InputError("q", got=repr(q), expected="a finite mean square > 0")
    return float(np.sqrt(q / second_moment(get(act), q)))


def centred_gain(act: str | Activation, q: float = 1.0) -> float:
    """Gain g = √(q/Var φ(√q z)): keeps the mean square behind weights whose rows sum to zero.

    Such weights see h - mean(h) only, so that Var φ = Eφ² - (Eφ)² takes the place of Eφ². For an odd φ it is
    `mean_gain`; for the sigmoid σ(z) = ½ + ½tanh(z/2) a stack with it is a tanh stack, exactly.

    Args:
        act: Name or record.
        q: Mean square of the pre-activations, > 0.

    Raises:
        InputError: q ≤ 0.

    Example:
        >>> round(centred_gain("sigmoid"), 4), round(centred_gain("tanh"), 4) == round(mean_gain("tanh"), 4)
        (4.8013, True)

    References:
        huang2017centred
    """
    record = get(act)
    mean = q / mean_gain(record, q) ** 2  # checks q
    return float(np.sqrt(q / (mean - float(expectation(record, q)) ** 2)))


def median_gain(act: str | Activation, width: int, q: float = 1.0) -> float:
    """Gain g = exp(-½ E ln z): no drift of the log-norm, exact at any width, given that the layer lives.

    linear: √(n/2)·exp(-½ψ(n/2)); relu: √(n/2)·exp(-½ Σ p_m ψ(m/2)); others by `log_moments`.

    Args:
        act: Name or record.
        width: Units n of the layer.
        q: Mean square of the pre-activations at which this holds; irrelevant for φ of degree 1.

    Raises:
        InputError: A width that is no positive whole number, or q ≤ 0.

    Example:
        >>> round(median_gain("relu", 10), 6)
        1.649223

    References:
        sussillo2014
    """
    return float(np.exp(-0.5 * log_moments(get(act), width, q).mean))


def first_order_gain(act: str | Activation, width: int, q: float = 1.0) -> float:
    """Median-keeping gain to leading order in 1/n: √(q/Eφ²)·exp(v/(4n)), v = Eφ⁴/(Eφ²)² - 1."""
    return mean_gain(act, q) * float(np.exp(fluctuation(get(act), q) / (4.0 * check_width(width))))


def paper_gain(act: str | Activation, width: int) -> float:
    """The published fits: exp(1/(2n)) for linear, √2·exp(1.2/(max(n,6)-2.4)) for relu.

    Raises:
        InputError: Another nonlinearity: the paper gives no fit for it.

    References:
        sussillo2014
    """
    act, width = get(act), check_width(width)
    if act.slopes == (1.0, 1.0):
        return float(np.exp(0.5 / width))
    if act.slopes == (1.0, 0.0):
        return float(np.sqrt(2.0) * np.exp(1.2 / (max(width, 6) - 2.4)))
    raise InputError(
        f"gain of {act.name!r}",
        got="law='paper'",
        expected="'linear' or 'relu', the only ones for which the paper gives a fit",
        action="Use law='exact', which works for every activation.",
    )


def paper_variance(width: int) -> float:
    """The published fit 5/(max(n,6)-4) of Var ln z for relu.

    References:
        sussillo2014
    """
    return 5.0 / (max(check_width(width), 6) - 4.0)


def drift(act: str | Activation, width: int, gain: float, q: float = 1.0) -> float:
    """Drift of ln Z per layer, ln g² + E ln z."""
    return 2.0 * float(np.log(gain)) + log_moments(get(act), width, q).mean


def variance(act: str | Activation, width: int, q: float = 1.0) -> float:
    """Var ln z per layer; relu 5/n + 18.5/n² + …, linear 2/n + 2/n² + …."""
    return log_moments(get(act), width, q).variance


def walk(act: str | Activation, widths: Sequence[int], gain: float | Sequence[float]) -> Walk:
    """Law of the log-norm over layers of the given widths, for φ of degree 1 (steps are independent).

    Args:
        act: Name or record, positively homogeneous of degree 1.
        widths: Units of each layer; empty gives the walk of no step.
        gain: One gain, or one per layer.

    Raises:
        InputError: φ is not of degree 1, or as many gains as layers were expected.

    References:
        sussillo2014
    """
    act = get(act)
    if act.degree != 1.0:
        raise InputError(
            f"walk of {act.name!r}",
            got="a nonlinearity whose steps depend on the length",
            expected="one of degree 1 (linear, relu, leaky_relu, prelu, abs)",
            action="Use mean_field.length_path for the mean and fluctuation() for the noise.",
        )
    gains = [float(gain)] * len(widths) if isinstance(gain, (int, float)) else [float(g) for g in gain]
    if len(gains) != len(widths):
        raise InputError("gain", got=f"{len(gains)} gains", expected=f"{len(widths)}, one per layer")
    steps = [log_moments(act, n) for n in widths]
    return Walk(
        mean=float(sum(2.0 * np.log(g) + s.mean for g, s in zip(gains, steps, strict=True))),
        variance=float(sum(s.variance for s in steps)),
        p_alive=float(np.exp(sum(np.log1p(-s.p_dead) for s in steps))),
    )


def fractional_gain(act: str | Activation, width: int, order: float) -> float:
    """Gain that keeps E|h|^s: exact for linear and relu (dead layers count as 0), s = `order` > 0.

    s = 2 keeps the mean square, s → 0 the median. To first order σ_w² = 2 + 5(2-s)/(2n) for relu.

    Raises:
        InputError: order ≤ 0, or another nonlinearity.

    References:
        gurbuzbalaban2021
    """
    act, width = get(act), check_width(width)
    if not (np.isfinite(order) and order > 0):
        raise InputError("order", got=repr(order), expected="a number > 0 (0 is median_gain)")
    if act.slopes == (1.0, 1.0):
        m, p = np.array([float(width)]), np.array([1.0])
    elif act.slopes == (1.0, 0.0):
        m, p = living_units(width)
    else:
        raise InputError("fractional gain", got=repr(act.name), expected="'linear' or 'relu'")
    half = 0.5 * order
    log_terms = special.gammaln(0.5 * m + half) - special.gammaln(0.5 * m) + half * np.log(2.0 / width)
    top = float(np.max(log_terms))
    return float(np.exp(-(top + np.log(p @ np.exp(log_terms - top))) / order))


def fractional_variance(width: int, order: float) -> float:
    """σ_w² = 2 + 5(2-s)/(2n) for relu, the published first-order form (weights σ_w²/fan_in).

    References:
        gurbuzbalaban2021
    """
    return 2.0 + 2.5 * (2.0 - order) / check_width(width)


def backward_log_norm(act: str | Activation, depth: int, gain: ArrayLike, q_input: float = 1.0) -> NDArray[np.float64]:
    """Wide-limit ln Z of a gradient through `depth` layers: Σ_l ln(g² Eφ′(√q_l z)²), q_1 = g²·q_input.

    Args:
        act: Name or record.
        depth: Number of layers.
        gain: g, any shape.
        q_input: Mean square of the input.

    Returns:
        ln Z in the shape of the gain.
    """
    act = get(act)
    scale = np.square(np.asarray(gain, dtype=np.float64))
    q, total = scale * q_input, np.zeros_like(scale)
    for layer in range(depth):
        f_square, df_square = expectations([_square(act.f), _square(act.df)], q, **shape_of(act))
        step, ahead = np.log(scale * df_square), scale * f_square
        if np.all(np.abs(ahead - q) <= 1e-15 * q):  # at the fixed point every further layer adds the same
            return total + (depth - layer) * step
        total, q = total + step, ahead
    return total


def _square(
    f: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    def square(u: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.square(f(u))

    return square


def network_gain(act: str | Activation, depth: int, q_input: float = 1.0) -> float:
    """The gain at which a gradient keeps its length over this very network (wide limit): ln Z(g) = 0.

    A saturating φ has no single gain; the solution depends on the depth and on the input's mean square.

    Args:
        act: Name or record.
        depth: Layers, ≥ 1.
        q_input: Mean square of the input.

    Raises:
        InputError: depth < 1, or no gain between 0.05 and 20 does it.

    References:
        sussillo2014
    """
    if check_width(depth) != depth:
        raise InputError("depth", got=repr(depth), expected="a whole number ≥ 1")

    def residue(log_gain: float) -> float:
        return float(backward_log_norm(act, depth, np.exp(log_gain), q_input))

    first, last = float(np.log(0.05)), float(np.log(20.0))
    grid = [first + (last - first) * k / 48.0 for k in range(49)]
    values = [float(v) for v in backward_log_norm(act, depth, np.exp(grid), q_input)]
    for low, high, a, b in zip(grid, grid[1:], values, values[1:], strict=False):
        if a < 0.0 <= b:
            return float(np.exp(_optimize.brentq(residue, low, high, xtol=1e-13)))
    raise InputError(
        "network gain",
        got=f"{get(act).name!r}",
        expected="a gain in [0.05, 20] with ln Z = 0 over the network",
    )
