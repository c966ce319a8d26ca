"""What is reused or read later is what reading each tensor at once would give."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import firstlight
from firstlight.capture import gathering
from firstlight.capture.measure import random_cotangent
from firstlight.capture.moments import moments, runs
from firstlight.capture.record import recording
from firstlight.capture.statistics import tensor_stats
from firstlight.graph.measurement import TensorStats

EXACT = ("shape", "dtype", "abs_max", "units", "dead_units", "dead_index", "nan_count", "inf_count", "sampled",
         "saturated_fraction")  # fmt: skip


class Attention(nn.Module):
    """Views, transposes, shared gradients; heads that are silent."""

    def __init__(self, width: int = 48, heads: int = 4) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads
        with torch.no_grad():
            for p in (self.qkv.weight, self.qkv.bias):
                p[width // heads : 2 * width // heads] = 0.0  # the second head's queries

    def forward(self, x: Tensor) -> Tensor:
        b, t, w = x.shape
        q, k, v = self.qkv(x).split(w, 2)
        q, k, v = (y.view(b, t, self.heads, w // self.heads).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, w)
        x = x + self.out(y).tanh().unflatten(2, (2, w // 2)).flatten(2)
        return x.permute(1, 0, 2).mean(0)


class Convolutions(nn.Module):
    """Rectifiers in place and not, of maps large and small; a sum whose gradient goes both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 24, 3, 1, 1), nn.Conv2d(24, 24, 3, 1, 1), nn.BatchNorm2d(24)
        with torch.no_grad():
            self.a.bias[5] = -9.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        x = F.relu(x + F.relu_(self.norm(self.b(x))), inplace=True)
        return F.max_pool2d(x, 2).mul_(2.0).flatten(1)[:, :600].square()


class Deep(nn.Module):
    """Small tensors that wait, some of them overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(40, 40) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = F.relu(layer(x), i % 2 == 0)
            if i == 3:
                x = x + 1.0
                x *= 3.0
                x = x.t().t()
                x[:, 0] = 0.0
        return F.dropout(x, 0.5, True)


def at_once(model: nn.Module, x: Tensor) -> dict[str, tuple[TensorStats, TensorStats | None]]:
    """Statistics of each output and gradient, each read alone from a copy made on the spot."""
    made: dict[str, list[Any]] = {}
    axes = {n.name: n.output.unit_axis for n in firstlight.measure(model, x).nodes}

    def sink(event: Any) -> None:
        y = event.outputs[0]

        def read(t: Tensor) -> TensorStats:
            return tensor_stats(t.detach().clone(), op=event.op, axis=axes[event.name], batch_size=len(x))

        made[event.name] = [read(y), None]
        _ = y.grad_fn  # a view whose base was written to makes it anew here
        y.register_hook(lambda g, name=event.name: made[name].__setitem__(1, read(g)))

    torch.manual_seed(0)
    args = (x.clone().requires_grad_().clone(),)
    with recording(model, sink) as recorder:
        recorder.start(args)
        y = model(*args)
    y.backward(random_cotangent(y, torch.Generator().manual_seed(0)))
    return {name: (a, b) for name, (a, b) in made.items()}


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "attention": (Attention, (6, 70, 48)),
    "convolutions": (Convolutions, (5, 3, 20, 20)),
    "small maps": (Convolutions, (2, 3, 6, 6)),
    "deep": (Deep, (90, 40)),
    "deep and large": (Deep, (900, 40)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_has_the_numbers_that_reading_it_alone_gives(case: str) -> None:
    torch.manual_seed(0)
    build, shape = CASES[case]
    model, x = build(), torch.randn(shape)
    expected = at_once(model, x)
    m = firstlight.measure(model, x)
    assert [n.name for n in m.nodes] == list(expected)
    for node in m.nodes:
        for got, alone in zip((node.output, node.grad), expected[node.name], strict=True):
            assert (got is None) == (alone is None), node.name
            if got is None or alone is None:
                continue
            if got is node.grad:  # which is of no operation, so that nothing saturates
                assert got.saturated_fraction is None
            for name in EXACT[:-1] if got is node.grad else EXACT:
                assert getattr(got, name) == getattr(alone, name), (node.name, name)
            assert got.q == pytest.approx(alone.q, rel=1e-6)
            assert got.mean == pytest.approx(alone.mean, abs=1e-6 * alone.rms)
            share = 6 * math.sqrt(0.25 / (1 if not got.sampled else 256))  # entries of one sample stand for it
            assert abs(got.zero_fraction - alone.zero_fraction) <= (share if got.sampled else 0.0)
            assert (got.cosine is None) == (alone.cosine is None)


def test_entries_that_were_read_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, ...]] = []
    own = gathering.read

    def counted(x: Tensor, **options: Any) -> Any:
        if options.get("moments") is None:
            read.append(tuple(x.shape))
        return own(x, **options)

    monkeypatch.setattr(gathering, "read", counted)
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 64), nn.Unflatten(1, (8, 8)), nn.Flatten()), torch.randn(128, 64)
    m = firstlight.measure(model, x)
    assert [n.op for n in m.nodes] == ["input", "linear", "unflatten", "flatten"]
    assert len(read) == 2 + 2  # two outputs and two gradients for four operations
    assert m.nodes[2].output.shape == (128, 8, 8)
    assert (m.nodes[2].output.units, m.nodes[3].output.units) == (8, 64)


class _Overwrites(torch.autograd.Function):
    """The identity, whose backward pass works in place on the gradient that it is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.mul_(100.0)


