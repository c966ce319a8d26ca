"""Log-norm noise of means over keys, against draws."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import firstlight
from firstlight.rules.attention import attention
from tests.rules.drawn_nodes import Behind

DRAWS = 1500


class Attention(nn.Module):
    """One head without an output map."""

    def __init__(self, width):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x):
        weights = (self.q(x) @ self.k(x).mT * x.shape[-1] ** -0.5).softmax(-1)
        return weights @ self.v(x)


def variance(sample):
    """Of a sample, with its standard error from the fourth moment."""
    centred = np.asarray(sample) - np.mean(sample)
    v = np.mean(centred**2)
    return v, math.sqrt((np.mean(centred**4) - v * v) / len(centred))


@pytest.fixture(scope="module", params=(0.5, 0.9))
def attended(request):
    """(Prediction, ln|y|² and ln|dx|² over draws) of attention to tokens that have a share in common."""
    width, tokens, common = 16, 8, request.param
    generator = torch.Generator().manual_seed(1)
    x = common**0.5 * torch.randn(1, 1, width, generator=generator)
    x = x + (1.0 - common) ** 0.5 * torch.randn(1, tokens, width, generator=generator)
    model, sd = Attention(width), 0.6 * width**-0.5
    found = firstlight.predict(model, x, f"normal({sd})")
    forward, backward = [], []
    for _ in range(DRAWS):
        for p in model.parameters():
            p.data.normal_(0.0, sd, generator=generator)
        z = x.clone().requires_grad_()
        y = model(z)
        (g,) = torch.autograd.grad(y, z, torch.randn(y.shape, generator=generator))
        forward.append(float(y.detach().square().mean().log()))
        backward.append(float(g.square().mean().log()))
    return found, forward, backward, 2.0 / x.numel()


def test_an_output_strays_as_what_its_tokens_have_in_common(attended):
    found, forward, _, _ = attended
    v, error = variance(forward)
    assert abs(found.nodes[-1].output.log_sd ** 2 - v) < 3.0 * error


@pytest.mark.parametrize("attended", [0.9], indirect=True)
def test_so_does_the_gradient_of_tokens_that_differ_little(attended):
    found, _, backward, of_direction = attended
    v, error = variance(backward)  # with what the drawn direction's own length strays by
    assert abs(found.nodes[0].grad.log_sd ** 2 + of_direction - v) < 3.0 * error


def test_the_adjoint_of_attention_takes_the_weights_of_the_forward_pass(monkeypatch):
    asked = []
    original = attention.soft
    monkeypatch.setattr(attention, "soft", lambda *args: asked.append(1) or original(*args))

    def attend(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    firstlight.predict(Behind(attend, 16, 3), torch.randn(4, 8, 16), "he")
    assert len(asked) == 1
