"""Laws near a Gaussian: their moments on the nodes, and their quantiles against drawn values."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight
from firstlight.theory.gaussian import gauss_nodes
from firstlight.theory.quantiles import bent, mixture
from firstlight.theory.special import ndtr

NODES = gauss_nodes()


def moments(u):
    return tuple(float(u**k @ NODES.weights) for k in (1, 2, 3, 4))


@pytest.mark.parametrize("scatter", [0.01, 0.1, 0.6, 1.7])
def test_a_variance_that_scatters_gives_its_kurtosis(scatter):
    first, second, third, fourth = moments(bent(NODES.z, NODES.weights, scatter, 0.0, 0.0))
    assert (first, second, third) == pytest.approx((0.0, 1.0, 0.0), abs=1e-9)
    rounding = 3.0 * scatter * (10.0 ** (0.5 / 50) - 1.0)  # scatters are kept in steps of a fiftieth of a decade
    assert abs(fourth - 3.0 * (1.0 + scatter)) < rounding + 0.02 * fourth  # 160 quantiles


def test_the_quantiles_are_those_of_drawn_values():
    rng, count, scatter = np.random.default_rng(0), 400_000, 1.0
    variance = np.log1p(scatter)
    u = np.exp(0.5 * (variance**0.5 * rng.standard_normal(count) - 0.5 * variance)) * rng.standard_normal(count)
    z, t = mixture(scatter)
    for p in (0.6, 0.9, 0.99):
        at = float(np.interp(np.quantile(u, p), t, z))  # the normal quantile that the drawn one stands for
        assert float(ndtr(at)) == pytest.approx(p, abs=4.0 * (p * (1.0 - p) / count) ** 0.5 + 5e-4)


def test_what_is_flatter_than_a_cubic_becomes_uniform():
    assert bent(NODES.z, NODES.weights, 0.0, 0.0, 0.0) is NODES.z
    uniform = bent(NODES.z, NODES.weights, 0.0, 0.0, -1.2)
    assert moments(uniform)[3] == pytest.approx(1.8, abs=0.01)
    assert np.abs(uniform).max() == pytest.approx(3.0**0.5, abs=0.01)
    between = [moments(bent(NODES.z, NODES.weights, 0.0, 0.0, e))[3] - 3.0 for e in (-0.4, -0.8, -1.0)]
    assert between == pytest.approx([-0.4, -0.8, -1.0], abs=0.12)


def test_the_scatter_of_layers_multiplies():
    """L linear layers of n units, fixed data: E x⁴ = 3·(1 + 2/n)^(L - 1) exactly; adding gives 3·(1 + (L - 1)2/n)."""
    n, depth = 8, 6

    class Fourth(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(n, n, bias=False) for _ in range(depth)))

        def forward(self, x):
            return self.layers(x) ** 2

    found = firstlight.predict(Fourth(), torch.ones(1, n), "lecun")
    assert found[":pow"].output.q == pytest.approx(3.0 * (1.0 + 2.0 / n) ** (depth - 1), rel=0.03)


def test_a_bias_that_is_most_of_a_unit_keeps_its_law():
    """x - tanh x goes like x³: of uniform biases the sixth moment is 3.9, of Gaussian ones 15, of cubics between."""
    model, x = nn.Sequential(nn.Linear(64, 256), nn.Tanhshrink()), torch.zeros(1, 64)
    found = firstlight.predict(model, x, "torch-default")["1:tanhshrink"].output.q
    b = torch.empty(1_000_000, dtype=torch.float64).uniform_(-0.125, 0.125, generator=torch.Generator().manual_seed(0))
    exact = (b - b.tanh()).square()
    assert abs(found - float(exact.mean())) < 4.0 * float(exact.std()) / len(b) ** 0.5 + 0.01 * found  # 240 nodes
