"""How alike two samples are where their lengths and their angle scatter from draw to draw, against drawn networks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.rules.chains import two_samples
from firstlight.rules.state import kin


class Function(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


class Gated(nn.Module):
    """Tokens, a norm, and a product of two maps of them."""

    def __init__(self):
        super().__init__()
        self.enter, self.gate, self.up = (nn.Linear(32, 32, bias=False) for _ in range(3))

    def forward(self, x):
        h = F.rms_norm(self.enter(x), (32,))
        return F.silu(self.gate(h)) * self.up(h)


def drawn(model, x, draws, scheme):
    """(correlation of two samples' outputs, its error): of moments, Σ over pairs of E x·x' over E |x|²."""
    plain = scheme == "torch-default"
    pairs, squares = np.empty(draws), np.empty(draws)
    for at in range(draws):
        torch.manual_seed(at)
        for m in model.modules():
            if isinstance(m, nn.Linear):
                fresh = nn.init.kaiming_normal_ if scheme == "he" else nn.init.xavier_normal_
                m.reset_parameters() if plain else fresh(m.weight)
                if not plain and m.bias is not None:
                    nn.init.zeros_(m.bias)
        with torch.no_grad():
            y = model(x).double()
        squares[at] = float(y.square().mean())
        pairs[at] = (float(y.mean(0).square().mean()) * len(y) - squares[at]) / (len(y) - 1.0)
    c = pairs.mean() / squares.mean()
    return c, float((pairs - c * squares).std(ddof=1)) / draws**0.5 / squares.mean()


def predicted(model, x, scheme):
    return firstlight.predict(model, x, scheme, backward=False).nodes[-1].output.c_batch


@pytest.mark.parametrize(
    ("f", "depth", "former"),
    [
        (torch.relu, 8, 0.835),  # as if all samples had one length
        (lambda u: torch.relu(u) ** 2, 2, None),
        (lambda u: F.gelu(u) ** 2, 2, None),
    ],
)
def test_samples_are_rarely_long_together(f, depth, former):
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(64, 64, bias=False), Function(f))]
    model, x = nn.Sequential(*layers), torch.randn(16, 64)
    c, error = drawn(model, x, 400, "xavier")
    assert abs(predicted(model, x, "xavier") - c) <= 4.0 * error
    assert former is None or abs(former - c) > 8.0 * error


class Rectified(nn.Module):
    """A stream of rectifiers, which has a mean."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def test_samples_of_a_stream_with_a_mean_are_rarely_long_together(monkeypatch):
    torch.manual_seed(0)
    model, x = nn.Sequential(*[Rectified() for _ in range(8)]), torch.randn(16, 64)
    c, error = drawn(model, x, 400, "he")
    told = predicted(model, x, "he")
    apart = two_samples.apart
    monkeypatch.setattr(two_samples, "apart", lambda x: 0.0 if x.mean.any() else apart(x))
    former = predicted(model, x, "he")
    assert told is not None
    assert former is not None
    # drawn .893; as if all samples had one length it was .975, now .864: by how much lengths scatter is overrated
    assert abs(told - c) + 4.0 * error < 0.5 * (former - c)


@pytest.mark.parametrize("f", [lambda u: u**3, F.tanhshrink])
def test_a_uniform_bias_is_the_same_in_all_samples(f):
    torch.manual_seed(0)
    x = torch.randn(16, 256)
    x = 1.6 * F.normalize(x - x.mean(0))
    model = nn.Sequential(nn.Linear(256, 256), Function(f))
    c, error = drawn(model, x, 400, "torch-default")
    assert abs(predicted(model, x, "torch-default") - c) <= 4.0 * error
    u = predicted(model[:1], x, "torch-default")
    assert u is not None
    assert abs((9.0 * u + 6.0 * u**3) / 15.0 - c) > 8.0 * error  # of Gaussians; either function is a cube here


def test_a_product_of_two_maps_of_one_tensor_is_as_alike_as_its_samples_in_that_draw(monkeypatch):
    torch.manual_seed(0)
    model, x = Gated(), torch.randn(16, 32)
    c, error = drawn(model, x, 1000, "xavier")
    told = predicted(model, x, "xavier")
    monkeypatch.setattr(kin, "met", lambda out, x, y: out)
    apart = predicted(model, x, "xavier")
    assert abs(told - c) <= 4.0 * error
    assert abs(apart - c) > 8.0 * error


class Post(nn.Module):
    """A branch that is small against what a norm has made."""

    def __init__(self):
        super().__init__()
        self.enter, self.branch = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)

    def forward(self, x):
        h = F.layer_norm(self.enter(x), (32,))
        return F.layer_norm(h + 0.2 * self.branch(h), (32,))


def test_a_second_norm_takes_nothing_that_the_first_has_left():
    torch.manual_seed(0)
    model, x = Post(), torch.randn(16, 32) + torch.randn(32)
    c, error = drawn(model, x, 1000, "xavier")
    found = firstlight.predict(model, x, "xavier", backward=False)
    first, last = (n.output.c_batch for n in found.nodes if n.op == "layer_norm")
    assert first is not None
    assert last is not None
    assert abs(first - last) < error
    assert abs(last - c) <= 4.0 * error


class Causal(nn.Module):
    """Two layers of causal attention, each beside what it is added to."""

    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList([nn.Linear(64, 192, bias=False) for _ in range(2)])

    def forward(self, x):
        x = x + 2.0 * self.attend(0, x)
        return self.attend(1, x)

    def attend(self, at, x):
        return F.scaled_dot_product_attention(*self.maps[at](x).chunk(3, -1), is_causal=True)


def test_rows_behind_a_causal_mask_are_as_alike_in_two_samples_as_their_keys():
    torch.manual_seed(0)
    common = torch.randn(1, 24, 64)
    model, x = Causal(), 0.95**0.5 * common + 0.05**0.5 * torch.randn(6, 24, 64)
    c, error = drawn(model, x, 200, "xavier")
    told = predicted(model, x, "xavier")
    # drawn .934; as if two samples' keys were as alike as pairs of positions are on average it was .854
    assert abs(told - c) + 4.0 * error < 0.25 * (c - 0.854)


def test_samples_that_become_one_have_one_length():
    """Softplus makes all samples alike within a few layers: their lengths cannot part by more than c leaves open."""
    torch.manual_seed(0)
    layers = [m for i in range(66) for m in (nn.Linear(30 if i else 64, 30), nn.Softplus())]
    model = nn.Sequential(*layers, nn.Linear(30, 4))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    x = torch.randn(64, 64) + 0.7 * torch.randn(64)
    found = firstlight.predict(model, x / x.square().mean().sqrt())
    assert 1.0 - found.nodes[-2].output.c_batch < 1e-3
