"""The largest entries of windows behind a gate that is the same at all places: those of what it multiplies."""

import torch
from torch import nn
from torch.nn import functional as F

import firstlight

DRAWS = 48


class Gated(nn.Module):
    """Squeeze-and-excitation in front of a pooling, as ESE-VoVNet has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.gate, self.out = nn.Conv2d(64, 64, 1), nn.Conv2d(64, 16, 3, padding=1)

    def forward(self, x):
        h = torch.relu(self.norm(self.conv(x)))
        h = h * torch.sigmoid(self.gate(h.mean((2, 3), keepdim=True)))
        return self.out(F.max_pool2d(h, 3, 2, 1))


def test_gradients_of_largest_entries_meet_their_relu():
    """Every chosen entry is above zero: the gradient in front of ReLU is that behind it, not half of it."""
    torch.manual_seed(0)
    model, x = Gated(), torch.randn(16, 16, 12, 12)
    found = firstlight.predict(model, x, "he")
    compared = firstlight.compare(found, firstlight.measure(model, x, scheme="he", draws=DRAWS))
    nodes = {n.node: n for n in compared.nodes}
    for name in (":max_pool2d", ":mul"):
        assert abs(nodes[name].q_z) < 4.0, nodes[name]
    for name in (":mul", ":relu", "norm:batch_norm"):
        assert nodes[name].grad_q_z is not None
        assert abs(nodes[name].grad_q_z or 0.0) < 4.0, nodes[name]
