"""Changes of layout that take each other back: the tensor is what it was, and chains stand on it."""

from functools import partial

import pytest
import torch

from firstlight.rules.state.views import then
from tests.rules import drawn_nodes

BATCH, ROWS, WIDTH, DRAWS = 8, 4, 32, 64


def windows(y):
    """(8, 4, 32) as windows of 2 rows and 16 units."""
    return y.reshape(BATCH, 2, 2, 2, 16).permute(0, 1, 3, 2, 4).reshape(4 * BATCH, 2, 16)


def merged(y):
    return y.reshape(BATCH, 2, 2, 2, 16).permute(0, 1, 3, 2, 4).reshape(BATCH, ROWS, WIDTH)


BACK = {
    "transposed": lambda y: y.mT.mT,
    "permuted": lambda y: y.permute(2, 0, 1).permute(1, 2, 0),
    "reshaped": lambda y: y.reshape(BATCH, -1).reshape(BATCH, ROWS, WIDTH),
    "unsqueezed": lambda y: y.unsqueeze(1).squeeze(1),
    "flipped": lambda y: y.flip(1).flip(1),
    "rolled": lambda y: y.roll(3, 1).roll(-3, 1),
    "in windows": lambda y: merged(windows(y)),
}
CHAINS = {
    "transposed": lambda y: y + torch.relu(y.mT).mT,
    "rolled": lambda y: y * torch.tanh(y.roll(1, 2)).roll(-1, 2),
    "in windows": lambda y: y * merged(torch.sigmoid(windows(y))),
}
AWAY = {
    "flipped": lambda y: y + y.flip(2),
    "rolled": lambda y: y + y.roll(3, 2),
    "transposed twice, not back": lambda y: y + y.reshape(BATCH, WIDTH, ROWS).mT,
}


compared = partial(drawn_nodes.compared, shape=(BATCH, ROWS, WIDTH), draws=DRAWS)


def agrees(nodes):
    for n in nodes:
        if n.op != "input":
            assert abs(n.q_z) < 4.0, n
            assert n.grad_q_z is None or abs(n.grad_q_z) < 4.0, n


@pytest.mark.parametrize("name", BACK)
def test_a_tensor_that_came_back_is_itself(name):
    nodes = compared(lambda y: y + BACK[name](y))
    agrees(nodes)
    assert nodes[-1].q_predicted == pytest.approx(4.0 * nodes[1].q_predicted, rel=1e-9)


@pytest.mark.parametrize("name", CHAINS)
def test_chains_stand_on_the_tensor_that_they_come_back_to(name):
    agrees(compared(CHAINS[name]))


@pytest.mark.parametrize("name", AWAY)
def test_a_tensor_elsewhere_is_another(name):
    nodes = compared(AWAY[name])
    agrees(nodes)
    assert nodes[-1].q_predicted == pytest.approx(2.0 * nodes[1].q_predicted, rel=1e-9)


def halves(y):
    return torch.cat(y.chunk(2, -1)[::-1], -1)


def test_all_parts_in_another_order_keep_their_source():
    nodes = compared(lambda y: halves(torch.tanh(y)) * torch.sigmoid(halves(torch.tanh(y))))
    assert abs(nodes[-1].q_z) < 4.0, nodes[-1]


def test_what_was_repeated_is_itself_when_it_comes_back():
    def doubled(y):
        m = y.mean(1, keepdim=True).expand(-1, ROWS, -1)
        return m + m.mT.mT

    for n in compared(doubled):  # the gradient's fixed direction has luck of its own, a tenth in 256 entries
        assert n.op == "input" or abs(n.q_z) < 4.0, n


def test_steps_that_take_each_other_back():
    turn = ("permute", (2, 0, 1))
    assert then((), ("permute", (0, 1))) == ()
    assert then((turn,), ("permute", (1, 2, 0))) == ()
    assert then((turn,), turn) == (("permute", (1, 2, 0)),)
    assert then((("reshape", (4, 6), (24,)),), ("reshape", (24,), (6, 4))) == (("reshape", (4, 6), (6, 4)),)
    assert then((("roll", 1, 3),), ("roll", 2, -3)) == (("roll", 1, 3), ("roll", 2, -3))
    assert then((("roll", 1, 3),), ("roll", 1, -3)) == ()
    assert then((), ("flip", 1, 1)) == (("flip", 1, 1),)
    assert then((("flip", 1, 1),), ("flip", 1, 1)) == ()
    assert then((("range", 0, 0, 4, 1),), ("range", 0, 0, 4, 1)) == (("range", 0, 0, 4, 1),) * 2
