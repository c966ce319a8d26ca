from __future__ import annotations

import numpy as np
import pytest
from brute_force import half_digit, printed, stack, standard_error, table

from firstlight.errors import InputError
from firstlight.theory import length_law, lengths, weights

TABLE = table("lengths")
STACKS = TABLE["stacks"]
WIDTHS = [row["widths"] for row in STACKS]
NAMES = ["10", "20", "100", "30-10", "15"]


@pytest.mark.parametrize("row", STACKS, ids=NAMES)
def test_table_of_stacks(row):
    assert printed(lengths.relative_variance(row["widths"]), row["relative_variance"])
    assert lengths.moment_ratio(row["widths"], 2) - 1 == pytest.approx(
        lengths.relative_variance(row["widths"]), rel=1e-10
    )
    if "empirical_variance" in row:
        assert printed(lengths.empirical_variance(row["widths"]), row["empirical_variance"])
    if "p_dead" in row:
        assert printed(lengths.p_dead(row["widths"]), row["p_dead"])


def test_the_exponential_is_only_an_upper_bound():
    widths = [10] * 10
    assert printed(lengths.relative_variance(widths), TABLE["bound"]["exact"])
    assert printed(lengths.square_path_bound(widths) - 1, TABLE["bound"]["bound"])
    for case in WIDTHS:
        assert lengths.square_path_bound(case) > lengths.square_path(case)[-1]


@pytest.mark.parametrize("row", TABLE["off_by_ten"], ids=lambda r: f"{r['depth']}x{r['width']}")
def test_probability_of_being_off_by_ten(row):
    widths = [row["width"]] * row["depth"]
    assert printed(float(length_law.p_off_normal(*length_law.leading_law(widths))), row["law"])
    exact = float(length_law.p_off(widths))
    # "measured" is a share of 400 draws: within three standard errors of the exact law
    assert abs(exact - row["measured"]) < 3 * (exact * (1 - exact) / 400) ** 0.5 + 0.005


@pytest.mark.parametrize("widths", [[3], [2, 5], [4] * 6, [16] * 20, [40, 7, 90]])
def test_exact_law_against_draws_of_the_mixture(widths):
    draws = length_law.sample(widths, 100_000, np.random.default_rng(2))
    for factor in (1.5, 10.0, 1000.0):
        share, p = np.mean((draws < 1 / factor) | (draws > factor)), float(length_law.p_off(widths, factor))
        assert abs(share - p) < 4 * (max(p * (1 - p), 1e-5) / len(draws)) ** 0.5
    alive = np.sort(np.log(draws[draws > 0]))
    distance = np.max(np.abs(length_law.log_cdf(widths, alive[::50]) - np.arange(len(alive))[::50] / len(alive)))
    assert distance < 1.95 / len(alive) ** 0.5  # Kolmogorov: exceeded once in a thousand
    law = length_law.log_law(widths)
    assert abs(alive.mean() - law.mean) < 4 * standard_error(alive)
    assert abs(alive.var() - law.variance) < 4 * standard_error((alive - alive.mean()) ** 2)


@pytest.mark.parametrize("n", [1, 4, 50])
def test_one_layer_is_the_chi_square_mixture(n):
    from scipy.stats import binom, chi2

    x = np.array([-3.0, -1.0, 0.0, 0.7, 2.0])
    k = np.arange(1, n + 1)
    share = binom.pmf(k, n, 0.5) / (1 - 0.5**n)
    expected = (share[:, None] * chi2.cdf(0.5 * n * np.exp(x), k[:, None])).sum(axis=0)
    np.testing.assert_allclose(length_law.log_cdf([n], x), expected, atol=1e-9)


def test_wide_and_deep_nets_come_near_the_normal_law():
    widths = [2000] * 500
    # the remaining gap is the third cumulant's, of order sd/width
    assert float(length_law.p_off(widths, 3.0)) == pytest.approx(
        float(length_law.p_off_normal(*length_law.leading_law(widths), 3.0)), abs=1e-3
    )


