"""Logits under a mask of the least float: the largest visible one, and a softmax from which it was subtracted."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight as fl
from firstlight.rules.attention.hiding import hidden_in
from firstlight.rules.state.empirical import constant

DRAWS = 32


class Attends(nn.Module):
    """Scores of independent maps under a causal mask; the largest one of each row is taken away, as GPT-OSS does."""

    def __init__(self, fill, length=12):
        super().__init__()
        self.scores = nn.Linear(48, length, bias=False)
        nn.init.normal_(self.scores.weight, 0.0, 48**-0.5)
        mask = torch.zeros(length, length).masked_fill(torch.ones(length, length).triu(1).bool(), fill)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        logits = self.scores(x) + self.mask
        shifted = logits - logits.max(dim=-1, keepdim=True).values
        return shifted.softmax(-1)


@pytest.mark.parametrize("fill", [torch.finfo(torch.float32).min, -1e30])
def test_hidden_logits_are_not_the_largest_and_stay_hidden(fill):
    torch.manual_seed(0)
    model, x = Attends(fill), torch.randn(64, 12, 48)
    nodes = {n.op: n for n in fl.compare(fl.predict(model, x), fl.measure(model, x, draws=DRAWS)).nodes}
    assert nodes["softmax"].q_predicted == pytest.approx(nodes["softmax"].q_measured, rel=0.02)
    assert abs(nodes["softmax"].q_z) < 4
    # The rows have 1 to 12 visible logits; the largest is taken as that of as many as there are on average.
    assert nodes["max"].q_predicted == pytest.approx(nodes["max"].q_measured, rel=0.15)


def test_a_row_of_which_everything_is_visible_is_left_as_it_was():
    torch.manual_seed(0)
    model, x = Attends(0.0), torch.randn(64, 12, 48)
    nodes = {n.op: n for n in fl.compare(fl.predict(model, x), fl.measure(model, x, draws=DRAWS)).nodes}
    assert abs(nodes["max"].q_z) < 4
    assert abs(nodes["softmax"].q_z) < 4


class Windows(nn.Module):
    """Scores that pass a mask of zeros and -100 twice (shifted windows)."""

    def __init__(self, scale, fill, length=12):
        super().__init__()
        self.scores = nn.Linear(48, length, bias=False)
        nn.init.normal_(self.scores.weight, 0.0, scale * 48**-0.5)
        half = torch.arange(length) < length // 2
        mask = torch.where(half[:, None] == half[None, :], 0.0, fill)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        return (self.scores(x) + self.mask + self.mask).softmax(-1)


@pytest.mark.parametrize("fill", [-100.0, -1e9])
@pytest.mark.parametrize("scale", [0.1, 1.0, 2.0])
def test_a_number_far_below_the_logits_hides_as_a_least_float_does(scale, fill):
    torch.manual_seed(0)
    model, x = Windows(scale, fill), torch.randn(64, 12, 48)
    nodes = {n.node: n for n in fl.compare(fl.predict(model, x), fl.measure(model, x, draws=DRAWS)).nodes}
    assert abs(nodes[":softmax"].q_z) < 4
    assert abs(nodes["scores:linear"].grad_q_z) < 4
    added = nodes[":add"]
    assert added.q_predicted == pytest.approx(added.q_measured, rel=0.02)


@pytest.mark.parametrize(
    ("table", "spread", "hides"),
    [
        ([0.0, -100.0], 0.5, True),
        ([0.0, -100.0], 20.0, False),
        ([0.0, -30.0], 0.5, False),
        ([0.0, 60.0, 120.0], 0.5, False),
    ],
)
def test_what_hides_is_far_below_the_logits_and_no_bias_of_many_levels(table, spread, hides):
    """Of a bias with slopes over keys, rows that see small keys alone would be empty if its largest entry decided."""
    hidden = hidden_in(constant(np.array([table, table])), spread)
    assert hidden.any() == hides
    assert not hidden[..., 0].any()


class Router(nn.Module):
    """Experts within reach of the best, by chance few or many; a second choice that the first is hidden from."""

    def __init__(self):
        super().__init__()
        self.scores, self.head = nn.Linear(48, 16), nn.Linear(16, 8)

    def forward(self, x):
        scores = self.scores(x)
        hidden = scores.scatter(-1, torch.multinomial(torch.ones(len(x), 16), 4), float("-inf"))
        hidden = hidden.masked_fill(torch.rand_like(scores) < 0.25, float("-inf"))
        return self.head(hidden.softmax(-1))


def test_entries_that_are_hidden_by_chance_leave_the_others():
    """A mean over hidden and visible entries hides all of them: weights were 0, and gradients infinite (PhiMoE)."""
    torch.manual_seed(0)
    model, x = Router(), torch.randn(256, 48)
    prediction = fl.predict(model, x, "lecun")
    drawn = {n.name: n for n in fl.measure(model, x, scheme="lecun", draws=DRAWS).nodes}
    # twelve of sixteen are left, and of those nine on average, k ~ B(12, 3/4): E 1/k beside 1/E k is Var k/(E k)² more,
    # and of the gradients, which go like 1/k², three times that
    scattered = 12 * 0.75 * 0.25 / 9.0**2
    for name, way, left_out in ((":softmax", "output", scattered), ("scores:linear", "grad", 3.0 * scattered)):
        q = np.exp(getattr(drawn[name], "log_q" if way == "output" else "log_grad_q").values)
        error = 4.0 * q.std(ddof=1) / len(q) ** 0.5
        assert abs(getattr(prediction[name], way).q - q.mean()) <= error + left_out * q.mean()
    assert prediction.p_start > 0.9
