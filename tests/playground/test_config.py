"""Settings from untrusted JSON: every field is checked, and refusals say what would be right."""

from __future__ import annotations

import json
import math

import pytest

from firstlight.errors import InputError
from firstlight.playground.config import CHOICES, RANGES, SCHEME_DEFAULTS, RunConfig, parse
from firstlight.playground.network import ACTIVATIONS, activation
from firstlight.theory import activations


def test_an_empty_object_is_the_default():
    assert parse({}) == RunConfig()


def test_a_config_survives_json():
    config = parse({"widths": [6, 3], "scheme": "too-large", "noise": 0.25, "bias": False})
    assert parse(json.loads(json.dumps(config.to_dict()))) == config


def test_absent_fields_keep_the_base():
    base = parse({"data": "moon", "learning_rate": 0.3})
    assert parse({"depth": 4}, base).data == "moon"
    assert parse({"depth": 4}, base).learning_rate == 0.3


def test_a_new_depth_replaces_widths():
    base = parse({"widths": [6, 3]})
    assert parse({"depth": 3}, base).hidden == (6, 6, 6)


@pytest.mark.parametrize(("scheme", "settings"), SCHEME_DEFAULTS.items())
def test_choosing_a_scheme_sets_the_articles_multiplier(scheme, settings):
    chosen = parse({"scheme": scheme})
    assert {k: getattr(chosen, k) for k in settings} == settings
    assert parse({"depth": 3}, chosen).scheme == scheme  # and what was set by hand stays afterwards
    by_hand = parse({"scheme": scheme, "variance_scale": 7.0, "gain": 3.0})
    assert (by_hand.variance_scale, by_hand.gain) == (7.0, 3.0)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        "circle",
        {"dept": 3},
        {"depth": 0},
        {"depth": 201},
        {"depth": 2.5},
        {"depth": "2"},
        {"depth": True},
        {"width": 513},
        {"widths": [6, 0]},
        {"widths": [6.5]},
        {"widths": "6,3"},
        {"widths": [1] * 201},
        {"noise": math.nan},
        {"noise": -1},
        {"learning_rate": 0},
        {"learning_rate": math.inf},
        {"learning_rate": 10**400},
        {"seed": 10**400},
        {"seed": 2**31},
        {"bias": 1},
        {"data": "circles"},
        {"data": 3},
        {"activation": "reluu"},
        {"scheme": "__import__('os')"},
        {"seed": 2**40},
        {"width": 512, "depth": 200},
        {1: 2},
    ],
)
def test_what_cannot_be_used_is_refused(raw):
    with pytest.raises(InputError):
        parse(raw)


def test_refusals_offer_the_nearest_name():
    with pytest.raises(InputError, match="depth"):
        parse({"dept": 3})
    with pytest.raises(InputError, match="circle"):
        parse({"data": "circles"})


@pytest.mark.parametrize(("name", "low", "high"), [(n, *r) for n, r in RANGES.items()])
def test_both_ends_of_every_range_are_inside(name, low, high):
    base = RunConfig(depth=1, width=1)
    for value in (low, high):
        assert getattr(parse({name: value}, base), name) == value


def test_every_choice_is_accepted():
    for name, values in CHOICES.items():
        for value in values:
            assert getattr(parse({name: value}), name) == value


def test_every_activation_of_the_theory_can_be_played_with():
    assert set(ACTIVATIONS) == set(activations.names())
    for name in ACTIVATIONS:
        assert activation(name) is not None
