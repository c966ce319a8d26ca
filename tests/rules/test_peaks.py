"""Where the largest entry of an image lies right behind a convolution with zeros around it."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight


class Peak(nn.Module):
    """The largest entry of each channel behind a convolution with two zeros at either end."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv1d(channels, channels, 1, bias=False)
        self.second = nn.Conv1d(channels, channels, 3, padding=2, dilation=2, bias=False)

    def forward(self, x):
        return nn.functional.adaptive_max_pool1d(self.second(self.first(x)), 1)


@pytest.mark.parametrize("common", [0.0, 0.5, 0.98])
def test_gradients_of_maxima_at_the_border_lose_taps(common):
    """The more alike places are, the more surely a border where a tap is missing has the largest of them."""
    torch.manual_seed(0)
    channels, places, samples = 64, 16, 24
    model = Peak(channels)
    base, own = torch.randn(samples, channels, 1), torch.randn(samples, channels, places)
    x = common**0.5 * base + (1.0 - common) ** 0.5 * own
    predicted = firstlight.predict(model, x, "lecun")
    names = ("first:conv1d", "second:conv1d")
    found = {n.name: n.grad.q for n in predicted.nodes if n.name in names and n.grad}
    drawn = []
    for _ in range(80):
        for p in model.parameters():
            nn.init.normal_(p, std=(p.shape[1] * p.shape[2]) ** -0.5)
        one = model.first(x)
        two = model.second(one)
        one.retain_grad()
        two.retain_grad()
        y = nn.functional.adaptive_max_pool1d(two, 1)
        y.backward(torch.randn_like(y))
        drawn.append([float(one.grad.square().mean()), float(two.grad.square().mean())])
    drawn = np.array(drawn)
    assert found[names[1]] == pytest.approx(1.0 / places, rel=1e-3)
    ratio = drawn[:, 0] / drawn[:, 1].mean()
    predicted_ratio = found[names[0]] / found[names[1]]
    assert abs(predicted_ratio - ratio.mean()) < 4.0 * ratio.std() / len(ratio) ** 0.5
