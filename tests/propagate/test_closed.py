"""The probability that a layer is zero everywhere, and what of a prediction is no signal."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import firstlight as fl
from firstlight.propagate.closed import all_below


@pytest.mark.parametrize(("p", "c", "count"), [(0.5, 0.0, 3), (0.5, 0.9, 40), (0.8, 0.5, 10), (0.3, 0.99, 200)])
def test_all_of_some_alike_gaussians_are_below_as_often_as_drawn(p: float, c: float, count: int) -> None:
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    draws = 20_000
    u = c**0.5 * rng.standard_normal((draws, 1)) + (1 - c) ** 0.5 * rng.standard_normal((draws, count))
    found = float((u < norm.ppf(p)).all(axis=1).mean())
    assert abs(all_below(p, c, count) - found) < 4.0 * math.sqrt(max(found * (1 - found), 1 / draws) / draws)


class Density(nn.Module):
    """One density for each of many points: relu of one unit, and what is made of it (a radiance field)."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.out = nn.Sequential(nn.Linear(16, 32), nn.ReLU()), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.out(self.inside(x))
        thick = -torch.relu(y[..., 3]) * 0.1
        seen = 1.0 - thick.exp()
        return seen[..., None] * torch.sigmoid(y[..., :3])


def test_what_follows_from_a_closed_unit_is_not_closed_once_more() -> None:
    """Said was the product over all that is made of it: .15 for .65 in a radiance field."""
    torch.manual_seed(0)
    x = 1.0 + 0.3 * torch.randn(64, 16)
    dead = 0
    for _ in range(400):
        model = Density()
        dead += bool((model.out(model.inside(x))[:, 3] <= 0.0).all())
    share, n = dead / 400, 400
    alive = fl.predict(Density(), x).start.parts["alive"]
    assert abs(1.0 - alive - share) < 0.05 + 4.0 * math.sqrt(max(share * (1 - share), 1 / n) / n)


class Chain(nn.Module):
    """Sums of exponentials over states with a table of transitions (a conditional random field)."""

    def __init__(self) -> None:
        super().__init__()
        self.scores, self.table = nn.Linear(16, 5), nn.Parameter(torch.randn(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = self.scores(x)
        a = e[:, 0]
        for t in range(1, e.size(1)):
            a = torch.logsumexp(a[:, :, None] + self.table + e[:, t, None], 1)
        return torch.logsumexp(a, 1)


def test_a_table_that_is_added_is_no_last_matrix() -> None:
    """Samples differ little in front of it, and more at the matrix that reads them: P(start) was .07."""
    torch.manual_seed(0)
    assert fl.predict(Chain(), torch.randn(16, 8, 16)).p_start > 0.9


class Hashed(nn.Module):
    """Rows of a table at places that large integers name."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(64, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at = (x * 10.0).floor().long()
        return self.out(self.table((at[:, 0] ^ (at[:, 1] * 2_654_435_761)) % 64))


def test_integers_are_no_signal() -> None:
    """The product of an index and a large prime was a signal that leaves the range: P(start) was 0."""
    torch.manual_seed(0)
    found = fl.predict(Hashed(), torch.rand(64, 2))
    assert found.start.parts["forward"] > 0.95
    assert found.p_start > 0.9


class Pooled(nn.Module):
    """One answer for a whole set."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.out = nn.Linear(16, 32), nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.inside(x)).mean(0, keepdim=True))


def test_one_answer_for_all_that_is_given_starts() -> None:
    """Its rows are no samples, which it could fail to tell apart: said was that it will not start."""
    torch.manual_seed(0)
    report = fl.diagnose(Pooled(), torch.randn(40, 16), loss=lambda y: (y - 1.0).square().mean())
    assert report.verdict == "starts", report.findings


class Dropped(nn.Module):
    """A residual branch under stochastic depth, written as Hugging Face does."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.layer, self.p = nn.Linear(16, 16), p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.floor(torch.rand((len(x), 1)) + 1 - self.p)
        return x + self.layer(x) / (1 - self.p) * mask


def test_a_branch_that_one_step_drops_is_not_dead() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[Dropped(0.2) for _ in range(30)], nn.Linear(16, 4))
    assert fl.predict(model, torch.randn(2, 16), "normal(0.02)").start.parts["alive"] > 0.999


class Judged(nn.Module):
    """Scores with hidden entries that only decide something, as routers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.gate(x)
        scores = scores.masked_fill(scores < 0, torch.finfo(scores.dtype).min)
        near = (scores.amax(-1, keepdim=True) - scores) / scores.abs() > 0.1
        chosen = scores.topk(2, -1)[1]
        return self.layer(x) * near.to(x.dtype).mean(-1, keepdim=True) + chosen.sum(-1, keepdim=True)


def test_what_only_decides_something_is_no_signal() -> None:
    torch.manual_seed(0)
    start = fl.predict(Judged(), torch.randn(8, 16)).start
    assert start.parts["forward"] > 0.99, start
    assert start.parts["range"] > 0.99, start
