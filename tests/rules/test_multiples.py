"""A gradient that meets a multiple of itself: x moved towards f(x), a number beside a factor."""

import pytest
import torch

from tests.rules.drawn_nodes import Behind, gradient_ratios

WIDTH, SAMPLES, DRAWS = 64, 64, 32


def towards(x: torch.Tensor) -> torch.Tensor:
    """Half the way from e^x to tanh x: the gradient at e^x is g - g/2, no two gradients that have met."""
    first = x.exp()
    return first + 0.5 * (x.tanh() - first)


def smoothed(x: torch.Tensor) -> torch.Tensor:
    """y ← y + 0.3 (x - y), three times over."""
    y = x.tanh()
    for _ in range(3):
        y = y + 0.3 * (x - y)
    return y


def short(x: torch.Tensor) -> torch.Tensor:
    """The same in one multiple of a multiple."""
    first = x.exp()
    return first - (0.5 * x - 0.5 * first)


class Numbered(torch.nn.Module):
    """0.3·x + x·(w - 0.3): together x·w, whatever the number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, w = self.first(x), self.second(x).sigmoid()
        return 0.3 * a + a * (w - 0.3)


@pytest.mark.parametrize("f", [towards, smoothed, short])
def test_a_gradient_beside_its_multiple_is_their_sum(f):
    torch.manual_seed(0)
    rows = gradient_ratios(Behind(f, WIDTH), torch.randn(SAMPLES, WIDTH), ["maps.0:linear"], DRAWS, "normal(0.125)")
    for name, ratio, error in rows:
        assert abs(ratio - 1.0) <= 4.0 * error + 0.02, (name, ratio, error)


def test_a_number_beside_a_factor_that_holds_the_same_number():
    torch.manual_seed(0)
    rows = gradient_ratios(Numbered(), torch.randn(SAMPLES, WIDTH), ["first:linear"], DRAWS, "normal(0.125)")
    for name, ratio, error in rows:
        assert abs(ratio - 1.0) <= 4.0 * error + 0.02, (name, ratio, error)
