"""What the tour and the scenes promise is what a visitor sees on the very runs that they open."""

from __future__ import annotations

import math

import numpy as np
import pytest

from firstlight.playground import presets, views
from firstlight.playground.config import parse
from firstlight.playground.jobs import critical_gain
from firstlight.playground.run import Run


def step(title: str) -> presets.Step:
    return next(s for s in presets.TOUR if s.title.startswith(title))


def runs(key: str) -> list[Run]:
    return [Run(parse(settings)) for settings in presets.scene(key).runs]


def forward(run: Run) -> np.ndarray:
    return views.layers(run, set())[1]["forward"]


def test_the_circle_is_learned_first_from_the_size_that_the_tour_names():
    told = step("Too small")
    learned, last, first = {}, {}, {}
    for run in runs(told.scene):
        scheme = run.config.scheme
        while run.step_count <= 1000:
            run.advance()
            if run.history.last < run.problem.learned_cost:
                learned.setdefault(scheme, run.step_count)
        first[scheme], last[scheme] = run.history.first, run.history.last
    assert sorted(learned, key=learned.get) == ["appropriate", "too-small"]
    assert told.options[told.answer] == "Variance 1/n"
    assert learned["too-small"] > 200  # "hundreds of steps"
    assert first["too-large"] > 100  # "in the hundreds"
    assert 0.5 < last["too-large"] < first["too-large"]  # "sticks above 0.5"
    assert last["zero"] == pytest.approx(math.log(2))


def test_nine_layers_multiply_by_what_the_tour_says():
    for run in runs(step("Nine layers").scene):
        walk = forward(run)
        growth = math.exp((walk[8] - walk[0]) / 2) * run.config.gain  # the first layer's own factor is in walk[0]
        assert growth == pytest.approx(run.config.gain**9, rel=1e-4)


def test_fifty_layers_keep_halve_and_double_their_mean_square():
    """One draw of 50 layers of 64 rectifiers: ln has the standard deviation √(5·50/64) = 2 around its mean."""
    for run, factor in zip(runs(step("Rules of thumb").scene), (1.0, 0.5, 2.0), strict=True):
        walk = forward(run)
        assert abs(walk[49] - walk[0] - 49 * math.log(factor)) < 3 * math.sqrt(5 * 49 / 64)


def test_the_critical_gain_of_rectifiers_is_above_one_and_near_what_the_tour_says():
    *_, last = critical_gain(runs(step("Where Xavier").scene)[0], count=13)
    crossing = float(np.interp(0.0, last.arrays["forward"], last.arrays["gain"]))
    assert 1.4 < crossing < 1.6
    assert 1.4 < last.header["predicted"] < 1.6


def test_residual_branches_grow_as_their_scene_says():
    small, _, whole = (forward(run) for run in runs("hanin-residual"))
    assert 2.7 < math.exp((whole[99] - whole[0]) / 99) < 3.1  # "nearly triples"
    assert 5 < math.exp(small[99] - small[0]) < 20  # "about tenfold"
