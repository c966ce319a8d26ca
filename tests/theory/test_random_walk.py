from __future__ import annotations

import numpy as np
import pytest
from brute_force import printed, stack, standard_error, table

import firstlight
from firstlight.errors import InputError, RegistryError
from firstlight.theory import activations, log_moments, random_walk

TABLE = table("random_walk")
WIDTHS = [row["n"] for row in TABLE["gains"]]


@pytest.mark.parametrize("row", TABLE["gains"], ids=lambda row: f"n={row['n']}")
def test_table_of_gains(row):
    n = row["n"]
    assert printed(random_walk.median_gain("linear", n), row["linear_exact"])
    assert printed(random_walk.paper_gain("linear", n), row["linear_paper"])
    assert printed(random_walk.median_gain("relu", n), row["relu_exact"])
    assert printed(random_walk.paper_gain("relu", n), row["relu_paper"])
    assert printed(random_walk.variance("relu", n), row["variance"])
    assert printed(random_walk.drift("relu", n, 2**0.5), row["he_drift"])


def test_a_thousand_layers_of_a_hundred():
    row = TABLE["depth_1000_width_100"]
    he = random_walk.walk("relu", [100] * 1000, 2**0.5)
    paper = random_walk.walk("relu", [100] * 1000, random_walk.paper_gain("relu", 100))
    exact = random_walk.walk("relu", [100] * 1000, random_walk.median_gain("relu", 100))
    assert printed(he.sd, row["sd"])
    assert printed(he.mean, row["he"])
    assert printed(paper.mean, row["paper"])
    assert abs(exact.mean) < 1e-9


def test_series_in_the_inverse_width():
    for n in (200, 400, 800):
        third = 60.0 / n**3  # the next terms' size
        assert abs(np.log(random_walk.median_gain("linear", n)) - (1 / (2 * n) + 1 / (6 * n**2))) < third
        relu = np.log(random_walk.median_gain("relu", n) / 2**0.5)
        assert abs(relu - (1.25 / n + 49 / 24 / n**2)) < third
        assert abs(random_walk.variance("linear", n) - (2 / n + 2 / n**2)) < third
        assert abs(random_walk.variance("relu", n) - (5 / n + 18.5 / n**2)) < 10 * third
        assert abs(np.log(random_walk.first_order_gain("relu", n) / 2**0.5) - 1.25 / n) < 1e-12


@pytest.mark.parametrize("name", ["linear", "relu"])
@pytest.mark.parametrize("n", [1, 2, 6, 32, 1000])
def test_the_transform_agrees_with_digamma_functions(name, n):
    act = activations.get(name)
    one, other = log_moments._by_transform(act, n, 1.0), log_moments.log_moments(act, n)
    assert one.mean == pytest.approx(other.mean, abs=1e-9)
    assert one.variance == pytest.approx(other.variance, abs=1e-9)
    assert one.p_dead == pytest.approx(other.p_dead, abs=1e-12)


@pytest.mark.parametrize("name", activations.names())
@pytest.mark.parametrize("n", [2, 8])
def test_log_moments_of_every_activation_against_draws(name, n):
    act, rng = activations.get(name), np.random.default_rng(7)
    m = np.mean(act.f(rng.standard_normal((200_000, n))) ** 2, axis=1)
    log_m = np.log(m[m > 0])
    law = log_moments.log_moments(act, n)
    assert abs(log_m.mean() - law.mean) < 4 * standard_error(log_m)
    centred = (log_m - log_m.mean()) ** 2
    assert abs(log_m.var() - law.variance) < 4 * standard_error(centred)
    p = np.mean(m == 0)
    assert abs(p - law.p_dead) <= 4 * np.sqrt(max(law.p_dead, 1e-9) / len(m))


@pytest.mark.parametrize("name", activations.names())
def test_wide_layers_follow_the_first_order_law(name):
    act = activations.get(name)
    v, n = log_moments.fluctuation(act), 4000
    law = log_moments.log_moments(act, n)
    wide = np.log(random_walk.mean_gain(act)) * -2.0
    assert law.variance * n == pytest.approx(v, rel=60.0 / n * max(1.0, v) / 5)
    assert (law.mean - wide) * n == pytest.approx(-v / 2, rel=60.0 / n * max(1.0, v) / 5)


@pytest.mark.parametrize("depth", sorted(map(int, TABLE["tanh_by_depth"])))
def test_tanh_gain_by_depth(depth):
    gain = random_walk.network_gain("tanh", depth)
    assert printed(gain, TABLE["tanh_by_depth"][str(depth)])
    assert abs(float(random_walk.backward_log_norm("tanh", depth, gain))) < 1e-9 * depth


def test_degree_one_networks_need_no_solution():
    assert random_walk.network_gain("relu", 50) == pytest.approx(2**0.5, rel=1e-12)


def test_circulating_formulas_drift():
    relu, linear = activations.get("relu"), activations.get("linear")
    var_slope = 0.25  # variance of relu′, which is 0 or 1 with probability ½
    wrong = (2 / (1 + var_slope)) ** 0.5
    assert printed(random_walk.drift(relu, 100, wrong), TABLE["circulating"]["var_f_prime"])
    trace = 100.0  # E tr WᵀW of a square matrix of 100 with variance 1/100
    assert printed(random_walk.drift(linear, 100, (2 / trace) ** 0.5), TABLE["circulating"]["trace"])
    # and by drawing: 100 layers at the first gain end near e^-24.9
    log_m = np.log(stack([100] * 20, 20, np.random.default_rng(0), gain=wrong)[-1])
    assert abs(log_m.mean() / 20 - random_walk.drift(relu, 100, wrong)) < 5 * standard_error(log_m) / 20


