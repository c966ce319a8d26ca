"""Gradients of attention over tokens that have something in common, against drawn weights: causal, dropped, pooled."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight


class Head(nn.Module):
    """One head of attention straight on the input."""

    def __init__(self, width, pooled=False, **how):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.how, self.pooled = how, pooled

    def forward(self, x):
        y = F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), **self.how)
        return y.mean(1) if self.pooled else y


def against_draws(common, width=128, **how):
    """z of the gradients of queries and keys over 48 draws of the weights."""
    g = torch.Generator().manual_seed(0)
    own, shared = torch.randn(64, 12, width, generator=g), torch.randn(64, 1, width, generator=g)
    x, model = (1.0 - common) ** 0.5 * own + common**0.5 * shared, Head(width, **how)
    predicted = firstlight.predict(model, x, "lecun")
    table = firstlight.compare(predicted, firstlight.measure(model, x, scheme="lecun", draws=48))
    return [n.grad_q_z for n in table.nodes if n.node in ("q:linear", "k:linear")]


@pytest.mark.parametrize("common", [0.0, 0.4, 0.8])
def test_what_keys_have_in_common_is_taken_from_every_row_of_any_length(common):
    """A row's gradients of the logits add up to nothing: with one correlation for all rows a part was kept."""
    assert max(map(abs, against_draws(common, is_causal=True))) < 4.0


@pytest.mark.parametrize("common", [0.0, 0.5])
def test_few_dimensions_in_which_tokens_differ(common):
    """Queries whose weights are nearly even, of tokens of 12 units: they had a tenth too little."""
    assert abs(against_draws(common, 12, scale=0.03)[0]) < 3.0


def test_dropped_weights_let_gradients_through_that_keys_have_in_common():
    """Each weight's gradient has a mask of its own: of what all keys have in common 1 - rate cancels, no more."""
    assert max(map(abs, against_draws(0.5, dropout_p=0.3))) < 4.0


@pytest.mark.parametrize("width", [16, 48])
def test_queries_that_are_alike_pull_like_keys_whose_gradients_add_up(width):
    """In front of a mean over positions all rows get one gradient: taken for independent, keys got too little."""
    assert max(map(abs, against_draws(0.0, width, pooled=True))) < 4.0
