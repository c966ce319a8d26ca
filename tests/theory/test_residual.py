from __future__ import annotations

import numpy as np
import pytest
from brute_force import printed, standard_error, table

from firstlight.errors import InputError
from firstlight.theory import residual

TABLE = table("residual")
STREAMS = table("lengths")["residual"]


def draw_linear_branches(eta, n, hidden, draws, rng, variance=1.0):
    """M_L/M_0 of x + η W2 relu(W1 x) with every weight drawn."""
    x = np.ones((draws, n))
    for e in eta:
        z = np.einsum("dij,dj->di", rng.standard_normal((draws, hidden, n)) * (2 / n) ** 0.5, x)
        w = rng.standard_normal((draws, n, hidden)) * (variance / hidden) ** 0.5
        x = x + e * np.einsum("dij,dj->di", w, np.maximum(z, 0))
    return np.mean(x * x, axis=1)


@pytest.mark.parametrize("row", STREAMS, ids=["1", "1/√L"])
def test_table_of_streams(row):
    eta = [row["eta"]] * 10
    mean = residual.linear_branch_mean(eta)
    assert printed(mean, row["mean"])
    assert printed(residual.linear_branch_square(eta, 10, 10) / mean**2 - 1, row["relative_variance"])


@pytest.mark.parametrize("eta", [[0.5, 0.3], [1.0, 1.0]])
def test_moments_of_streams_by_drawing(eta):
    m = draw_linear_branches(eta, 5, 8, 30_000, np.random.default_rng(1), variance=1.5)
    assert abs(m.mean() - residual.linear_branch_mean(eta, 1.5)) < 4 * standard_error(m)
    square = residual.linear_branch_square(eta, 5, 8, 1.5)
    assert abs(np.mean(m**2) - square) < 4.5 * standard_error(m**2)


def test_the_sum_of_squares_decides_for_linear_branches():
    for depth in (10, 100, 1000):
        eta = np.full(depth, residual.scaled_branches(depth))
        mean = residual.linear_branch_mean(eta)
        assert mean == pytest.approx(np.e, rel=1.0 / depth)
        # relative variance e^{4/n} - 1 at any depth
        relative = residual.linear_branch_square(eta, 64, 64) / mean**2 - 1
        assert relative == pytest.approx(np.expm1(4 / 64), abs=4.0 / depth)
    assert residual.linear_branch_mean(np.ones(1000)) > 1e300


def test_relu_branches_push_the_mean():
    eta, n, rng = [0.3] * 6, 400, np.random.default_rng(2)
    m, mu = [], []
    for _ in range(40):
        x = rng.standard_normal(n)
        scale = np.mean(x * x) ** 0.5
        x = (x - x.mean()) / scale
        for e in eta:
            x = x + e * np.maximum(rng.standard_normal((n, n)) @ x * (2 / n) ** 0.5, 0)
        m.append(np.mean(x * x))
        mu.append(x.mean())
    squares, means = residual.relu_branch_path(eta)
    # wide limit: the bar is the sampling error and a correction of order layers/n
    assert abs(np.mean(m) - squares[-1]) < 4 * standard_error(m) + 6 / n * squares[-1]
    assert abs(np.mean(mu) - means[-1]) < 4 * standard_error(mu) + 6 / n


def test_small_steps_follow_the_hyperbolic_cosine():
    for total in (0.5, 3.0):
        squares, _ = residual.relu_branch_path(np.full(20_000, total / 20_000))
        assert squares[-1] == pytest.approx(residual.relu_branch_limit(total), rel=1e-3)
    bounded, _ = residual.relu_branch_path(residual.geometric_branches(0.9, 2000))
    assert bounded[-1] < residual.relu_branch_limit(10.0)
    exploding, _ = residual.relu_branch_path(np.ones(200))
    assert exploding[-1] > 1e30


def test_rules_at_one_size():
    assert residual.fixup_scale(16, 3) == TABLE["fixup"]["three_layers"]
    assert residual.fixup_scale(16, 2) == TABLE["fixup"]["two_layers"]
    assert residual.fixup_scale(16, 1) == 1.0
    assert TABLE["gpt2"]["std"] == residual.GPT2_STD
    assert residual.gpt2_projection_std(12) == pytest.approx(TABLE["gpt2"]["projection_std"], rel=1e-14)
    deep = residual.deepnorm(8)
    assert (deep.alpha, deep.beta) == pytest.approx((TABLE["deepnorm"]["alpha"], TABLE["deepnorm"]["beta"]))
    encoder, decoder = residual.deepnorm_encoder_decoder(1, 1)
    row = TABLE["deepnorm_encoder_decoder"]
    assert [encoder.alpha, encoder.beta] == pytest.approx(row["encoder"])
    assert [decoder.alpha, decoder.beta] == pytest.approx(row["decoder"])
    assert residual.tfixup_scale(16) == pytest.approx(TABLE["tfixup"]["encoder_16"])
    assert residual.tfixup_scale(9, "decoder") == pytest.approx(TABLE["tfixup"]["decoder_9"])
    assert pytest.approx(TABLE["tfixup"]["value_factor"]) == residual.TFIXUP_VALUE_FACTOR
    scaling = residual.depth_mup(100)
    assert (scaling.branch, scaling.learning_rate) == pytest.approx((TABLE["depth"]["depth_mup"],) * 2)
    assert residual.completep_branch(100) == TABLE["depth"]["completep"]
    assert residual.SKIP_GATE == 0.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: residual.fixup_scale(0, 2),
        lambda: residual.fixup_scale(4, 1.5),
        lambda: residual.deepnorm(-1),
        lambda: residual.gpt2_projection_std(float("nan")),
        lambda: residual.tfixup_scale(6, "middle"),
        lambda: residual.geometric_branches(1.0, 5),
        lambda: residual.linear_branch_mean([float("inf")]),
    ],
)
def test_impossible_counts_are_refused(call):
    with pytest.raises(InputError):
        call()


def test_no_branch_changes_nothing():
    assert residual.linear_branch_mean([]) == 1.0
    assert residual.linear_branch_square([], 4, 4) == 1.0
    assert residual.relu_branch_path([])[0].tolist() == [1.0]


@pytest.mark.slow
@pytest.mark.parametrize("row", STREAMS, ids=["1", "1/√L"])
def test_simulated_streams(row):
    eta, rng = [row["eta"]] * 10, np.random.default_rng(22)
    m = np.concatenate([draw_linear_branches(eta, 10, 10, 10_000, rng) for _ in range(20)])
    mean = residual.linear_branch_mean(eta)
    second = residual.linear_branch_square(eta, 10, 10)
    assert abs(m.mean() - mean) < 4 * (second - mean**2) ** 0.5 / len(m) ** 0.5
    assert abs(np.mean(m**2) - second) < 5 * standard_error(m**2)
    assert abs(row["simulated_mean"] - mean) < 4 * ((second - mean**2) / 4000) ** 0.5
