"""Whether a first step can lower the loss: decided once, from the probe, and named by the checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from firstlight.checks.evidence import Evidence, Probe

Reason = Literal[
    "", "non-finite", "disconnected", "silent", "drowned", "exploded", "slow", "half", "raw", "budget"
]

# A difference between samples below this many units of roundoff is rounding error: a sum of n products carries
# about √n/2 units, and the networks in question have up to some hundred terms per entry.
NOISE = 6.0
# What counts as a usable budget: the learning rates that people try, and the steps after which they give up.
ADAM_LR, SGD_LR, STEPS = 1e-2, 1.0, 600
# A loss this many times above chance must fall by as many e-folds before it says anything about the targets.
EXPLODED = 1e5
GAIN_PER_LAYER = 10.0


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


@lru_cache(maxsize=4)
def decide(evidence: Evidence) -> Fate:
    """Hold the probe against the floor of rounding errors, the budget and the range of numbers."""
    p = evidence.probe
    if not p.connected or p.trainable == 0:
        return Fate(
            False, "disconnected", -math.inf, "no gradient path from the loss to a parameter that is trained"
        )
    if not p.finite or not all(n.output.finite for n in evidence.nodes):
        return Fate(False, "non-finite", -math.inf, "NaN or infinite values in the pass or its gradients")
    floor = NOISE * evidence.eps
    level = _signal(p, evidence)
    if level < floor:
        return Fate(
            False,
            "silent",
            math.log(max(level, 1e-30) / floor),
            f"samples differ by {level:.1e} of the signal's size; rounding errors are {floor:.1e}",
        )
    drowned = _drowned(p)
    if drowned is not None:
        return drowned
    half = _half(evidence)
    if half is not None:
        return half
    if p.loss is not None and p.loss_constant is not None and p.loss > EXPLODED * max(p.loss_constant, 1e-3):
        over = p.loss / max(p.loss_constant, 1e-3)
        return Fate(
            False,
            "exploded",
            math.log(EXPLODED / over),
            f"the loss is {over:.1e} times the best constant answer's",
        )
    slow = _slow(evidence)
    if slow is not None:
        return slow
    margin = math.log(max(level, 1e-300) / floor)
    return Fate(
        True, "", margin, f"samples differ by {level:.1e} of the signal's size; {floor:.1e} would be noise"
    )


def _signal(p: Probe, evidence: Evidence) -> float:
    """The clearest trace of the input: in the gradient here, in the outputs, or at a nearby reachable point."""
    level = p.contrast
    if p.output_rms > 0.0 and p.signal > 0.0:
        deficit = max(0.0, -math.log10(p.output_rms)) / max(1, _matrices(evidence))
        if deficit < math.log10(GAIN_PER_LAYER):
            level = max(level, min(p.output_spread / p.output_rms, 1.0))
    if p.moved is not None and p.moved.finite:
        level = max(level, p.moved.contrast)
    return level


def _matrices(evidence: Evidence) -> int:
    return sum(len(x.shape) > 1 for x in evidence.parameters)


def _drowned(p: Probe) -> Fate | None:
    if p.repeat is None or p.samples * p.outputs < 16:
        return None
    needed = 3.0 / math.sqrt(p.samples * p.outputs)
    if p.repeat >= needed:
        return None
    return Fate(
        False, "drowned", math.log(max(p.repeat, 1e-3) / needed),
        f"two passes with different dropout masks agree to {p.repeat:.2f} only; {needed:.2f} would be chance",
    )  # fmt: skip


def _half(evidence: Evidence) -> Fate | None:
    p = evidence.probe
    if evidence.dtype != "float16" or p.loss is None or p.loss_constant is None:
        return None
    over = p.loss / max(p.loss_constant, 1e-3)
    if over < 10.0:
        return None
    return Fate(False, "half", math.log(10.0 / over), f"float16 weights with a loss {over:.0f} times chance")


def _slow(evidence: Evidence) -> Fate | None:
    """Only a linear read-out is trained: the loss is convex and its first-order fall per step is all there is."""
    p = evidence.probe
    trained = [x for x in evidence.parameters if x.requires_grad]
    last = next((n for n in reversed(evidence.nodes) if n.parameters), None)
    if last is None or any(x.name not in last.parameters for x in trained) or p.loss_constant is None:
        return None
    need = 0.1 * p.loss_constant
    fall = ADAM_LR * STEPS * sum(x.reach for x in p.pulls.values())
    fall = max(fall, SGD_LR * STEPS * p.signal**2)
    if fall >= need:
        return None
    return Fate(
        False, "slow", math.log(max(fall, 1e-30) / need),
        f"the loss of the only trained layer falls by at most {fall:.1e} in {STEPS} steps; {need:.1e} is a start",
    )  # fmt: skip
