"""Functions behind gates and chains with kinks of their own: gradients against draws of the weights."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.graph.signal import Signal
from firstlight.rules import find
from firstlight.rules.chains import grids
from firstlight.rules.chains.source import as_source, from_values
from firstlight.rules.moves.ranges import take_index

WIDTH, SAMPLES, DRAWS = 32, 32, 100


class Two(nn.Module):
    """f of two linear maps."""

    def __init__(self, f):
        super().__init__()
        self.a, self.b, self.f = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False), f

    def forward(self, x):
        return self.f(self.a(x), self.b(x))


CASES = {
    "clamped gate": lambda a, b: (a * b.sigmoid()).clamp(-0.5, 0.5),
    "tanh of a gate": lambda a, b: torch.tanh(2 * a * b.sigmoid()),
    "sigmoid of a gate": lambda a, b: (a * b.sigmoid()).sigmoid(),
    "sharp gate of squares": lambda a, b: ((2 * a).square() * (4 * b).sigmoid()).sigmoid(),
    "two kinks in one chain": lambda a, _: a.abs().square().clamp(-1.0, 0.5),
    "hardswish by hand": lambda a, _: 3 * a * F.relu6(3 * a + 3) / 6,
    "long chain behind a gate": lambda a, b: b * (a.exp() + 1).log(),
    "chain that comes back to where it began": lambda a, b: b.abs() * (0.5 * a).exp().log(),
    "function of a function behind a gate": lambda a, b: b.sigmoid() * F.gelu(2 * a.tanh()),
    "gate beside a stream": lambda a, b: torch.tanh(a * b.sigmoid() + b),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_front_of_gates_and_kinks_are_as_drawn(name):
    x = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(0))
    x = x * x.square().mean(1, keepdim=True).rsqrt()
    model = Two(CASES[name])
    joined = firstlight.compare(
        firstlight.predict(model, x, "lecun"), firstlight.measure(model, x, scheme="lecun", draws=DRAWS)
    )
    for node in joined.nodes:
        assert abs(node.q_z) < 4.0, (node.op, node.q_predicted, node.q_measured)
        if node.grad_q_measured:
            assert abs(node.grad_q_z) < 4.0, (node.op, node.grad_q_predicted, node.grad_q_measured)


def test_a_later_kink_splits_the_nodes_of_the_chain():
    """E a²·1[a² < ½] = P(|a| < t) - 2t·density(t), t = √½: nodes that straddle ±t miss it."""
    from scipy.stats import norm

    one = np.ones((1, 1))
    x = Signal(((16,), (64,)), 0.0 * one, one, np.array([[1.0, 0.0], [0.0, 0.0]]), (True, False), gaussian=True)
    source, values = as_source(x)
    square = from_values(x, source, np.square(values))
    finer, again = as_source(square, grids.Bend((0.5,)))
    assert len(finer.grid.z) > len(source.grid.z)
    t = 0.5**0.5
    exact = norm.cdf(t) - norm.cdf(-t) - 2.0 * t * norm.pdf(t)
    off, coarse = (abs(s.average(v * (v < 0.5)) / exact - 1.0) for s, v in ((finer, again), (source, square.values)))
    assert off < 1e-3
    assert coarse > 20.0 * off


def test_a_chain_does_not_gather_kinks_without_end():
    one = np.ones((1, 1))
    x = Signal(((16,), (64,)), 0.0 * one, one, np.array([[1.0, 0.0], [0.0, 0.0]]), (True, False), gaussian=True)
    source, values = as_source(x)
    for k in range(30):
        source, values = as_source(from_values(x, source, np.sin(3.0 * values)), grids.Bend((0.01 * k,)))
    assert len(source.grid.kinks) <= grids.MOST_KINKS


@pytest.mark.parametrize(
    "f",
    [lambda a, _: a.relu().roll(1, -1) * a.relu().roll(2, -1), lambda a, _: a * a.roll(5)],
    ids=["two rolls", "roll of all entries"],
)
def test_two_orders_of_one_tensor_are_not_the_same_entries(f):
    x = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(0))
    model = Two(f)
    node = firstlight.compare(
        firstlight.predict(model, x, "lecun"), firstlight.measure(model, x, scheme="lecun", draws=DRAWS)
    ).nodes[-1]
    assert node.op == "mul"
    assert abs(node.q_z) < 4.0, (node.q_predicted, node.q_measured)


def like_data(shape, q):
    one = np.ones((1,) * len(shape))
    corr = np.zeros((2,) * len(shape))
    corr[(0,) * len(shape)] = 1.0
    return Signal(tuple((n,) for n in shape), 0.0 * one, q, corr, (True, *(False,) * (len(shape) - 1)), gaussian=True)


def test_orders_that_begin_alike_are_two():
    x, first, second = like_data((16, 64), np.ones((1, 1))), np.arange(64), np.array([*range(62), 63, 62])
    assert take_index(x, 1, first).viewed == take_index(x, 1, first).viewed
    assert take_index(x, 1, first).viewed != take_index(x, 1, second).viewed


def test_rolls_of_several_axes_move_each_by_its_own():
    q = np.arange(1.0, 13.0).reshape(1, 3, 4)
    out = find("roll").forward(None, like_data((5, 3, 4), q), (1, 2), (1, 2))
    assert np.array_equal(out.q, np.roll(q, (1, 2), (1, 2)))
