"""Einsum of one, two or three operands: lengths and gradients against draws."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import firstlight

SAMPLES, WIDTH, DRAWS = 32, 128, 100
FINITE = 6.0 / WIDTH  # three maps of one tensor of n units: E |x|⁶/(E |x|²)³ = 1 + 6/n + …


class Einsum(nn.Module):
    """Linear maps of one tensor, each to a tensor of its own shape, and an einsum of them."""

    def __init__(self, equation, *shapes):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(WIDTH, math.prod(s)) for s in shapes)
        self.equation, self.shapes = equation, shapes

    def forward(self, x):
        parts = [m(x).reshape(len(x), *s) for m, s in zip(self.maps, self.shapes, strict=True)]
        return torch.einsum(self.equation, *parts)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("nhwpqc->nchpwq", [(4, 4, 2, 2, 3)]),  # patches back to an image
        ("nhw->nh", [(4, 5)]),
        ("nhh->nh", [(5, 5)]),
        ("nhd,nhde,nh->nhe", [(3, 8), (3, 8, 6), (3,)]),  # linear attention
        ("nid,nje->nij", [(5, 8), (5, 8)]),  # letters that one operand alone has
        ("...hd,...hd,...d->...h", [(3, 8), (3, 8), (8,)]),
    ],
)
def test_einsum_hands_on_lengths_and_gradients(equation, shapes):
    torch.manual_seed(0)
    model, x = Einsum(equation, *shapes), torch.randn(SAMPLES, WIDTH)
    found = firstlight.predict(model, x)
    drawn = firstlight.measure(model, x, draws=DRAWS)
    for node, real in zip(found.nodes, drawn.nodes, strict=True):
        for said, logs in ((node.output.q, real.log_q), (node.grad.q, real.log_grad_q)):
            q = np.exp(logs.values)
            error = q.std(ddof=1) / q.mean() / DRAWS**0.5
            assert abs(said / q.mean() - 1.0) <= FINITE + 4.0 * error, (node.name, said, q.mean(), error)
    assert found.p_start > 0.9  # nothing reached the maps but for two operands, and P(start) was 0
