"""Correlations of positions and lengths of narrow convolutional networks, against many networks drawn at once."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import firstlight
from benchmarks.calibration import TOLERANCE, convolutions

DRAWS = 400


def brute(depth, channels, x, seed=1):
    """ln of the mean square behind the last ReLU, and the mean correlation of positions in its last convolution."""
    generator = torch.Generator().manual_seed(seed)
    side = x.shape[-1]
    h = x.repeat(1, DRAWS, 1, 1)
    for _ in range(depth):
        padded = F.pad(h, (1, 1, 1, 1), mode="circular")
        w = torch.randn(DRAWS * channels, channels, 3, 3, generator=generator) * (2.0 / (9 * channels)) ** 0.5
        h = F.conv2d(padded, w, groups=DRAWS).relu()
    u = F.unfold(padded.reshape(DRAWS, channels, side + 2, side + 2), 3)
    gram = u.transpose(1, 2) @ u
    size = gram.diagonal(dim1=1, dim2=2)
    alike = (gram / (size[:, :, None] * size[:, None, :]).clamp_min(1e-30).sqrt()).mean((1, 2))
    n = side * side
    return h.reshape(DRAWS, -1).square().mean(1).double().log().numpy(), (alike.numpy() * n - 1.0) / (n - 1.0)


@pytest.mark.parametrize(("depth", "channels", "side"), [(20, 8, 8), (30, 16, 6)])
def test_positions_of_a_narrow_network_never_become_one(depth, channels, side):
    torch.manual_seed(0)
    model, x = convolutions(depth, channels), torch.randn(1, channels, side, side)
    found = firstlight.predict(model, x, "he", backward=False)
    logs, alike = brute(depth, channels, x)
    last = [n for n in found.nodes if n.op == "conv2d"][-1].output
    # With infinitely many channels they would: to .96 and .99. The resolution of correlations is .05
    assert abs(last.c_position - alike.mean()) <= 0.05 + 2.0 * alike.std() / DRAWS**0.5
    off = float((np.abs(logs - math.log(x.square().mean())) > math.log(10.0)).mean())
    error = (off * (1.0 - off) / DRAWS) ** 0.5
    assert abs(found.nodes[-1].output.p_off() - off) <= TOLERANCE + 2.0 * error
