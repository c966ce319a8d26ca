"""What a unit has in common at all places makes slices of one tensor dependent: recurrences written out."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.rules.state import unitwise

WIDTH, STEPS, STATE, DRAWS = 64, 6, 4, 200
ACCURATE = 0.1  # what predictions aim at


class Scan(nn.Module):
    """h_t = e^-cδ_t·h_(t-1) + δ_t·b_t·x_t with numbers c, and steps that mostly come from a bias."""

    def __init__(self):
        super().__init__()
        self.step, self.b = nn.Linear(2, WIDTH), nn.Linear(WIDTH, STATE, bias=False)
        self.register_buffer("c", torch.arange(1.0, STATE + 1.0))

    def terms(self, x, z):
        delta = F.softplus(self.step(z))[..., None]
        kept, new = torch.exp(-delta * self.c), delta * self.b(x)[:, :, None] * x[..., None]
        state, found = new[:, 0], []
        for t in range(1, STEPS):
            found.append(kept[:, t] * state)
            state = found[-1] + new[:, t]
        return found, state

    def forward(self, x, z):
        return self.terms(x, z)[1]


@pytest.fixture(scope="module")
def both():
    torch.manual_seed(0)
    model, one = Scan(), torch.randn(64, 1, WIDTH)  # half of the energy of x is the same at all steps
    x, z = (one + torch.randn(64, STEPS, WIDTH)) / 2**0.5, 0.3 * torch.randn(64, STEPS, 2)
    rows = []
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        model.step.reset_parameters()
        model.b.reset_parameters()
        found, state = model.terms(x, z)
        rows.append([float(t.detach().square().mean()) for t in (*found, state)])
    truth, error = np.mean(rows, axis=0), np.std(rows, axis=0) / DRAWS**0.5
    return firstlight.predict(model, (x, z), scheme="torch-default"), truth, error


def products(found):
    """The products e^-cδ_t·h_(t-1) of a prediction."""
    return [n for n in found.nodes if n.op == "mul"][-(STEPS - 1) :]


def test_a_unit_with_long_steps_has_a_short_memory(both):
    found, truth, error = both
    for node, mean, se in zip(products(found), truth, error, strict=False):
        assert abs(node.output.q / mean - 1.0) < ACCURATE + 3.0 * se / mean
    assert abs(found.nodes[-1].output.q / truth[-1] - 1.0) < ACCURATE + 3.0 * error[-1] / truth[-1]


def test_without_that_memory_would_be_longer(both, monkeypatch):
    found, truth, error = both
    monkeypatch.setattr(unitwise, "at_one_place", lambda out, x, dim: out)
    model = Scan()
    alone = firstlight.predict(
        model, (torch.randn(64, STEPS, WIDTH), 0.3 * torch.randn(64, STEPS, 2)), scheme="torch-default"
    )
    assert products(alone)[0].output.q > truth[0] + 4.0 * error[0]
    assert products(found)[0].output.q < products(alone)[0].output.q
