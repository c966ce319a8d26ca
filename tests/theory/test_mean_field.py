from __future__ import annotations

import numpy as np
import pytest
from brute_force import printed, standard_error, table

from firstlight.errors import InputError
from firstlight.theory import activations, gaussian, log_moments, mean_field, random_walk, weights

TABLE = table("mean_field")
ROWS = [(activations.get(name), values) for name, values in TABLE["activations"].items()]
ROWS.append((activations.get("leaky_relu", negative_slope=TABLE["leaky"]["slope"]), TABLE["leaky"]["values"]))


@pytest.mark.parametrize(("act", "row"), ROWS, ids=[act.name for act, _ in ROWS])
def test_table_of_activations(act, row):
    gain = random_walk.mean_gain(act)
    assert printed(gain, row[0])
    assert printed(float(mean_field.chi(act, 1.0, gain**2)), row[1])
    assert printed(log_moments.fluctuation(act), row[2])


@pytest.mark.parametrize("row", TABLE["critical_tanh"], ids=lambda r: str(r["bias_variance"]))
def test_critical_line_of_tanh(row):
    q, weight_variance = mean_field.critical_point("tanh", row["bias_variance"])
    assert printed(q, row["q"])
    assert printed(weight_variance, row["weight_variance"])
    point = mean_field.fixed_point("tanh", weight_variance, row["bias_variance"])
    assert point.q == pytest.approx(q, rel=1e-9)
    assert point.chi == pytest.approx(1.0, abs=1e-9)
    assert point.phase == "critical"
    assert point.correlation_scale > 1e8


def test_delta_orthogonal_constants_lie_on_the_critical_line():
    row = TABLE["delta_orthogonal"]
    _, weight_variance = weights.delta_orthogonal_point("tanh", row["bias_variance"])
    assert printed(weight_variance, row["weight_variance"])
    assert (float(row["weight_variance"]), row["bias_variance"]) == weights.DELTA_ORTHOGONAL_TANH


def test_relu_inputs_become_indistinguishable():
    assert printed(4.5 * np.pi**2, TABLE["relu"]["correlation_constant"])
    c = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(mean_field.c_map("relu", c, 3.0, 2.0), mean_field.relu_correlation(c), atol=1e-14)
    # 1/√(1-c) grows by √2/(3π) a layer, so (1-c_l)·l² tends to 9π²/2, from below and like log(l)/l
    path = mean_field.correlation_path("relu", 0.0, 1.0, 2.0, depth=6_000)
    constant = float(TABLE["relu"]["correlation_constant"])
    for depth in (2_000, 6_000):
        assert abs((1 - path[depth]) * depth**2 / constant - 1) < 5 * np.log(depth) / depth
    tail = 1 / np.sqrt(1 - path[[5_000, 6_000]])
    assert (tail[1] - tail[0]) / 1000 == pytest.approx(constant**-0.5, rel=1e-3)


@pytest.mark.parametrize(("weight_variance", "phase"), [(1.3, "ordered"), (3.0, "chaotic")])
def test_depth_scales_are_the_rates_of_the_maps(weight_variance, phase):
    act, bias_variance = activations.get("tanh"), 0.05
    point = mean_field.fixed_point(act, weight_variance, bias_variance)
    assert point.phase == phase
    lengths = mean_field.length_path(act, point.q * 1.01, weight_variance, bias_variance, depth=6)
    ratio = (lengths[6] - point.q) / (lengths[5] - point.q)
    assert np.log(ratio) == pytest.approx(-1 / point.length_scale, rel=1e-3)
    path = mean_field.correlation_path(act, point.c - 1e-3, point.q, weight_variance, bias_variance, depth=6)
    ratio = (path[6] - point.c) / (path[5] - point.c)
    assert np.log(ratio) == pytest.approx(-1 / point.correlation_scale, rel=1e-2)
    fixed = float(mean_field.c_map(act, point.c, point.q, weight_variance, bias_variance))
    assert fixed == pytest.approx(point.c, abs=1e-9)
    assert (point.c < 0.999) == (phase == "chaotic")


def test_chaotic_c_is_where_far_and_near_inputs_meet():
    point = mean_field.fixed_point("tanh", 3.0, 0.05)
    for start in (0.0, 0.9):
        path = mean_field.correlation_path("tanh", start, point.q, 3.0, 0.05, depth=80)
        assert abs(path[-1] - point.c) < 3 * np.exp(-80 / point.correlation_scale)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "hardtanh"])
