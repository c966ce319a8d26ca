"""Lengths of sites: factors from one tensor are long together, inner products of activations come near zero."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.capture.trace import trace
from firstlight.graph.sites import Sites
from firstlight.propagate.forward import forward
from firstlight.rules.state import lengths, sites
from firstlight.rules.state.empirical import from_data
from firstlight.schemes.plan import plan

WIDTH, STATE, DRAWS = 48, 8, 200
ACCURATE = 0.1  # what predictions aim at


class Selective(nn.Module):
    """One step of a selective state space, the skip beside it, and a norm written out behind."""

    def __init__(self):
        super().__init__()
        names = ("inner", "step", "b", "c", "out")
        sizes = ((WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, STATE), (WIDTH, STATE), (WIDTH, WIDTH))
        for name, (n, m) in zip(names, sizes, strict=True):
            self.add_module(name, nn.Linear(n, m, bias=False))

    def forward(self, x):
        u = F.silu(self.inner(F.rms_norm(x, (WIDTH,))))
        state = F.softplus(self.step(u))[:, :, None] * self.b(u)[:, None, :] * u[:, :, None]
        y = (state @ self.c(u)[:, :, None])[:, :, 0] + u
        z = self.out(y)
        return z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-6)


def drawn(model, x):
    """Mean squares of tensors and gradients over draws of the weights, with their standard errors."""
    found = {}
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        for p in model.parameters():
            nn.init.normal_(p, std=p.shape[1] ** -0.5)
        u = F.silu(model.inner(F.rms_norm(x, (WIDTH,))))
        state = F.softplus(model.step(u))[:, :, None] * model.b(u)[:, None, :] * u[:, :, None]
        scan = (state @ model.c(u)[:, :, None])[:, :, 0]
        z = model.out(scan + u)
        inverse = torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-6)
        (g,) = torch.autograd.grad((z * inverse).flatten() @ torch.randn(z.numel()), z)
        tensors = {"state": state, "scan": scan, "inverse": inverse, "gradient": g}
        for name, t in tensors.items():
            found.setdefault(name, []).append(float(t.detach().double().square().mean()))
    return {k: (np.mean(v), np.std(v) / DRAWS**0.5) for k, v in found.items()}


@pytest.fixture(scope="module")
def both():
    torch.manual_seed(0)
    x = torch.randn(8, WIDTH)
    model = Selective()
    return firstlight.predict(model, x, scheme="lecun"), drawn(model, x)


def node(found, op, at=0):
    return [n for n in found.nodes if n.op == op][at]


def test_factors_from_one_tensor_are_long_together(both):
    found, truth = both
    mean, error = truth["state"]
    alone = node(found, "softplus").output.q * node(found, "linear", 2).output.q * node(found, "silu").output.q
    assert alone < mean - 4.0 * error  # as independent factors they would be shorter
    assert abs(node(found, "mul", 1).output.q - mean) < 4.0 * error + ACCURATE * mean


def test_a_norm_divides_by_lengths_that_come_near_zero(both):
    found, truth = both
    for name, predicted in (
        ("scan", node(found, "matmul").output.q),
        ("inverse", node(found, "rsqrt").output.q),
        ("gradient", node(found, "linear", 4).grad.q),
    ):
        mean, error = truth[name]
        assert abs(predicted - mean) < 4.0 * error + ACCURATE * mean, name
    flat = 1.0 / node(found, "linear", 4).output.q
    assert node(found, "rsqrt").output.q > 1.5 * flat


def test_predictions_repeat():
    torch.manual_seed(0)
    model, x = Selective(), torch.randn(8, WIDTH)
    one, two = (firstlight.predict(model, x, scheme="he") for _ in range(2))
    assert [n.output.q for n in one.nodes] == [n.output.q for n in two.nodes]


def test_the_angle_of_two_directions_has_its_law():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 200_000, STATE))
    cosine = STATE * np.square((x * y).sum(1)) / (np.square(x).sum(1) * np.square(y).sum(1))
    made, factor = sites.summed(Sites(row=((1, STATE, 0.0), (2, STATE, 0.0))), STATE)
    law = lengths.levels(made)[0]
    assert factor is lengths.ALONE
    for p in (1.0, 2.0, 0.5):
        level = np.power(cosine, p)
        assert abs(np.power(law, p).mean() - level.mean()) < 4.0 * level.std() / len(level) ** 0.5 + 2e-3


@pytest.mark.parametrize(("n", "mean"), [(4, 0.6), (4, 1.0), (16, 0.4), (64, 0.3), (16, 0.1)])
def test_two_directions_around_a_mean_have_their_law(n, mean):
    """Gates of streams, Σ_n a·σ(b_n)·σ(c_n): at no right angles, as if they lay around zero (hyper-connections)."""
    rng = np.random.default_rng(0)
    x, y = mean + 0.4 * rng.standard_normal((2, 100_000, n))
    cosine = np.square((x * y).sum(1)) / (np.square(x).sum(1) * np.square(y).sum(1))
    share = mean**2 / (mean**2 + 0.16)
    made, _ = sites.summed(Sites(row=((1, n, share), (2, n, share))), n)
    assert made.heavy == (mean == 0.1)
    for p in (2.0, 0.5):  # of first order in what directions scatter by
        law, drawn = np.power(lengths.levels(made)[0], p).mean(), np.power(cosine / cosine.mean(), p)
        assert abs(law - drawn.mean()) < 4.0 * drawn.std() / len(drawn) ** 0.5 + 0.03 * drawn.mean()


def test_uneven_units_have_their_law():
    """The mean of x²y² over the units against that of x² times that of y²."""
    rng = np.random.default_rng(1)
    x, y = np.square(rng.standard_normal((2, 20_000, 16)))
    ratio = (x * y).mean(1) / (x.mean(1) * y.mean(1))
    one, two = sites.behind_weights(None, "a", 16), sites.behind_weights(None, "b", 16)
    (own,) = sites._uneven(one, two)
    law = lengths.levels(own)[0]
    error = (1.0 / ratio).std() / 1024**0.5  # the law is that of so many means
    assert abs((1.0 / law).mean() - (1.0 / ratio).mean() * ratio.mean()) < 4.0 * error


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_sum_of_two_independent_directions_has_its_law(share):
    one, two = (Sites(own=2.0 / 32, seed=k, units=32) for k in (1, 2))
    out = sites.of_sum([(np.full(1, w), w, s) for w, s in ((share, one), (1.0 - share, two))])
    out.crossed = 1.0 / 32
    v = lengths.levels(out)  # two vectors of 32 normals add up to a vector of 32 normals
    error = 4.0 * (2.0 / 32) ** 0.5 / lengths.SAMPLED**0.5
    assert abs(np.square(v).mean() - (1.0 + 2.0 / 32)) < 2.0 * error
    assert abs((1.0 / v).mean() - 32.0 / 30.0) < error


class Depthwise(nn.Module):
    """Channels with windows of their own, and a function of them."""

    def __init__(self):
        super().__init__()
        self.inner, self.conv = nn.Linear(64, 64, bias=False), nn.Conv1d(64, 64, 4, groups=64, bias=False)

    def forward(self, x):
        return F.silu(self.conv(self.inner(x).transpose(1, 2)))


def test_channels_with_windows_of_their_own_scatter_more():
    torch.manual_seed(0)
    model, x = Depthwise(), torch.randn(8, 12, 64)
    graph = trace(model, (x,), {})
    laws = plan(model, "lecun", graph=graph, frozen=True).laws()
    run = forward(graph, {n.name: from_data(x.double().numpy()) for n in graph.nodes if n.op == "input"}, laws)
    v = []
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        for p in model.parameters():
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
        v.append(model(x).detach().square().mean(1))
    truth = torch.stack(v).double()
    mean = truth.mean(dim=(0, 1))
    each = (truth / mean).square().mean(dim=(1, 2))
    found = lengths.levels(run.signals[graph.nodes[-1].name][0].sites)
    assert abs(np.square(found).mean() - float(each.mean())) < 4.0 * float(each.std()) / DRAWS**0.5
