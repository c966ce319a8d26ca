"""Tensors that meet their own mean, variance or norm, and weights that are standardised on the way, against draws."""

import math

import numpy as np
import pytest

from firstlight.graph.signal import Signal
from firstlight.rules.chains.grids import Bend
from firstlight.rules.chains.source import as_source
from tests.rules.test_examples import RESOLUTION, compared

SHARED = "(x + torch.randn(64))"  # half of each entry is what all samples have in common
STEPS = "(x.view(4, 4, 64) + torch.randn(4, 1, 64))"
COTANGENT = (2.0 / 256.0) ** 0.5  # relative error of the mean square of the part of one cotangent that is read


def of(y, text):
    return f"(lambda y: {text})({y})"


@pytest.mark.parametrize(
    "text",
    [
        of(SHARED, "y - y.mean(0, keepdim=True)"),
        of(SHARED, "y + y.mean(0, keepdim=True)"),
        of(SHARED, "y - 3.0 * y.mean(0)"),
        of(STEPS, "y - y.mean(1, keepdim=True)"),
        of(STEPS, "y - y.mean(1).unsqueeze(1)"),
        of(STEPS, "y - y.mean(1, keepdim=True).expand(-1, 4, -1)"),
        of(f"F.relu({STEPS})", "y - y.sum(1, keepdim=True) / 4"),
        of(SHARED, "(y - y.mean(0, keepdim=True)) / torch.sqrt(y.var(0, keepdim=True, unbiased=False) + 1e-5)"),
        of(SHARED, "8.0 * y / (y.norm(dim=-1, keepdim=True) + 1e-8)"),
    ],
)
def test_a_tensor_meets_its_own_mean(text):
    for name, what, predicted, found, error in compared(text, draws=24):
        if what == "grad q" and any(op in name for op in ("var", "add#1", "norm", "sqrt", "mean", "sum")):
            continue  # gradients of few numbers: one cotangent in all draws
        error = max(error, COTANGENT) if what == "grad q" else error
        assert abs(math.log(predicted / found)) <= 4.0 * error + RESOLUTION, (name, what, predicted, found, error)


STANDARDISED = {
    "by batch_norm": "F.batch_norm(w.view(1, 8, -1), None, None, training=True).view(8, 4, 3, 3)",
    "by hand": "(w - w.mean((1, 2, 3), keepdim=True)) / torch.sqrt(w.var((1, 2, 3), keepdim=True) + 1e-6)",
    "centred": "w - w.mean((1, 2, 3), keepdim=True)",
}


@pytest.mark.parametrize("kind", STANDARDISED)
def test_standardised_weights_do_not_see_what_a_window_has_in_common(kind):
    """Behind relu a window has 2/π of its mean square in common: zero-sum kernels see the rest alone (qiao2019)."""
    weights = f"(lambda w: {STANDARDISED[kind]})(torch.randn(8, 4, 3, 3) / 6)"
    rows = compared(f"F.conv2d(F.relu(x).view(-1, 4, 4, 4), {weights})", draws=32)
    name, what, predicted, found, error = next(r for r in rows if "conv2d" in r[0])
    assert abs(math.log(predicted / found)) <= 4.0 * error + RESOLUTION, (name, what, predicted, found, error)
    plain = compared("F.conv2d(F.relu(x).view(-1, 4, 4, 4), torch.randn(8, 4, 3, 3) / 6)", draws=2)
    full = next(r for r in plain if "conv2d" in r[0])[2]
    if kind == "centred":
        assert predicted < 0.8 * full  # 1 - 1/π of it, as a plain kernel of the same variance sees all


def test_a_positive_tensor_whose_rows_scatter_differently_stays_positive():
    """A row at 1 ± 3 beside nine at 1 ± .1: the mean of spreads left nodes below zero, 1/√x infinite."""
    mean, spread = np.ones((10, 1)), np.array([[3.0]] + [[0.1]] * 9)
    x = Signal(((10,), (64,)), mean, mean**2 + spread**2, np.eye(2), (False, False))
    source, values = as_source(x, Bend(positive=True))
    assert source.sd.max() == pytest.approx(3.0)
    assert values.min() > 0.0
