"""Attention over many positions: a sequence alone is one of many, and long causal masks are as short ones."""

import pytest
import torch
from torch import nn

import firstlight
from firstlight.rules.attention.attention import _FULL


class OneHead(nn.Module):
    """Attention straight on the input."""

    def __init__(self, width, causal=False):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.causal = causal

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), is_causal=self.causal)


def test_like_keys_make_means_over_many_keys_long_in_a_lone_sequence_too():
    """A query pulls keys that are like it, and their values are alike: 1/64 in 64 dimensions, however many keys."""
    model, x = OneHead(64), torch.randn(1, 512, 64, generator=torch.Generator().manual_seed(0))
    predicted = firstlight.predict(model, x, "lecun")
    drawn = firstlight.compare(predicted, firstlight.measure(model, x, scheme="lecun", draws=24)).nodes[-1]
    assert drawn.op == "scaled_dot_product_attention"
    assert drawn.q_measured > 1.0 / 64
    assert abs(drawn.q_z) < 4.0
    independent = 2.718 / 512  # E Σ p² of unlike keys
    assert drawn.q_predicted > 3.0 * independent


def test_a_lone_sequence_is_predicted_as_one_of_many():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    lone, many = (firstlight.predict(model, torch.randn(n, 256, 64), "xavier").nodes for n in (1, 4))
    for a, b in zip(lone, many, strict=True):
        assert abs(a.output.q / b.output.q - 1.0) < 0.1, a.name


def test_one_position_more_than_is_followed_entry_by_entry_changes_next_to_nothing():
    """The first row sees one key: taken for one of all keys it made the gradient of the keys 2.7 times too large."""
    torch.manual_seed(0)
    x = torch.randn(2, _FULL + 1, 64)
    short, long = (firstlight.predict(OneHead(64, True), x[:, :n], "lecun").nodes for n in (_FULL, _FULL + 1))
    little = 4.0 / _FULL  # statistics of rows go with a power of their length, the fourth at most
    for a, b in zip(short, long, strict=True):
        assert a.output.q == pytest.approx(b.output.q, rel=little)
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.q == pytest.approx(b.grad.q, rel=little), a.name
