"""Densities and what they are made of, against drawn weights: shifts in a row, sums of exponentials, drawn actions."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.nn import functional as F

import firstlight
from firstlight.rules.chains.laws import law_of, product_law
from tests.rules import drawn_nodes

WIDTH, DRAWS = 32, 200


compared = partial(drawn_nodes.compared, shape=(16, 4, WIDTH), draws=DRAWS)


def test_numbers_that_are_added_one_after_the_other_are_added():
    """log σ = 3.5(tanh + 1) - 5 of a Gaussian policy: 1 and -5 are multiples of one number."""
    for n in compared(lambda y: 3.5 * (torch.tanh(y) + 1.0) - 5.0):
        assert abs(n.q_z) < 4.0


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("bend", [lambda y: y, torch.tanh], ids=["linear", "tanh"])
def test_the_log_of_a_sum_of_exponentials(bend, scale):
    """Over units, where e^x has no mean square in double precision any more."""
    *_, last = compared(lambda y: torch.logsumexp(scale * bend(y), -1))
    assert abs(last.q_z) < 4.0


def test_a_density_of_a_drawn_action():
    """(x - μ)²/2σ² of x = μ + σε is ε²/2, however much σ scatters: it had been E σ⁴·E 1/σ⁴ times that."""

    def density(mean, log_sd):
        policy = Normal(mean, torch.exp(1.5 * torch.tanh(log_sd)))
        return policy.log_prob(policy.rsample())

    *_, last = compared(density, maps=2)
    assert abs(last.q_z) < 4.0


def test_the_divergence_of_a_posterior():
    """1 + s - m² - e^s: s stands in two of its terms, one of them three sums back."""
    *_, last = compared(lambda mean, log_var: 1.0 + 0.5 * log_var - mean.square() - torch.exp(0.5 * log_var), maps=2)
    assert abs(last.q_z) < 4.0


class Actor(nn.Module):
    """Soft actor-critic's (Haarnoja et al. 2018): a squashed Gaussian and the density of what was drawn from it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(17, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.mean, self.log_sd = nn.Linear(256, 6), nn.Linear(256, 6)

    def forward(self, x):
        h = self.body(x)
        policy = Normal(self.mean(h), (3.5 * (torch.tanh(self.log_sd(h)) + 1.0) - 5.0).exp())
        u = policy.rsample()
        action = torch.tanh(u)
        return action, (policy.log_prob(u) - torch.log(1.0 - action.pow(2) + 1e-6)).sum(1, keepdim=True)


class Mixture(nn.Module):
    """The likelihood of a mixture density network (Bishop 1994)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 64), nn.Tanh())
        self.share, self.mean, self.log_sd = (nn.Linear(64, 5) for _ in range(3))

    def forward(self, x, y):
        h = self.body(x)
        z = (y - self.mean(h)) / self.log_sd(h).exp()
        density = -0.5 * z**2 - self.log_sd(h) - 0.5 * math.log(2.0 * math.pi)
        return -torch.logsumexp(F.log_softmax(self.share(h), -1) + density, -1).mean()


@pytest.mark.parametrize(
    ("make", "sizes"), [(Actor, [(64, 17)]), (Mixture, [(64, 8), (64, 1)])], ids=["actor", "mixture"]
)
def test_networks_that_return_densities_start(make, sizes):
    torch.manual_seed(0)
    model, batch = make(), [torch.randn(size) for size in sizes]
    assert firstlight.predict(model, tuple(batch) if make is Mixture else batch[0]).p_start > 0.95
    losses, optimizer = [], torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(60):  # and they do: the negative density falls
        out = model(*batch)
        loss = out if make is Mixture else out[1].mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1


def test_the_law_of_a_product_ends_where_its_rarest_values_are():
    """Of x·y E t⁴ is E x⁴·E y⁴; the last of its values had been given the place of 1e-15, and counted 1e5 times."""
    found = []

    def keep(x):
        if (law := product_law(x)) is not None:
            found.append((law, [law_of(1.0, y) for y in x.factors[1:]]))
        return law

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("firstlight.rules.chains.source.product_law", keep)
        firstlight.predict(
            drawn_nodes.Behind(lambda a, y: (a * torch.exp(0.3 * y)) ** 2, WIDTH, 2), torch.randn(64, WIDTH), "he"
        )
    (place, t), factors = found[0]
    z = np.linspace(-12.0, 12.0, 10_001)
    fourth = np.trapezoid(np.interp(z, place, t) ** 4 * np.exp(-0.5 * z * z), z) / math.sqrt(2.0 * math.pi)
    kurtosis = math.prod(float(w @ v**4) / float(w @ v**2) ** 2 for v, w, _ in factors)
    assert fourth == pytest.approx(kurtosis, rel=0.02)  # of quantiles between 80 by 80 values


def test_an_exponent_of_complex_numbers_is_as_long_as_its_real_part_says():
    """|e^(-α + iω)| = e^-α whatever ω is; of a circular exponent it had been e^(8 |ω|²)."""

    def decays(alpha, omega):
        z = torch.complex(-torch.exp(alpha), 3.0 * omega).unsqueeze(-1)
        return (torch.exp(2.0 * z) / torch.complex(torch.ones_like(omega), omega).unsqueeze(-1)).real

    for n in compared(decays, maps=2):
        assert abs(n.q_z) < 4.0 or n.node == ":real"  # both factors follow α


class Recurrence(nn.Module):
    """One linear recurrent unit (Orvieto et al. 2023): parameters of complex type, rings of eigenvalues."""

    def __init__(self, width, units):
        super().__init__()
        inside, angle = torch.rand(2, units)
        self.nu = nn.Parameter(torch.log(-0.5 * torch.log(0.65 * inside + 0.16)))
        self.theta = nn.Parameter(torch.log(2.0 * math.pi * angle))
        self.enter = nn.Parameter(torch.randn(units, width, dtype=torch.cfloat) / math.sqrt(2 * width))
        self.leave = nn.Parameter(torch.randn(width, units, dtype=torch.cfloat) / math.sqrt(units))

    def forward(self, x):
        turns = torch.exp(torch.complex(-torch.exp(self.nu), torch.exp(self.theta)))
        h, found = torch.zeros(x.size(0), len(turns), dtype=torch.cfloat), []
        for t in range(x.size(1)):
            h = turns * h + x[:, t].to(torch.cfloat) @ self.enter.T
            found.append((h @ self.leave.T).real)
        return torch.stack(found, 1)


def test_a_linear_recurrence_with_complex_eigenvalues_starts():
    """Its angles e^θ had a length of 10^500: an expansion in 1/n of ln of the mean of n heavy-tailed numbers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, WIDTH), Recurrence(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 10))
    x = torch.randn(8, 12, 4)
    found = firstlight.predict(model, x)
    assert found.p_start > 0.95
    for n in found.nodes:
        assert n.output.log_mean < math.log(max(n.output.q, 1e-300)) + 0.1  # E ln ≤ ln E
    last = firstlight.compare(found, firstlight.measure(model, x, draws=DRAWS)).nodes[-3]
    assert last.q_predicted == pytest.approx(last.q_measured, rel=0.2)  # one λ meets itself at each step
