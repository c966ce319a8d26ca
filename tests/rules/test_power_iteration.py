"""Spectral normalisation at the start: one power iteration from vectors that have nothing to do with the weights."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight


@pytest.mark.parametrize(("rows", "columns"), [(24, 40), (40, 24), (32, 32)])
def test_lengths_of_a_power_iteration(rows, columns):
    """|Wᵀu|² is χ² of n + m - 1, W Wᵀu is as long as said, and 1/σ² is larger on average than 1/E σ²."""
    torch.manual_seed(0)
    model = nn.utils.parametrizations.spectral_norm(nn.Linear(columns, rows))
    predicted = firstlight.predict(model, torch.randn(4, columns), "lecun")
    rng = np.random.default_rng(0)
    w = rng.standard_normal((6000, rows, columns)) / columns**0.5
    u = w[:, :, 0] / np.linalg.norm(w[:, :, 0], axis=1, keepdims=True)
    v = np.einsum("dij,di->dj", w, u)
    sigma = np.linalg.norm(v, axis=1)
    wv = np.einsum("dij,dj->di", w, v / sigma[:, None])
    drawn = {
        "mv#1": np.square(v).mean(axis=1),
        "mv#2": np.square(wv).mean(axis=1),
        "vdot": np.square(sigma),
        "div": np.square(w).mean(axis=(1, 2)) / np.square(sigma),
    }
    for node, values in drawn.items():
        found = next(n.output.q for n in predicted.nodes if n.name.endswith("weight.0:" + node))
        assert abs(found - values.mean()) < 4.0 * values.std() / len(values) ** 0.5, node
