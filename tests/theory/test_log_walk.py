from __future__ import annotations

import numpy as np
import pytest
from brute_force import stack, standard_error

from firstlight.errors import InputError
from firstlight.theory import activations, log_walk, random_walk


@pytest.mark.parametrize(("name", "gain"), [("tanh", 1.6), ("gelu", 1.53), ("softplus", 1.0), ("sin", 1.4)])
def test_walk_of_any_activation_by_drawing_networks(name, gain):
    act, widths = activations.get(name), [120] * 4
    log_m = np.log(stack(widths, 500, np.random.default_rng(17), gain=gain, f=act.f))
    walks = log_walk.wide_walk(act, widths, gain)
    for layer in (0, 3):
        law, sample = walks[layer], log_m[layer]
        next_order = law.variance**2  # the law is of first order in the variance
        assert abs(sample.mean() - law.mean) < 4 * standard_error(sample) + next_order
        spread = (sample - sample.mean()) ** 2
        assert abs(sample.var() - law.variance) < 4 * standard_error(spread) + next_order


def test_a_saturating_walk_forgets_and_a_homogeneous_one_does_not():
    tanh = log_walk.wide_walk("tanh", [100] * 60, 2.0)
    relu = log_walk.wide_walk("relu", [100] * 60, 2**0.5)
    assert tanh[-1].variance < 2 * tanh[0].variance
    assert relu[-1].variance == pytest.approx(60 * 5 / 100, rel=1e-9)
    assert relu[-1].mean == pytest.approx(-2.5 * 60 / 100, abs=1e-9)


def test_the_wide_limit_of_the_exact_walk():
    widths = [2000] * 10
    exact, wide = random_walk.walk("relu", widths, 2**0.5), log_walk.wide_walk("relu", widths, 2**0.5)[-1]
    assert wide.mean == pytest.approx(exact.mean, rel=0.01)
    assert wide.variance == pytest.approx(exact.variance, rel=0.01)
    assert wide.p_alive == exact.p_alive


@pytest.mark.parametrize(("name", "degree"), [("relu", 1.0), ("relu²", 2.0), ("linear", 1.0)])
def test_elasticity_of_homogeneous_functions_is_their_degree(name, degree):
    assert log_walk.elasticity(name, 3.0) == pytest.approx(degree, rel=1e-12)
    assert 0 < log_walk.elasticity("tanh", 3.0) < 1


def test_bad_input_is_refused():
    for arguments in (([3], 1.0, 0.0), ([3], float("nan"), 1.0), ([0], 1.0, 1.0)):
        with pytest.raises(InputError):
            log_walk.wide_walk("tanh", *arguments)
    assert log_walk.wide_walk("tanh", [], 1.0) == ()