def test_length_and_correlation_maps_by_drawing_wide_layers(name):
    act, rng, n = activations.get(name), np.random.default_rng(12), 400
    q, c, weight_variance, bias_variance = 1.5, 0.6, 1.8, 0.1
    squares, products = [], []
    for _ in range(60):
        z = rng.standard_normal((2, n))
        h = act.f(np.sqrt(q) * np.array([z[0], c * z[0] + np.sqrt(1 - c * c) * z[1]]))
        w = rng.standard_normal((n, n)) * np.sqrt(weight_variance / n)
        u, v = h @ w.T + np.sqrt(bias_variance) * rng.standard_normal(n)
        squares.append(np.mean(u * u))
        products.append(np.mean(u * v))
    ahead = float(mean_field.q_map(act, q, weight_variance, bias_variance))
    assert abs(np.mean(squares) - ahead) < 4 * standard_error(squares)
    cross = float(mean_field.c_map(act, c, q, weight_variance, bias_variance)) * ahead
    assert abs(np.mean(products) - cross) < 4 * standard_error(products)


def test_unequal_lengths_in_the_correlation_map():
    c = float(mean_field.c_map("relu", 0.5, 4.0, 2.0, other_q=0.1))
    assert c == pytest.approx(float(mean_field.relu_correlation(0.5)), abs=1e-12)


def test_jacobian_singular_values_by_drawing():
    """Variance of squared singular values, Gaussian and orthogonal, linear net: L(0 - s1)."""
    rng, n, depth = np.random.default_rng(13), 150, 4
    gaussian_squares, orthogonal_squares = [], []
    for _ in range(20):
        jacobian, rotation = np.eye(n), np.eye(n)
        for _ in range(depth):
            w = rng.standard_normal((n, n)) / n**0.5
            jacobian, rotation = w @ jacobian, np.linalg.qr(w)[0] @ rotation
        gaussian_squares.append(np.var(np.linalg.svd(jacobian, compute_uv=False) ** 2))
        orthogonal_squares.append(np.var(np.linalg.svd(rotation, compute_uv=False) ** 2))
    law = weights.singular_value_variance("linear", depth, 1.0, weights.GAUSSIAN_S1)
    assert law == pytest.approx(depth)
    # the finite-size correction is of order depth²/n
    assert abs(np.mean(gaussian_squares) - law) < 4 * standard_error(gaussian_squares) + law * depth**2 / n
    assert weights.singular_value_variance("linear", depth, 1.0, weights.ORTHOGONAL_S1) == pytest.approx(0.0, abs=1e-12)
    assert max(orthogonal_squares) < 1e-20
    # relu: mu_k = 1/2, so the law is L(1 - s1) and orthogonal weights cannot cure it
    assert weights.singular_value_variance("relu", 10, 1.0, 0.0) == pytest.approx(10.0)
    # tanh near the origin: isometric
    q, _ = mean_field.critical_point("tanh", 1e-8)
    assert weights.singular_value_variance("tanh", 100, q, 0.0) < 0.1


def test_collapse_and_explosion_of_lengths():
    assert mean_field.q_fixed_point("tanh", 0.5) == 0.0
    assert mean_field.q_fixed_point("relu", 3.0) == float("inf")
    assert mean_field.q_fixed_point("relu", 2.0, start=7.0) == 7.0
    with pytest.raises(InputError, match="explode"):
        mean_field.fixed_point("relu", 3.0)
    assert mean_field.fixed_point("tanh", 0.5).chi == pytest.approx(0.5, rel=1e-9)
    assert mean_field.depth_scale(1.0) == float("inf")
    assert mean_field.depth_scale(0.0) == 0.0


def test_bad_input_is_refused():
    with pytest.raises(InputError):
        mean_field.q_fixed_point("tanh", -1.0)
    with pytest.raises(InputError):
        mean_field.q_fixed_point("tanh", 1.0, start=float("nan"))
    with pytest.raises(InputError, match="critical line"):
        mean_field.critical_point("relu", 0.1)
    with pytest.raises(InputError, match="correlation"):
        mean_field.c_map("tanh", 2.0, 1.0, 1.0)


@pytest.mark.parametrize("name", activations.names())
def test_every_activation_has_a_mean_and_a_slope(name):
    act = activations.get(name)
    mean = float(mean_field.mean_activation(act, 1.0))
    assert mean**2 <= float(gaussian.second_moment(act, 1.0)) * (1 + 1e-12)
    slope = float(mean_field.correlation_slope(act, 0.5, 1.0, 1.0))
    step = 1e-4
    from firstlight.theory.cross import cross_moment

    ends = cross_moment(act, act, 1.0, 1.0, np.array([0.5 - step, 0.5 + step]))
    assert slope == pytest.approx(float(ends[1] - ends[0]) / (2 * step), rel=1e-5)
