"""Softmaxes that are written out are predicted as what they are."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight
from firstlight.capture.trace import trace
from firstlight.graph.softmaxes import joined

WRITTEN = {
    "largest": lambda x: (e := torch.exp(x - x.max(-1, keepdim=True)[0])) / e.sum(-1, keepdim=True),
    "of all": lambda x: (e := (x - x.max()).exp()) / e.sum(dim=-1)[:, None],
    "plain": lambda x: (e := torch.exp(x)) / torch.sum(e, (-1,), True),
    "small number": lambda x: (e := torch.exp(x - x.amax(-1).unsqueeze(-1).detach())) / (e.sum(-1)[..., None] + 1e-6),
    "in place": lambda x: (e := torch.exp(x - 3.0)).div(e.double().sum(1).view(-1, 1).expand_as(x).float()),
}


def _by_keyword(x):
    e = torch.exp(input=torch.sub(x, other=x.amax(-1, keepdim=True)))
    return torch.div(e, other=torch.add(torch.sum(input=e, dim=-1, keepdim=True), other=1e-6))


WRITTEN["by keyword"] = _by_keyword
OTHERS = {
    "other axis": lambda x: (e := torch.exp(x)) / e.sum(0).unsqueeze(-1),
    "detached": lambda x: (e := torch.exp(x)) / e.sum(-1, keepdim=True).detach(),
    "one more": lambda x: (e := torch.exp(x)) / (1.0 + e.sum(-1, keepdim=True)),
    "turned": lambda x: (e := torch.exp(x)) / e.sum(-1)[torch.arange(7, -1, -1)].unsqueeze(-1),
    "floored": lambda x: torch.div(e := torch.exp(x), e.sum(-1, keepdim=True), rounding_mode="floor"),
    "all axes": lambda x: (e := torch.exp(x)) / e.sum(),
    "of others": lambda x: torch.exp(x) / torch.exp(x).sum(-1, keepdim=True),
}


class Shares(nn.Module):
    def __init__(self, shares):
        super().__init__()
        self.first, self.last, self.shares = nn.Linear(32, 8), nn.Linear(8, 4), shares

    def forward(self, x):
        return self.last(self.shares(8.0 * self.first(x)))


def _ops(shares) -> list[str]:
    return [n.op for n in joined(trace(Shares(shares), torch.ones(8, 32))).nodes]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_out_is_predicted_as_softmax_is(name):
    """Drawn e^(x - max x) of logits of deviation 8: independent of their maximum they had 10^28."""
    assert _ops(WRITTEN[name]) == ["input", "linear", "mul", "softmax", "linear"]
    torch.manual_seed(0)
    x = torch.randn(8, 32)
    one, two = (firstlight.predict(Shares(f), x, "he") for f in (WRITTEN[name], lambda x: x.softmax(-1)))
    for a, b in zip(one.nodes, two.nodes, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert np.isclose(a.output.q, b.output.q)
        assert np.isclose(a.grad.q, b.grad.q)
    assert one.nodes[3].name == ":div"


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_it_is_left(name):
    assert "softmax" not in _ops(OTHERS[name])


def test_weights_that_differ_along_the_axis_are_subtracted():
    table = torch.linspace(-1.0, 1.0, 8)
    written = trace(Shares(lambda x: (e := torch.exp(x - table)) / e.sum(-1, keepdim=True)), torch.ones(8, 32))
    assert [n.op for n in joined(written).nodes] == ["input", "linear", "mul", "sub", "softmax", "linear"]


def test_what_others_read_stays():
    class Both(Shares):
        def forward(self, x):
            e = torch.exp(self.first(x))
            return self.last(e / e.sum(-1, keepdim=True)), e

    ops = [n.op for n in joined(trace(Both(None), torch.ones(8, 32))).nodes]
    assert ops == ["input", "linear", "exp", "softmax", "linear"]
