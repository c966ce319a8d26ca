"""What people write out by hand is known for what it is: normalisations, decay rates, gates."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight as fl
from firstlight.capture.evidence import gather
from firstlight.checks.norms import norms


class Layer(nn.Module):
    """LayerNorm as DeBERTa has it, or a division by a learned number."""

    def __init__(self, width, real=True):
        super().__init__()
        self.real, self.gain = real, nn.Parameter(torch.ones(width))
        self.scale = nn.Parameter(torch.full((width,), 0.03))

    def forward(self, x):
        if not self.real:
            return x / self.scale
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-12) * self.gain


class PostNorm(nn.Module):
    """A stream of embeddings of 0.02 with a norm behind every sum."""

    def __init__(self, real=True, width=64):
        super().__init__()
        self.table = nn.Embedding(50, width)
        nn.init.normal_(self.table.weight, 0.0, 0.02)
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(6))
        self.norms = nn.ModuleList(Layer(width, real) for _ in range(7))
        self.out = nn.Linear(width, 10)

    def forward(self, ids):
        x = self.norms[0](self.table(ids).mean(1))
        for f, norm in zip(self.maps, self.norms[1:], strict=True):
            x = norm(x + torch.relu(f(x)))
        return self.out(x)


def loss_of(y):
    return F.cross_entropy(y, torch.arange(len(y)) % 10)


def test_a_written_norm_resets_lengths():
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (32, 8))
    codes = {f.code for f in fl.diagnose(PostNorm(), ids, loss=loss_of).findings if f.severity != "info"}
    assert codes.isdisjoint({"FWD001", "FWD006", "FWD007"}), codes


def test_a_division_by_a_parameter_does_not():
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (32, 8))
    codes = {f.code for f in fl.diagnose(PostNorm(real=False), ids, loss=loss_of).findings}
    assert codes & {"FWD001", "FWD006"}, codes


WRITTEN = {
    "root mean square": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "standard deviation": lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6),
    "length": lambda x: x / x.norm(dim=-1, keepdim=True),
}
OTHERS = {
    "softmax": lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
    "gate of its mean": lambda x: x * x.mean(-1, keepdim=True),
    "square": lambda x: x * x,
}


@pytest.mark.parametrize(("f", "expected"), [(f, 1) for f in WRITTEN.values()] + [(f, 0) for f in OTHERS.values()])
def test_which_products_are_norms(f, expected):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(16, 16)

        def forward(self, x):
            return f(self.inner(x))

    found = norms(gather(Net(), torch.randn(8, 16), loss=None, optimizer=None))
    assert len([n for n in found if n.endswith((":mul", ":div"))]) == expected, found


class StateSpace(nn.Module):
    """h' = exp(-A dt)·h + dt·x with decay rates 1..8 in every channel and steps between .001 and .1."""

    def __init__(self, width=32, states=8):
        super().__init__()
        self.a = nn.Parameter(torch.arange(1.0, states + 1).log().expand(width, states).clone())
        self.step = nn.Linear(width, width)
        nn.init.constant_(self.step.bias, -4.6)
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        dt = F.softplus(self.step(x))[..., None]
        decay = torch.exp(-torch.exp(self.a) * dt)
        h = torch.zeros_like(decay[:, 0])
        for t in range(x.shape[1]):
            h = decay[:, t] * h + dt[:, t] * x[:, t, :, None]
        return self.out(h.sum(-1))


def test_decay_rates_and_steps_are_no_units():
    torch.manual_seed(0)
    codes = {f.code for f in fl.diagnose(StateSpace(), torch.randn(32, 6, 32), loss=loss_of).findings}
    assert codes.isdisjoint({"WGT004", "WGT008"}), codes


def test_a_saturated_hidden_layer_is_no_gate():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 32), nn.Sigmoid(), nn.Linear(32, 10))
    nn.init.constant_(net[0].bias, -20.0)
    assert "WGT008" in {f.code for f in fl.diagnose(net, torch.randn(32, 32), loss=loss_of).findings}
