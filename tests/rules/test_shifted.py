"""Functions of a tensor that was shifted, and tensors side by side, against drawn weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight

WIDTH, DRAWS = 32, 100


class Net(nn.Module):
    def __init__(self, f, depth):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(depth)])
        self.f = f

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.f(x)


def compared(f, depth=1):
    torch.manual_seed(0)
    model, x = Net(f, depth), torch.randn(64, WIDTH)
    measured = firstlight.measure(model, x, draws=DRAWS, scheme="he")
    return firstlight.compare(firstlight.predict(model, x, "he"), measured).nodes


@pytest.mark.parametrize("c", [0.3, -1.0, 2.0])
@pytest.mark.parametrize("f", [F.relu, F.leaky_relu, torch.abs], ids=["relu", "leaky", "abs"])
def test_rectifiers_of_a_shifted_tensor(f, c):
    """They are linear on each side of zero, but not of the tensor that was shifted."""
    for n in compared(lambda y: f(y + c)):
        assert abs(n.q_z) < 4.0
        assert abs(n.grad_q_z) < 4.0


@pytest.mark.parametrize("order", [1, -1])
def test_halves_side_by_side_are_as_long_as_their_tensor(order):
    """Behind three maps of 32 units E 1/|x|² is a fifth more than 1/E |x|², whatever order the units are in."""
    plain, halves = (
        compared(lambda y, k=k: F.rms_norm(torch.cat(y.chunk(2, -1)[::order], -1) if k else y, (WIDTH,)), 3)
        for k in (False, True)
    )
    one, other = (next(n for n in nodes if n.node == "layers.0:linear") for nodes in (plain, halves))
    assert other.grad_q_predicted == pytest.approx(one.grad_q_predicted, rel=0.01)
    assert abs(other.grad_q_z) < 4.0
