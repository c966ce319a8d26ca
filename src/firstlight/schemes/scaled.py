"""LeCun, Xavier and He: independent entries of variance g²/fan, three laws of the entries each."""

from __future__ import annotations

import math
from typing import Literal

from firstlight.schemes.context import Context, Draw, Target, iid
from firstlight.schemes.draws import Distribution
from firstlight.schemes.gains import keep_mean
from firstlight.schemes.registry import scheme

Mode = Literal["fan_in", "fan_out", "fan_avg"]
Entries = Literal["normal", "uniform", "truncated"]


def fan_of(target: Target, mode: Mode) -> float:
    """The fan that a mode divides by: "fan_in" keeps the forward length, "fan_out" the backward one."""
    fan_in, fan_out = target.fan_in or 0.0, target.fan_out or 0.0
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": 0.5 * (fan_in + fan_out)}[mode]


def scaled(target: Target, mode: Mode, distribution: Entries, gain: float, reason: str) -> Draw:
    """Independent entries of mean 0 and variance gain²/fan; 0 for a layer without inputs."""
    fan = fan_of(target, mode)
    std = gain / math.sqrt(fan) if fan > 0.0 else 0.0
    return iid(Distribution(distribution, std), gain=gain, reason=reason)


def _three(name: str, **aliases: str) -> dict[str, dict[str, str]]:
    laws = ("normal", "uniform", "truncated")
    return {f"{n}-{law}": {"distribution": law} for n in (name, *aliases) for law in laws} | {n: {} for n in aliases}


@scheme(
    "lecun",
    variants=_three("lecun") | {"selu": {}},
    refs=("lecun1998",),
    note="variance 1/fan_in: a linear layer keeps its length",
)
def lecun(
    target: Target,
    context: Context,
    *,
    gain: float = 1.0,
    mode: Mode = "fan_in",
    distribution: Entries = "normal",
) -> Draw:
    """Variance gain²/fan_in; with gain 1 this is also the law that SELU is made for."""
    return scaled(target, mode, distribution, gain, "variance g²/fan, no activation considered")


@scheme(
    "xavier",
    variants=_three("xavier", glorot=""),
    refs=("glorot2010",),
    note="variance 2/(fan_in+fan_out): between forward and backward",
)
def xavier(target: Target, context: Context, *, gain: float = 1.0, distribution: Entries = "normal") -> Draw:
    """Variance gain²·2/(fan_in + fan_out)."""
    return scaled(target, "fan_avg", distribution, gain, "variance g²·2/(fan_in+fan_out)")


@scheme(
    "he",
    variants=_three("he", kaiming=""),
    refs=("he2015",),
    note="variance g²/fan_in with the activation's own gain: keeps the mean length",
    keeps="mean",
)
def he(
    target: Target,
    context: Context,
    *,
    mode: Mode = "fan_in",
    distribution: Entries = "normal",
    activation: str = "auto",
) -> Draw:
    """Variance g²/fan with g = 1/√E φ(z)² of the activation that the layer touches (relu: √2).

    "auto" takes the activation from the graph; where the graph was not seen, relu, as He et al. do.
    """
    gain, reason = keep_mean(context, activation)
    return scaled(target, mode, distribution, gain, reason)
