"""Gated steps and what is added at known indices, against draws."""

import math

import pytest

from tests.rules.test_examples import RESOLUTION, compared

STATE = "x.roll(1, 1)"
COTANGENT = (2.0 / 256.0) ** 0.5  # relative error of the mean square of the part of one cotangent that is read


@pytest.mark.parametrize(
    "text",
    [
        f"torch.lstm_cell(x, ({STATE}, x.roll(2, 1)), torch.randn(256, 64) / 8, torch.randn(256, 64) / 8)[0]",
        f"torch.rnn_tanh_cell(x, {STATE}, torch.randn(64, 64) / 8, torch.randn(64, 64) / 8)",
        "torch.zeros(x.shape[0], 32).index_add(1, torch.arange(64) // 4, F.relu(x))",
        "torch.zeros(x.shape[0], 32).scatter_add(1, (torch.arange(64) // 4).expand(16, -1), x)",
    ],
)
def test_against_draws(text):
    for name, what, predicted, found, error in compared(text, draws=16):
        assert predicted > 0.0, (name, what)
        error = max(error, COTANGENT) if what == "grad q" else error
        assert abs(math.log(predicted / found)) <= 4.0 * error + RESOLUTION, (name, what, predicted, found, error)
