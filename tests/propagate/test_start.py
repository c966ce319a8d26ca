"""P(start): each condition alone, the contrast against drawn networks, and what a start needs no more than once."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import firstlight as fl
from firstlight.propagate.start import FAINTEST_CONTRAST, LARGEST_SIGNAL, Edge


def stack(depth: int, width: int, act: type[nn.Module] = nn.ReLU, bias: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, bias=bias), act()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


X = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))


def test_a_network_of_the_usual_kind_starts() -> None:
    found = fl.predict(stack(6, 32), X, "he")
    assert found.p_start > 0.95
    assert found.p_start == pytest.approx(math.prod(found.start.parts.values()))


@pytest.mark.parametrize(
    ("model", "scheme", "part"),
    [
        (stack(30, 32), "normal(1.0)", "forward"),
        (stack(30, 32, bias=False), "normal(0.03)", "distinguishable"),  # the signal fades
        (stack(60, 32, nn.Sigmoid), "xavier", "distinguishable"),  # it does not, but all samples are alike
        (stack(100, 32, nn.Tanh), "normal(0.6)", "backward"),  # bounded signal, exploding gradient
        (nn.Sequential(nn.Linear(32, 3), *stack(60, 3)), "he", "alive"),
    ],
)
def test_each_condition_limits_where_it_should(model: nn.Module, scheme: str, part: str) -> None:
    found = fl.predict(model, X, scheme)
    assert found.p_start < 0.2
    assert found.start.parts[part] < 0.2
    assert found.start.where
    assert found.start.limit


def test_p_falls_with_depth_and_never_meets_itself() -> None:
    chances = [fl.predict(stack(d, 32, bias=False), X, "normal(0.05)").p_start for d in (2, 8, 12, 16, 24)]
    assert chances == sorted(chances, reverse=True)
    assert len(set(chances)) == len(chances)


def test_one_matrix_that_sees_samples_apart_is_enough() -> None:
    """A faded branch beside an open road does no harm; the same layers in series do."""

    class Beside(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.head = inner, nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x + self.inner(x))

    faded = stack(30, 32, bias=False)[:-1]
    assert fl.predict(Beside(faded), X, "normal(0.02)").p_start > 0.95
    assert fl.predict(nn.Sequential(*faded, nn.Linear(32, 10)), X, "normal(0.02)").p_start < 0.05


def test_batch_statistics_free_the_gradient_from_its_size() -> None:
    def build(norm: type[nn.Module]) -> nn.Module:
        layers = [m for _ in range(60) for m in (nn.Linear(32, 32), norm(32), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(32, 10))

    found = fl.predict(build(nn.BatchNorm1d), X, "he")
    grads = [n.grad.log_mean - n.grad.reference for n in found.nodes if n.grad is not None]
    assert max(grads) > 9.0 * math.log(10.0)  # 60 layers at about 1.5 each
    assert found.start.parts["backward"] == 1.0


def test_the_contrast_is_that_of_drawn_networks() -> None:
    """ln of (gradient at the output)² × (difference of the inputs)²/2, averaged over draws, at the last matrix."""
    from firstlight.capture.predict import predict as capture
    from firstlight.propagate import fluctuation

    kept: list[object] = []
    real = fluctuation.probability
    fluctuation.probability = lambda *a: (kept.append(a[4]), real(*a))[1]  # type: ignore[assignment]
    try:
        capture(stack(5, 32), (X,), {}, laws=None, scheme="live weights")
    finally:
        fluctuation.probability = real
    seen = {c.node: c for c in kept[0]}  # type: ignore[attr-defined]
    assert len(seen) == 6
    logs = []
    for seed in range(200):
        torch.manual_seed(seed)
        model = stack(5, 32)
        with torch.no_grad():
            h = model[:-1](X).double()
        # E over ordered pairs of different samples of (h - h')²/2 is the variance with n - 1; outputs' gradients are 1
        logs.append(math.log(float(h.var(0, correction=1).mean())))
    last = list(seen.values())[-1]
    error = np.std(logs, ddof=1) / math.sqrt(len(logs))
    assert last.log_mean == pytest.approx(np.mean(logs), abs=5 * error + 0.1)


def test_edges_are_soft_and_wider_with_the_draw() -> None:
    edge = Edge(2.0, 1.0)
    assert edge.below(2.0 * math.log(10.0), 0.3) == pytest.approx(0.5)
    assert edge.below(0.0, 0.0) == pytest.approx(1.0 - edge.above(0.0, 0.0))
    assert edge.below(0.0, 0.0) > edge.below(0.0, 5.0) > 0.5
    assert LARGEST_SIGNAL.at > 0.0 > FAINTEST_CONTRAST.at


def test_half_precision_counts_its_own_range() -> None:
    model = stack(8, 32)
    assert fl.predict(model, X * 3e5, "he", dtype="float16").start.parts["range"] < 0.01
    assert fl.predict(model, X * 3e5, "he", dtype="bfloat16").start.parts["range"] > 0.99
