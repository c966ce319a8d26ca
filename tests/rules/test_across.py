"""Gradients that are at right angles to what they are the gradient of, in a selective state space before a norm."""

import numpy as np
import pytest
import torch
from torch import nn

from firstlight.graph.sites import Sites
from firstlight.rules.gradients import across
from firstlight.rules.state import lengths, sites
from tests.rules.test_along import against, close
from tests.rules.test_sites import WIDTH, Selective

SITES = 100_000


class Streamed(nn.Module):
    """A selective step, beside a residual stream or alone, and a readout behind the norm."""

    def __init__(self, beside):
        super().__init__()
        self.step, self.head, self.beside = Selective(), nn.Linear(WIDTH, WIDTH, bias=False), beside

    def forward(self, x):
        s = self.step
        u = nn.functional.silu(s.inner(nn.functional.rms_norm(x, (WIDTH,))))
        state = nn.functional.softplus(s.step(u))[:, :, None] * s.b(u)[:, None, :] * u[:, :, None]
        z = s.out((state @ s.c(u)[:, :, None])[:, :, 0] + u)
        z = x + z if self.beside else z
        return self.head(z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-6))


@pytest.mark.parametrize("beside", [True, False], ids=["in a stream", "alone"])
def test_gradients_of_a_selective_step(beside):
    """Those of B and C were up to twice too large, that of u half again: its two ways back go against each other."""
    torch.manual_seed(0)
    nodes = ["step.b:linear", "step.c:linear", "step.inner:linear"]
    close(against(Streamed(beside), torch.randn(12, WIDTH), nodes, 160, "he"), 0.1)


def vectors():
    """y along x with an angle and a sign, z = x + y, and g at right angles to z but for a part."""
    rng = np.random.default_rng(0)
    x, apart, g = rng.standard_normal((3, SITES, WIDTH))
    size = np.exp(rng.standard_normal((SITES, 1)))  # the scan's length scatters
    sign = rng.choice([-1.0, 1.0], (SITES, 1))
    y = size * sign * (0.8 * x + 0.6 * apart)
    z = x + y
    g -= 0.7 * z * (g * z).sum(1, keepdims=True) / np.square(z).sum(1, keepdims=True)
    return y, z, g


def test_what_is_left_along_a_term():
    """(g·y)² for each length of the scan, against the recipe's with the same law of lengths."""
    y, z, g = vectors()
    truth = np.square((g * y).sum(1)) / (np.square(y).sum(1) * np.square(g).sum(1) / WIDTH)
    skip = Sites(seed=5)
    quantiles = np.sort(np.square(y).sum(1))[(np.arange(lengths.SAMPLED) + 0.5).astype(int) * SITES // lengths.SAMPLED]
    level = (quantiles / quantiles.mean())[np.random.default_rng(1).permutation(lengths.SAMPLED)]
    scan = Sites(seed=6, heavy=True, toward=(5, 0.64, 7), level=level[None].astype(np.float32))
    energy = float(np.square(y).mean())
    total = sites.of_sum([(np.full(1, energy), energy, scan), (np.ones(1), 1.0, skip)])
    assert total.together == 0.64
    rho = float((np.square((g * z).sum(1)) / (np.square(z).sum(1) * np.square(g).sum(1) / WIDTH)).mean())
    made = across.of_term(Sites(heavy=True), rho, total, scan)
    error = 4.0 * truth.std() / lengths.SAMPLED**0.5
    assert abs(float(made.left.mean()) - truth.mean()) < error + truth.mean() / WIDTH**0.5


def test_gradients_of_places_side_by_side_keep_their_own():
    parts = [Sites(seed=k, heavy=True, left=np.full((1, lengths.SAMPLED), 0.1 * k, np.float32)) for k in (1, 2, 3)]
    fields = [np.eye(3)[k] for k in range(3)]
    out = sites.of_sum([(f, 1.0, p) for f, p in zip(fields, parts, strict=True)])
    assert out.left[:, 0] == pytest.approx([0.1, 0.2, 0.3])
