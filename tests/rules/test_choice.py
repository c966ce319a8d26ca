"""Thresholds and what is chosen by them: functions of one source, exact like any other."""

import math

import pytest

from tests.rules.test_examples import RESOLUTION, compared


@pytest.mark.parametrize(
    "text",
    [
        "(x > 0.5).float() + 0.1 * x",
        "(x < -1.0).to(x.dtype) + 0.1 * x",
        "torch.where(x > 0.5, torch.exp(0.5 * x), -1.0 * x)",
        "x.masked_fill(x < 0, 0.3).mean(1)",
        "torch.where(x > x.roll(1, 1), x, 2 * x)",
        "x * (x > 0.2)",
    ],
)
def test_a_threshold_is_a_function_of_its_source(text):
    for name, what, predicted, found, error in compared(text):
        assert predicted > 0.0, (name, what)
        assert abs(math.log(predicted / found)) <= 4.0 * error + RESOLUTION, (name, what, predicted, found, error)
