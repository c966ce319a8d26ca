"""Statistics of tensors equal naive references, for every layout, type and size."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import firstlight as fl
from firstlight.capture.dead import dead_units
from firstlight.capture.moments import moments
from firstlight.capture.parameters import duplicate_rows, structure
from firstlight.capture.sampling import WHOLE, sample_axis
from firstlight.capture.statistics import tensor_stats
from firstlight.graph.measurement import TensorStats


def naive(x: torch.Tensor, axis: int) -> dict[str, float]:
    a = x.detach().double().numpy()
    others = tuple(d for d in range(a.ndim) if d != axis % a.ndim)
    flat = a.reshape(len(a), -1)
    norms = np.linalg.norm(flat, axis=1)
    alive = flat[norms > 0] / norms[norms > 0, None]
    gram = alive @ alive.T
    pairs = gram[~np.eye(len(gram), dtype=bool)]
    return {
        "mean": a.mean(),
        "q": (a**2).mean(),
        "abs_max": np.abs(a).max(),
        "zero_fraction": (a == 0).mean(),
        "units": a.shape[axis],
        "dead_units": int((np.abs(a).max(axis=others) == 0).sum()),
        "cosine": pairs.mean() if len(pairs) else math.nan,
        "sample_variance": flat.var(axis=0, ddof=1).mean() if len(flat) > 1 else math.nan,
    }


def agree(stats: TensorStats, expected: dict[str, float], names: tuple[str, ...], rel: float) -> None:
    for name in names:
        got = getattr(stats, name)
        assert got == pytest.approx(expected[name], rel=rel, abs=rel * max(1e-30, expected["q"]) ** 0.5), name


EXACT = ("q", "mean", "abs_max", "units", "dead_units")
SHAPES = [
    ((7, 5), -1), ((16, 64), -1), ((2, 3, 4), -1), ((4, 8, 6, 6), 1), ((3, 16, 40, 40), 1), ((64, 700), -1),
    ((2, 33, 65), -1), ((5, 4, 3000), 1), ((1, 9000), -1), ((9000, 1), -1), ((3, 4, 5, 6, 7), 1),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_number_equals_the_naive_one(shape: tuple[int, ...], axis: int, dtype: torch.dtype) -> None:
    torch.manual_seed(sum(shape))
    x = torch.randn(shape).relu() + 0.01
    x.select(axis, 0).zero_()
    x = x.to(dtype)
    stats = tensor_stats(x, axis=axis)
    expected = naive(x, axis)
    agree(stats, expected, EXACT, 1e-5)  # summation in float32
    assert stats.dead_index == (0,)
    assert stats.shape == shape
    assert stats.sampled == (x.numel() > WHOLE)
    if not stats.sampled:
        names = ("zero_fraction",) if len(x) < 2 else ("zero_fraction", "cosine", "sample_variance")
        agree(stats, expected, names, 1e-5)


def layouts(x: torch.Tensor) -> dict[str, torch.Tensor]:
    n, c, h, w = x.shape
    return {
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
        "every other": torch.stack([x, x + 1], -1)[..., 0],
        "expanded": x[:, :, :1].expand(n, c, h, w),
        "offset": torch.cat([x, x])[n // 2 : n // 2 + n],
    }


@pytest.mark.parametrize("layout", ["channels last", "transposed", "every other", "expanded", "offset"])
@pytest.mark.parametrize("axis", [1, -1])
def test_strides_do_not_matter(layout: str, axis: int) -> None:
    torch.manual_seed(1)
    x = layouts(torch.randn(6, 8, 20, 20).clamp_min(0))[layout]
    x.select(axis, 3).zero_() if layout != "expanded" else None
    stats = tensor_stats(x, axis=axis)
    agree(stats, naive(x, axis), EXACT, 1e-5)
    dense = tensor_stats(x.contiguous(), axis=axis)
    assert stats.cosine == pytest.approx(dense.cosine, rel=1e-6)  # the same entries are sampled
    assert stats.zero_fraction == dense.zero_fraction


def test_sampled_shares_and_cosine_lie_within_their_standard_error() -> None:
    torch.manual_seed(2)
    common = torch.randn(1, 20000)
    x = (common + torch.randn(64, 20000)).relu()
    stats, expected = tensor_stats(x), naive(x, -1)
    assert stats.sampled
    assert abs(stats.zero_fraction - 0.5) < 4 * math.sqrt(0.25 / 256)  # one common draw per entry: 256 independent
    assert abs(stats.cosine - expected["cosine"]) < 4 / math.sqrt(256)
    assert stats.sample_variance == pytest.approx(expected["sample_variance"], rel=4 * math.sqrt(2 / 256))


def test_dead_units_among_many_that_look_dead_at_first() -> None:
    x = torch.zeros(512, 40)
    x[-1, ::2] = 1.0  # alive in the very last row only
    assert dead_units(x, 1) == tuple(range(1, 40, 2))
    y = torch.zeros(3, 40, 30, 30)
    y[2, 5, 29, 29] = -1e-38
    assert len(dead_units(y, 1)) == 39
    assert 5 not in dead_units(y, 1)
    z = torch.randn(600, 40)
    z[:, 7] = 0.0
    z[:599, 8] = 0.0
    assert dead_units(z, 1) == (7,)


@pytest.mark.parametrize("shape", [(4, 4), (64, 300)])
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-19, 1e19, 1e30, 3e38])
def test_squares_neither_overflow_nor_vanish(shape: tuple[int, ...], scale: float) -> None:
    torch.manual_seed(3)
    x = (torch.rand(shape).double() * scale).float()
    stats = tensor_stats(x)
    assert stats.q == pytest.approx((x.double() ** 2).mean().item(), rel=1e-6)
    assert stats.mean == pytest.approx(x.double().mean().item(), rel=1e-6)
    assert stats.finite


def test_float64_at_its_own_limits() -> None:
    stats = tensor_stats(torch.full((3, 4), 1e150, dtype=torch.float64))
    assert stats.q == pytest.approx(1e300)
    assert tensor_stats(torch.full((3, 4), 1e-200, dtype=torch.float64)).abs_max == 1e-200
    assert tensor_stats(torch.full((3, 4), 1e200, dtype=torch.float64)).q == math.inf  # q itself is out of range


@pytest.mark.parametrize("shape", [(6, 5), (40, 500)])
def test_nan_and_inf_are_counted_and_left_out(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    x[0, 0], x[1, 1], x[1, 2], x[2, 3] = math.nan, math.inf, -math.inf, 3.0
    stats = tensor_stats(x)
    n = x.numel() - 3
    assert (stats.nan_count, stats.inf_count, stats.finite) == (1, 2, False)
    assert (stats.abs_max, stats.mean, stats.q) == pytest.approx((3.0, (n + 2) / n, (n + 8) / n))
    assert stats.cosine is None
    assert stats.sample_variance is None


def test_nothing_but_nan() -> None:
    stats = tensor_stats(torch.full((3, 4), math.nan))
    assert stats.nan_count == 12
    assert math.isnan(stats.q)
    assert math.isnan(stats.abs_max)
    assert math.isnan(stats.fp16_overflow)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_empty_tensors(shape: tuple[int, ...]) -> None:
    stats = tensor_stats(torch.zeros(shape))
    assert stats.shape == shape
    assert math.isnan(stats.q)


def test_scalars_vectors_integers_booleans_and_complex_numbers() -> None:
    assert tensor_stats(torch.tensor(3.0)).q == 9.0
    assert tensor_stats(torch.tensor([1.0, -1.0])).units == 1  # one number per sample
    assert tensor_stats(torch.tensor([1.0, -1.0]), batch_size=5).units == 2
    assert tensor_stats(torch.arange(6).view(2, 3)).mean == 2.5
    assert tensor_stats(torch.tensor([[True, False]])).mean == 0.5
    assert tensor_stats(torch.tensor([[3 + 4j]])).q == 12.5  # mean square of the real numbers that it consists of
    assert tensor_stats(torch.tensor(3 + 4j)).q == 12.5
    assert tensor_stats(torch.eye(3).to_sparse()).zero_fraction == pytest.approx(2 / 3)


def test_half_precision_margins() -> None:
    stats = tensor_stats(torch.tensor([[6550.4, 1.0], [1.0, 1.0]]))
    assert stats.fp16_overflow == pytest.approx(1.0, abs=1e-6)
    tiny = tensor_stats(torch.tensor([[1e-8, 1.0], [0.0, 1e-7]]))
    assert tiny.flushed_fp16 == pytest.approx(1 / 3)  # 1e-8 rounds to zero, 1e-7 to the smallest subnormal
    x = torch.tensor([[2.0**-25, 2.0**-25 * 1.001]])
    assert tensor_stats(x).flushed_fp16 == 0.5 == (x.half() == 0).float().mean().item()
    assert tensor_stats(torch.full((2, 2), 1e-6)).fp16_underflow == pytest.approx(math.log10(1e-6 * 2**24), abs=1e-6)
    zero = tensor_stats(torch.zeros(2, 2))
    assert zero.fp16_overflow == math.inf
    assert zero.bf16_underflow == -math.inf


@pytest.mark.parametrize(
    ("op", "x", "share"),
    [
        ("tanh", torch.tensor([0.999, -0.9951, 0.994, 0.0]), 0.5),
        ("sigmoid", torch.tensor([0.999, 0.001, 0.5, 0.1]), 0.5),
        ("hardtanh", torch.tensor([1.0, -1.0, 0.99, 0.0]), 0.5),
        ("relu6", torch.tensor([6.0, 0.0, 5.9, 1.0]), 0.25),
        ("hardsigmoid", torch.tensor([1.0, 0.0, 0.5, 0.2]), 0.5),
        ("softsign", torch.tensor([0.95, -0.95, 0.5, 0.0]), 0.5),
        ("relu", torch.tensor([1.0, 0.0, 0.5, 0.2]), None),
    ],
)
def test_saturation(op: str, x: torch.Tensor, share: float | None) -> None:
    assert tensor_stats(x.view(2, 2), op=op).saturated_fraction == share


def test_samples_are_found_behind_heads_and_in_time_major_order() -> None:
    assert sample_axis((8, 3), 8) == 0
    assert sample_axis((10, 8, 3), 8) == 1
    assert sample_axis((16, 8), 8) == 0  # heads folded into the batch: not the features' axis
    assert sample_axis((5, 7), 8) is None
    x = torch.randn(8, 1, 6).expand(8, 2, 6).reshape(16, 6)  # two heads that are copies
    a, b = tensor_stats(x, batch_size=8), tensor_stats(x.view(8, 12))
    assert a.cosine == pytest.approx(b.cosine)


def test_moments_of_a_slice_without_copying() -> None:
    x = torch.randn(100, 300)
    assert moments(x[:, ::3]).q == pytest.approx(x[:, ::3].square().mean().item(), rel=1e-5)


def test_repeated_rows() -> None:
    torch.manual_seed(4)
    w = torch.randn(300, 50)
    assert duplicate_rows(w) == 0
    w[10], w[200], w[201] = w[3], w[3], w[7]
    assert duplicate_rows(w) == 3
    nearly = w.clone()
    nearly[10, 49] += 1e-6
    assert duplicate_rows(nearly) == 2
    assert duplicate_rows(torch.zeros(5, 4)) == 4
    assert duplicate_rows(torch.zeros(5)) == 0
    assert duplicate_rows(torch.randn(4, 3).repeat(8, 1).half()) == 28
    signed = torch.tensor([[0.0, 1.0], [-0.0, 1.0]])
    assert duplicate_rows(signed) == 1  # the same unit, whatever the sign of its zero


def test_structure_of_matrices() -> None:
    torch.manual_seed(5)
    assert structure(torch.randn(30, 20)) == "iid"
    assert structure(torch.nn.init.orthogonal_(torch.empty(30, 20), 1.7)) == "orthogonal"
    assert structure(torch.nn.init.orthogonal_(torch.empty(8, 4, 3, 3))) == "orthogonal"
    assert structure(torch.zeros(3, 3), constant=True) == "constant"
    assert structure(torch.randn(5)) == "iid"
    assert structure(torch.randn(1, 5)) == "iid"


def test_many_time_major_sequences_of_one_feature_are_read():
    """Samples behind an axis of length 1 stay a view when they are moved to the front."""

    class Steps(nn.Module):
        def forward(self, x):
            x = x.transpose(0, 1) * 1.0
            for _ in range(12):
                x = x * 1.1
            return x

    x = torch.randn(4, 6, 1)
    nodes = fl.measure(Steps(), x).nodes
    assert nodes[-1].output.q == pytest.approx(1.1**24 * float(x.square().mean()), rel=1e-5)


@pytest.mark.parametrize("value", [0.1, -3.3e-25, 7e20])
def test_equal_entries_are_counted_and_not_added(value: float) -> None:
    """Added up in float32, their rounding errors all go one way: 2e-5 of q over 131,072 entries."""
    x = torch.full((300_000,), value)
    m, entry = moments(x), float(x[0])
    assert m.q == pytest.approx(entry**2, rel=1e-14)
    assert m.mean == pytest.approx(entry, rel=1e-14)
    assert (m.low, m.high, m.abs_max) == (entry, entry, abs(entry))
