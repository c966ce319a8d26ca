"""Mean field theory of wide networks: length map, correlation map, χ, fixed points, depth scales, phases.

z_l = W_l φ(z_{l-1}) + b_l with Var W = σ_w²/fan_in and Var b = σ_b²; q is the mean square of z, c the
correlation of the same entry for two inputs. All results are the limit of infinite width.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError
from firstlight.theory.activations import Activation, get
from firstlight.theory.cross import cross_moment
from firstlight.theory.gaussian import derivative_second_moment, expectation, second_moment, square_slope

Array = NDArray[np.float64]
_optimize: Any = import_module("scipy.optimize")


@dataclass(frozen=True)
class FixedPoint:
    """Where lengths settle, and what happens to signals and gradients there.

    Attributes:
        q: Mean square q* of the pre-activations.
        chi: χ₁ = σ_w² Eφ′(√q* z)²: factor of a gradient's mean square per layer.
        length_slope: dq'/dq at q*; the length returns to q* with depth scale -1/ln of it.
        c: Correlation c* to which two inputs tend.
        correlation_slope: dc'/dc at c*.
    """

    q: float
    chi: float
    length_slope: float
    c: float
    correlation_slope: float

    @property
    def phase(self) -> str:
        """'ordered' (χ₁ < 1), 'critical' or 'chaotic' (χ₁ > 1)."""
        if abs(self.chi - 1.0) < 1e-9:
            return "critical"
        return "ordered" if self.chi < 1.0 else "chaotic"

    @property
    def length_scale(self) -> float:
        """Depth scale ξ_q = -1/ln(dq'/dq) in layers."""
        return depth_scale(self.length_slope)

    @property
    def correlation_scale(self) -> float:
        """Depth scale ξ_c = -1/ln(dc'/dc) in layers; plain nets train to about 6 ξ_c."""
        return depth_scale(self.correlation_slope)


def depth_scale(slope: float) -> float:
    """ξ = -1/ln(slope) layers; infinite at slope ≥ 1 - 1e-12, 0 at slope ≤ 0."""
    if slope >= 1.0 - 1e-12:
        return float("inf")
    return 0.0 if slope <= 0.0 else float(-1.0 / np.log(slope))


def q_map(act: str | Activation, q: ArrayLike, weight_variance: float, bias_variance: float = 0.0) -> Array:
    """Length map q' = σ_w² Eφ(√q z)² + σ_b²; vectorised over q.

    References:
        poole2016
    """
    return weight_variance * second_moment(get(act), q) + bias_variance


def length_path(
    act: str | Activation, q: float, weight_variance: float, bias_variance: float = 0.0, *, depth: int
) -> Array:
    """Mean squares of pre-activations 1 … depth+1, the first being q; shape (depth + 1,)."""
    path = [float(q)]
    for _ in range(depth):
        path.append(float(q_map(act, path[-1], weight_variance, bias_variance)))
    return np.array(path)


def c_map(
    act: str | Activation,
    c: ArrayLike,
    q: ArrayLike,
    weight_variance: float,
    bias_variance: float = 0.0,
    *,
    other_q: ArrayLike | None = None,
) -> Array:
    """Correlation c' of two inputs with correlation c: (σ_w² Eφ(u)φ(v) + σ_b²)/√(q'_u q'_v).

    Args:
        act: Name or record.
        c: Correlations in [-1, 1].
        q: Mean square of the first input's pre-activations (of both if other_q is None).
        weight_variance: σ_w².
        bias_variance: σ_b².
        other_q: Mean square for the second input.

    References:
        poole2016
    """
    act = get(act)
    p = q if other_q is None else other_q
    cross = weight_variance * cross_moment(act, act, q, p, c) + bias_variance
    lengths = q_map(act, q, weight_variance, bias_variance) * q_map(act, p, weight_variance, bias_variance)
    return cross / np.sqrt(lengths)


def correlation_path(
    act: str | Activation,
    c: float,
    q: float,
    weight_variance: float,
    bias_variance: float = 0.0,
    *,
    depth: int,
) -> Array:
    """Correlations c of layers 1 … depth+1 for two inputs of equal length q; shape (depth + 1,)."""
    path, length = [float(c)], float(q)
    for _ in range(depth):
        path.append(float(np.clip(c_map(act, path[-1], length, weight_variance, bias_variance), -1.0, 1.0)))
        length = float(q_map(act, length, weight_variance, bias_variance))
    return np.array(path)


def chi(act: str | Activation, q: ArrayLike, weight_variance: float) -> Array:
    """χ = σ_w² Eφ′(√q z)²: per layer factor of a gradient's mean square and of small input differences.

    References:
        schoenholz2016
    """
    return weight_variance * derivative_second_moment(get(act), q)


def length_slope(act: str | Activation, q: ArrayLike, weight_variance: float) -> Array:
    """Slope of the length map: dq'/dq = σ_w² E[φ′² + φ″φ] = χ + σ_w² Eφ″φ.

    References:
        schoenholz2016
    """
    return weight_variance * square_slope(get(act), q)


def correlation_slope(act: str | Activation, c: ArrayLike, q: ArrayLike, weight_variance: float) -> Array:
    """Slope of the c-map at length q* (where q' = q): dc'/dc = σ_w² Eφ′(u)φ′(v).

    References:
        schoenholz2016
    """
    act = get(act)
    return weight_variance * cross_moment(act, act, q, q, c, derivative=True)


def q_fixed_point(
    act: str | Activation, weight_variance: float, bias_variance: float = 0.0, *, start: float = 1.0
) -> float:
    """The stable q* = q'(q*) that the length map reaches from `start`; 0 or inf if it collapses or explodes.

    For φ of degree 1 with σ_b² = 0 and σ_w²Eφ² = 1 every q is a fixed point and `start` is returned.

    Raises:
        InputError: Negative variances or a start that is not positive.
    """
    act = get(act)
    if not (weight_variance >= 0 and bias_variance >= 0 and start > 0 and np.isfinite(start)):
        raise InputError(
            "variances and start",
            got=f"σ_w²={weight_variance}, σ_b²={bias_variance}, start={start}",
            expected="σ_w² ≥ 0, σ_b² ≥ 0, start > 0",
        )

    def gap(log_q: float) -> float:
        q = float(np.exp(log_q))
        return float(q_map(act, q, weight_variance, bias_variance)) / q - 1.0

    here = float(np.log(start))
    first = gap(here)
    if abs(first) < 1e-13:
        return start
    step = 0.5 if first > 0 else -0.5
    while abs(here) < 60.0:
        ahead = here + step
        if gap(ahead) * first <= 0:
            return float(np.exp(_optimize.brentq(gap, here, ahead, xtol=1e-14, rtol=1e-14)))
        here = ahead
    return float("inf") if step > 0 else 0.0


def fixed_point(act: str | Activation, weight_variance: float, bias_variance: float = 0.0) -> FixedPoint:
    """q*, χ₁, c* and the slopes that set the depth scales.

    c* is 1 in the ordered phase (χ₁ ≤ 1), else the stable fixed point of the c-map below 1.

    Raises:
        InputError: The length map has no finite, positive fixed point at these variances.

    References:
        schoenholz2016
    """
    act = get(act)
    q = q_fixed_point(act, weight_variance, bias_variance)
    if q == 0.0:  # linearised at the origin; c is undefined in the limit, its map is that of a linear net
        q = 1e-24
    if not np.isfinite(q):
        raise InputError(
            f"length map of {act.name!r}",
            got=f"σ_w²={weight_variance}, σ_b²={bias_variance}",
            expected="variances at which lengths do not explode",
        )
    slope_1 = float(chi(act, q, weight_variance))
    c = 1.0 if slope_1 <= 1.0 + 1e-12 else _stable_c(act, q, weight_variance, bias_variance)
    return FixedPoint(
        q=q,
        chi=slope_1,
        length_slope=float(length_slope(act, q, weight_variance)),
        c=c,
        correlation_slope=slope_1 if c == 1.0 else float(correlation_slope(act, c, q, weight_variance)),
    )


def _stable_c(act: Activation, q: float, weight_variance: float, bias_variance: float) -> float:
    """The stable fixed point of the c-map below 1: the map is convex, so its gap changes sign once."""

    def gap(c: float) -> float:
        return float(c_map(act, c, q, weight_variance, bias_variance)) - c

    if gap(0.0) <= 0.0:
        return 0.0
    high = 1.0 - 1e-3
    while gap(high) > 0.0:
        high = 1.0 - (1.0 - high) / 4.0
        if 1.0 - high < 1e-12:
            return 1.0
    return float(_optimize.brentq(gap, 0.0, high, xtol=1e-13))


def critical_point(act: str | Activation, bias_variance: float) -> tuple[float, float]:
    """(q*, σ_w²) on the critical line χ₁ = 1 at the given σ_b².

    Solves (q - σ_b²)·Eφ′²/Eφ² = 1 for q. For degree-1 φ the line is the point σ_b² = 0, σ_w² = 1/Eφ′²; there
    every q is a fixed point and q = 1 is returned.

    Raises:
        InputError: No critical point at this σ_b².

    References:
        schoenholz2016
    """
    act = get(act)
    if act.degree == 1.0 and bias_variance == 0.0:
        return 1.0, 1.0 / float(derivative_second_moment(act, 1.0))

    def gap(log_q: float) -> float:
        q = float(np.exp(log_q))
        return float((q - bias_variance) * derivative_second_moment(act, q) / second_moment(act, q)) - 1.0

    low, high = float(np.log(max(bias_variance, 1e-12))) + 1e-9, float(np.log(1e6))
    grid = [low + (high - low) * k / 199.0 for k in range(200)]
    values = [gap(x) for x in grid]
    for low, high, a, b in zip(grid, grid[1:], values, values[1:], strict=False):
        if a < 0.0 <= b:
            q = float(np.exp(_optimize.brentq(gap, low, high, xtol=1e-14)))
            return q, 1.0 / float(derivative_second_moment(act, q))
    raise InputError(
        f"critical line of {act.name!r}",
        got=f"σ_b²={bias_variance}",
        expected="a bias variance at which χ₁ = 1 has a solution",
    )


def relu_correlation(c: ArrayLike) -> Array:
    """ReLU's c-map at zero bias: [√(1-c²) + c(π - arccos c)]/π; 1 - c_l tends to 9π²/(2l²) = 44.41/l².

    References:
        cho2009, poole2016
    """
    c = np.asarray(c, dtype=np.float64)
    return (np.sqrt((1.0 - c) * (1.0 + c)) + c * (np.pi - np.arccos(c))) / np.pi


def mean_activation(act: str | Activation, q: ArrayLike) -> Array:
    """Eφ(√q z): the mean entry that a nonlinearity gives to zero-mean input."""
    return expectation(get(act), q)
