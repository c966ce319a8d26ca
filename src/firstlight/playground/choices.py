"""What the page offers: the values of every setting, their ranges, and the words beside them."""

from __future__ import annotations

from typing import Any

from firstlight.playground import config as configs
from firstlight.playground.network import ACTIVATIONS
from firstlight.playground.protocol import SPEEDS
from firstlight.playground.starts import text

LABELS: dict[str, str] = {
    "zero": "Zero",
    "constant": "Constant",
    "too-small": "Too small",
    "appropriate": "Appropriate",
    "too-large": "Too large",
    "xavier": "Xavier",
    "lecun": "LeCun",
    "he": "He",
    "orthogonal": "Orthogonal",
    "random-walk": "Random walk",
    "centred": "Centred",
    "torch-default": "PyTorch's default",
    "gain": "Custom gain",
    "identity": "Multiple of the identity",
    "auto": "Auto: best predicted P(start)",
    "given": "As given",
    "sgd": "SGD",
    "momentum": "SGD, momentum 0.9",
    "adam": "Adam",
    "cross_entropy": "Cross-entropy",
    "mse": "Mean square",
    "auto-loss": "Auto",
    "none": "None",
    "batch": "Batch",
    "layer": "Layer",
    "rms": "RMS",
    "custom": "Your points",
    "own": "Your model",
    "mnist": "MNIST",
}
# In the list a number that the visitor sets is a letter.
SYMBOLS = {"constant": "c", "identity": "c", "gain": "g"}


def choices() -> dict[str, Any]:
    """Choices, ranges, defaults and labels, as plain values."""
    return {
        "choices": {**{k: list(v) for k, v in configs.CHOICES.items()}, "activation": list(ACTIVATIONS)},
        "ranges": {k: list(v) for k, v in configs.RANGES.items()},
        "defaults": configs.RunConfig().to_dict(),
        "scheme_defaults": configs.SCHEME_DEFAULTS,
        "formulas": {name: text(_chosen(name), SYMBOLS.get(name, "")) for name in configs.SCHEMES},
        "labels": LABELS,
        "speeds": list(SPEEDS),
    }


def _chosen(scheme: str) -> configs.RunConfig:
    return configs.RunConfig(scheme=scheme, **configs.SCHEME_DEFAULTS.get(scheme, {}))  # pyright: ignore[reportArgumentType]
