"""P(off by more than 10×) against measured frequencies (the table: `python -m benchmarks calibration`)."""

import pytest

from benchmarks import calibration

# Networks that miss the goal of ±.05, by how much and why.
MISSES = {
    ("attention 10×16", "backward"): "+.21: what tokens have in common strays from draw to draw, which is not followed",
}


def check(row):
    assert abs(row.predicted - row.measured) <= calibration.TOLERANCE + 2.0 * row.error, row


@pytest.mark.parametrize(("depth", "width"), [(20, 16), (40, 16), (40, 64)])
def test_plain_stacks_are_off_as_often_as_predicted(depth, width):
    for row in calibration.plain(depth, width, 1000):
        check(row)


def test_a_residual_stack_is_off_as_often_as_predicted():
    import torch

    torch.manual_seed(0)
    model, x = calibration.Residual(12, 16), torch.randn(1, 16)
    for row in calibration.drawn("residual 12×16", model, x, f"normal({0.75 * 16**-0.5})", 400):
        check(row)


@pytest.fixture(scope="module")
def everything():
    return calibration.rows(2000)


@pytest.mark.slow
def test_the_whole_table(everything):
    for row in everything:
        if (row.network, row.direction) not in MISSES:
            check(row)


@pytest.mark.slow
@pytest.mark.xfail(reason="; ".join(f"{' '.join(k)}: {v}" for k, v in MISSES.items()), strict=True)
def test_the_networks_that_miss(everything):
    for row in everything:
        check(row)
