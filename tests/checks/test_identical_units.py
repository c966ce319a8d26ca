"""Units that begin alike: those that stay so, those that the first steps tell apart, and what are no units."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import firstlight


def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(64, 16, generator=g), torch.randint(4, (64,), generator=g)


def network(*constant: int) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4))
    with torch.no_grad():
        for i in constant:
            model[i].weight.fill_(0.1)
            model[i].bias.zero_()
    return model


def directions(model: nn.Sequential, layer: int) -> int:
    """Rank of a layer's weights after training, up to a thousandth of the largest."""
    x, y = batch()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(200):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return int(torch.linalg.matrix_rank(model[layer].weight.detach(), rtol=1e-3))


@pytest.mark.parametrize(("constant", "severity"), [((0,), "info"), ((2,), "info"), ((0, 2), "warning")])
def test_one_constant_layer_is_told_apart_two_in_a_row_are_not(constant: tuple[int, ...], severity: str) -> None:
    model, (x, y) = network(*constant), batch()
    found = {f.code: f for f in firstlight.diagnose(model, x, F.cross_entropy, targets=y).findings}
    assert found["WGT004"].severity == severity
    first = firstlight.measure(model, x, loss=lambda out: F.cross_entropy(out, y)).parameters
    apart = [p.repeats_apart for p in first if p.repeats_apart is not None]
    assert len(apart) == len(constant)
    assert (min(apart) < 1e-9) == (severity == "warning")
    rank = directions(model, constant[0])
    assert rank == 1 if severity == "warning" else rank > 10


def test_deviations_of_a_posterior_are_no_units() -> None:
    class Posterior(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.rho = nn.Parameter(0.1 * torch.randn(16, 32)), nn.Parameter(torch.full((16, 32), -3.0))
            self.head = nn.Linear(32, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            law = torch.distributions.Normal(self.mean, F.softplus(self.rho))
            prior = torch.distributions.Normal(0.0, 1.0)
            divergence = torch.distributions.kl_divergence(law, prior).sum()
            return self.head((x @ law.rsample()).relu()), divergence

    torch.manual_seed(0)
    assert "WGT004" not in {f.code for f in firstlight.diagnose(Posterior(), batch()[0]).findings}
