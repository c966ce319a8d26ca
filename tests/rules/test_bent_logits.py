"""Softmax over logits that are no Gaussians, and over units, against brute force."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight

WIDTH, SAMPLES, DRAWS = 32, 32, 150


class Bent(nn.Module):
    """softmax(f(W x)) over units."""

    def __init__(self, f):
        super().__init__()
        self.up, self.gate, self.f = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False), f

    def forward(self, x):
        return self.f(self.up(x), self.gate(x)).softmax(-1)


LAWS = {
    "linear": lambda a, _: a,
    "tanh": lambda a, _: 2.0 * torch.tanh(2.0 * a),
    "abs": lambda a, _: 2.0 * a.abs(),
    "square": lambda a, _: a.square(),
    "gate": lambda a, b: 2.0 * a * torch.sigmoid(b),
    "product": lambda a, b: a * torch.relu(b),
}


@pytest.mark.parametrize("name", LAWS)
def test_shares_are_as_uneven_as_drawn(name):
    x = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(0))
    x = x * x.square().mean(1, keepdim=True).rsqrt()  # rows of one length: the batch has no luck of its own
    model = Bent(LAWS[name])
    node = firstlight.compare(
        firstlight.predict(model, x, "lecun"), firstlight.measure(model, x, scheme="lecun", draws=DRAWS)
    ).nodes[-1]
    assert node.op == "softmax"
    assert abs(node.q_z) < 4.0


def test_gaussian_nodes_give_the_gaussian_integral():
    from firstlight.rules.attention import bent_logits
    from firstlight.rules.attention.participation import participation
    from firstlight.theory.gaussian import gauss_nodes

    nodes = gauss_nodes()
    for v in (0.5, 3.0, 12.0):
        for n in (2, 32, 500):
            found = bent_logits._sum((v**0.5 * nodes.z).tobytes(), nodes.weights.tobytes(), n)
            assert found == pytest.approx(float(participation(v, np.array(float(n)))), rel=1e-4)


@pytest.mark.parametrize("n", [3, 40])
def test_a_law_of_two_values_is_a_sum_over_binomials(n):
    """Logits ±a: k of n are high, Σp² = (k e^{2a} + (n-k) e^{-2a})/(k e^a + (n-k) e^{-a})²."""
    from scipy.stats import binom

    from firstlight.rules.attention import bent_logits

    a, k = 1.5, np.arange(n + 1)
    high, low = np.exp(a), np.exp(-a)
    exact = ((k * high**2 + (n - k) * low**2) / (k * high + (n - k) * low) ** 2) @ binom.pmf(k, n, 0.5)
    found = bent_logits._sum(np.array([-a, a]).tobytes(), np.array([0.5, 0.5]).tobytes(), n)
    assert found == pytest.approx(exact, rel=1e-5)
