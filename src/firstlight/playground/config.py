"""What one run of the playground is: a frozen record, made from untrusted JSON and checked field by field."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from firstlight.errors import InputError
from firstlight.theory import activations

DATASETS = ("circle", "moon", "square", "gaussian", "spiral", "digits", "mnist", "custom", "own")
NORMALIZATIONS = ("none", "batch", "layer", "rms")
OPTIMIZERS = ("sgd", "momentum", "adam")
LOSSES = ("auto", "cross_entropy", "mse")
# The article's five choices come first; `appropriate` is N(0, 1/fan_in), and the two wrong sizes are that law with
# its variance multiplied by `variance_scale`.
SCHEMES = (
    "zero",
    "constant",
    "too-small",
    "appropriate",
    "too-large",
    "xavier",
    "lecun",
    "he",
    "orthogonal",
    "random-walk",
    "centred",
    "torch-default",
    "gain",
    "identity",
    "auto",
    "given",
)
# What choosing a scheme sets, unless the same message says otherwise: the article's multipliers.
SCHEME_DEFAULTS: dict[str, dict[str, float]] = {
    "too-small": {"variance_scale": 0.01},
    "too-large": {"variance_scale": 100.0},
    "constant": {"gain": 0.5},
    "gain": {"gain": 1.0},
    "identity": {"gain": 1.5},
}
MAX_PARAMETERS = 5_000_000
MAX_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One run: data, network, initialization and optimization.

    Attributes:
        data: Data set.
        noise: Standard deviation added to the inputs, in units of the data's own.
        count: Number of points.
        split: Share of the points held back for testing.
        depth: Number of hidden layers.
        width: Units of each hidden layer.
        widths: Units layer by layer; empty means `depth` times `width`.
        activation: Name in `theory.activations`.
        residual: Branch weight η of x + η f(x) on hidden layers of equal width; 0 means a plain chain.
        normalization: "none", "batch", "layer" or "rms", before each activation.
        bias: Whether the layers have biases (drawn zero).
        scheme: One of `SCHEMES`.
        gain: Gain g of "gain" (weight variance g²/fan_in); value of "constant"; factor of "identity".
        variance_scale: Multiplier v of "too-small" and "too-large" (weight variance v/fan_in).
        learning_rate: Step size.
        optimizer: "sgd", "momentum" (0.9) or "adam".
        batch: Samples a step; 0 means all.
        loss: "auto" is cross-entropy for classes and mean square for numbers.
        seed: Seed of the weights and of the order of the batches.
        data_seed: Seed of the data.
    """

    data: str = "circle"
    noise: float = 0.0
    count: int = 300
    split: float = 0.0
    depth: int = 2
    width: int = 6
    widths: tuple[int, ...] = ()
    activation: str = "relu"
    residual: float = 0.0
    normalization: str = "none"
    bias: bool = True
    scheme: str = "appropriate"
    gain: float = 1.0
    variance_scale: float = 1.0
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    batch: int = 0
    loss: str = "auto"
    seed: int = 0
    data_seed: int = 0

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of each hidden layer."""
        return self.widths or (self.width,) * self.depth

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "widths": list(self.widths)}


# A model of the visitor's begins as it came, with the optimizer and rate that most networks stand.
OWN = RunConfig(data="own", scheme="given", optimizer="adam", learning_rate=0.001)

# field -> smallest and largest value; the front end reads them too
RANGES: dict[str, tuple[float, float]] = {
    "noise": (0.0, 5.0),
    "count": (4, 10_000),
    "split": (0.0, 0.9),
    "depth": (1, 200),
    "width": (1, 512),
    "residual": (0.0, 2.0),
    "gain": (-1e6, 1e6),
    "variance_scale": (0.0, 1e9),
    "learning_rate": (1e-9, 1e6),
    "batch": (0, 10_000),
    "seed": (0, MAX_SEED),
    "data_seed": (0, MAX_SEED),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "data": DATASETS,
    "normalization": NORMALIZATIONS,
    "scheme": SCHEMES,
    "optimizer": OPTIMIZERS,
    "loss": LOSSES,
}


def parse(raw: object, base: RunConfig | None = None) -> RunConfig:
    """Turn untrusted JSON into a config; fields that are absent keep the value they have in `base`.

    Raises:
        InputError: Not an object, an unknown field, a wrong type, a value out of range, or a network too large.
    """
    if not isinstance(raw, Mapping):
        raise InputError("config", got=type(raw).__name__, expected="an object of settings")
    known = {f.name: f.type for f in fields(RunConfig)}
    changes: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known settings: {', '.join(known)}."
            raise InputError("config", got=f"the setting {str(name)[:40]!r}", expected="a known one", action=hint)
        changes[name] = _field(name, value)
    base = base or RunConfig()
    if changes.get("scheme", base.scheme) != base.scheme:
        changes = {**SCHEME_DEFAULTS.get(changes["scheme"], {}), **changes}
    config = replace(base, **changes)
    if "widths" not in changes and ("depth" in changes or "width" in changes):
        config = replace(config, widths=())
    _check_size(config)
    return config


def _field(name: str, value: object) -> Any:
    if name == "widths":
        return _widths(value)
    if name == "bias":
        if isinstance(value, bool):
            return value
        raise InputError("config.bias", got=repr(value)[:40], expected="true or false")
    if name == "activation":
        _choice(name, value, tuple(activations.names()))
        return value
    if name in CHOICES:
        return _choice(name, value, CHOICES[name])
    low, high = RANGES[name]
    whole = isinstance(getattr(RunConfig(), name), int)
    if isinstance(value, bool) or not isinstance(value, int | float) or _is_nan(value):
        raise InputError(f"config.{name}", got=repr(value)[:40], expected="a number")
    if not low <= value <= high:  # first: an infinity or a whole number beyond all floats is caught here
        span = f"{low:,} to {high:,}" if whole else f"{low:g} to {high:g}"
        raise InputError(f"config.{name}", got=repr(value)[:40], expected=f"a value from {span}")
    if whole and value != int(value):
        raise InputError(f"config.{name}", got=repr(value), expected="a whole number")
    return int(value) if whole else float(value)


def _is_nan(value: float) -> bool:
    return isinstance(value, float) and math.isnan(value)  # a whole number may be beyond all floats


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in allowed:
        return value
    near = difflib.get_close_matches(str(value)[:40], allowed, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else ""
    raise InputError(f"config.{name}", got=repr(value)[:40], expected="one of " + ", ".join(allowed), action=hint)


def _widths(value: object) -> tuple[int, ...]:
    low, high = RANGES["width"]
    if not isinstance(value, list | tuple) or len(value) > RANGES["depth"][1]:
        raise InputError("config.widths", got=repr(value)[:40], expected="a list of at most 200 layer widths")
    for width in value:
        if isinstance(width, bool) or not isinstance(width, int) or not low <= width <= high:
            raise InputError("config.widths", got=repr(width)[:40], expected=f"whole numbers {low:g} to {high:g}")
    return tuple(value)


def _check_size(config: RunConfig) -> None:
    sizes = config.hidden
    total = sum(a * b for a, b in itertools.pairwise(sizes))
    if total > MAX_PARAMETERS:
        raise InputError(
            "config",
            got=f"a network of {total:,} weights",
            expected=f"at most {MAX_PARAMETERS:,}",
            action="Choose a smaller depth or width.",
        )
