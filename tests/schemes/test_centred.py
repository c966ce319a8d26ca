"""Weights whose rows sum to zero: their law, what a sigmoid stack becomes, what is predicted of it."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.capture.laws import law_of
from firstlight.theory.random_walk import centred_gain, mean_gain


def stack(activation, depth=8, width=48, classes=10):
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width), activation())]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def test_the_gain_is_that_of_what_is_left_without_the_mean():
    z, w = np.polynomial.hermite_e.hermegauss(120)
    w = w / w.sum()
    values = 1.0 / (1.0 + np.exp(-z))
    assert centred_gain("sigmoid") == pytest.approx((w @ values**2 - (w @ values) ** 2) ** -0.5, rel=1e-10)
    assert centred_gain("relu") == pytest.approx((0.5 - 0.5 / math.pi) ** -0.5, rel=1e-12)
    assert centred_gain("tanh") == pytest.approx(mean_gain("tanh"), rel=1e-12)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(300, 200), (2, 300)),
        (nn.Conv2d(48, 64, 3), (2, 48, 5, 5)),
        (nn.Conv1d(96, 64, 3, groups=4), (2, 96, 7)),
    ],
)
def test_rows_sum_to_zero_and_entries_have_the_declared_variance(layer, shape):
    model = nn.Sequential(nn.Sigmoid(), layer)
    firstlight.initialize(model, "centred", batch=torch.randn(shape), seed=1)
    w = layer.weight.detach()
    largest = float(w.sum(1).abs().max())
    assert largest < 1e-5 * float(w.square().sum(1).max()) ** 0.5 * math.sqrt(w.shape[1])
    fan = w[0].numel()
    ratio = float(w.square().mean()) * fan / centred_gain("sigmoid") ** 2
    assert abs(ratio - 1.0) < 4.0 * math.sqrt(2.0 / w.numel())
    assert law_of(w).structure == "centred"


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Tanh(), nn.Linear(64, 64)),  # an odd function has no mean
        nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()),  # reads data
        nn.Sequential(nn.Sigmoid(), nn.Linear(1, 64)),  # one channel cannot sum to zero
    ],
)
def test_where_there_is_nothing_to_centre_weights_stay_independent(model):
    linear = next(m for m in model if isinstance(m, nn.Linear))
    done = firstlight.initialize(model, "centred", batch=torch.randn(4, linear.in_features))
    assert "nothing to centre" in str(done.table)
    assert float(linear.weight.detach().sum(1).abs().max()) > 0.1
    assert law_of(linear.weight.detach()).structure == "iid"


def test_a_sigmoid_stack_is_a_tanh_stack():
    """σ(z) = ½ + ½tanh(z/2), and the ½ of all units does not get past rows that sum to zero."""
    model = stack(nn.Sigmoid).double()
    x = torch.randn(16, 48, dtype=torch.float64)
    firstlight.initialize(model, "centred", batch=x, seed=0)
    linears = [m for m in model if isinstance(m, nn.Linear)]
    with torch.no_grad():
        h = x
        for m in linears[:-1]:
            h = 0.5 * torch.tanh(0.5 * F.linear(h, m.weight))
        wanted = F.linear(h, linears[-1].weight)
        assert torch.allclose(model(x), wanted, rtol=0.0, atol=1e-6 * float(wanted.abs().max()))


class Pictures(nn.Module):
    def __init__(self, channels=12, depth=4):
        super().__init__()
        sizes = [3, *[channels] * depth]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        self.readout = nn.Linear(channels, 5)

    def forward(self, x):
        for conv in self.convs:
            x = torch.sigmoid(conv(x))
        return self.readout(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: stack(nn.Sigmoid), (16, 48)),
        (lambda: stack(nn.ReLU, depth=4), (16, 48)),
        (Pictures, (4, 3, 8, 8)),
    ],
)
def test_predicted_lengths_are_those_of_drawn_networks(make, shape):
    torch.manual_seed(0)
    model, x = make(), torch.randn(shape)
    predicted = {n.name: n.output.q for n in firstlight.predict(model, x, "centred").nodes}
    draws: dict[str, list[float]] = {}
    for seed in range(100):
        firstlight.initialize(model, "centred", batch=x, seed=seed)
        for node in firstlight.measure(model, x).nodes:
            if node.op in ("linear", "conv2d"):
                draws.setdefault(node.name, []).append(node.output.q)
    assert len(draws) >= 5
    for name, found in draws.items():
        error = float(np.std(found, ddof=1)) / math.sqrt(len(found))
        assert abs(predicted[name] - np.mean(found)) < 4.0 * error, (name, predicted[name], np.mean(found), error)


def test_the_remedy_of_a_fading_sigmoid_stack_makes_it_start():
    torch.manual_seed(0)
    x, y = torch.randn(64, 48), torch.randint(10, (64,))
    model = stack(nn.Sigmoid, depth=16)
    report = firstlight.diagnose(model, x, F.cross_entropy, targets=y)
    assert report.verdict == "will not start"
    first = next(f for f in report.findings if f.severity == "error")
    assert first.remedy == 'firstlight.initialize(model, "centred")'
    assert "-> starts" in first.effect
    firstlight.initialize(model, "centred", batch=x)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(200):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * math.log(10)
