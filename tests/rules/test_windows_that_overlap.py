"""Maxima over windows that overlap: one entry is the largest of several, and the largest of largest is that of all."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import firstlight
from firstlight.rules.reductions.extremes import shared_deviation
from tests.rules.test_pieces import worst


class Pooled(nn.Module):
    """Maxima by steps of 1 or 2, so many times, in front of the mean over the image, whose gradient is one for all."""

    def __init__(self, step: int, times: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(64, 64, 1, bias=False), nn.Conv2d(64, 16, 1, bias=False)
        self.step, self.times = step, times

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for k in range(self.times):
            x = F.max_pool2d(x, 3, self.step if k == 0 else 1, 1)
        return self.last(x).mean((2, 3))


@pytest.mark.parametrize(("step", "times"), [(1, 1), (2, 1), (2, 2)])
def test_maxima_of_windows_that_overlap(step: int, times: int) -> None:
    torch.manual_seed(0)
    found = worst(Pooled(step, times), torch.randn(4, 64, 24, 24))
    for name, error in found.items():
        assert not error.q > 0.05, (name, error)
        if times == 1:  # of largest entries that are largest entries, it is not followed which of equal ones is taken
            assert not error.grad_q > 0.1, (name, error)


def test_windows_that_end_beyond_the_padding_are_divided_by_what_is_inside() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.AvgPool2d(64, ceil_mode=True))
    found = firstlight.predict(model, torch.randn(4, 8, 1, 1), "he")
    assert found.nodes[-1].output.q == pytest.approx(found.nodes[-2].output.q)


@pytest.mark.parametrize(("k", "common"), [(4, 2), (9, 3), (9, 6), (25, 20)])
def test_the_largest_of_groups_that_share_entries(k: int, common: int) -> None:
    z = np.random.default_rng(k).standard_normal((100_000, 2 * k - common))
    one, two = z[:, :k].max(axis=1), z[:, k - common :].max(axis=1)
    drawn = (one - one.mean()) * (two - two.mean())
    v = float(one.var())
    found = common / k**2 + (v - 1.0 / k) * shared_deviation(k, common)
    assert abs(found - drawn.mean()) < 4.0 * drawn.std() / len(z) ** 0.5


def test_fewer_entries_lie_inside_windows_at_the_border() -> None:
    side, maps = 3, 40_000  # of an average number of entries it would be 1.80 for 1.865
    generator = torch.Generator().manual_seed(0)
    drawn = F.max_pool2d(torch.randn(maps, 1, side, side, generator=generator), 3, 1, 1).square().mean((1, 2, 3))
    model = nn.Sequential(nn.Conv2d(256, 8, 1, bias=False), nn.MaxPool2d(3, 1, 1))
    found = firstlight.predict(model, torch.randn(16, 256, side, side, generator=generator), "normal(0.0625)")
    pooled, before = found.nodes[-1].output.q, found.nodes[-2].output.q
    assert abs(pooled / before - float(drawn.mean())) < 4.0 * float(drawn.std()) / maps**0.5


class Cancelled(nn.Module):
    """Neighbours' means less the entries themselves (PoolFormer), averaged once more: most of it cancels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(64, 64, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def test_samples_come_nearer_where_entries_cancel() -> None:
    torch.manual_seed(0)
    found = worst(Cancelled(), torch.randn(4, 64, 12, 12))
    assert found[":avg_pool2d#1"].c < 0.02  # as far apart as their entries would be it was off by 1
