"""Lengths of sites behind a sharp attention: how far they scatter, and what a norm written out makes of it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.accuracy.draws import drawn
from benchmarks.accuracy.errors import errors
from firstlight.capture import predict as capture
from firstlight.capture.trace import trace
from firstlight.graph.ir import Node
from firstlight.graph.signal import Cotangent, replace
from firstlight.rules.attention.participation import jacobian, participation
from firstlight.rules.attention.softmax import soft
from firstlight.rules.gradients import leaning
from firstlight.rules.gradients.seeds import random_direction
from firstlight.rules.moves.structural import unshape
from firstlight.rules.registry import Call
from firstlight.rules.state.empirical import uniform
from firstlight.schemes.plan import plan

DRAWS = 48


class Sharp(nn.Module):
    """Attention of logits with the variance of T5's (not divided by √d), its heads side by side, and a norm."""

    def __init__(self, heads, rate):
        super().__init__()
        self.inside, self.out = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)
        self.maps = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(3))
        self.heads, self.rate = heads, rate

    def forward(self, x):
        x = F.rms_norm(self.inside(x), (32,))
        q, k, v = (m(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for m in self.maps)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.rate, scale=(32 / self.heads) ** -0.25)
        y = self.out(y.transpose(1, 2).flatten(2))
        return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)


def judged(model, x, draws=DRAWS):
    """Errors of every operation, beyond two standard errors of the draws' mean."""
    graph = trace(model, (x,), {})
    laws = plan(model, "xavier", graph=graph, frozen=True).laws()
    found = capture.predict(model, (x,), {}, laws=laws, scheme="xavier", graph=graph, on_missing="raise")
    rows = drawn(model, (x,), {}, "xavier", graph, draws)
    return {e.node: e for e in errors(found, rows)}


@pytest.mark.parametrize(("heads", "rate"), [(1, 0.0), (4, 0.0), (4, 0.1)])
def test_a_norm_written_out_behind_sharp_attention(heads, rate):
    """E (mean y²)² has what lengths scatter by: a site of one head more than that of four, and more where keys drop.

    Long rows are sharp ones and get less gradient: of one head the values' would be a quarter too large without that,
    and what comes along the output does not reach the logits.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = judged(Sharp(heads, rate), torch.randn(4, 10, 32))
    for name in (":mean", ":rsqrt", ":mul", "out:linear", ":transpose", ":transpose#1", ":transpose#2"):
        assert found[name].q <= 0.06, (name, found[name].values)
        if name != ":mean":
            assert found[name].grad_q <= 0.06, (name, found[name].values)


def _rows(v, n, count):
    rng = np.random.default_rng(11)
    p = np.exp(v**0.5 * rng.standard_normal((count, n)))
    return rng, p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("lean", "known", "rate"),
    [(0.0, 1.0, 0.0), (-0.5, 1.0, 0.0), (0.0, 0.0, 0.0), (-0.25, 0.3, 0.0), (0.0, 0.0, 0.2), (-0.25, 0.3, 0.1)],
)
def test_what_a_softmax_passes_on(lean, known, rate):
    """E|dl|² of gradients c with |c|² ~ s^lean, of E (Σpc)² a part `known`, with all weights and with some dropped."""
    v, n, count = 3.0, 12, 40_000
    rng, p = _rows(v, n, count)
    mask = (rng.random(p.shape) >= rate) / (1.0 - rate) if rate else np.ones(p.shape)
    y = p * mask
    s = np.maximum(np.square(y).sum(axis=1, keepdims=True), 1e-6)
    c = rng.standard_normal((count, n))
    c += y * (y * c).sum(axis=1, keepdims=True) / s * (known**0.5 - 1.0)
    c *= mask * (s**lean / (s**lean).mean()) ** 0.5
    drawn_ = np.square(p * (c - (p * c).sum(axis=1, keepdims=True))).sum(axis=1)
    weights = soft(Call(Node("p", "softmax")), uniform((count, n), 0.0, v), -1)
    plain = float(jacobian(participation(v, np.array([n])), np.array([n]))[0]) / (1.0 - rate)
    told = plain * leaning.passing(weights, 1, lean, known, rate)[0]
    error = drawn_.std() / count**0.5
    assert abs(told - drawn_.mean()) <= 4.0 * error + 0.03 * abs(lean) * plain  # of first order in λ


def test_a_gradient_knows_the_length_of_its_tensor_behind_a_norm():
    """-1 in front of a norm, its share of that at a branch, 1/H of it at each of H heads."""
    torch.manual_seed(0)
    g = random_direction(uniform((4, 10, 32), 0.0, 1.0))
    g = replace(g, lean=-1.0)
    assert unshape(Cotangent(g), uniform((4, 10, 4, 8), 0.0, 1.0)).base.lean == pytest.approx(-0.25)
    assert leaning.shared(Cotangent(g), 0.4).base.lean == pytest.approx(-0.4)
