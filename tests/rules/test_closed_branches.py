"""Branches that a gain of zero closes: the usual last norm of a residual branch, LayerScale, ReZero."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.capture.predict import predict


class Scale(nn.Module):
    """γ·x with γ = 0."""

    def __init__(self, shape):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        return self.gain * x


def closed(norm):
    nn.init.zeros_(norm.weight)
    return norm


ENDS = {
    "batch_norm": lambda: closed(nn.BatchNorm2d(16)),
    "group_norm": lambda: closed(nn.GroupNorm(4, 16)),
    "layer_scale": lambda: Scale((16, 1, 1)),
    "re_zero": lambda: Scale(()),
    "convolution": lambda: closed(nn.Conv2d(16, 16, 1, bias=False)),
}


class Net(nn.Module):
    """Blocks relu(x + end(branch(x)))."""

    def __init__(self, end, blocks=3):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.branches = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1, bias=False) for _ in range(blocks)])
        self.ends = nn.ModuleList([end() for _ in range(blocks)])

    def forward(self, x):
        x = F.relu(self.first(x))
        for branch, end in zip(self.branches, self.ends, strict=True):
            x = F.relu(x + end(branch(x)))
        return x


@pytest.mark.parametrize("end", ENDS)
def test_the_stream_passes_as_it_is(end):
    """relu(x + 0) of x = relu(…) is x, forward and backward, and no rule gives up."""
    torch.manual_seed(0)
    model, x = Net(ENDS[end]), torch.randn(4, 3, 8, 8)
    found = predict(model, (x,), {}, laws=None, scheme="live weights", strict=True)
    first, *others = [n for n in found.nodes if n.op == "relu"]
    assert first.grad is not None
    for node in others:
        assert node.output.q == pytest.approx(first.output.q, rel=1e-9)
        assert node.grad is not None
        expected = 2.0 if node is others[-1] else 1.0  # no function behind the last one
        assert node.grad.q == pytest.approx(expected * first.grad.q, rel=1e-9)
    assert not any("failed" in c for n in found.nodes for c in n.caveats)
    assert found.p_start > 0.9


def test_what_is_measured_on_them():
    torch.manual_seed(0)
    model, x = Net(ENDS["batch_norm"]), torch.randn(8, 3, 8, 8)
    table = firstlight.compare(firstlight.predict(model, x), firstlight.measure(model, x)).to_frame()
    stream = table[table.op == "relu"]
    assert len(stream) == 4
    assert (stream.q_measured.std() / stream.q_measured.mean()) < 1e-6
    assert ((stream.q_predicted / stream.q_measured - 1.0).abs() < 0.2).all()
