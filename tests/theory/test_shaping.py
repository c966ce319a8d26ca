from __future__ import annotations

import numpy as np
import pytest

from firstlight.errors import InputError
from firstlight.theory import activations, mean_field, shaping


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.9])
def test_the_printed_map_is_the_mean_field_map(slope):
    act, c = activations.get("leaky_relu", negative_slope=slope), np.linspace(-1, 1, 21)
    expected = mean_field.c_map(act, c, 1.0, 2 / (1 + slope**2))
    np.testing.assert_allclose(shaping.tailored_correlation(slope, c), expected, atol=1e-14)


@pytest.mark.parametrize("eta", [0.5, 0.9, 0.99])
def test_the_network_reaches_the_asked_correlation(eta):
    slopes = [shaping.tailored_slope(depth, eta) for depth in (100, 300, 1000)]
    assert slopes == sorted(slopes)
    for depth, slope in zip((100, 300, 1000), slopes, strict=True):
        act = activations.get("leaky_relu", negative_slope=slope)
        path = mean_field.correlation_path(act, 0.0, 1.0, 2 / (1 + slope**2), depth=depth)
        assert path[-1] == pytest.approx(eta, abs=1e-9)


def test_a_shallow_network_keeps_relu():
    assert shaping.tailored_slope(1, 0.9) == 0.0


@pytest.mark.parametrize("call", [lambda: shaping.tailored_slope(0), lambda: shaping.tailored_slope(5, 1.0)])
def test_bad_input_is_refused(call):
    with pytest.raises(InputError):
        call()
