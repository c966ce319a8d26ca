"""Σ g·x over a whole image is carried through convolutions: gradients of stacks of few channels, against draws."""

import math

import pytest
import torch
from torch import nn

import firstlight
from tests.rules.drawn_nodes import gradient_ratios

DRAWS = 64


class Gate(nn.Module):
    """conv(x) times a positive number for each channel, which a vector beside the image sets."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(width, width, 3, padding=1), nn.Linear(6, width)

    def forward(self, x, c):
        return torch.relu(self.conv(x) * torch.sigmoid(self.gate(c))[:, :, None, None])


class Beside(nn.Module):
    """x and half of a branch, added up."""

    def __init__(self, width):
        super().__init__()
        self.a, self.b = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return x + 0.5 * self.b(torch.relu(self.a(x)))


class Excited(nn.Module):
    """A residual block of batch norms whose branch ends in gates made from its own means, maybe repeated first."""

    def __init__(self, width, wide=False):
        super().__init__()
        self.wide = wide
        self.branch = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x):
        y = self.branch(x)
        gate = torch.sigmoid(self.up(torch.relu(self.down(y.mean((2, 3), keepdim=True)))))
        return x + y * (gate.expand_as(y) if self.wide else gate)


class Stack(nn.Module):
    """A stem and bodies behind ReLU, a mean over places and a readout."""

    def __init__(self, bodies, width):
        super().__init__()
        self.stem, self.bodies = nn.Conv2d(3, width, 3, padding=1), nn.ModuleList(bodies)
        self.head = nn.Linear(width, 16)

    def forward(self, x, *beside):
        x = torch.relu(self.stem(x))
        for body in self.bodies:
            x = body(x, *beside) if beside else torch.relu(body(x))
        return self.head(x.mean((2, 3)))


def off(model, inputs, names):
    """ln of the predicted over the mean drawn gradient at some nodes, with standard errors."""
    rows = gradient_ratios(model, inputs, names, DRAWS, get_inputs=lambda batch: batch)
    return [(math.log(ratio), error) for _, ratio, error in rows]


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_of_few_channels_go_along_their_image(groups):
    """Taken as independent of the weights they were a third to two thirds too small at the first layer."""
    torch.manual_seed(0)
    model = Stack([nn.Conv2d(8, 8, 3, padding=1, groups=groups) for _ in range(4)], 8)
    names = ["stem:conv2d", "bodies.0:conv2d", "bodies.2:conv2d"]
    for error, noise in off(model, (torch.randn(16, 3, 8, 8),), names):
        assert abs(error) < 4.0 * noise


def test_two_ways_along_one_image_meet_again():
    """Sums share Σ g·x, constant factors and pooling keep it; without it the stem's gradient is an eighth too small."""
    torch.manual_seed(0)
    model = Stack([Beside(8), nn.Sequential(nn.AvgPool2d(2), Beside(8)), Beside(8)], 8)
    names = ["stem:conv2d", "bodies.0.b:conv2d", "bodies.1.1.b:conv2d"]
    for error, noise in off(model, (torch.randn(16, 3, 8, 8),), names):
        assert abs(error) < 3.0 * noise


def test_channels_that_are_mixed_are_along_the_image_together_and_not_each_for_itself():
    """In front of a map of all channels a convolution channel by channel gains nothing that channels do not have."""
    torch.manual_seed(0)
    bodies = [nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)) for _ in range(3)]
    names = ["stem:conv2d", "bodies.0.0:conv2d", "bodies.1.1:conv2d"]
    for error, noise in off(Stack(bodies, 16), (torch.randn(16, 3, 8, 8),), names):
        assert abs(error) < 4.0 * noise


def test_the_gradient_of_a_gate_is_what_its_channel_has_of_the_image():
    """A sum over the positions of a channel: with independent masks it faded from layer to layer."""
    torch.manual_seed(0)
    beside = nn.functional.normalize(torch.randn(16, 6)) * 6**0.5
    model = Stack([Gate(16) for _ in range(3)], 16)
    names = [f"bodies.{i}:sigmoid" for i in range(3)]
    for error, noise in off(model, (torch.randn(16, 3, 8, 8), beside), names):
        assert abs(error) < 4.0 * noise


@pytest.mark.parametrize("wide", [False, True], ids=["broadcast", "repeated"])
def test_a_mask_behind_a_sum_goes_along_with_the_gated_term(wide):
    """Squeeze-and-excitation inside residual blocks: gates' gradients had been three times as large, or half.

    The mask of ReLU(x + y·a) goes along with y, and the gradient of a mean over places is one number for all of them.
    Gates that were repeated over the positions by `expand_as` had had none in the last block, and a tenth before.
    """
    torch.manual_seed(0)
    model = Stack([Excited(16, wide) for _ in range(3)], 16)
    names = [f"bodies.{i}:sigmoid" for i in range(3)]
    for error, noise in off(model, (torch.randn(16, 3, 8, 8),), names):
        assert abs(error) < 4.0 * noise


@pytest.mark.parametrize(("depth", "channels", "groups"), [(6, 16, 4), (10, 64, 1)])
def test_biases_have_their_share_of_what_goes_along_an_image(depth, channels, groups):
    """Under torch's default law biases make all of a deep image; Σ g·Wx had been what Σ g·z leaves beside them.

    A small difference of large numbers: the first gradients came out eight times and half as large again.
    """
    layers = [nn.Conv2d(4, channels, 3, padding=1), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, groups=groups), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    x = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    measured = firstlight.measure(model, x, draws=48, scheme="torch-default")
    first = next(
        n for n in firstlight.compare(firstlight.predict(model, x, "torch-default"), measured).nodes if n.op == "conv2d"
    )
    assert abs(first.grad_q_z) < 4.0
    assert abs(first.grad_q_predicted / first.grad_q_measured - 1.0) < 0.2
