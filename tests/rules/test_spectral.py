"""Fourier transforms and complex numbers against draws: several axes, norms, means, padding, whole networks."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from tests.rules.test_examples import RESOLUTION, compared

COTANGENT = (2.0 / 1024.0) ** 0.5  # relative error of the mean square of the one random cotangent


@pytest.mark.parametrize(
    "text",
    [
        "torch.view_as_real(torch.fft.rfft(torch.relu(x)))",
        "torch.view_as_real(torch.fft.rfft(torch.relu(x), n=100, norm='ortho'))",
        "torch.view_as_real(torch.fft.rfft(x, n=40, norm='forward'))",
        "torch.view_as_real(torch.fft.rfft2(torch.relu(x).view(-1, 8, 8)))",
        "torch.view_as_real(torch.fft.fftn(torch.relu(x).view(-1, 4, 16), dim=(1, 2)))",
        "torch.fft.ifft(torch.fft.fft(x) * torch.view_as_complex(torch.randn(64, 2))).real",
        "torch.polar(torch.ones(64), torch.ones(64)).real * x",
    ],
)
def test_transforms(text):
    """A last step that makes real numbers, so that the default loss is a random direction of mean square 1."""
    for name, what, predicted, found, error in compared(text):
        assert predicted > 0.0, (name, what)
        error = max(error, COTANGENT) if what == "grad q" else error
        assert abs(math.log(predicted / found)) <= 4.0 * error + RESOLUTION, (name, what, predicted, found, error)


class GlobalFilter(nn.Module):
    """A learned filter on the spectrum of an image, with weights of complex type."""

    def __init__(self, channels=8, size=16):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, size, size // 2 + 1, dtype=torch.cfloat) / 4)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        spectrum = torch.fft.rfft2(x, norm="ortho") * self.weight
        return F.gelu(self.mix(x + torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho")))


def test_a_network_with_complex_weights_is_predicted():
    torch.manual_seed(0)
    net, x = nn.Sequential(GlobalFilter(), GlobalFilter()), torch.randn(4, 8, 16, 16)
    prediction = firstlight.predict(net, x, "torch-default")
    for n in firstlight.compare(prediction, firstlight.measure(net, x, draws=24, scheme="torch-default")).nodes:
        assert abs(n.q_z) < 4.0, n
        assert abs(n.grad_q_z) < 4.0, n


def test_a_scheme_leaves_complex_weights_to_their_entries():
    net, x = GlobalFilter(), torch.randn(4, 8, 16, 16)
    assert firstlight.predict(net, x, "he").nodes[-1].output.q > 0.0
