"""Adam on a power: against torch's Adam, and the law of its memory."""

from __future__ import annotations

import math

import pytest
import torch

from firstlight.theory.descent import adam_share


@pytest.mark.parametrize("power", [2, 4, 10, 40])
@pytest.mark.parametrize("first", [0.003, 0.05, 0.8])
def test_is_torchs_adam_on_a_power_of_the_scale(first: float, power: int) -> None:
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([w], lr=first / power, eps=0.0)
    least = 1.0
    for _ in range(300):
        adam.zero_grad()
        (w**power).backward()
        adam.step()
        least = min(least, float(w.detach() ** power))
        if least < 1e-25:
            break
    assert adam_share(first, power, 300) == pytest.approx(least, rel=1e-6, abs=1e-25)


def test_a_large_power_leaves_what_the_memory_says() -> None:
    """L' = -k L s with s = L/√v̂ and v̂ = Σ L²/t ≈ 1/(2kt): L = (√8/3)⁻¹ (kt)^-3/2 for kt ≫ 1.

    The sum is 1/2k for an exponential fall; a power law's own sum differs from it by a factor of order one, the same
    for all k: the exponent is what is tested, by four times the share and by four times the steps.
    """
    for first, steps in ((0.02, 2000), (0.05, 1000)):
        share = adam_share(first, 4000, steps, beta2=1.0 - 1e-9)
        wider = adam_share(4.0 * first, 4000, steps, beta2=1.0 - 1e-9)
        longer = adam_share(first, 4000, 4 * steps, beta2=1.0 - 1e-9)
        assert math.log(share / wider, 4.0) == pytest.approx(1.5, abs=0.1)
        assert math.log(share / longer, 4.0) == pytest.approx(1.5, abs=0.1)


def test_a_square_is_no_trouble() -> None:
    assert adam_share(0.05, 2, 600) < 1e-6
