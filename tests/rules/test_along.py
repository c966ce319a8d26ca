"""Σ g·x is carried along: gradients inside and behind norms, against draws of networks that are small on purpose."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.graph.along import Along
from firstlight.rules.attention import attending
from firstlight.rules.attention.participation import jacobian, participation
from firstlight.rules.gradients import along
from tests.rules.drawn_nodes import gradient_ratios

WIDTH = 32


class RMS(nn.Module):
    """A norm written out."""

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Wide(nn.Module):
    """W₂relu(W₁x): homogeneous of degree one."""

    def __init__(self, width, spread=2):
        super().__init__()
        self.up, self.down = nn.Linear(width, spread * width, bias=False), nn.Linear(spread * width, width, bias=False)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


class Gated(nn.Module):
    """SwiGLU: x comes in twice."""

    def __init__(self, width):
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Looking(nn.Module):
    """Attention to a memory; only the query depends on x."""

    def __init__(self, width, memory):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.memory = memory

    def forward(self, x):
        k, v = self.k(self.memory), self.v(self.memory)
        return self.o(F.scaled_dot_product_attention(self.q(x), k, v, scale=1.0))


class Stream(nn.Module):
    """x = relu(Wx₀); x + branch(norm x); a norm and a readout behind it."""

    def __init__(self, branch, width=WIDTH):
        super().__init__()
        self.stem, self.norm, self.branch, self.last = nn.Linear(width, width, bias=False), RMS(), branch, RMS()
        self.head = nn.Linear(width, width, bias=False)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.last(x + self.branch(self.norm(x))))


def against(model, x, names, draws, scheme="he"):
    """(node, ln of predicted over mean drawn gradient, standard error) at some nodes."""
    return [(name, math.log(ratio), error) for name, ratio, error in gradient_ratios(model, x, names, draws, scheme)]


def close(rows, bias):
    for name, off, error in rows:
        assert abs(off) <= bias + 4.0 * error, (name, off, error)


INSIDE = ("norm:pow", "norm:mean", "norm:rsqrt")


@pytest.mark.parametrize("branch", [Wide, Gated], ids=["homogeneous", "gated"])
def test_gradients_inside_a_norm_before_a_branch(branch):
    """Behind the last norm g is at right angles to x + f(x): g·f = -g·x is small; taken as free it was 4 times that."""
    torch.manual_seed(0)
    close(against(Stream(branch(WIDTH)), torch.randn(24, WIDTH), INSIDE, 96), 0.15)


def test_gradients_inside_a_norm_before_a_sharp_query():
    """Logits of variance 32: the keys that win are those with logits near the mean one; was 5 times too large."""
    torch.manual_seed(0)
    model = Stream(Looking(WIDTH, torch.randn(24, 8, WIDTH)))
    close(against(model, torch.randn(24, 4, WIDTH), INSIDE, 64, "lecun"), 0.25)


def test_a_stack_of_norms_written_into_an_mlp_is_exact_to_one_over_n():
    """Twelve layers of 24 units: an error of 1/n a layer would be a factor of 1.6."""
    torch.manual_seed(0)
    model = nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(24, 24, bias=False), nn.RMSNorm(24), nn.ReLU())])
    close(against(model, torch.randn(32, 24), ["0:linear", "18:linear"], 128), 0.06)


class Post(nn.Module):
    def __init__(self, depth, width):
        super().__init__()
        self.branches = nn.ModuleList(Wide(width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))

    def forward(self, x):
        for branch, norm in zip(self.branches, self.norms, strict=True):
            x = norm(x + branch(x))
        return x


def test_a_norm_behind_every_sum_takes_only_what_is_there():
    """x + f(x) is homogeneous: its gradient is at right angles to x already, the norm in front has nothing to take."""
    torch.manual_seed(0)
    close(against(Post(8, 24), torch.randn(32, 24), ["branches.0.up:linear", "norms.0:layer_norm"], 128), 0.1)


def test_a_norm_over_positions_says_that_it_is_not_followed():
    class Positions(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)

    def told(norm):
        model = nn.Sequential(nn.Linear(8, 8), norm, nn.Linear(8, 8))
        found = firstlight.predict(model, torch.randn(4, 6, 8), "he")
        return any("norm written out" in text for node in found.nodes for text in node.caveats)

    assert told(Positions())
    assert not told(RMS())


def test_forms_add_where_paths_meet():
    one, other = along.fresh(4.0), along.fresh(9.0)
    assert along.mixed([(1.0, one), (1.0, other)]).variance == pytest.approx(13.0)
    assert along.mixed([(1.0, one), (2.0, one)]).variance == pytest.approx(36.0)
    assert along.mixed([(1.0, one), (-1.0, one)]).variance == 0.0
    assert along.mixed([(1.0, Along())], own=2.0).variance == pytest.approx(2.0)
    many = along.mixed([(1.0, along.fresh(1.0)) for _ in range(100)])
    assert many.variance == pytest.approx(100.0)
    assert len(many.loads) < 30


@pytest.mark.parametrize(("v", "n"), [(0.01, 12), (1.0, 12), (6.0, 5)])
def test_what_rows_of_a_softmax_pass_on(v, n):
    """Against the integrals, and in the limit of even rows: centred logits are as independent factors."""
    count = np.array([float(n)])
    passed, qq, kk, _, _, _, square, *_ = attending.moments(v, count)
    error = 6.0 / ((1 << 16) // n) ** 0.5  # rows; their Σp² have a relative spread of about one
    share = participation(v, count)
    assert square == pytest.approx(float(share[0]), rel=error)
    assert passed == pytest.approx(float(jacobian(share, count)[0]), rel=error + 0.02)
    if v < 0.1:
        assert qq == pytest.approx(v * passed, rel=0.1)
        assert kk == pytest.approx(v * passed, rel=0.1)


@pytest.mark.parametrize(("layer", "scheme"), [(nn.Tanh, "xavier"), (nn.Tanh, "torch-default"), (nn.ReLU, "he")])
def test_the_gradient_of_a_singular_value_is_that_of_what_the_matrix_makes(layer, scheme):
    """Σ G·W of W/σ, over all samples Σ g·Wx: behind tanh it was up to 5 times too large."""
    torch.manual_seed(0)
    wrap = nn.utils.parametrizations.spectral_norm
    model = nn.Sequential(wrap(nn.Linear(64, 64)), layer(), wrap(nn.Linear(64, 64)), layer(), nn.Linear(64, 10))
    names = [f"{i}.parametrizations.weight.0:{op}" for i in (0, 2) for op in ("vdot", "mv#2")]
    close(against(model, 1.5 * torch.randn(16, 64), names, 160, scheme), 0.0)
