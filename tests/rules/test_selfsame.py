"""Attention of a tensor to itself against draws of the weights in front of it."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.rules.attention import selfsame
from firstlight.rules.state import tokens

WIDTH, ROWS, SAMPLES, DRAWS = 32, 6, 64, 100


class Itself(nn.Module):
    """Tokens from a linear map, attention of them to themselves, and a linear map behind."""

    def __init__(self, before=None, own_values=True, residual=0.0, **options):
        super().__init__()
        self.up, self.down = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.values = None if own_values else nn.Linear(WIDTH, WIDTH, bias=False)
        self.before, self.residual, self.options = before or nn.Identity(), residual, options

    def forward(self, x):
        tokens = self.before(self.up(x))
        values = tokens if self.values is None else self.values(x)
        out = F.scaled_dot_product_attention(tokens, tokens, values, **self.options)
        return self.down(out + self.residual * tokens if self.residual else out)


def common(samples=SAMPLES, share=0.0):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, ROWS, WIDTH, generator=generator)
    alike = torch.randn(WIDTH, generator=generator)
    return (1.0 - share) ** 0.5 * x + share**0.5 * alike


CASES = {
    "tokens": (Itself(), 0.0),
    "tokens that have something in common": (Itself(), 0.4),
    "rectified": (Itself(nn.ReLU()), 0.0),
    "normalised": (Itself(nn.RMSNorm(WIDTH, elementwise_affine=False)), 0.0),
    "causal": (Itself(is_causal=True), 0.0),
    "sharp": (Itself(scale=0.5), 0.0),
    "with values of their own": (Itself(own_values=False), 0.0),
    "beside the stream": (Itself(residual=1.0), 0.0),
    "less half the stream": (Itself(residual=-0.5), 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_tokens_that_are_their_own_keys_are_as_long_as_drawn(name):
    model, share = CASES[name]
    x = common(share=share)
    joined = firstlight.compare(
        firstlight.predict(model, x, "lecun"), firstlight.measure(model, x, scheme="lecun", draws=DRAWS)
    )
    # what is predicted is a mean over sampled sequences: as many as these stand against the batch's in every draw
    sampled = (SAMPLES * DRAWS / selfsame._DRAWS) ** 0.5
    checked = 0
    for node in joined.nodes:
        limit = 4.0 * (1.0 + sampled)
        assert abs(node.q_z) < limit, (node.op, node.q_predicted, node.q_measured)
        if node.grad_q_z is not None and math.isfinite(node.grad_q_z):
            assert abs(node.grad_q_z) < limit, (node.op, node.grad_q_predicted, node.grad_q_measured)
            checked += 1
    assert checked >= 3


def test_pairs_of_sampled_tokens_have_the_moments_they_are_drawn_with():
    rng = np.random.default_rng(0)
    corr = np.array([[[1.0, 0.0], [0.3, 0.0]], [[0.5, 0.0], [0.1, 0.0]]])  # (sample, position, feature)
    law = tokens.Law(0.0, 2.0, corr)
    count = 4000
    one, other = tokens.drawn(law, rng, (count, 5, 7), (1,))
    error = 4.0 * 4.0 / (count * 7) ** 0.5  # standard errors of means over sequences and features
    assert tokens.pair(one, one) == pytest.approx(4.0 * corr[0], abs=error)
    assert tokens.pair(one, other) == pytest.approx(4.0 * corr[1], abs=error)


@pytest.mark.parametrize(("kept", "added"), [(0.0, 0.0), (0.5, 0.0), (1.0, 0.5)])
def test_lengths_of_sampled_tokens_scatter_as_asked(kept, added):
    law = tokens.Law(0.0, 1.0, np.zeros((2, 2)), kept=kept, scatter=added)
    rng = np.random.default_rng(0)
    lengths = np.square(law.entries(rng.standard_normal((500, 40, 64)), rng.standard_normal((500, 40, 1))))
    spread = float(lengths.mean(axis=-1).var() / lengths.mean() ** 2)
    wanted = kept**2 * 2.0 / 64 + added * (1.0 + 2.0 / 64)
    assert spread == pytest.approx(wanted, rel=4.0 * (8.0 / 20000) ** 0.5, abs=1e-12)


def test_a_mask_that_differs_from_sample_to_sample_is_left_to_the_rule_of_separate_keys():
    x = common()
    model = Itself(attn_mask=torch.ones(SAMPLES, ROWS, ROWS, dtype=torch.bool))
    found = firstlight.predict(model, x, "lecun")
    node = next(n for n in found.nodes if n.op == "scaled_dot_product_attention")
    assert not any("their own keys" in text for text in node.caveats)


@pytest.mark.parametrize("size", [1e-30, 1e30, 1e38])
def test_tokens_of_any_size_give_finite_numbers(size):
    found = firstlight.predict(Itself(), common(samples=4), f"normal({size})")
    for node in found.nodes:
        assert math.isfinite(node.output.q), node.name
        assert node.grad is None or math.isfinite(node.grad.q), node.name


def test_wide_tokens_are_sampled_at_fewer_positions():
    from firstlight.rules.state.empirical import uniform

    assert selfsame._positions(uniform((2, 5000, 64), 0.0, 1.0)) == selfsame._LONGEST
    wide = selfsame._positions(uniform((2, 5000, 12288), 0.0, 1.0))
    assert 32 <= wide * 1.0 <= 8 * selfsame._ENTRIES / 12288


class Heads(nn.Module):
    """Attention of the same heads to themselves, each made by a view of its own."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        tokens = self.up(x)
        return F.scaled_dot_product_attention(*(tokens.view(*x.shape[:2], 4, -1).transpose(1, 2) for _ in range(3)))


def test_equal_views_of_one_tensor_are_one_tensor():
    x = common()
    joined = firstlight.compare(
        firstlight.predict(Heads(), x, "lecun"), firstlight.measure(Heads(), x, scheme="lecun", draws=DRAWS)
    )
    sampled = (SAMPLES * DRAWS / selfsame._DRAWS) ** 0.5
    for node in (joined.nodes[1], joined.nodes[-1]):
        assert abs(node.q_z) < 4.0 * (1.0 + sampled), (node.op, node.q_predicted, node.q_measured)
    linear = joined.nodes[1]
    assert abs(linear.grad_q_z) < 4.0 * (1.0 + sampled), (linear.grad_q_predicted, linear.grad_q_measured)


def told(f):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(WIDTH, WIDTH, bias=False)

        def forward(self, x):
            return f(self.up(x))

    return " ".join(text for n in firstlight.predict(Net(), common(), "lecun").nodes for text in n.caveats)


def test_a_tensor_that_meets_itself_in_another_order_is_said_to_be_taken_as_independent():
    assert "views of one tensor" in told(lambda t: F.scaled_dot_product_attention(t, t.flip(1), t))
    assert "come from one tensor" in told(lambda t: (t.flip(1) @ t.transpose(1, 2)).softmax(-1) @ t)
    assert "one tensor" not in told(lambda t: (t @ t.transpose(1, 2)).softmax(-1) @ t)  # followed (`linear.gram`)
    assert "one tensor" not in told(lambda t: F.scaled_dot_product_attention(t, t, t))
    halves = told(lambda t: F.scaled_dot_product_attention(*t.chunk(2, -1), t[..., :16]))
    assert "one tensor" not in halves  # queries and keys out of one linear map are different entries of it
    assert "one tensor" not in told(lambda t: t[..., :16] @ t[..., 16:].transpose(1, 2))