def test_fractional_moments_run_from_the_median_to_the_mean():
    for name, excess in (("linear", 2.0), ("relu", 5.0)):
        assert random_walk.fractional_gain(name, 50, 2.0) == pytest.approx(random_walk.mean_gain(name), rel=1e-12)
        assert random_walk.fractional_gain(name, 50, 1e-7) == pytest.approx(random_walk.median_gain(name, 50), rel=1e-6)
        for order in (0.5, 1.0, 1.5):
            first = random_walk.mean_gain(name) ** 2 * (1 + excess * (2 - order) / (4 * 2000))
            assert random_walk.fractional_gain(name, 2000, order) ** 2 == pytest.approx(first, abs=40 / 2000**2)
    assert random_walk.fractional_variance(100, 1.0) == pytest.approx(2.025)


def test_walk_of_a_leaky_net_by_drawing_its_weights():
    act, widths, rng = (
        activations.get("leaky_relu", negative_slope=0.2),
        [12, 20, 6, 15],
        np.random.default_rng(3),
    )
    log_m = np.log(stack(widths, 20_000, rng, gain=1.4, f=act.f)[-1])
    law = random_walk.walk(act, widths, 1.4)
    assert abs(log_m.mean() - law.mean) < 4 * standard_error(log_m)
    assert abs(log_m.var() - law.variance) < 4 * standard_error((log_m - log_m.mean()) ** 2)
    assert law.p_alive == 1.0


def test_simulated_gain_at_ten_units():
    # E ln z of drawn layers; the table's own simulation is repeated at full size below.
    for name in ("relu", "linear"):
        act = activations.get(name)
        z = stack([10], 40_000, np.random.default_rng(1), gain=1.0, f=act.f)[0]
        half = 0.5 * np.log(z[z > 0])
        assert abs(-half.mean() - np.log(random_walk.median_gain(name, 10))) < 4 * standard_error(half)


@pytest.mark.slow
def test_simulated_gain_at_ten_units_at_full_size():
    for name in ("relu", "linear"):
        act, rng = activations.get(name), np.random.default_rng(11)
        half = np.concatenate(
            [0.5 * np.log(z[z > 0]) for z in (stack([10], 100_000, rng, gain=1.0, f=act.f)[0] for _ in range(20))]
        )
        measured, error = np.exp(-half.mean()), standard_error(half)
        assert abs(measured / random_walk.median_gain(name, 10) - 1) < 4 * error
        assert abs(measured - float(TABLE["simulated"][name])) < 4 * 1.5 * error  # its run had the same order of draws


# -- the public function


@pytest.mark.parametrize("name", activations.names())
@pytest.mark.parametrize("keep", ["mean", "median"])
def test_gain_works_for_every_activation(name, keep):
    g = firstlight.gain(name, fan=64, keep=keep)
    act, rng = activations.get(name), np.random.default_rng(5)
    kept = g**2 * np.mean(act.f(rng.standard_normal((20_000, 64))) ** 2, axis=1)
    statistic = kept - 1.0 if keep == "mean" else np.log(kept)
    assert abs(statistic.mean()) < 4 * standard_error(statistic)


def test_gain_says_what_it_keeps():
    assert firstlight.gain("relu", fan=64, keep="mean") == pytest.approx(2**0.5, abs=1e-14)
    assert firstlight.gain("relu", 10) == pytest.approx(1.649223, abs=5e-7)
    assert firstlight.gain("relu", 10, law="paper") == random_walk.paper_gain("relu", 10)
    assert firstlight.gain("leaky_relu", keep="mean", negative_slope=0.2) == pytest.approx(1.3867505, abs=5e-8)
    assert firstlight.gain("tanh", keep="mean", q=0.01) < firstlight.gain("tanh", keep="mean", q=1.0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"activation": "relu"}, "fan"),
        ({"activation": "relu", "fan": 0}, "whole number"),
        ({"activation": "relu", "fan": 2.5}, "whole number"),
        ({"activation": "relu", "fan": float("nan")}, "whole number"),
        ({"activation": "tanh", "fan": 64, "law": "paper"}, "law='exact'"),
        ({"activation": "relu", "fan": 64, "keep": "mean", "law": "paper"}, "law='exact'"),
        ({"activation": "relu", "fan": 64, "keep": "mode"}, "median"),
        ({"activation": "relu", "fan": 64, "law": "folklore"}, "paper"),
        ({"activation": "tanh", "fan": 64, "q": 0.0}, "q"),
        ({"activation": "tanh", "fan": 64, "keep": "mean", "q": -1.0}, "q"),
    ],
)
def test_gain_refuses_what_it_cannot_answer(arguments, match):
    with pytest.raises(InputError, match=match):
        firstlight.gain(**arguments)


def test_gain_refuses_unknown_names():
    with pytest.raises(RegistryError, match="Did you mean"):
        firstlight.gain("gelo", fan=3)


def test_walks_of_saturating_functions_are_refused():
    with pytest.raises(InputError, match="degree 1"):
        random_walk.walk("tanh", [10], 1.0)
    with pytest.raises(InputError, match="one per layer"):
        random_walk.walk("relu", [10, 10], [1.0])
    empty = random_walk.walk("relu", [], 1.0)
    assert (empty.mean, empty.variance, empty.p_alive) == (0.0, 0.0, 1.0)
