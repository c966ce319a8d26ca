"""Causal attention over many positions, whose masks are not followed entry by entry."""

import pytest
import torch
from torch import nn

import firstlight
from firstlight.rules.attention import _FULL


class OneHead(nn.Module):
    """Causal attention straight on the input."""

    def __init__(self, width):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), is_causal=True)


def test_one_position_more_than_is_followed_entry_by_entry_changes_next_to_nothing():
    """The first row sees one key: taken for one of all keys it made the gradient of the keys 2.7 times too large."""
    torch.manual_seed(0)
    x = torch.randn(2, _FULL + 1, 64)
    short, long = (firstlight.predict(OneHead(64), x[:, :n], "lecun").nodes for n in (_FULL, _FULL + 1))
    for a, b in zip(short, long, strict=True):
        assert a.output.q == pytest.approx(b.output.q, rel=0.03)
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.q == pytest.approx(b.grad.q, rel=0.03), a.name
