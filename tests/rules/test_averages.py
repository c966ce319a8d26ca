"""Averages whose weights are not a softmax of their own, against draws."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight

STEPS, WIDTH, DRAWS = 8, 32, 200


class Running(nn.Module):
    """Σ e^k_t·v_t / Σ e^k_t with decays, step by step, as RWKV has it."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.key, self.value = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        above = below = torch.zeros(len(x), WIDTH)
        for t in range(STEPS):
            weight = torch.exp(self.size * self.key(x[:, t]))
            above = 0.9 * above + weight * self.value(x[:, t])
            below = 0.9 * below + weight
        return above / below, above, below


@pytest.mark.parametrize("size", [0.5, 1.0])
def test_the_mean_square_of_an_average(size):
    torch.manual_seed(0)
    x = torch.randn(16, STEPS, WIDTH)
    predicted = firstlight.predict(Running(size), x, f"normal({WIDTH**-0.5})")
    found, spread = [], []
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        model = Running(size)
        for p in model.parameters():
            nn.init.normal_(p, std=WIDTH**-0.5)
        with torch.no_grad():
            average, _, below = model(x)
        found.append(float(average.square().mean()))
        spread.append(float(below.var() / below.mean() ** 2))
    error = np.std(found, ddof=1) / DRAWS**0.5
    # a ratio of means stands for the mean of a ratio: E 1/y² is 1 + 3τ² to the order that it leaves out
    beyond = 3.0 * np.mean(spread) * np.mean(found)
    q = next(n.output.q for n in predicted.nodes if n.op == "div")
    assert q == pytest.approx(np.mean(found), abs=4.0 * error + beyond)


def test_a_heavy_denominator_is_no_division_by_zero():
    torch.manual_seed(1)
    x = torch.randn(16, STEPS, WIDTH)
    predicted = firstlight.predict(Running(2.0), x, f"normal({WIDTH**-0.5})")
    assert next(n.output.q for n in predicted.nodes if n.op == "div") < 1.1  # values have 1, and it had been 10⁶


def test_a_quotient_of_others_is_divided_as_before():
    class Other(Running):
        def forward(self, x):
            weight = torch.exp(self.size * self.key(x[:, 0]))
            return self.value(x[:, 1]) / (1.0 + weight)

    torch.manual_seed(2)
    x = torch.randn(16, STEPS, WIDTH)
    predicted = firstlight.predict(Other(1.0), x, f"normal({WIDTH**-0.5})").nodes[-1].output.q
    found = []
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        model = Other(1.0)
        for p in model.parameters():
            nn.init.normal_(p, std=WIDTH**-0.5)
        with torch.no_grad():
            found.append(float(model(x).square().mean()))
    assert predicted == pytest.approx(np.mean(found), abs=4.0 * np.std(found, ddof=1) / DRAWS**0.5)
