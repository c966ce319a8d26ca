"""Correlations of positions and lengths of narrow convolutional networks, against many networks drawn at once."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import firstlight
from benchmarks.calibration import TOLERANCE, convolutions
from firstlight.rules.chains.grids import grid
from firstlight.rules.convolutions.sway import LEVELS, of_draws

DRAWS = 400


def brute(depth, channels, x, seed=1):
    """ln of the mean square behind the last ReLU and of the input's gradient, correlations in the last convolution."""
    generator = torch.Generator().manual_seed(seed)
    side = x.shape[-1]
    first = padded = h = x.repeat(1, DRAWS, 1, 1).requires_grad_()
    for _ in range(depth):
        padded = F.pad(h, (1, 1, 1, 1), mode="circular")
        w = torch.randn(DRAWS * channels, channels, 3, 3, generator=generator) * (2.0 / (9 * channels)) ** 0.5
        h = F.conv2d(padded, w, groups=DRAWS).relu()
    (g,) = torch.autograd.grad(h, first, torch.randn(h.shape, generator=generator))
    h, padded, n = h.detach(), padded.detach(), side * side
    u = F.unfold(padded.reshape(DRAWS, channels, side + 2, side + 2), 3)
    gram = u.transpose(1, 2) @ u
    size = gram.diagonal(dim1=1, dim2=2)
    alike = (gram / (size[:, :, None] * size[:, None, :]).clamp_min(1e-30).sqrt()).mean((1, 2))
    logs = (t.reshape(DRAWS, -1).square().mean(1).double().log().numpy() for t in (h, g))
    return *logs, (alike.numpy() * n - 1.0) / (n - 1.0)


@pytest.mark.parametrize(("depth", "channels", "side"), [(20, 8, 8), (30, 16, 6)])
def test_positions_of_a_narrow_network_never_become_one(depth, channels, side):
    torch.manual_seed(0)
    model, x = convolutions(depth, channels), torch.randn(1, channels, side, side)
    found = firstlight.predict(model, x, "he")
    logs, back, alike = brute(depth, channels, x)
    last = [n for n in found.nodes if n.op == "conv2d"][-1].output
    # With infinitely many channels they would: to .96 and .99. The last hundredth is of places that differ in length
    assert abs(last.c_position - alike.mean()) <= 0.02 + 2.0 * alike.std() / DRAWS**0.5
    entry = found.nodes[0].grad
    assert entry is not None
    for one, lengths, before in ((found.nodes[-1].output, logs, x.square().mean()), (entry, back, 1.0)):
        off = float((np.abs(lengths - math.log(before)) > math.log(10.0)).mean())
        error = (off * (1.0 - off) / DRAWS) ** 0.5
        assert abs(one.p_off() - off) <= TOLERANCE + 2.0 * error


@pytest.mark.parametrize(("channels", "c"), [(4, 0.5), (8, 0.8), (16, 0.9)])
def test_the_law_of_a_draw_of_few_channels(channels, c):
    draws, places, nodes = 4000, 256, grid((0.0,))
    normal = np.random.default_rng(5).standard_normal
    h = np.sqrt(c) * normal((draws, channels, 1)) + np.sqrt(1.0 - c) * normal((draws, channels, places))
    h = np.maximum(h, 0.0) * 2.0**0.5
    energy = np.square(h).sum(axis=2)
    t = energy.mean(axis=1) / places
    s = (np.square(h.sum(axis=2)) - energy).mean(axis=1) / (places * (places - 1.0)) / t
    values = (np.maximum(nodes.z, 0.0) * 2.0**0.5).tobytes()
    flat, bias, spread, along, drift = (np.interp(c, LEVELS, line) for line in of_draws(values, nodes, channels))
    log = np.log(t)
    own = 5.0 / (places * channels)  # what a place has for itself, of which the law of many places knows nothing
    interpolated = 0.003  # between two levels
    assert abs(flat + bias - s.mean()) <= 4.0 * s.std() / draws**0.5 + interpolated
    assert abs(drift - log.mean()) <= 4.0 * log.std() / draws**0.5 + own + interpolated
    for found, pairs in ((spread, np.square(s - s.mean())), (along, (s - s.mean()) * (log - log.mean()))):
        assert abs(found - pairs.mean()) <= 4.0 * 2.0**0.5 * pairs.std() / draws**0.5 + own * pairs.mean()
