"""Convolutions in groups, whose channels have windows of their own, against drawn ones."""

import torch
from torch import nn

import firstlight


class Shuffled(nn.Module):
    """Two branches side by side, their channels in turn, and a window for each channel: a unit of a ShuffleNet."""

    def __init__(self):
        super().__init__()
        self.one, self.two = (nn.Conv2d(4, 16, 1, bias=False) for _ in range(2))
        self.each = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)

    def forward(self, x):
        y = torch.cat([self.one(x), 3.0 * self.two(x).relu()], 1)
        y = y.view(y.shape[0], 2, 16, *y.shape[2:]).transpose(1, 2).reshape(y.shape)
        return self.each(y)


def test_channels_of_different_size_have_a_window_each():
    torch.manual_seed(0)
    model, x = Shuffled(), torch.randn(4, 4, 6, 6)
    predicted = firstlight.predict(model, x)
    assert not any("failed" in c for n in predicted.nodes for c in n.caveats)
    nodes = firstlight.compare(predicted, firstlight.measure(model, x, draws=40)).nodes
    for n in nodes:  # forward and backward, within the scatter of forty draws
        assert abs(n.q_z) < 3.5, (n.node, n.q_predicted, n.q_measured)
        assert n.grad_q_z is None or abs(n.grad_q_z) < 3.5, (n.node, n.grad_q_predicted, n.grad_q_measured)
