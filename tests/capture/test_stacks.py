"""Tensors that are worked off together have the numbers of each alone, whatever their sizes and the caller's modes."""

import math

import pytest
import torch
from torch import Tensor, nn

import firstlight
from firstlight.capture.moments import moments, stacked_moments
from firstlight.capture.sampling import between_samples
from firstlight.capture.stacks import Scratch, finish, form_of
from firstlight.capture.statistics import tensor_stats

SIZES = (1.0, 1e-42, 1e-25, 3e37, 0.0)


def _entries(shape: tuple[int, ...], size: float) -> Tensor:
    return (torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * size).float()


def test_a_stack_of_very_different_sizes() -> None:
    tensors = [_entries((8, 12), size) for size in SIZES]
    broken = _entries((8, 12), 1.0)
    broken[2, 3], broken[4, 5] = math.nan, math.inf
    tensors.append(broken)
    form = form_of((8, 12), (8, 12), torch.float32, "", -1, 8)
    found = finish(tensors, [form] * len(tensors), None, Scratch())
    for x, s in zip(tensors, found, strict=True):
        exact = x.double()[x.isfinite()]
        assert s.q == pytest.approx(exact.square().mean().item(), rel=1e-6)
        assert s.mean == pytest.approx(exact.mean().item(), abs=1e-6 * s.rms)
        assert s.zero_fraction == (x == 0).double().mean().item()
    assert (found[-1].nan_count, found[-1].inf_count) == (1, 1)
    assert found[-1].cosine is None
    assert found[4].dead_units == 12
    for s in found[1:4]:  # the direction of the samples does not depend on the size; 1e-42 has one digit
        assert s.cosine == pytest.approx(found[0].cosine, abs=1e-6 if s is not found[1] else 1e-3)


def test_rows_keep_their_entries() -> None:
    x = torch.stack([_entries((500,), size) for size in SIZES])
    before = x.clone()
    for row, m in zip(before, stacked_moments(x), strict=True):
        alone = moments(row)
        assert m.q == pytest.approx(alone.q, rel=1e-6)
        assert (m.low, m.high, m.abs_max) == (alone.low, alone.high, alone.abs_max)
    assert torch.equal(x, before)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_the_variance_between_samples_keeps_its_digits(spread: float) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, generator=g) + spread * torch.randn(16, 64, generator=g)
    found = between_samples(x[None].clone(), torch.empty(1, x.numel()))
    assert found.variances[0] == pytest.approx(x.double().var(0).mean().item(), rel=3e-6 / spread)


def test_lengths_beyond_a_reciprocal_or_beyond_all_numbers_are_no_warning() -> None:
    x = torch.full((1, 4, 1), 1e-42)  # float32 has no number for 1/|x|
    between_samples(x, torch.empty(1, 4))  # warnings are errors here
    broken = torch.full((1, 4, 8), math.inf)
    broken[0, :, 1] = -math.inf
    assert math.isnan(between_samples(broken, torch.empty(1, 32)).cosines[0])


def test_autocast_of_the_caller_takes_no_digits() -> None:
    x = _entries((6, 40), 1.0)
    alone = tensor_stats(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert tensor_stats(x) == alone


def test_a_measurement_under_inference_mode_leaves_the_next_one_alone() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 300), nn.ReLU()), 1e-20 * torch.randn(500, 64)
    with torch.inference_mode():
        inside = firstlight.measure(model, x)
    assert [n.output.q for n in firstlight.measure(model, x).nodes] == [n.output.q for n in inside.nodes]


@pytest.mark.parametrize("dead", [0, 1, 9, 40])
def test_dead_maps(dead: int) -> None:
    x = torch.randn(5, 40, 12, 12).relu()
    x[:, :dead] = 0.0
    x[:, dead : dead + 1] = 0.0
    if dead < 40:
        x[3, dead, 7, 5] = 1e-30  # one entry keeps a unit alive
    found = tensor_stats(x, axis=1)
    assert found.dead_units == dead
    assert found.dead_index == tuple(range(min(dead, 16)))
