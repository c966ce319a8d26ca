"""A tensor beside its own windows, and beside itself moved on: sums and differences, against draws."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight

DRAWS = 64

MIXERS = {
    "window less its middle": lambda y: F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y,
    "window with zeros": lambda y: y + F.avg_pool2d(y, 3, 1, 1),
    "moved by one": lambda y: y - y.roll(1, -1),
    "moved far along both axes": lambda y: y + 0.5 * y.roll((3, 4), (2, 3)),
}


def blocks(y):
    """Three blocks of PoolFormer without what lies between: windows less their middle, of windows less their middle."""
    for _ in range(3):
        normed = F.group_norm(y, 1)
        y = y + 0.9 * (F.avg_pool2d(normed, 3, 1, 1, count_include_pad=False) - normed)
    return y


MIXERS["windows of windows"] = blocks
WIDE = 64  # channels where each draw's own filter decides on its length, and that on the next block


class Mixed(nn.Module):
    """A convolution that makes places alike, a mixer, and weights that read every place."""

    def __init__(self, mix, read, made):
        super().__init__()
        self.mix = mix
        self.conv, self.out = nn.Conv2d(read, made, 5, padding=2, padding_mode="circular"), nn.Linear(made * 64, 32)

    def forward(self, x):
        y = self.conv(x)
        return self.out(self.mix(y).flatten(1))


@pytest.mark.parametrize("name", MIXERS)
def test_a_tensor_beside_its_own_windows(name):
    torch.manual_seed(0)
    read, made = (WIDE, WIDE) if MIXERS[name] is blocks else (3, 16)
    model, x = Mixed(MIXERS[name], read, made), torch.randn(16, read, 8, 8)
    found = firstlight.predict(model, x, "lecun")
    measured = {n.name: n for n in firstlight.measure(model, x, draws=DRAWS, scheme="lecun").nodes}
    last = [n.name for n in found.nodes if n.op in ("add", "sub")][-1]
    forward, drawn = found[last].output.q, np.exp(measured[last].log_q.values)
    # what is left of a window goes along farther than to the next place: 2 % of its mean square
    assert abs(forward / drawn.mean() - 1.0) < 4.0 * drawn.std(ddof=1) / drawn.mean() / DRAWS**0.5 + 0.02
    conv = next(n.name for n in found.nodes if n.op == "conv2d")
    backward, drawn = found[conv].grad.q, np.exp(measured[conv].log_grad_q.values)
    assert abs(backward / drawn.mean() - 1.0) < 4.0 * drawn.std(ddof=1) / drawn.mean() / DRAWS**0.5 + 0.02
