"""Sizes of weights that no single-precision number has: one clear error, nothing changed."""

import pytest
import torch
from torch import nn

import firstlight
from firstlight.errors import FirstlightError


@pytest.mark.parametrize(
    "scheme", ["normal(1e39)", "normal(1e200)", "uniform(1e120)", "constant(1e200)", "he(gain=1e300)"]
)
def test_weights_that_cannot_be_drawn_are_refused(scheme):
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), torch.randn(4, 8)
    before = [p.clone() for p in model.parameters()]
    for verb in (lambda: firstlight.predict(model, x, scheme), lambda: firstlight.initialize(model, scheme)):
        with pytest.raises(FirstlightError):
            verb()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_largest_that_can_are_predicted():
    found = firstlight.predict(nn.Linear(8, 8), torch.randn(4, 8), "normal(1e38)")
    assert found.nodes[-1].output.q == pytest.approx(8e76, rel=0.5)
