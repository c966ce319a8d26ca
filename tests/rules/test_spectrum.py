"""E v·E 1/v of the variance that a norm divides by, for directions that are unlike, against drawn quadratic forms."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight
from firstlight.graph.signal import Signal
from firstlight.rules.reductions import spectrum
from tests.rules.drawn_nodes import gradient_ratios

DRAWS = 200_000


def drawn(eigenvalues: np.ndarray, seed: int) -> tuple[float, float]:
    """E v·E 1/v and its standard error, v = Σ λ z²; like eigenvalues are drawn as one χ²."""
    rng = np.random.default_rng(seed)
    kinds, count = np.unique(eigenvalues, return_counts=True)
    v = sum(k * rng.chisquare(c, DRAWS) for k, c in zip(kinds, count, strict=True)) / eigenvalues.sum()
    return float(np.mean(1.0 / v)), float(np.std(1.0 / v) / DRAWS**0.5)


@pytest.mark.parametrize(
    ("large", "share", "small"), [(3, 0.6, 4000), (6, 0.8, 4000), (2, 0.3, 4000), (12, 1.0, 1)], ids=str
)
def test_a_few_large_directions_and_a_rest(large: int, share: float, small: int) -> None:
    eigenvalues = np.concatenate([np.full(large, share / large), np.full(small, (1.0 - share) / small)])
    spread = 2.0 * np.square(eigenvalues).sum()
    apart = np.square(np.square(eigenvalues).sum()) / (eigenvalues**3).sum()
    mean, error = drawn(eigenvalues, large)
    rounded = 1.0 / 200.0  # steps of s and of the share in which the law is kept
    assert abs(spectrum.inverse(spread, apart) - mean) < 4.0 * error + 2.0 * rounded * spread
    if share < 1.0:
        assert abs(1.0 / (1.0 - spread) - mean) > 10.0 * error  # what a gamma law would have


@pytest.mark.parametrize(("samples", "size", "alike", "between"), [(4, 3, 0.2, 0.6), (8, 2, 0.3, 0.7)])
def test_the_share_is_that_of_the_matrix_of_all_pairs(samples: int, size: int, alike: float, between: float) -> None:
    """A centred image of positions that are alike by `alike`, and by `between` of their variance in all samples."""
    inside = (1.0 - alike) * np.eye(size * size) + alike
    whole = np.kron(np.eye(samples) + between * (1.0 - np.eye(samples)), inside)
    centre = np.eye(len(whole)) - 1.0 / len(whole)
    kappa = centre @ whole @ centre
    kappa /= np.trace(kappa) / len(kappa)
    cube = np.empty((2, 1, 2, 2))
    for b, i, j in np.ndindex(2, 2, 2):
        cube[b, 0, i, j] = kappa[0, b * size * size + i * size + j]
    x = Signal(
        ((samples,), (8,), (size,), (size,)), np.zeros((1,) * 4), np.ones((1,) * 4), cube, (True,) + (False,) * 3
    )
    eigenvalues = np.clip(np.linalg.eigvalsh(kappa), 0.0, None) / len(kappa)
    spread = 2.0 * float(np.square(eigenvalues).sum())
    exact = np.square(np.square(eigenvalues).sum()) / (eigenvalues**3).sum()
    assert np.isclose(spectrum.share(x, [0, 2, 3], spread), exact, rtol=1e-9)


def test_a_batch_norm_of_small_images_behind_a_convolution() -> None:
    """2×2 places behind a rectifier and a maximum: of s = .3 most comes from what all samples have at each place."""
    torch.manual_seed(0)
    stack = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.Tanh(),
    )  # fmt: skip
    x = torch.randn(8, 3, 4, 4)
    told = {n.name: n for n in firstlight.predict(stack, x, scheme="normal(0.1)").nodes}
    ratios = []
    for seed in range(96):
        torch.manual_seed(seed)
        for m in (stack[0], stack[4]):
            nn.init.normal_(m.weight, std=0.1)
        before = stack[:5](x)
        before.retain_grad()
        after = stack[5](before)
        after.retain_grad()
        stack[6](after).backward(torch.randn(8, 64, 2, 2))
        ratios.append((before.grad.square().mean() / after.grad.square().mean()).item())
    names = [n for n in told if n.startswith(("4:", "5:"))]
    front, behind = told[names[0]], told[names[1]]
    assert front.grad is not None
    assert behind.grad is not None
    assert abs(front.grad.q / behind.grad.q - np.mean(ratios)) < 4.0 * np.std(ratios) / len(ratios) ** 0.5


class Beside(nn.Module):
    """A block of RepVGG in training: a window, a point and the identity, each behind its norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.window = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norms[0](self.window(x)) + self.norms[1](x))


def test_a_gradient_keeps_what_it_has_met_on_its_way_through_a_batch_norm() -> None:
    """A unit open behind ReLU(x̂ + f) was more often open before; it went through the norm as if of another unit."""
    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    model = nn.Sequential(*stem, Beside(32), nn.Conv2d(32, 8, 1))
    x = torch.randn(8, 3, 8, 8)
    names = ["0:conv2d", "1:batch_norm", "3.window:conv2d"]
    for name, ratio, error in gradient_ratios(model, x, names, 64):
        assert abs(ratio - 1.0) < 4.0 * error, (name, ratio, error)


def test_a_batch_norm_behind_a_bent_channel_divides_by_what_differs_from_channel_to_channel() -> None:
    """ConvMixer: depthwise windows, GELU, norm. Few weights and a bias for each channel: its v scatters by a tenth."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 4, stride=4), nn.GELU(), nn.BatchNorm2d(64),
        nn.Conv2d(64, 64, 5, padding=2, groups=64), nn.GELU(), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 1),
    )  # fmt: skip
    x = torch.randn(8, 3, 32, 32)
    ((_, ratio, error),) = gradient_ratios(model, x, ["4:gelu"], 48, scheme="torch-default")
    assert abs(ratio - 1.0) < 4.0 * error, (ratio, error)
