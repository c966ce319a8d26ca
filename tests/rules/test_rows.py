"""Σ g·x over rows of which several make up a site: experts, in a sorted list and one after the other."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from firstlight.graph.signal import Cotangent
from firstlight.rules.gradients.along import fresh, mixed, of_summands, together
from firstlight.rules.gradients.rows import added, shared
from firstlight.rules.state.empirical import uniform
from tests.rules.test_along import INSIDE, WIDTH, Stream, against, close

SITES, UNITS = 40_000, 24


def drawn(k, known):
    """g, k rows of its sites and Σ g·row, with g nearly at right angles to their sum."""
    rng = np.random.default_rng(k)
    rows, g = rng.standard_normal((SITES, k, UNITS)), rng.standard_normal((SITES, UNITS))
    y = rows.sum(1)
    g -= (1.0 - known) * y * (g * y).sum(-1, keepdims=True) / np.square(y).sum(-1, keepdims=True)
    return g, rows, np.einsum("bd,bkd->bk", g, rows)


def grad_of(g, y):
    """The gradient of the sum with its form."""
    return Cotangent(
        uniform(y.shape, 0.0, float(np.square(g).mean())), along=fresh(float(np.square((g * y).sum(-1)).mean()))
    )


@pytest.mark.parametrize("k", [2, 4])
def test_rows_that_come_back_together(k):
    """Each row has its share and what the others take back; a row's own work adds up in squares."""
    g, rows, along = drawn(k, 0.3)
    y = rows.sum(1)
    form = of_summands(grad_of(g, y), uniform(rows.shape, 0.0, 1.0), uniform(y.shape, 0.0, float(k)), [1])
    each, all_ = np.square(along).mean(1), np.square(along.sum(1))
    # |g|² and the lengths of the rows go together by 1/24: of that order is what is left out
    assert abs(form.variance - each.mean()) < 4.0 * each.std() / SITES**0.5 + each.mean() / UNITS
    assert added(form, float(k)).variance == pytest.approx(all_.mean())
    own = np.random.default_rng(7).standard_normal((SITES, k)) * 3.0
    bent = np.square((0.5 * along + own).sum(1))
    told = added(mixed([(0.5, form)], 9.0), float(k))
    assert abs(told.variance - bent.mean()) < 4.0 * bent.std() / SITES**0.5


def test_rows_that_come_back_one_expert_after_the_other():
    """Two of four: at each expert's rows, in the mean over sites, and all experts together."""
    k, experts = 2, 4
    g, rows, along = drawn(k, 0.3)
    y = rows.sum(1)
    rng = np.random.default_rng(3)
    chosen = np.argsort(rng.random((SITES, experts)), axis=1)[:, :k]
    grad, whole = grad_of(g, y), float(k)
    total = uniform(y.shape, 0.0, whole)
    parts = []
    for at in reversed(range(experts)):
        before = uniform(y.shape, 0.0, whole * at / experts, tag=("rows added", 0, 0.0))
        grad, form = shared(grad, total, before, 1.0)
        mine = np.square(along[chosen == at])
        assert abs(form.variance - mine.mean()) < 4.0 * mine.std() / len(mine) ** 0.5 + mine.mean() / UNITS
        back = added(form, k / experts)
        assert back.variance == pytest.approx(form.variance * k / experts)
        parts.append(Cotangent(uniform(y.shape, 0.0, 0.5), along=back))
        total = before
    all_ = np.square(along.sum(1))
    found = together(parts, Cotangent(uniform(y.shape, 0.0, 2.0)), total)
    assert found.along.variance == pytest.approx(all_.mean())


class Expert(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width, bias=False), nn.Linear(2 * width, width, bias=False)

    def forward(self, x):
        return self.down(F.relu(self.up(x)))


class Looped(nn.Module):
    """The best two of four experts, one expert after the other."""

    def __init__(self, width):
        super().__init__()
        self.router, self.experts = nn.Linear(width, 4, bias=False), nn.ModuleList(Expert(width) for _ in range(4))

    def forward(self, x):
        weights, chosen = torch.topk(self.router(x).softmax(-1), 2, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows, slots = torch.where(chosen == i)
            out.index_add_(0, rows, expert(x[rows]) * weights[rows, slots, None])
        return out


class Sorted(nn.Module):
    """The same on a sorted list of all rows, as transformers does it."""

    def __init__(self, width):
        super().__init__()
        self.router = nn.Linear(width, 4, bias=False)
        self.up, self.down = (
            nn.Parameter(torch.randn(4, width, 2 * width)),
            nn.Parameter(torch.randn(4, 2 * width, width)),
        )

    def forward(self, x):
        weights, chosen = torch.topk(self.router(x).softmax(-1), 2, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        order = torch.sort(chosen.reshape(-1))
        ends = torch.cumsum(torch.histc(order[0].float(), bins=4, min=0, max=3), 0, dtype=torch.int32)
        hidden = F.relu(torch._grouped_mm(x[order[1] // 2], self.up, offs=ends))
        y = torch._grouped_mm(hidden, self.down, offs=ends) * weights.reshape(-1)[order[1]].unsqueeze(-1)
        return y[torch.argsort(order[1])].view(len(x), 2, -1).sum(1)


@pytest.mark.parametrize("branch", [Looped, Sorted])
def test_gradients_in_front_of_experts(branch):
    """Inside the norm in front: Σ g·x of homogeneous experts is that of their sum, which the last norm makes small."""
    torch.manual_seed(0)
    close(against(Stream(branch(WIDTH)), torch.randn(48, WIDTH), INSIDE, 96), 0.15)
