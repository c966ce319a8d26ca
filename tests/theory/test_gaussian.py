from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from firstlight.errors import InputError
from firstlight.theory import activations, gaussian
from firstlight.theory.cross import cross_moment

mp.mp.dps = 30
PRECISE = {
    "relu": lambda x: max(x, mp.mpf(0)),
    "leaky_relu": lambda x: x if x > 0 else x / 100,
    "elu": lambda x: x if x > 0 else mp.expm1(x),
    "gelu": lambda x: x * mp.ncdf(x),
    "gelu-tanh": lambda x: x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))),
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "mish": lambda x: x * mp.tanh(mp.log(1 + mp.exp(x))),
    "softplus": lambda x: mp.log(1 + mp.exp(x)),
    "tanh": mp.tanh,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "hardswish": lambda x: x * min(max(x / 6 + mp.mpf(1) / 2, mp.mpf(0)), mp.mpf(1)),
    "relu6": lambda x: min(max(x, mp.mpf(0)), mp.mpf(6)),
    "softsign": lambda x: x / (1 + abs(x)),
    "sin": mp.sin,
    "erf": mp.erf,
    "relu²": lambda x: max(x, mp.mpf(0)) ** 2,
}


def precise_second_moment(name, q, m):
    """Thirty digits, by another method: tanh-sinh on [-14, 14] split where the integrand bends."""
    act, sd = activations.get(name), mp.sqrt(mp.mpf(q))
    inner = [*act.kinks, *(s * k for s in (-1, 1) for k in (1, 2, 6))]
    ends = sorted({-14.0, -6.0, -3.0, 0.0, 3.0, 6.0, 14.0, *(float((k - m) / sd) for k in inner)})
    ends = [e for e in ends if -14 <= e <= 14]
    return float(mp.quad(lambda z: PRECISE[name](m + sd * z) ** 2 * mp.npdf(z), ends))


@pytest.mark.parametrize("name", list(PRECISE))
@pytest.mark.parametrize(("q", "m"), [(1.0, 0.0), (0.01, 0.3), (30.0, -1.7)])
def test_second_moment_to_1e_10(name, q, m):
    expected = precise_second_moment(name, q, m)
    got = float(gaussian.second_moment(activations.get(name), q, m))
    assert abs(got - expected) <= 1e-10 * max(1.0, expected)


