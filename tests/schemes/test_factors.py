"""Constants that the network multiplies with beside its weights: sin(30·Wx), an equalized learning rate, √2·relu."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.theory import random_walk


class Siren(nn.Module):
    """Sine layers as in implicit representations of images (Sitzmann et al. 2006.09661), with torch's weights."""

    def __init__(self, depth=4, width=64, w0=30.0):
        super().__init__()
        self.w0 = w0
        sizes = [2] + [width] * depth + [3]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.sin(self.w0 * layer(x))
        return self.layers[-1](x)


class Equalized(nn.Module):
    """A layer whose weights are scaled where they are used (Karras et al. 1710.10196)."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))
        self.c = 1.0 / math.sqrt(width)

    def forward(self, x):
        return F.relu(F.linear(x, self.weight * self.c)) / 0.5


class Between(nn.Module):
    """One layer, something, tanh, and a readout."""

    def __init__(self, between):
        super().__init__()
        self.first, self.last, self.norm = nn.Linear(16, 16), nn.Linear(16, 4), nn.LayerNorm(16)
        self.between = between

    def forward(self, x):
        return self.last(torch.tanh(self.between(self, self.first(x), x)))


def gains(model, x, scheme="he"):
    rows = firstlight.initialize(model, scheme, batch=x, dry_run=True).table.rows
    return {r.name: r.gain for r in rows if r.gain is not None}


def test_sine_layers_get_their_frequency_taken_out():
    found = gains(Siren(), torch.rand(32, 2), "random-walk")
    sine = random_walk.median_gain(firstlight.theory.activations.get("sin"), 64)
    assert found["layers.1.weight"] == pytest.approx(sine / 30.0)
    assert found["layers.4.weight"] == pytest.approx(sine)  # the readout meets no sine


def test_constants_on_the_weights_and_behind_the_activation_count():
    found = gains(nn.Sequential(Equalized(16), Equalized(16), nn.Linear(16, 4)), torch.randn(8, 16))
    assert found["0.weight"] == pytest.approx(math.sqrt(2.0) / (1 / 4))
    assert found["1.weight"] == pytest.approx(math.sqrt(2.0) / (1 / 4 * 2))
    assert found["2.weight"] == pytest.approx(math.sqrt(2.0) / 2)


@pytest.mark.parametrize(
    ("between", "factor"),
    [
        (lambda m, u, x: 5.0 * u, 5.0),
        (lambda m, u, x: -5.0 * u, 5.0),
        (lambda m, u, x: u / 4, 0.25),
        (lambda m, u, x: torch.tensor(3.0) * u, 3.0),
        (lambda m, u, x: 2.0 * m.norm(5.0 * u), 1.0),  # what stands before a norm or behind it says nothing of W
        (lambda m, u, x: x + 0.1 * u, 1.0),  # the weight of a branch is no mistake of scale
        (lambda m, u, x: u * x, 1.0),
        (lambda m, u, x: 0.0 * u, 1.0),
        (lambda m, u, x: u + 5.0, 1.0),
    ],
)
def test_what_counts_as_a_factor(between, factor):
    assert gains(Between(between), torch.randn(8, 16))["first.weight"] == pytest.approx(1.0 / factor)


@pytest.mark.parametrize("scheme", ["he", "orthogonal"])
def test_the_mean_length_is_kept_over_draws(scheme):
    """E|u|² of every layer's sum is that of the first one: relu's half and the constants are made good for."""
    model, x = nn.Sequential(*[Equalized(64) for _ in range(4)], nn.Linear(64, 64)), torch.randn(64, 64)
    lengths = []
    for seed in range(200):
        firstlight.initialize(model, scheme, batch=x, seed=seed)
        lengths.append([n.output.q for n in firstlight.measure(model, x).nodes if n.op == "linear"])
    ratio = np.array(lengths)[:, -1] / np.array(lengths)[:, 0]
    error = float(np.std(ratio, ddof=1)) / math.sqrt(len(ratio))
    assert abs(float(np.mean(ratio)) - 1.0) < 4.0 * error
    assert error < 0.1


def test_the_remedy_of_a_mis_scaled_network_is_a_line_that_was_tried():
    torch.manual_seed(0)
    model, x = Siren(5, 128), torch.rand(64, 2) * 2.0 - 1.0
    report = firstlight.diagnose(model, x)
    assert report.verdict == "mis-scaled"
    first = next(f for f in report.findings if f.severity == "warning")
    assert first.remedy == 'firstlight.initialize(model, "random-walk", batch=batch)'
    assert "-> starts" in first.effect
    firstlight.initialize(model, "random-walk", batch=x)
    assert firstlight.diagnose(model, x).verdict == "starts"
