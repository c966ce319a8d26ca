"""The initializations that the page offers, each as the library's own scheme, and the formula that the page shows."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from firstlight import api
from firstlight.playground.config import RunConfig

# Schemes among which "auto" chooses: the one whose predicted P(start) is largest, the first one where they tie.
CANDIDATES = ("he", "random-walk", "orthogonal", "xavier", "lecun")


def spec(config: RunConfig) -> str:
    """The library's scheme for a config, as `firstlight.initialize` takes it.

    "too-small", "appropriate" and "too-large" are the article's N(0, 1)·√(v/fan_in) with v = `variance_scale` (1 for
    "appropriate"); "gain" is the same with v = g².
    """
    scheme, v = config.scheme, config.variance_scale
    if scheme in ("too-small", "too-large"):
        return f"lecun(gain={math.sqrt(v)!r})"
    return {
        "zero": "zeros",
        "constant": f"constant({config.gain!r})",
        "appropriate": "lecun",
        "gain": f"lecun(gain={config.gain!r})",
    }.get(scheme, scheme)


def initialize(model: nn.Module, config: RunConfig, problem: Any) -> None:
    """Draw the weights of a run in place; "given" leaves an own model's weights as they are."""
    if config.scheme == "given" and config.data == "own":
        return
    name = "torch-default" if config.scheme == "given" else spec(config)
    if config.scheme == "auto":
        from firstlight.playground import theory

        name = theory.best(model, config, problem, CANDIDATES)
    batch = problem.inputs(slice(0, 2)) if problem.batched else problem.inputs()
    api.initialize(model, name, batch=batch, seed=config.seed)
    problem.facts["scheme"] = name


def formula(config: RunConfig) -> dict[str, Any]:
    """The law of the first hidden matrix that maps the network's width to itself, for the page.

    Returns:
        "text": the law in symbols; "fan": the fan it is worked out for; "sd": the standard deviation there.
    """
    width = config.hidden[-1]
    sd = {
        "zero": 0.0,
        "constant": 0.0,
        "appropriate": math.sqrt(1.0 / width),
        "too-small": math.sqrt(config.variance_scale / width),
        "too-large": math.sqrt(config.variance_scale / width),
        "gain": abs(config.gain) / math.sqrt(width),
        "lecun": math.sqrt(1.0 / width),
        "xavier": math.sqrt(1.0 / width),
        "torch-default": math.sqrt(1.0 / (3.0 * width)),
    }.get(config.scheme)
    text = {
        "zero": "W = 0",
        "constant": f"W = {config.gain:g}",
        "appropriate": "W ~ N(0, 1/fan_in)",
        "too-small": f"W ~ N(0, {config.variance_scale:g}/fan_in)",
        "too-large": f"W ~ N(0, {config.variance_scale:g}/fan_in)",
        "gain": f"W ~ N(0, {config.gain:g}²/fan_in)",
        "lecun": "W ~ N(0, 1/fan_in)",
        "xavier": "W ~ N(0, 2/(fan_in + fan_out))",
        "he": "W ~ N(0, g²/fan_in), g = 1/√E φ(z)²",
        "orthogonal": "W = g·Q, QᵀQ = 1",
        "random-walk": "W ~ N(0, g²/fan_in), g keeps the median of the log-norm",
        "torch-default": "W ~ U(±1/√fan_in)",
        "given": "as the model was given",
        "auto": "the scheme with the largest predicted P(start)",
    }[config.scheme]
    return {"text": text, "fan": width, "sd": sd}
