"""Correlations of Gaussians behind increasing functions: what is wanted comes out, however near 1."""

import numpy as np
import pytest

from firstlight.rules.chains.grids import grid
from firstlight.theory.copula import under
from firstlight.theory.quantiles import bent

DRAWS = 400_000


def law(scatter, skew):
    """(T at normal quantiles, its Hermite coefficients) of a law of random variance, skewed."""
    g = grid((), 3)
    values = bent(g.z, g.weights, scatter, skew, 0.0)
    return (lambda z: np.interp(z, g.z, values)), values @ g.hermite


@pytest.mark.parametrize(("scatter", "skew"), [(0.1, 0.0), (0.1, 0.8), (2.0, 0.0), (2.0, 0.8), (20.0, 0.0)])
@pytest.mark.parametrize("wanted", [-0.3, 0.0, 0.2, 0.7, 0.95])
def test_pairs_have_the_wanted_correlation(wanted, scatter, skew):
    t, coefficients = law(scatter, skew)
    c = float(under(np.array([wanted]), coefficients)[0])
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, DRAWS))
    products = t(a) * t(c * a + (1.0 - c * c) ** 0.5 * b)
    assert abs(products.mean() - wanted) < 4.0 * products.std() / DRAWS**0.5


@pytest.mark.parametrize("gap", [1e-2, 1e-6, 1e-12])
def test_pairs_that_are_nearly_alike_stay_so(gap):
    """1 - Σ a_k² c^k is the wanted gap, though heavy tails pull pairs apart: c itself is nearer to 1."""
    _, coefficients = law(2.0, 0.0)
    apart = 1.0 - float(under(np.array([1.0 - gap]), coefficients)[0])
    power = np.square(coefficients)
    power[0] = 0.0
    k = np.append(np.arange(len(power)), 2 * len(power))
    power = np.append(power, 1.0 - power.sum())
    found = float(-np.expm1(k * np.log1p(-apart)) @ power)
    assert apart < 0.9 * gap
    assert found == pytest.approx(gap, rel=5e-3)  # of the table; at 1e-12 rounding of 1 - gap has a ten-thousandth


def test_a_gaussian_keeps_its_correlations():
    wanted = np.array([[1.0, 0.3], [-0.9, 0.0]])
    assert np.allclose(under(wanted, np.array([0.0, 1.0, 0.0])), wanted, atol=1e-9)
