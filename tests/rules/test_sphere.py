"""Norms of functions over few entries: an entry's own square is among what it is divided by, forward and back."""

import math

import numpy as np
import pytest

from firstlight.rules.chains.grids import grid
from firstlight.rules.reductions.sphere import inverse_square, on_sphere, passed_back
from tests.rules.test_examples import RESOLUTION, compared

ENTRIES, GROUPS = 32, 40_000
FUNCTIONS = {
    "normal": lambda u: u,
    "relu": lambda u: np.maximum(u, 0.0),
    "leaky relu": lambda u: np.maximum(u, 0.2 * u),
    "square": np.square,
}


def drawn(f):
    """Groups of entries, their mean squares and the normalised entries."""
    y = f(np.random.default_rng(0).standard_normal((GROUPS, ENTRIES)))
    square = np.square(y).mean(axis=1, keepdims=True)
    return y, square, y / np.sqrt(square)


def agrees(found, rows):
    assert abs(found - rows.mean()) < 4.0 * rows.std() / len(rows) ** 0.5


@pytest.mark.parametrize("name", FUNCTIONS)
def test_moments_of_normalised_entries(name):
    nodes = grid((0.0,))
    _, square, hat = drawn(FUNCTIONS[name])
    values = FUNCTIONS[name](nodes.z)
    level = np.square(values) @ nodes.weights
    agrees(inverse_square(values, nodes.weights, ENTRIES) @ nodes.weights / level, (1.0 / square)[:, 0])
    on = on_sphere(values, nodes.weights, ENTRIES, 1.0, centre=False)
    assert np.square(on) @ nodes.weights == pytest.approx(1.0, rel=1e-9)
    agrees(on**4 @ nodes.weights, (hat**4).mean(axis=1))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_where_the_gradient_of_a_norm_is_large(name):
    """E[dy²·y²] of independent gradients: (1 - x̂²/n)² of the entry itself and what the others send."""
    nodes = grid((0.0,))
    y, square, hat = drawn(FUNCTIONS[name])
    g = np.random.default_rng(1).standard_normal(y.shape)
    back = (g - hat * (g * hat).mean(axis=1, keepdims=True)) / np.sqrt(square)
    values = FUNCTIONS[name](nodes.z)
    level = np.square(values) @ nodes.weights
    on = on_sphere(values, nodes.weights, ENTRIES, 1.0, centre=False)
    passed = passed_back(np.ones_like(values), values, on, nodes.weights, ENTRIES) / level
    agrees(passed @ nodes.weights, np.square(back).mean(axis=1))
    agrees((passed * np.square(values)) @ nodes.weights, np.square(back * y).mean(axis=1))


@pytest.mark.parametrize(
    "text",
    [
        "F.gelu(F.layer_norm(F.gelu(x), (64,)))",
        "torch.square(F.rms_norm(F.relu(x), (64,)))",
        "F.relu(F.layer_norm(torch.tanh(x), (64,)))",
        "x - F.layer_norm(x, (64,))",
        "x + F.rms_norm(x, (64,))",
        "x.square() - x.square().mean(-1, keepdim=True)",
        "x * x.softmax(-1)",
        "torch.square((0.5 * x).softmax(-1))",
        "torch.tanh(x) * torch.tanh(x).softmax(-1)",
        "torch.maximum(torch.sigmoid(x.roll(1, 1)), x)",
        "torch.maximum(x, 3 * x.roll(1, 1))",
        "torch.minimum(x.square(), x.roll(1, 1))",
    ],
)
def test_functions_meet_themselves_again(text):
    for name, what, predicted, found, error in compared(text):
        assert abs(math.log(predicted / found)) <= 4.0 * error + RESOLUTION, (name, what, predicted, found, error)
