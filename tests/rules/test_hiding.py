"""Logits under a mask of the least float: the largest visible one, and a softmax from which it was subtracted."""

import pytest
import torch
from torch import nn

import firstlight as fl

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
