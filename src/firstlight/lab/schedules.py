"""Learning rates over steps and over layers.

Sussillo & Abbott (1412.6558) name a starting and a final rate λ_in and λ_out; the text that is available
does not say whether they run over the layers or over training. Both readings are offered, geometric between
the two ends: `reading="layers"` (λ_in at the first layer, λ_out at the readout) and `reading="steps"` (λ_in
at the first step, λ_out at the last). `reading="ends"` is the reading over layers without the interpolation:
λ_in at the first layer alone, λ_out at the readout alone, the base rate at all layers between. A thousand
nearly orthogonal layers move the function together, the two ends only by themselves; so they can bear more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from firstlight.errors import InputError

Shape = Literal["constant", "cosine", "linear"]
Reading = Literal["layers", "steps", "ends"]


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step and layer.

    Attributes:
        rate: Base rate λ; members of an ensemble may have their own in its place.
        shape: "constant", or to zero by half a cosine or linearly, over the steps of the run.
        warmup: Steps over which the rate rises linearly from 0.
        lambda_in: First rate of Sussillo & Abbott, relative to `rate`.
        lambda_out: Last rate, relative to `rate`.
        reading: Which reading of the two.
    """

    rate: float = 0.01
    shape: Shape = "constant"
    warmup: int = 0
    lambda_in: float = 1.0
    lambda_out: float = 1.0
    reading: Reading = "layers"

    def __post_init__(self) -> None:
        if self.shape not in ("constant", "cosine", "linear"):
            raise InputError("schedule, shape", got=repr(self.shape), expected="constant, cosine or linear")
        if self.reading not in ("layers", "steps", "ends"):
            raise InputError("schedule, reading", got=repr(self.reading), expected="layers, steps or ends")
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise InputError("schedule, rate", got=repr(self.rate), expected="a finite number, 0 or more")
        if not (self.lambda_in > 0 and self.lambda_out > 0):
            raise InputError("schedule, λ", got=f"{self.lambda_in}, {self.lambda_out}", expected="two positive numbers")


def geometric(first: float, last: float, at: float) -> float:
    """first^{1-at} · last^{at}, for at in [0, 1]."""
    return first * (last / first) ** at


def step_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Factor of the base rate at step `step` (from 0) of `steps`."""
    at = step / max(steps - 1, 1)
    factor = {"constant": 1.0, "linear": 1.0 - at, "cosine": 0.5 * (1.0 + math.cos(math.pi * at))}[schedule.shape]
    if schedule.warmup:
        factor *= min(1.0, (step + 1) / schedule.warmup)
    if schedule.reading == "steps":
        factor *= geometric(schedule.lambda_in, schedule.lambda_out, at)
    return factor


def layer_factors(schedule: Schedule, layers: int) -> list[float]:
    """Factor of the rate at each of `layers` layers, the readout being the last."""
    if schedule.reading == "ends":
        return [schedule.lambda_in, *[1.0] * (layers - 2), schedule.lambda_out]
    if schedule.reading != "layers":
        return [1.0] * layers
    return [geometric(schedule.lambda_in, schedule.lambda_out, layer / max(layers - 1, 1)) for layer in range(layers)]
