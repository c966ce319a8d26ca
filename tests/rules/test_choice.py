"""Thresholds and what is chosen by them: functions of one source, exact like any other."""

import math

import pytest
import torch

import firstlight
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


def test_a_tensor_less_the_larger_of_it_and_another_is_never_above_zero():
    """e^(a - max(a, b)), which keeps running sums of exponentials in range: behind independent terms it had no end."""

    def shares(y):
        a, b = y.chunk(2, -1)
        first = torch.zeros_like(a) - 1e38
        top = torch.maximum(torch.maximum(first, a) + 0.3, b)
        return torch.exp(a + 0.3 - top), torch.exp(b - top)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(32, 64)

        def forward(self, x):
            return shares(self.layer(x))

    torch.manual_seed(0)
    model, x = Net(), torch.randn(64, 32)
    measured = firstlight.measure(model, x, draws=200, scheme="normal(0.3)")
    found = firstlight.compare(firstlight.predict(model, x, "normal(0.3)"), measured)
    for n in found.nodes:
        if n.op in ("exp", "maximum"):
            assert abs(n.q_z) < 4.0 or n.q_predicted == n.q_measured
