"""What counts as a usable budget, and the record of whether a network starts within it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# The learning rates that people try, and the steps after which they give up.
ADAM_LR, SGD_LR, STEPS = 1e-2, 1.0, 600
LEAST_LR, LEAST_SGD_LR = 1e-4, 1e-2

Reason = Literal["", "non-finite", "disconnected", "silent", "drowned", "exploded", "slow", "half", "budget", "stalled",
                 "unreachable", "linear", "weak"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fate:
    """The decision.

    Attributes:
        starts: Whether a first step can lower the loss.
        reason: Why not; "" where it starts.
        margin: ln of (what is there / what is needed); negative where it does not start. ±inf where it is no matter
            of degree.
        text: The decisive comparison in words, with its numbers.
    """

    starts: bool
    reason: Reason = ""
    margin: float = math.inf
    text: str = ""
