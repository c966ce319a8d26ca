"""Rotary embeddings: keys that are alike by chance are so only where their positions turn them alike."""

import math

import pytest
import torch
from torch import nn

from tests.rules.drawn_nodes import gradient_ratios

WIDTH, PLACES = 12, 14


class Rotary(nn.Module):
    """One head of attention whose queries and keys are turned by angles that grow with their positions."""

    def __init__(self, fast, causal):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        angles = torch.arange(PLACES)[:, None] * torch.tensor([fast, 0.01, 0.001]).repeat(WIDTH // 3)
        half = WIDTH // 2
        self.cos, self.sin = angles.cos(), angles.sin() * torch.tensor([-1.0, 1.0]).repeat_interleave(half)
        self.other = torch.arange(WIDTH).roll(half)
        self.causal = causal

    def turned(self, x):
        return x * self.cos + x[..., self.other] * self.sin

    def forward(self, x):
        q, k, v = self.turned(0.1 * self.q(x)), self.turned(self.k(x)), self.v(x)
        return nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=self.causal)


@pytest.mark.parametrize("causal", [True, False])
def test_queries_get_less_in_units_in_which_keys_turn_fast(causal):
    """What x̃·sin has, of all that queries get: like keys do not add up there, and it had a quarter too much.

    Against keys that do not turn, so that what is known of keys alike by chance stands on both sides.
    """
    x = torch.randn(48, PLACES, WIDTH, generator=torch.Generator().manual_seed(0))
    found = dict[float, tuple[float, float]]()
    for fast in (1.3, 0.001):
        torch.manual_seed(0)
        rows = list(gradient_ratios(Rotary(fast, causal), x, ("q:linear",), 200, "lecun"))
        found[fast] = rows[0][1:]
    (turning, first), (still, second) = found.values()
    assert abs(math.log(turning / still)) < 4.0 * math.hypot(first, second)