class _Rude(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(_Overwrites.apply(self.norm(self.a(x))) + 0.0)  # a sum hands its gradient on as it is


def test_a_backward_pass_that_overwrites_its_gradient_is_read_before_it_does() -> None:
    torch.manual_seed(0)
    model, x = _Rude(), torch.randn(16, 8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    m = firstlight.measure(model, x)
    v = random_cotangent(torch.empty(16, 8), torch.Generator().manual_seed(0))
    arrived = v @ model.b.weight
    behind = m[":add"].grad
    assert behind is not None
    assert behind.q == pytest.approx(arrived.square().mean().item(), rel=1e-5)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_runs_of_memory() -> None:
    x = torch.randn(2, 30, 4, 5)
    assert runs(x.shape, x.stride()) == ((1200, 1),)
    moved = x.permute(2, 0, 3, 1)
    assert runs(moved.shape, moved.stride()) == ((1200, 1),)
    part = x[:, :, 1:3]
    assert runs(part.shape, part.stride()) == ((60, 20), (10, 1))
    assert runs((1, 3, 1), (9, 1, 7)) == ((3, 1),)
    assert runs((), ()) == ((1, 1),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_of_every_order_of_memory(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 70, 90, 8, dtype=dtype)
    kinds = {
        "moved": x.permute(3, 0, 2, 1),
        "columns": x[..., 2:5],
        "every third": x[:, ::3, ::2].transpose(1, 3),
        "repeated": x[:, :1].expand(3, 70, 90, 8),
        "rows longer than a piece": torch.randn(2, 300_000, dtype=dtype)[:, :280_000],
        "negated": torch.randn(500, 30, dtype=torch.complex64 if dtype == torch.float32 else torch.complex128)
        .conj()
        .imag,
    }
    for name, each in kinds.items():
        m, exact = moments(each), each.double()
        assert m.q == pytest.approx(exact.square().mean().item(), rel=1e-6), name
        assert m.mean == pytest.approx(exact.mean().item(), abs=1e-6), name
        assert (m.low, m.high) == (each.min().item(), each.max().item()), name


def test_a_range_that_is_known_saves_no_nan() -> None:
    x = torch.randn(500, 50).relu()
    known = moments(x, bounds=(0.0, float(x.max())))
    assert known.q == pytest.approx(moments(x).q, rel=1e-9)
    assert known[2:] == moments(x)[2:]
    x[3, 4] = math.nan
    assert moments(x, bounds=(0.0, 5.0)).nan_count == 1