@pytest.mark.parametrize("name", activations.names())
def test_closed_forms_agree_with_the_quadrature(name):
    act, q = activations.get(name), np.geomspace(1e-4, 1e4, 17)
    by_quadrature = gaussian.expectations([lambda u: act.f(u) ** 2], q, **gaussian.shape_of(act))[0]
    np.testing.assert_allclose(gaussian.second_moment(act, q), by_quadrature, rtol=1e-11, atol=1e-13)
    slope = gaussian.expectations([lambda u: act.df(u) ** 2], q, **gaussian.shape_of(act))[0]
    np.testing.assert_allclose(gaussian.derivative_second_moment(act, q), slope, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", activations.names())
def test_slope_of_the_length_map_is_its_difference_quotient(name):
    act, q, step = activations.get(name), np.array([0.1, 1.0, 7.0]), 1e-4
    up, down = gaussian.second_moment(act, q * (1 + step)), gaussian.second_moment(act, q * (1 - step))
    quotient = (up - down) / (2 * q * step)
    # central difference: error of order step², plus rounding of the moments over the step
    np.testing.assert_allclose(gaussian.square_slope(act, q), quotient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu", "hardtanh", "elu", "hardswish", "sin"])
@pytest.mark.parametrize("c", [-1.0, -0.9, 0.0, 0.5, 0.999, 1 - 1e-9, 1.0])
def test_cross_moment_against_a_dense_grid_of_rotated_sources(name, c):
    # u = √p z1, v = √q (c z1 + √(1-c²) z2) integrated on a fine tensor rule, split at no kink: good to ~1e-6.
    act, p, q, m, k = activations.get(name), 1.3, 0.6, 0.2, -0.4
    got = float(cross_moment(act, act, p, q, c, m, k))
    edges = np.linspace(-9, 9, 61)
    x, w = np.polynomial.legendre.leggauss(12)
    z = (0.5 * (edges[1:] + edges[:-1])[:, None] + 0.15 * x).ravel()
    w = np.tile(0.15 * w, 60) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    u = m + np.sqrt(p) * z
    v = k + np.sqrt(q) * (c * z[:, None] + np.sqrt(1 - c * c) * z[None, :])
    expected = float(np.einsum("i,ij,i,j->", act.f(u), act.f(v), w, w))
    assert abs(got - expected) < (2e-5 if act.kinks else 1e-11)


@pytest.mark.parametrize("name", ["relu", "abs", "leaky_relu", "erf", "sin"])
@pytest.mark.parametrize("c", [-1.0, -0.7, 0.0, 0.3, 0.99, 1 - 1e-8, 1.0])
def test_closed_cross_moments_agree_with_the_quadrature_to_1e_10(name, c):
    act = activations.get(name)
    closed = float(cross_moment(act, act, 1.3, 0.6, c))
    shifted = float(cross_moment(act, act, 1.3, 0.6, c, 1e-300, 0.0))  # a mean forces the quadrature
    assert abs(closed - shifted) <= 1e-10
    if act.slopes is not None:
        closed = float(cross_moment(act, act, 1.3, 0.6, c, derivative=True))
        shifted = float(cross_moment(act, act, 1.3, 0.6, c, 1e-300, 0.0, derivative=True))
        # φ′ jumps: near |c| = 1 the derivative's moment has a root singularity, √(1-c²) wide
        assert abs(closed - shifted) <= 1e-10


@pytest.mark.parametrize("name", activations.names())
def test_cross_moment_at_the_ends(name):
    act, q = activations.get(name), np.array([0.3, 2.0])
    mean = gaussian.expectation(act, q)
    np.testing.assert_allclose(cross_moment(act, act, q, q, 1.0), gaussian.second_moment(act, q), rtol=1e-10)
    np.testing.assert_allclose(cross_moment(act, act, q, q, 0.0), mean**2, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["hardtanh", "elu", "hardswish", "relu6", "softsign", "relu²"])
@pytest.mark.parametrize("c", [-0.95, 0.4, 0.99, 1 - 1e-7])
def test_kinked_cross_moments_do_not_depend_on_which_source_is_integrated_first(name, c):
    f, g = activations.get(name), activations.get("leaky_relu", negative_slope=0.3)
    one = float(cross_moment(f, g, 1.7, 0.4, c, 0.3, -0.6))
    other = float(cross_moment(g, f, 0.4, 1.7, c, -0.6, 0.3))
    assert abs(one - other) <= 1e-10


def test_different_functions_and_unequal_variances():
    relu, tanh = activations.get("relu"), activations.get("tanh")
    one = float(cross_moment(relu, tanh, 2.0, 0.5, 0.6, 0.3, -0.2))
    other = float(cross_moment(tanh, relu, 0.5, 2.0, 0.6, -0.2, 0.3))
    assert abs(one - other) < 1e-10  # conditioning on the one or on the other


def test_ten_thousand_variances_at_once_are_those_one_by_one():
    q, gelu = np.linspace(0.5, 2.0, 10_000), activations.get("gelu")
    together = gaussian.second_moment(gelu, q)
    assert together.shape == q.shape
    for i in (0, 1, 4_999, 9_999):
        assert abs(float(together[i]) - float(gaussian.second_moment(gelu, q[i]))) < 1e-12


def test_nodes_carry_a_chain_of_pointwise_steps():
    nodes = gaussian.gauss_nodes((0.0,), variance=2.0, mean=0.5)
    u = nodes.source(2.0, 0.5)
    gelu = 0.5 * u * (1.0 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))  # step by step
    expected = float(gaussian.second_moment(activations.get("gelu-tanh"), 2.0, 0.5))
    assert abs(float(nodes.expectation(gelu**2)) - expected) < 1e-12
    assert abs(float(nodes.weights.sum()) - 1.0) < 1e-14
    assert nodes is gaussian.gauss_nodes((0.0,), variance=2.0, mean=0.5)
    with pytest.raises(ValueError, match="read-only"):
        nodes.z[0] = 0.0


def test_a_variance_of_zero_is_the_value_at_the_mean():
    act = activations.get("gelu")
    assert float(gaussian.expectation(act, 0.0, 0.7)) == pytest.approx(float(act(0.7)), abs=1e-14)
    assert float(cross_moment(act, act, 0.0, 0.0, 1.0, 0.7, 0.2)) == pytest.approx(
        float(act(0.7) * act(0.2)), abs=1e-14
    )


def test_shapes_broadcast_and_empty_input_gives_empty_output():
    act = activations.get("tanh")
    assert gaussian.second_moment(act, np.ones((3, 1)), np.zeros(4)).shape == (3, 4)
    assert gaussian.second_moment(activations.get("relu"), np.ones((3, 1)), np.zeros(4)).shape == (3, 4)
    assert gaussian.second_moment(act, np.empty(0)).shape == (0,)
    assert cross_moment(act, act, np.ones(2), 1.0, np.empty((0, 1))).shape == (0, 2)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_impossible_variances_are_refused(bad):
    act = activations.get("tanh")
    with pytest.raises(InputError):
        gaussian.second_moment(act, bad)
    with pytest.raises(InputError):
        gaussian.second_moment(activations.get("relu"), bad)
    with pytest.raises(InputError):
        gaussian.gauss_nodes(variance=bad)
    with pytest.raises(InputError):
        cross_moment(act, act, 1.0, bad, 0.0)


@pytest.mark.parametrize("bad", [1.1, -1.5, np.nan])
def test_impossible_correlations_are_refused(bad):
    act = activations.get("tanh")
    with pytest.raises(InputError, match="correlation"):
        cross_moment(act, act, 1.0, 1.0, bad)
