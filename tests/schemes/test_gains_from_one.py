"""Gains of hand-written norms that are read as 1 + w or otherwise: no scheme may leave one at zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import firstlight


class Normed(nn.Module):
    def __init__(self, read: Callable[[Tensor, Tensor], Tensor], start: float) -> None:
        super().__init__()
        self.layer, self.w, self.read = nn.Linear(16, 16), nn.Parameter(torch.full((16,), start)), read

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return self.read(y * torch.rsqrt(y.square().mean(-1, keepdim=True)), self.w)


FOLLOWED = {
    "w": lambda n, w: n * w,
    "1 + w": lambda n, w: n * (1 + w),
    "2 + w": lambda n, w: n * (2 + w),
    "w - 1": lambda n, w: n * (w - 1),
    "1 + w in double": lambda n, w: n.double() * (1 + w.double()),
    "1 + w with another axis": lambda n, w: n * (1 + w)[None],
    "w.view": lambda n, w: n * w.view(1, -1),
    "of a norm": lambda n, w: F.rms_norm(n, (16,), 1 + w),
}
NOT_FOLLOWED = {
    "1 - w": lambda n, w: n * (1 - w),
    "exp w": lambda n, w: n * w.exp(),
    "1 + 2 w": lambda n, w: n * torch.add(torch.ones(()), w, alpha=2),
    "1 + w²": lambda n, w: n * (1 + w * w),
}
X = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("start", [0.0, 3.0])
@pytest.mark.parametrize("name", FOLLOWED)
def test_a_gain_is_one(name: str, start: float) -> None:
    model = Normed(FOLLOWED[name], start)
    firstlight.initialize(model, "he", batch=X)
    assert float(model(X).detach().square().mean()) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_a_gain_of_which_little_is_known_is_left_alone(name: str) -> None:
    model = Normed(NOT_FOLLOWED[name], 0.0)
    firstlight.initialize(model, "he", batch=X)
    assert not model.w.detach().any()
