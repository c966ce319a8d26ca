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


def mixer(depth, width=64):
    """Depthwise windows with zeros around, each followed by a function and a norm."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 2, 2), nn.ReLU(), nn.BatchNorm2d(width)]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 5, padding=2, groups=width), nn.ReLU(), nn.BatchNorm2d(width)]
        layers += [nn.Conv2d(width, width, 1), nn.ReLU(), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers)


def test_a_norm_behind_a_function_of_windows_takes_what_pairs_have_of_the_border():
    """Neighbours lie further inside than other pairs: what they are alike by and what the mean takes are larger."""
    torch.manual_seed(0)
    x, drawn = torch.randn(4, 3, 32, 32), []
    for _ in range(DRAWS):
        with torch.no_grad():
            h = mixer(1)[:6](x).double()
        square = float(h.square().mean())
        drawn.append((4.0 * float(h.mean(0).square().mean()) - square) / 3.0 / square)
    found = firstlight.predict(mixer(1)[:6], x, "torch-default", backward=False).nodes[-1].output.c_batch
    assert found is not None
    assert abs(found - np.mean(drawn)) <= 4.0 * np.std(drawn) / DRAWS**0.5


def test_many_such_blocks():
    """What a norm takes too much of is handed on: samples had become opposites behind ten blocks."""
    torch.manual_seed(0)
    found = firstlight.predict(mixer(16), torch.randn(4, 3, 32, 32), "torch-default")
    alike = [n.output.c_batch for n in found.nodes if n.op == "batch_norm"]
    assert all(c is not None and -0.01 < c < 0.07 for c in alike)  # three draws have .04 to .06 at the end
