"""Gradients behind weights whose rows were divided by their own length over a batch."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight
from tests.rules.drawn_nodes import gradient_ratios

DRAWS = 64


@pytest.mark.parametrize("steep", [0.0, 0.5, 1.5])
def test_rows_meet_their_own_length(steep):
    """E |w|²/(wᵀΣw) is (1 - 2/n)·n times E 1/(wᵀΣw), for any spectrum and with directions that Σ does not see."""
    rng = np.random.default_rng(0)
    n, seen = 24, 14
    spectrum = np.where(np.arange(n) < seen, np.arange(1, n + 1) ** -steep, 0.0)
    square = np.square(rng.standard_normal((200_000, n)))
    divided = square @ spectrum
    gap = square.sum(axis=1) / divided - (n - 2.0) / divided
    assert abs(gap.mean()) < 4.0 * gap.std() / len(gap) ** 0.5


def test_gradients_of_a_stack_of_batch_norms():
    """With the samples' directions taken as all alike each layer lost 4 % of the gradient: a fifth of it over eight."""
    torch.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())]
    model, x = nn.Sequential(*layers, nn.Linear(64, 8)), torch.randn(16, 64)
    for name, ratio, error in gradient_ratios(model, x, ("2:relu", "8:relu", "14:relu", "20:relu"), DRAWS):
        assert abs(ratio - 1.0) < 4.0 * error, name


@pytest.mark.parametrize("act", [nn.SELU, nn.Hardtanh, nn.ReLU])
def test_deep_stacks_of_batch_norms_do_not_seem_to_explode(act):
    """30 layers: with E 1/v of an unknown law taken at its word they came out up to 10^11 too large at the first."""
    torch.manual_seed(0)
    layers = [layer for _ in range(30) for layer in (nn.Linear(32, 32), nn.BatchNorm1d(32), act())]
    model, x = nn.Sequential(*layers, nn.Linear(32, 8)), torch.randn(64, 32)
    first = firstlight.predict(model, x, "he")["0:linear"].grad
    drawn = {n.name: n for n in firstlight.measure(model, x, draws=8, scheme="he").nodes}["0:linear"].log_grad_q
    assert first is not None
    assert drawn is not None
    assert abs(np.log10(first.q / np.exp(drawn.values).mean())) < 1.0  # 8 % a layer
