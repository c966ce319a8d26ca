"""Sums over keys that a softmax fixes, for tokens on a grid: against drawn weights."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight

SIDE, DRAWS = 6, 48


class Shifted(nn.Module):
    """Attention among the places of an image; what each head's keys and values are shifted by is one number."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_keys, self.to_values = nn.Linear(5, width), nn.Linear(5, width)
        self.heads = heads

    def forward(self, x, c):
        t = self.stem(x).flatten(2).transpose(1, 2)
        k, v = self.k(t) + self.to_keys(c)[:, None], self.v(t) + self.to_values(c)[:, None]
        q, k, v = (i.view(len(t), -1, self.heads, t.shape[-1] // self.heads).transpose(1, 2) for i in (self.q(t), k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return y.transpose(1, 2).view(len(t), -1, SIDE, SIDE)


@pytest.fixture(scope="module")
def shifted():
    torch.manual_seed(0)
    model, inputs = Shifted(), (torch.randn(16, 3, SIDE, SIDE), 0.1 * torch.randn(16, 5))
    known = firstlight.measure(model, inputs, scheme="he", draws=DRAWS, get_inputs=lambda b: b)
    return firstlight.predict(model, inputs, "he"), {n.name: n for n in known.nodes}


def test_values_hand_on_what_their_rows_were_given(shifted):
    """The weights of a row add up to one: the values' gradients add up to those of the rows, which are independent."""
    predicted, known = shifted
    assert predicted["to_values:linear"].grad.q == pytest.approx(SIDE**2, rel=1e-9)
    drawn = np.exp(known["to_values:linear"].log_grad_q.values)
    assert abs(drawn - SIDE**2).max() < 4.0 * (2.0 / (16 * 32)) ** 0.5 * SIDE**2  # all draws share one direction


def test_a_shift_of_all_keys_gets_no_gradient(shifted):
    """A softmax does not see it: the keys' gradients add up to nothing, over both axes of the grid."""
    predicted, known = shifted
    level = SIDE**4 * predicted["k:linear"].grad.q
    assert max(np.exp(known["to_keys:linear"].log_grad_q.values)) < 1e-9 * level
    assert predicted["to_keys:linear"].grad.q < 1e-9 * level
