"""The noise that Gaussian-like weights add, against its definitions."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from firstlight.graph.signal import Signal
from firstlight.rules.state.noise import chi_square_log, gaussian_energy
from firstlight.theory import special

ROUNDING = 2e-15  # a few units in the last place of numbers near 1


@pytest.mark.parametrize("half", [0.5, 0.7, 1.0, 3.3, 11.9, 12.0, 12.1, 40.0, 9e3])
def test_log_of_a_chi_square(half: float) -> None:
    """Var ln z = ψ₁(n/2) and E ln z = ψ(n/2) - ln(n/2)."""
    variance, drift = chi_square_log(half)
    assert variance == pytest.approx(float(special.trigamma(half)), rel=ROUNDING, abs=0.0)
    assert abs(drift - (float(special.digamma(half)) - math.log(half))) <= ROUNDING * (1.0 + abs(math.log(half)))


@pytest.mark.parametrize(("unit", "fan", "wander"), [(None, np.inf, 0.0), (2, 16.0, 0.0), (2, 16.0, 0.3)])
def test_energy_of_pairs(unit: int | None, fan: float, wander: float) -> None:
    """2·(mean of E c² over the pairs of entries), pair by pair: 3 samples of 2 positions of 4 units."""
    sizes = (3, 2, 4)
    corr = np.random.default_rng(0).uniform(-1.0, 1.0, (2, 2, 2))
    one = np.ones((1, 1, 1))
    x = Signal(tuple((n,) for n in sizes), 0.0 * one, one, corr, (True, False, False), wander=wander)
    found: list[float] = []
    entries = list(product(*map(range, sizes)))
    for a, b in product(entries, entries):
        differ = tuple(int(i != j) for i, j in zip(a, b, strict=True))
        square = corr[differ] ** 2
        if not any(differ[1:]):  # only samples differ, or nothing
            square += wander * (1.0 - square)
        if unit is not None and not differ[unit]:
            square += (1.0 - square) / fan
        found.append(square)
    assert gaussian_energy(x, fan, unit) == pytest.approx(2.0 * sum(found) / len(found), rel=1e-13)