def test_first_moments_by_drawing_networks():
    rng = np.random.default_rng(4)
    for widths in ([6] * 4, [12, 5, 12, 5]):
        m = stack(widths, 40_000, rng)
        for layer in (0, 3):
            assert abs(m[layer].mean() - 1) < 4 * standard_error(m[layer])
            square = m[layer] ** 2
            bar = (lengths.moment_ratio(widths[: layer + 1], 4) - lengths.square_path(widths)[layer + 1] ** 2) ** 0.5
            assert abs(square.mean() - lengths.square_path(widths)[layer + 1]) < 4 * bar / len(square) ** 0.5


@pytest.mark.parametrize(("law", "kurtosis"), [("normal", 3.0), ("uniform", 1.8), ("signs", 1.0)])
def test_kurtosis_of_the_weights(law, kurtosis):
    widths, rng = [5, 8, 6], np.random.default_rng(8)
    m = stack(widths, 60_000, rng, fan_in=4, law=law)
    a, _ = lengths.kurtosis_path(widths, kurtosis, np.ones(4))
    for layer in range(3):
        square = m[layer] ** 2
        assert abs(square.mean() - a[layer + 1]) < 4.5 * standard_error(square)
    if law == "normal":
        np.testing.assert_allclose(a, lengths.square_path(widths))


def test_small_fluctuations_within_a_network():
    for d, n in ((10, 5000), (50, 100_000)):
        assert lengths.empirical_variance([n] * d) == pytest.approx(5 / 6 * d / n, rel=5 * d / n + 1.5 / d**2)


def test_bias_variance_feeds_the_mean():
    path = lengths.mean_path(3, mean_square=2.0, weight_factor=1.0, bias_variance=0.4)
    np.testing.assert_allclose(path, [2.0, 1.2, 0.8, 0.6])


def test_multipliers_per_relu_layer():
    row = TABLE["multiplier"]
    cut = weights.truncated_normal_variance(2.0)
    for key, factor in (
        ("he", 2.0),
        ("truncated", 2.0 * cut),
        ("lecun", 1.0),
        ("twice_he", 4.0),
        ("torch_default", weights.TORCH_LINEAR_FACTOR),
    ):
        assert printed(lengths.mean_path(1, 1.0, factor)[1], row[key])


def test_constants_of_weight_laws():
    row = TABLE["weights"]
    assert printed(weights.truncated_normal_variance(), row["truncated_variance"])
    assert printed(weights.truncated_normal_variance() ** 0.5, row["truncated_sd"])
    assert printed(weights.kurtosis("truncated"), row["truncated_kurtosis"])
    assert printed(weights.kurtosis("uniform"), row["uniform_kurtosis"])
    assert (weights.kurtosis("normal"), weights.kurtosis("rademacher")) == (3.0, 1.0)
    assert weights.truncated_normal_variance(np.inf) == 1.0
    assert weights.truncated_normal_kurtosis(9.0) == pytest.approx(3.0, abs=1e-9)
    from scipy.stats import truncnorm

    assert weights.truncated_normal_variance(1.3) == pytest.approx(truncnorm(-1.3, 1.3).var(), rel=1e-10)


def test_leaky_and_orthogonal_layers():
    assert lengths.leaky_excess(0.0) == 5.0
    assert lengths.leaky_excess(1.0) == 2.0
    rng, n, a = np.random.default_rng(6), 6, 0.3
    f = lambda z: np.where(z > 0, z, a * z)  # noqa: E731
    m = stack([n] * 2, 60_000, rng, gain=lengths.leaky_variance(a) ** 0.5, f=f)[-1]
    expected = lengths.square_path([n] * 2, excess=lengths.leaky_excess(a))[-1]
    assert abs(m.mean() - 1) < 4 * standard_error(m)
    assert abs(np.mean(m**2) - expected) < 4.5 * standard_error(m**2)


