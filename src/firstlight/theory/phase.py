"""Phase diagrams of wide networks over (σ_w, σ_b): where signals and gradients survive, and over how many layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FirstlightError, InputError
from firstlight.theory.activations import Activation, get
from firstlight.theory.mean_field import critical_point, fixed_point

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PhaseDiagram:
    """Fixed points of the mean field on a grid; arrays have the shape (len(sigma_b), len(sigma_w)).

    Attributes:
        activation: Name of φ.
        sigma_w: Standard deviations of √fan_in·W.
        sigma_b: Standard deviations of the biases.
        q: Mean square q* of the pre-activations; NaN where lengths do not settle.
        chi: χ₁, a gradient's factor per layer: below 1 ordered, above 1 chaotic.
        length_scale: ξ_q in layers, over which a length returns to q*.
        correlation_scale: ξ_c in layers, over which two inputs tend to their fixed correlation; plain networks train
            to about 6 ξ_c.
        critical: σ_w of the critical line χ₁ = 1 at each σ_b; NaN where there is none.
    """

    activation: str
    sigma_w: tuple[float, ...]
    sigma_b: tuple[float, ...]
    q: Array
    chi: Array
    length_scale: Array
    correlation_scale: Array
    critical: Array


def phase_diagram(act: str | Activation, sigma_w: Sequence[float], sigma_b: Sequence[float]) -> PhaseDiagram:
    """Mean-field fixed points over a grid of weight and bias scales.

    Args:
        act: The nonlinearity, by name or record.
        sigma_w: σ_w > 0: weights have the variance σ_w²/fan_in.
        sigma_b: σ_b ≥ 0.

    Returns:
        The diagram.

    Raises:
        InputError: An empty grid, a scale that is negative, zero (σ_w) or not finite.

    Valid for: width → ∞, plain stacks.

    Example:
        >>> d = phase_diagram("tanh", (0.8, 2.0), (0.1,))
        >>> [round(float(x), 2) for x in d.chi[0]]
        [0.61, 1.36]

    References:
        poole2016, schoenholz2016
    """
    act = get(act)
    for name, values, low in (("sigma_w", sigma_w, 0.0), ("sigma_b", sigma_b, -1.0)):
        if not len(values) or not all(np.isfinite(v) and v > low and v >= 0.0 for v in values):
            raise InputError(
                f"phase_diagram, {name}",
                got=repr(list(values)),
                expected="at least one finite number " + ("> 0" if name == "sigma_w" else "≥ 0"),
            )
    shape = (len(sigma_b), len(sigma_w))
    q, chi, xi_q, xi_c = (np.full(shape, np.nan) for _ in range(4))
    for i, b in enumerate(sigma_b):
        for j, w in enumerate(sigma_w):
            try:
                point = fixed_point(act, w * w, b * b)
            except FirstlightError:  # lengths grow without end
                continue
            q[i, j], chi[i, j] = point.q, point.chi
            xi_q[i, j], xi_c[i, j] = point.length_scale, point.correlation_scale
    return PhaseDiagram(
        act.name, tuple(map(float, sigma_w)), tuple(map(float, sigma_b)), q, chi, xi_q, xi_c,
        np.array([_critical(act, b) for b in sigma_b]),
    )  # fmt: skip


def _critical(act: Activation, sigma_b: float) -> float:
    try:
        return float(critical_point(act, sigma_b * sigma_b)[1] ** 0.5)
    except FirstlightError:
        return float("nan")
