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
    "product of two Gaussians": lambda a, b: a * b,
}


def compared(model):
    x = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(0))
    x = x * x.square().mean(1, keepdim=True).rsqrt()  # rows of one length: the batch has no luck of its own
    measured = firstlight.measure(model, x, scheme="lecun", draws=DRAWS)
    return {n.node: n for n in firstlight.compare(firstlight.predict(model, x, "lecun"), measured).nodes}


@pytest.mark.parametrize("name", LAWS)
def test_shares_are_as_uneven_as_drawn(name):
    assert abs(compared(Bent(LAWS[name]))[":softmax"].q_z) < 4.0


@pytest.mark.parametrize("f", [torch.relu, nn.functional.softplus, torch.tanh, lambda a: 2.0 * nn.functional.gelu(a)])
@pytest.mark.parametrize("dim", [-1, -2])
def test_gradients_are_large_where_logits_are(f, dim):
    """And slopes too: behind a ReLU the gradient is half as large again as if both were independent."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(WIDTH, WIDTH, bias=False)

        def forward(self, x):
            return f(self.up(x).view(4, -1, WIDTH)).softmax(dim)

    found = compared(Net())
    off = [(n.node, n.grad_q_predicted, n.grad_q_measured, n.grad_q_z) for n in found.values() if abs(n.grad_q_z) > 4.0]
    assert [o for o in off if o[0] != ":input"] == []
    assert abs(found["up:linear"].grad_q_predicted / found["up:linear"].grad_q_measured - 1.0) < 0.1


@pytest.mark.parametrize("name", LAWS)
def test_log_softmax(name):
    class Log(Bent):
        def forward(self, x):
            return self.f(self.up(x), self.gate(x)).log_softmax(-1)

    found = list(compared(Log(LAWS[name])).values())
    assert abs(found[-1].q_z) < 4.0
    logits = next(n for n in reversed(found[:-1]) if n.grad_q_z is not None)
    assert abs(logits.grad_q_z) < 4.0  # whatever made them


@pytest.mark.parametrize(("v", "n"), [(0.1, 2), (1.0, 10), (4.0, 1000), (20.0, 10)])
def test_the_logarithm_of_a_sum(v, n):
    from firstlight.rules.attention.participation import log_sum

    logits = torch.randn(200_000_000 // (n * 100), n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = torch.logsumexp(v**0.5 * logits, -1)
    mean, variance = log_sum(v, n)
    assert abs(mean - float(drawn.mean())) < 4.0 * float(drawn.std()) / len(drawn) ** 0.5 + 1e-3 * v
    # the mean of two bounds: no further off than either, but for the sampling error of a variance
    low = v / n
    assert abs(variance - float(drawn.var())) <= (variance - low) + 4.0 * float(drawn.var()) * (6.0 / len(drawn)) ** 0.5


@pytest.mark.parametrize("n", [3, 40, 200, 1000])
def test_what_a_row_lets_through(n):
    """E Σ p²((1 - p)² + Σ of the others' p²) from the law of one logit, against rows of it."""
    from firstlight.rules.attention.participation import let_through
    from firstlight.theory.gaussian import gauss_nodes

    nodes = gauss_nodes()
    square, own, others = let_through(np.maximum(1.5 * nodes.z, 0.0), nodes.weights, n)
    logits = (1.5 * torch.randn(4_000, n, generator=torch.Generator().manual_seed(2))).relu()
    p = logits.softmax(-1)
    uneven = float(logits.exp().var() / logits.exp().mean() ** 2)
    through = p.square() * ((1.0 - p).square() + p.square().sum(-1, keepdim=True) - p.square())
    for found, rows in ((square, p.square().sum(-1)), (own + others, through.sum(-1))):
        error = float(rows.std()) / 512**0.5  # as many rows are sampled
        if n > 512:  # the mean of n - 1 entries for their sum: E 1/Z² to first order
            error = 3.0 * uneven / n * float(rows.mean())
        assert abs(n * float(found @ nodes.weights) - float(rows.mean())) < 4.0 * error


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
