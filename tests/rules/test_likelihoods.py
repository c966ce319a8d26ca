"""Heads and losses as they are written with torch.distributions and by hand, against draws of the weights."""

import math

import numpy as np
import pytest
import torch
from torch import distributions as D
from torch import nn
from torch.nn import functional as F

import firstlight
from tests.rules.drawn_nodes import Behind, gradient_ratios

COUNTS = torch.arange(64.0).fmod(5).expand(16, 64)
LABELS = torch.arange(16)
RESOLUTION = 0.1  # of rules that are put together from others


def to_a_standard_normal(mean, log_scale):
    one = torch.ones_like(mean)
    return D.kl_divergence(D.Normal(mean, (0.2 * log_scale).exp()), D.Normal(0.0 * one, one)).sum(-1)


HEADS = {
    "counts": (1, lambda x: F.poisson_nll_loss(F.softplus(x), COUNTS, log_input=False)),
    "rates": (1, lambda x: F.softplus(x) - COUNTS * F.softplus(x).log()),
    "posterior": (2, to_a_standard_normal),
    "classes": (1, lambda x: D.Categorical(logits=x[:, :8]).log_prob(LABELS % 8)),
    "masked classes": (1, lambda x: F.cross_entropy(x.masked_fill(torch.eye(16, 64).bool(), -1e9), LABELS + 1)),
    "often": (1, lambda x: x.repeat_interleave(torch.arange(16) % 3, dim=0)),
    "side by side": (2, lambda x, y: torch.concatenate([x, y], axis=1).sum(axis=1)),
}
# whose own mean square is some 20 % off: terms behind a known table, and ln Σeˣ over what a mask leaves
GRADIENTS = ("rates", "masked classes")


@pytest.mark.parametrize("name", HEADS)
def test_a_head_and_its_gradients(name):
    maps, f = HEADS[name]
    torch.manual_seed(0)
    model, x = Behind(f, 64, maps), torch.randn(16, 64)
    for node, ratio, error in gradient_ratios(model, x, [f"maps.{i}:linear" for i in range(maps)], 48):
        assert abs(math.log(ratio)) <= 4.0 * error + RESOLUTION, (node, ratio)
    if name in GRADIENTS:
        return
    end = firstlight.predict(model, x, "he").nodes[-1]
    drawn = np.exp(firstlight.measure(model, x, draws=48, scheme="he", backward=False).nodes[-1].log_q.values)
    error = float(drawn.std(ddof=1) / drawn.mean() / 48**0.5)
    assert abs(math.log(end.output.q / drawn.mean())) <= 4.0 * error + RESOLUTION, (end.output.q, drawn.mean())
    assert not [c for c in end.caveats if "shape" in c]


@pytest.mark.parametrize(("longest", "order"), [(1.0, 2.0), (8.0, 2.0), (40.0, 1.0), (100.0, 2.0)])
def test_rows_of_a_table_are_cut_to_a_norm(longest, order):
    torch.manual_seed(0)
    table = nn.Embedding(400, 64, max_norm=longest, norm_type=order)
    index = torch.arange(400).view(20, 20)
    level = firstlight.predict(table, index, "normal(1.0)").nodes[-1].output.q
    with torch.no_grad():
        q = table(index).square().mean(-1)
    assert abs(level / float(q.mean()) - 1.0) <= 4.0 * float(q.std()) / 20.0 / float(q.mean()) + 0.02


def test_a_density_with_a_scale_near_zero_fluctuates_as_drawn():
    """1/σ² has so heavy a tail that its relative variance says nothing of ln|x|²: P(start) had been 0."""

    def density(mean, scale):
        return D.Normal(mean, F.softplus(scale)).log_prob(torch.zeros(64))

    torch.manual_seed(0)
    model, x = Behind(density, 64, 2), torch.randn(16, 64)
    found = firstlight.predict(model, x, "he")
    drawn = np.asarray(firstlight.measure(model, x, draws=64, scheme="he", backward=False).nodes[-1].log_q.values)
    end = found.nodes[-1].output
    assert abs(end.log_mean - drawn.mean()) < 3.0 * drawn.std()
    assert 0.3 < end.log_sd / drawn.std() < 3.0
    assert found.p_start > 0.9


def test_the_logarithm_of_a_spectrum_knows_that_magnitudes_are_positive():
    """|z| had been taken as Gaussian: its logarithm's gradient was infinite, and P(start) 0."""
    torch.manual_seed(0)
    model, x = Behind(lambda x: torch.log1p(torch.fft.rfft(x).abs()), 256), torch.randn(16, 256)
    ((_, ratio, error),) = gradient_ratios(model, x, ["maps.0:linear"], 24)
    assert abs(math.log(ratio)) <= 4.0 * error + RESOLUTION
    found = firstlight.predict(model, x, "he")
    drawn = np.exp(firstlight.measure(model, x, draws=24, scheme="he", backward=False).nodes[-1].log_q.values)
    error = float(drawn.std(ddof=1) / drawn.mean() / 24**0.5)
    assert abs(math.log(found.nodes[-1].output.q / drawn.mean())) <= 4.0 * error + RESOLUTION
    assert found.p_start > 0.9


def test_nothing_comes_back_from_where_nothing_was_added():
    """A node of a graph without neighbours is divided by ε: the others' gradients had been 1/ε."""
    to = torch.arange(16) % 7

    def share(x):
        score = (0.1 * x[:, :1]).exp()
        total = torch.zeros(8, 1).index_add(0, to, score)
        return torch.zeros(8, 64).index_add(0, to, score * x) / (total + 1e-9)

    torch.manual_seed(0)
    model, x = Behind(share, 64), torch.randn(16, 64)
    ((_, ratio, error),) = gradient_ratios(model, x, ["maps.0:linear"], 24)
    assert abs(math.log(ratio)) <= 4.0 * error + RESOLUTION
    assert firstlight.predict(model, x, "he").p_start > 0.9
