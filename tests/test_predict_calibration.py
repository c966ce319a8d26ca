"""P(off by more than 10×) against measured frequencies (the table: `python -m benchmarks calibration`)."""

import pytest

from benchmarks import calibration


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


def test_an_attention_stack_is_off_as_often_as_predicted():
    """What its tokens have in common strays much more than their lengths do, and is all that a flat softmax keeps."""
    import torch

    torch.manual_seed(0)
    model, x = calibration.Attention(10, 16), torch.randn(1, 8, 16)
    for row in calibration.drawn("attention 10×16", model, x, f"normal({0.6 * 16**-0.5})", 400):
        check(row)


@pytest.fixture(scope="module")
def everything():
    return calibration.rows(2000)


@pytest.mark.slow
def test_the_whole_table(everything):
    for row in everything:
        check(row)
