"""Gradients that are large where a channel's own window is, against draws."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from firstlight.graph.signal import Cotangent
from firstlight.rules.chains.source import as_source
from firstlight.rules.convolutions.steep import of_factors
from firstlight.rules.gradients.gradient import times
from firstlight.rules.state.empirical import uniform
from tests.rules.drawn_nodes import gradient_ratios

DRAWS = 48


@pytest.mark.parametrize(("f", "slope"), [(F.hardswish, 0.25), (F.relu, 0.0)])
def test_slope_of_the_mean_square_of_a_derivative(f, slope):
    """e = d ln E f'(√V z)²/d ln V at V = 1: nothing for a rectifier, a lot for hardswish."""
    z = torch.linspace(-8.0, 8.0, 200_001, dtype=torch.float64, requires_grad=True)
    weight = torch.exp(-0.5 * z.detach() ** 2)

    def square(v):
        u = (v**0.5 * z.detach()).requires_grad_()
        (d,) = torch.autograd.grad(f(u).sum(), u)
        return float((d.square() * weight).sum() / weight.sum())

    expected = (square(1.02) - square(0.98)) / 0.04 / square(1.0)
    assert expected >= slope - 1e-6
    x = uniform((8, 16, 4, 4), 0.0, 1.0, batch_axis=0, gaussian=True)
    source, values = as_source(x)
    u = torch.tensor(values, requires_grad=True)
    (d,) = torch.autograd.grad(f(u).sum(), u)
    found = of_factors(times(Cotangent(uniform((8, 16, 4, 4), 0.0, 1.0, batch_axis=0)), x, source, d.numpy()), x)
    assert found == pytest.approx(expected, abs=0.02**2)  # what a difference over ±0.02 leaves out


class Block(nn.Module):
    """A wide residual branch with a window for each channel, as in MobileNetV3 and EfficientNet."""

    def __init__(self, width, act):
        super().__init__()
        h = 3 * width
        self.branch = nn.Sequential(
            nn.Conv2d(width, h, 1, bias=False), nn.BatchNorm2d(h), act(),
            nn.Conv2d(h, h, 3, padding=1, groups=h, bias=False), nn.BatchNorm2d(h), act(),
            nn.Conv2d(h, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x):
        return x + self.branch(x)


@pytest.mark.parametrize("act", [nn.Hardswish, nn.SiLU])
def test_first_gradients_of_mobile_blocks(act):
    """Four blocks had half of the gradient: each lost what windows and slopes have in common, forward and back."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), act(), *[Block(16, act) for _ in range(4)],
        nn.Conv2d(16, 48, 1, bias=False), nn.BatchNorm2d(48), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(48, 10),
    )  # fmt: skip
    x = torch.randn(8, 3, 12, 12)
    names = ("1:batch_norm", "3.branch.1:batch_norm", "3.branch.4:batch_norm", "5.branch.1:batch_norm")
    for name, ratio, error in gradient_ratios(model, x, names, DRAWS):
        assert abs(ratio - 1.0) < 0.1 + 3.0 * error, (name, ratio, error)  # the tenth that predictions aim at
