"""Gradients that have met a function of what a norm gives out, and masks behind sums: against simulation."""

import numpy as np
import pytest
import torch
from torch import nn

from firstlight.graph.ir import Node
from firstlight.graph.signal import Array, Cotangent, Signal
from firstlight.rules import Call, find
from firstlight.rules.chains.operands import through_sum
from firstlight.rules.gradients.gradient import factor_of, times, whole
from firstlight.rules.state.projection import projected
from tests.rules.drawn_nodes import gradient_ratios

GROUPS, PLACES, DRAWS = 3, 36, 4000


def signal(cube: Array, places: int, scale: float = 1.0) -> Signal:
    one = np.ones((1, 1))
    return Signal(((GROUPS,), (places,)), 0.0 * one, scale * one, cube, (True, False), gaussian=True)


def pairs(x: Array, y: Array) -> tuple[float, float]:
    """Mean of x_i·y_j over other places of one group, and its standard error over draws; x has a row per draw."""
    n = x.shape[-1]
    rows = ((x.sum(-1) * y.sum(-1) - (x * y).sum(-1)) / (n * (n - 1))).mean(-1)
    return float(rows.mean()), float(rows.std() / len(rows) ** 0.5)


@pytest.mark.parametrize("common", [1.0, 0.4, 0.0])
def test_projection_of_a_gradient_behind_a_mask(common: float) -> None:
    """g = a·1[x̂ > 0] where a share of a is common to the group: what a norm leaves of it, and of its pairs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((DRAWS, GROUPS, PLACES))
    x -= x.mean(-1, keepdims=True)
    hat = x / np.sqrt(np.square(x).mean(-1, keepdims=True))
    a = common**0.5 * rng.standard_normal((DRAWS, GROUPS, 1)) + (1.0 - common) ** 0.5 * rng.standard_normal(x.shape)
    g = a * (hat > 0.0)
    h = g * hat
    left = g - g.mean(-1, keepdims=True) - hat * h.mean(-1, keepdims=True)
    level = np.square(g).mean()
    met = np.array([[np.square(h).mean(), pairs(h, h)[0]], [0.0, 0.0]]) / level
    cube = np.array([[1.0, pairs(g, g)[0] / level], [0.0, 0.0]])
    apart = np.array([[1.0, -1.0 / (PLACES - 1)], [0.0, 0.0]])
    share, corr = projected(signal(cube, PLACES), signal(apart, PLACES), (1,), centre=True, kept=1.0, met=met)
    rows = np.square(left).mean(axis=(1, 2)) / level
    assert abs(share - rows.mean()) < 4.0 * rows.std() / DRAWS**0.5
    mean, error = pairs(left, left)
    assert abs(share * corr[0, 1] - mean / level) < 4.0 * error / level
    if common:  # as if independent it would be refused
        free, _ = projected(signal(cube, PLACES), signal(apart, PLACES), (1,), centre=True, kept=1.0)
        assert abs(free - rows.mean()) > 8.0 * rows.std() / DRAWS**0.5


@pytest.mark.parametrize(("rho_x", "rho_y"), [(0.0, 0.0), (0.4, 0.0), (0.3, 0.6)])
def test_a_mask_behind_a_sum_seen_from_one_term(rho_x: float, rho_y: float) -> None:
    """φ = 1[x + relu(v) > 0]: E φ and E φφ' stay, and E φx φ'x' is that of two terms with a common sum."""
    places = 8

    def cube(rho: float) -> Array:
        return np.array([[1.0, rho], [0.0, 0.0]])

    relu, add = find("relu"), find("add")
    assert relu is not None
    assert add is not None
    call = Call(Node("r", "relu"))
    x, y = signal(cube(rho_x), places), relu.forward(call, signal(cube(rho_y), places, 2.0))
    total = add.forward(Call(Node("s", "add")), x, y)
    out = relu.forward(call, total)
    assert relu.backward is not None
    base = signal(np.ones((2, 2)), places)
    behind = relu.backward(call, Cotangent(base), out, total)["input"]
    seen = through_sum(behind, total, x, y, 1.0, 1.0)
    assert seen.source is not None
    assert seen.expected is not None

    rng = np.random.default_rng(1)

    def gaussian(rho: float) -> Array:
        shape = (40_000, 1, places)
        return rho**0.5 * rng.standard_normal((*shape[:2], 1)) + (1.0 - rho) ** 0.5 * rng.standard_normal(shape)

    drawn = gaussian(rho_x)
    mask = (drawn + np.maximum(2.0**0.5 * gaussian(rho_y), 0.0) > 0.0).astype(float)
    factor, met = factor_of(seen), whole(times(seen, x, seen.source, seen.source.values))
    assert factor is not None
    for told, one in ((factor, mask), (met, mask * drawn)):
        square = np.square(one).mean(axis=(1, 2))
        assert abs(told.mean_q - square.mean()) < 4.0 * square.std() / len(square) ** 0.5
        mean, error = pairs(one, one)
        assert abs(told.mean_q * told.corr[0, 1] - mean) < 4.0 * error, (told.mean_q * told.corr[0, 1], mean)


class Sum(nn.Module):
    """relu(x + norm(conv(x))), twice, and a mean over places, whose gradient all places share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(width, width, 3, padding=1, padding_mode="circular", bias=False)
        self.maps = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=1, padding_mode="circular", bias=False) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.InstanceNorm1d(width) for _ in range(2))
        self.head = nn.Linear(width, 8)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for conv, norm in zip(self.maps, self.norms, strict=True):
            x = torch.relu(x + norm(conv(x)))
        return self.head(x.mean(-1))


def test_gradients_in_front_of_a_norm_whose_sum_is_pooled():
    """The mean's gradient is one number a channel: behind the mask of the sum it goes along with the norm's output."""
    torch.manual_seed(0)
    model, x, draws = Sum(32), torch.randn(8, 32, 64), 48
    for name, ratio, error in gradient_ratios(model, x, ("maps.1:conv1d", "maps.0:conv1d"), draws):
        assert abs(ratio - 1.0) < 0.05 + 4.0 * error, name
