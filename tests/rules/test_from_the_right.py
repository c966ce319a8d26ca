"""Attention as images have it, v·pᵀ of units by places: the same as (p·vᵀ)ᵀ, places on a map or in a row."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import firstlight

DRAWS = 48
IMAGES = torch.randn(4, 16, 6, 6, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """One head over the places of a map."""

    def __init__(self, turned: bool, size: float = 1.0, norm: bool = False) -> None:
        super().__init__()
        self.maps, self.out = nn.Conv2d(16, 64, 1, bias=False), nn.Conv2d(32, 16, 1, bias=False)
        closed = nn.BatchNorm2d(16)
        nn.init.zeros_(closed.weight)
        self.norm = closed if norm else nn.Identity()
        self.turned, self.size = turned, size

    def forward(self, x):
        q, k, v = (a.flatten(2) for a in self.maps(x).split([16, 16, 32], 1))
        p = (self.size * q.mT @ k / 4).softmax(-1)
        y = v @ p.mT if self.turned else (p @ v.mT).mT
        return self.norm(self.out(y.reshape(4, 32, 6, 6)))


@pytest.mark.parametrize("size", [1.0, 6.0])
def test_weights_from_the_right_are_rows_as_well(size):
    """Before, a mean over 36 places with even weights had the length of one place: 12 times too much."""
    one, two = (firstlight.predict(Attention(turned, size), IMAGES, "lecun") for turned in (True, False))
    for name in ("maps:conv2d", ":matmul", ":softmax", ":matmul#1", "out:conv2d"):
        a, b = one[name], two[name]
        assert a.grad is not None
        assert b.grad is not None
        assert np.isclose(a.output.q, b.output.q)
        assert np.isclose(a.grad.q, b.grad.q)
        assert np.isclose(a.output.log_sd, b.output.log_sd)
    drawn = firstlight.measure(Attention(True, size), IMAGES, scheme="lecun", draws=DRAWS)
    for n in firstlight.compare(one, drawn).nodes:
        assert abs(n.q_z) < 4.0, n


def test_no_gradient_behind_gains_of_zero():
    found = firstlight.predict(Attention(True, norm=True), IMAGES)
    assert not [c for n in found.nodes for c in n.caveats if "failed" in c]
    for n in found.nodes:
        assert n.grad is not None
        assert math.isfinite(n.grad.q)
        assert n.grad.q == 0.0 or n.name == "norm:batch_norm"