def haar(draws, rows, columns, rng):
    q, r = np.linalg.qr(rng.standard_normal((draws, max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.einsum("dii->di", r))[:, None, :]
    return q if rows >= columns else q.transpose(0, 2, 1)


def test_haar_orthogonal_layers():
    rng, n = np.random.default_rng(9), 6
    h = np.ones((30_000, n))
    for _ in range(2):
        h = np.maximum(2**0.5 * np.einsum("dij,dj->di", haar(len(h), n, n, rng), h), 0)
    m = np.mean(h * h, axis=1)
    assert abs(m.mean() - 1) < 4 * standard_error(m)
    assert abs(np.mean(m**2) - lengths.orthogonal_square([n, n])) < 4 * standard_error(m**2)
    # the trap: orthonormal columns on more units lose fan_in/fan_out; orthonormal rows lose nothing
    for rows, columns in ((12, 4), (4, 12)):
        z = 2**0.5 * np.einsum("dij,j->di", haar(20_000, rows, columns, rng), np.ones(columns))
        m = np.mean(np.maximum(z, 0) ** 2, axis=1)
        assert abs(m.mean() - lengths.orthogonal_mean(columns, rows)) < 4 * standard_error(m)


@pytest.mark.parametrize("side", sorted(map(int, TABLE["zero_padding"])))
def test_zero_padding(side):
    text = TABLE["zero_padding"][str(side)]
    assert printed(lengths.zero_padding_factor(side), text)
    path = lengths.zero_padding_path(side, side, 40 * side)
    assert path[-1] / path[-2] == pytest.approx(lengths.zero_padding_factor(side), abs=half_digit(text))
    assert lengths.zero_padding_path(side, side, 5, kernel=1)[-1] == 1.0


def test_zero_padding_by_convolving():
    import torch

    rng = torch.Generator().manual_seed(0)
    x, n, draws = torch.ones(1, 1, 5, 5, dtype=torch.float64), 64, []
    for _ in range(60):
        h = x.expand(1, n, 5, 5)
        for _ in range(2):
            w = torch.randn(n, n, 3, 3, generator=rng, dtype=torch.float64) * (2 / (9 * n)) ** 0.5
            h = torch.relu(torch.nn.functional.conv2d(h, w, padding=1))
        draws.append(float((h * h).mean()))
    assert abs(np.mean(draws) - lengths.zero_padding_path(5, 5, 2)[-1]) < 4 * standard_error(draws)


def test_conv_fluctuation_follows_channels():
    assert lengths.conv_square_bound([8, 8]) == pytest.approx(1.625**2)


def test_looks_linear_is_linear():
    rng = np.random.default_rng(0)
    blocks = [rng.standard_normal((5, 5)) for _ in range(3)]
    x = rng.standard_normal(5)
    h = np.concatenate([x, -x])
    h = np.maximum(h, 0)
    linear = x
    for block in blocks:
        z = weights.looks_linear(block) @ h
        h, linear = np.maximum(z, 0), block @ linear
    np.testing.assert_allclose(h[:5] - h[5:], linear)


@pytest.mark.parametrize("bad", [[0], [3, -1], [2.5], [float("nan")], [[2, 2]]])
def test_impossible_widths_are_refused(bad):
    for function in (lengths.p_dead, lengths.square_path, lengths.inverse_width_sum, length_law.p_off):
        with pytest.raises(InputError, match="widths"):
            function(bad)


def test_no_layer_changes_nothing():
    assert lengths.square_path([]).tolist() == [1.0]
    assert lengths.p_dead([]) == 0.0
    assert lengths.empirical_variance([]) == 0.0
    assert float(length_law.p_off([], 10.0)) == 0.0
    assert lengths.moment_ratio([], 2) == 1.0


def test_other_bad_input_is_refused():
    with pytest.raises(InputError, match="factor"):
        length_law.p_off([3], 1.0)
    with pytest.raises(InputError, match="kurtosis"):
        lengths.kurtosis_path([3], 0.5, np.ones(2))
    with pytest.raises(InputError, match="input"):
        lengths.kurtosis_path([3], 3.0, np.array([]))
    with pytest.raises(InputError, match="kernel"):
        lengths.zero_padding_path(4, 4, 1, kernel=2)
    with pytest.raises(InputError, match="weight law"):
        weights.kurtosis("cauchy")


# -- brute force at the size of the tables


@pytest.mark.slow
@pytest.mark.parametrize("row", STACKS, ids=NAMES)
def test_simulated_stacks(row):
    """Variance, V̂ and death of networks drawn weight by weight, with bars from the exact moments."""
    widths, rng = row["widths"], np.random.default_rng(20)
    total = 4_000_000 // max(widths) ** 2 * 10
    batch = 2_000_000 // max(widths) ** 2
    m = np.concatenate([stack(widths, batch, rng) for _ in range(max(1, total // batch))], axis=1)
    draws, last = m.shape[1], m[-1]
    law = length_law.log_law(widths)
    alive = np.sort(np.log(last[last > 0]))
    assert abs(alive.mean() - law.mean) < 4 * (law.variance / len(alive)) ** 0.5
    assert abs(alive.var() - law.variance) < 4 * standard_error((alive - alive.mean()) ** 2)
    empirical = np.arange(1, len(alive) + 1) / len(alive)
    assert np.max(np.abs(length_law.log_cdf(widths, alive[::20]) - empirical[::20])) < 1.95 / len(alive) ** 0.5
    dead = lengths.p_dead(widths)
    assert abs(np.mean(last == 0) - dead) < 4 * (dead / draws) ** 0.5 + 1e-12
    # M² is carried by rare draws, so that its average is far from normal. Capped at mean + 3 sd of ln M it
    # obeys the central limit theorem; uncapped, Chebyshev gives ten standard errors for one in a hundred.
    top = law.mean + 3 * law.sd
    ends = np.linspace(top - 40 * max(law.sd, 0.2), top, 4001)
    x = 0.5 * (ends[1:] + ends[:-1])  # E min(M, c)² = ∫ 2e^{2x} P(ln M > x) dx up to ln c, by midpoints
    survival = law.p_alive * (1 - length_law.log_cdf(widths, x))
    capped = float(np.sum(2 * np.exp(2 * x) * survival)) * (ends[1] - ends[0])
    sample = np.minimum(last, np.exp(top)) ** 2
    assert abs(sample.mean() - capped) < 4 * standard_error(sample)
    bar = (lengths.moment_ratio(widths, 4) / draws) ** 0.5
    assert abs(np.mean(last**2) - 1 - lengths.relative_variance(widths)) < 10 * bar
    spread = m.var(axis=0)
    assert abs(spread.mean() - lengths.empirical_variance(widths)) < 10 * bar
    # the published simulation lies within the spread that its few thousand draws allow
    few = (lengths.moment_ratio(widths, 4) / 1000) ** 0.5
    assert abs(row["simulated_relative_variance"] - lengths.relative_variance(widths)) < 4 * few


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE["off_by_ten"], ids=lambda r: f"{r['depth']}x{r['width']}")
def test_simulated_probability_of_being_off_by_ten(row):
    widths, rng = [row["width"]] * row["depth"], np.random.default_rng(21)
    draws = min(4000, 8_000_000 // row["width"] ** 2 * 4)
    last = np.concatenate([stack(widths, draws // 4, rng)[-1] for _ in range(4)])
    p = float(length_law.p_off(widths))
    share = np.mean((last < 0.1) | (last > 10))
    assert abs(share - p) < 4 * (p * (1 - p) / len(last)) ** 0.5
