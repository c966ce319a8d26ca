"""What two rows of a softmax have in common, and what queries that are alike pull in one direction."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.accuracy.draws import drawn
from benchmarks.accuracy.errors import errors
from firstlight.capture import predict as capture
from firstlight.capture.trace import trace
from firstlight.rules.attention.overlap import of_gradients, overlap
from firstlight.schemes.plan import plan


def soft(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n", [6, 48])
@pytest.mark.parametrize("v", [0.5, 4.0, 16.0])
@pytest.mark.parametrize("rho", [0.1, 0.65])
def test_two_rows_of_correlated_logits(n, v, rho):
    rng = np.random.default_rng(0)
    both, one, two = rng.standard_normal((3, 400_000 // n, n))
    rows = [soft(v**0.5 * (rho**0.5 * both + (1.0 - rho) ** 0.5 * own)) for own in (one, two)]
    found = (rows[0] * rows[1]).sum(axis=1)
    error = found.std() / len(found) ** 0.5
    assert float(overlap(v, rho * v, np.array([n]))[0]) == pytest.approx(found.mean(), abs=4.0 * error)


@pytest.mark.parametrize("n", [6, 48])
@pytest.mark.parametrize("v", [1.0, 12.0])
@pytest.mark.parametrize("rho", [0.1, 0.65])
def test_gradients_of_two_rows_of_correlated_logits(n, v, rho):
    rng = np.random.default_rng(1)
    both, one, two, c = rng.standard_normal((4, 400_000 // n, n))
    p, q = (soft(v**0.5 * (rho**0.5 * both + (1.0 - rho) ** 0.5 * own)) for own in (one, two))
    first, second = (r * (c - (r * c).sum(axis=1, keepdims=True)) for r in (p, q))
    alike = (p * q).sum(axis=1).mean() / (p * p).sum(axis=1).mean()
    told = float(of_gradients(np.array(alike), v, n))
    left = (first * second).sum(axis=1) - told * (first * first).sum(axis=1)
    error = left.std() * (1.0 / len(left) + n / (1 << 17)) ** 0.5  # and that of the rule's own sample
    assert abs(left.mean()) < 4.0 * error
    if n == 6 and rho > 0.5:  # what the weights have in common is another number
        assert abs(told - alike) * (first * first).sum(axis=1).mean() > 4.0 * error


class OneQuery(nn.Module):
    """The same query in all samples asks tokens that samples do not share, in few dimensions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x, asked):
        return functional.scaled_dot_product_attention(self.query(asked), self.key(x), self.value(x))


@pytest.mark.parametrize("width", [16, 64])
def test_one_query_finds_like_answers_in_unlike_samples(width):
    """y = Σ p v is Cov(x)·Kᵀq on average over the tokens, the same in all samples: to first order v/width of q_v."""
    torch.manual_seed(0)
    x, asked = torch.randn(6, 24, width), torch.ones(1, 1, width).expand(6, 1, width)
    model = OneQuery(width)
    graph = trace(model, (x, asked), {})
    laws = plan(model, "xavier", graph=graph, frozen=True).laws()
    prediction = capture.predict(model, (x, asked), {}, laws=laws, scheme="xavier", graph=graph)
    found = errors(prediction, drawn(model, (x, asked), {}, "xavier", graph, 200))
    for e in (e for e in found if e.op == "scaled_dot_product_attention"):
        assert e.values[7] > 0.1  # answers from independent keys would have nothing in common
        assert e.c <= 0.04, e.values
