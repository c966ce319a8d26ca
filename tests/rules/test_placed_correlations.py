"""Correlations of two samples by place behind a norm and a convolution with zeros around, against drawn networks."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight

DRAWS, BATCH, SIDE = 60, 8, 8


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_windows_read_the_inside_more_often_than_the_border(act):
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 3, padding=1, bias=False)
    layers = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(3, 1, 1)]
    layers += [nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), act(), conv]
    model, x = nn.Sequential(*layers), torch.randn(BATCH, 3, SIDE, SIDE)
    seen: dict[str, list[float]] = {"function": [], "windows": []}
    for _ in range(DRAWS):
        for m in model:
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight)
        with torch.no_grad():
            h = model[:-1](x)
            for name, y in (("function", h), ("windows", conv(h))):
                flat, total = y.double(), float(y.double().square().mean())
                pairs = (float(flat.mean(0).square().mean()) * BATCH - total) / (BATCH - 1.0)
                seen[name].append(pairs / total)
    found = firstlight.predict(model, x, "he", backward=False)
    # a mean over places knows nothing of the fall behind the windows
    fall = np.array(seen["function"]) - np.array(seen["windows"])
    error = float(fall.std()) / DRAWS**0.5
    before, after = (n.output.c_batch for n in found.nodes[-2:])
    assert before is not None
    assert after is not None
    assert fall.mean() > 4.0 * error
    assert abs(before - after - fall.mean()) <= 4.0 * error
