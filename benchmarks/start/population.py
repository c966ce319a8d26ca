"""Which networks are trained: drawn by a fixed seed, stratified over families, log-uniform in depth and width."""

from __future__ import annotations

import math
import random

from benchmarks.start.networks import Spec
from benchmarks.start.problems import DATA
from firstlight.errors import InputError

# name -> (networks, seed). "tuning", "test", "fresh" and, after its one score, "sealed" have been looked at; "final"
# was drawn, labelled and scored once after the last change of what P(start) means; "later" was so again, when the rules
# of `predict` had been worked on for a while. Any other set is named COUNT@SEED.
SETS = {
    "tuning": (150, 11),
    "test": (400, 4711),
    "fresh": (400, 90210),
    "sealed": (400, 271828),
    "final": (400, 161803),
    "later": (400, 141421),
}
HELD_OUT = ("final", "later")  # no definition was changed after either was looked at
# Of every ten networks: four plain, two residual, two of convolutions, two of attention.
FAMILIES = ("plain", "residual", "plain", "conv", "attention", "plain", "residual", "plain", "resconv", "attention")
ACTS = ("relu", "relu", "relu", "tanh", "tanh", "gelu", "gelu", "sigmoid", "silu", "elu", "selu", "leaky_relu",
        "softplus", "mish", "hardtanh", "linear")  # fmt: skip
SCHEMES = ("default", "default", "he", "he", "he_uniform", "xavier", "xavier", "xavier_uniform", "lecun", "truncated",
           "orthogonal:1", "orthogonal:1.41", "random-walk", "normal:0.02", "normal:0.05", "normal:0.1", "normal:0.01",
           "normal:0.3", "he:1.5", "he:2.5", "he:4", "he:0.5", "uniform:0.05", "fan_out")  # fmt: skip
CAP = 2.0e-2  # CPU seconds that one training step may take, by the cost model below
_FLOPS = 2.5e10  # sustained single-precision rate that the model assumes
_SECONDS = {"plain": 9e-5, "residual": 1.5e-4, "conv": 3e-4, "resconv": 4e-4, "attention": 3.5e-4}  # a weight layer


def cost(family: str, depth: int, width: int, side: int) -> float:
    """CPU seconds of one training step of 64 samples: overhead of each operation, and products forward and back."""
    places = 1 if family in ("plain", "residual") else (side if family == "attention" else 64 if side == 8 else 49)
    taps = 9 if family.endswith("conv") else (2 if family == "attention" else 1)
    return depth * (_SECONDS[family] + 6.0 * 64 * places * taps * width * width / _FLOPS)


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return min(high, max(low, round(math.exp(rng.uniform(math.log(low - 0.5), math.log(high + 0.5))))))


def _whole(family: str, depth: int) -> int:
    """The nearest depth that is a whole number of blocks."""
    per = {"attention": 4, "residual": 2, "resconv": 2}.get(family, 1)
    return per * max(1, round(depth / per))


def size_and_seed(name: str) -> tuple[int, int]:
    """Networks and seed of a set of `SETS`, or of one that is named by them: "400@12345".

    Raises:
        InputError: Neither.
    """
    if name in SETS:
        return SETS[name]
    count, at, seed = name.partition("@")
    if not (at and count.isdecimal() and seed.isdecimal() and int(count)):
        raise InputError(
            "set of networks",
            got=repr(name),
            expected=f"{', '.join(SETS)}, or COUNT@SEED",
            action="400@12345, say, draws 400 networks by the seed 12345.",
        )
    return int(count), int(seed)


def population(name: str) -> list[Spec]:
    """The networks of a set: the depth is drawn first, then the width until a training step costs at most `CAP`.

    A depth at which even width 8 costs more is drawn again: that ends attention nets at about 50 layers, convolutions
    at about 60, residual nets at about 130.

    Raises:
        InputError: A set that is not known and not named COUNT@SEED.
    """
    count, seed = size_and_seed(name)
    rng = random.Random(seed)
    out: list[Spec] = []
    while len(out) < count:
        family = FAMILIES[len(out) % len(FAMILIES)]
        data = rng.choice(DATA)
        side = 8 if data == "digits" else 14
        depth = width = 0
        while not depth or cost(family, depth, 8, side) > CAP:
            depth = _whole(family, _log_uniform(rng, 2, 200))
        while not width or cost(family, depth, width, side) > CAP:
            width = _log_uniform(rng, 8, 512)
            if family == "attention":  # heads of 32 entries, or a single one
                width = max(8, 8 * round(width / 8)) if width < 32 else 32 * round(width / 32)
        norms = ("pre", "pre", "post", "") if family == "attention" else ("", "", "", "", "", "batch", "layer")
        acts = ("gelu", "relu", "silu", "tanh") if family == "attention" else ACTS
        branch = rng.choice(("1", "1", "depth", "0.2")) if family not in ("plain", "conv") else "1"
        out.append(
            Spec(family, data, rng.choice(("standard", "standard", "unit")), depth, width, rng.choice(acts),
                 rng.choice(norms), branch, rng.choice(SCHEMES), rng.randrange(10_000))
        )  # fmt: skip
    return out
