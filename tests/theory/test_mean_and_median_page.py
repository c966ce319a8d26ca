"""The numbers in docs/mean_and_median.md are what the library gives."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from brute_force import printed

from firstlight.theory import length_law, log_moments, random_walk
from firstlight.theory.activations import get

PAGE = (Path(__file__).parents[2] / "docs" / "mean_and_median.md").read_text(encoding="utf-8")
NUMBERS = re.findall(r"<!--([a-z_]+)((?: \w+)*)-->(-?\d+(?:\.\d+)?(?:e-?\d+)?)", PAGE)
WRONG_RELU = (2 / (1 + 0.25)) ** 0.5


def he(depth, width):
    return random_walk.walk("relu", [width] * depth, 2**0.5)


def wrong_linear(width):
    return (2 / width) ** 0.5


COMPUTE = {
    "mean_gain": random_walk.mean_gain,
    "median_gain": random_walk.median_gain,
    "paper_gain": random_walk.paper_gain,
    "variance": random_walk.variance,
    "he_drift": lambda d, n: he(d, n).mean,
    "he_median": lambda d, n: float(np.exp(length_law_median(d, n))),
    "walk_mean": lambda d, n: (random_walk.median_gain("relu", n) ** 2 / 2) ** d,
    "walk_sd": lambda d, n: he(d, n).sd,
    "walk_factor": lambda d, n: float(np.exp(he(d, n).sd)),
    "p_off": lambda d, n: float(length_law.p_off([n] * d, 10.0)),
    "excess": lambda name: log_moments.fluctuation(get(name)),
    "network_gain": lambda d: random_walk.network_gain("tanh", d),
    "wrong_relu": lambda: WRONG_RELU,
    "wrong_relu_drift": lambda n: random_walk.drift("relu", n, WRONG_RELU),
    "wrong_relu_factor": lambda d, n: float(np.exp(d * random_walk.drift("relu", n, WRONG_RELU))),
    "wrong_linear": wrong_linear,
    "wrong_linear_drift": lambda n: random_walk.drift("linear", n, wrong_linear(n)),
}


def length_law_median(depth, width):
    """Median of ln(M_D/M_0), by bisection of the exact distribution function."""
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        below = float(length_law.log_cdf([width] * depth, middle)) < 0.5
        low, high = (middle, high) if below else (low, middle)
    return low


IDS = [f"{name}{arguments}".replace(" ", "-") for name, arguments, _ in NUMBERS]


@pytest.mark.parametrize(("name", "arguments", "text"), NUMBERS, ids=IDS)
def test_number_on_the_page(name, arguments, text):
    values = [int(a) if a.isdigit() else a for a in arguments.split()]
    assert printed(COMPUTE[name](*values), text)


def test_the_page_leaves_no_quantity_out():
    assert {name for name, _, _ in NUMBERS} == set(COMPUTE)
    assert PAGE.count("<!--") == len(NUMBERS)
