"""Checks on the gradient along the depth: GRD003, GRD004."""

from __future__ import annotations

import math
from collections.abc import Iterator

from firstlight.checks.blame import blame
from firstlight.checks.budget import STEPS
from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import decide
from firstlight.checks.lengths import SAID, WRONG, affine
from firstlight.checks.phrases import factor, number, severity
from firstlight.checks.registry import check
from firstlight.graph.results import Finding


def _walk(e: Evidence) -> tuple[float, str, str, int]:
    """ln of the gradient's squared length per sample at the first over the last hidden layer; 0 where there is none.

    The length counts every entry: a convolution spreads one gradient over all positions and its weights add them up.
    """
    points = [n for n in affine(e) if n.grad is not None and n.grad.finite and n.grad.q > 0.0]
    if len(points) < 3:
        return 0.0, "", "", 0
    first, last = points[0], points[-1]
    if first.grad is None or last.grad is None:
        return 0.0, "", "", 0
    entries = [max(1, math.prod(n.output.shape[1:])) for n in (first, last)]
    return math.log(first.grad.q / last.grad.q) + math.log(entries[0] / entries[1]), first.name, last.name, len(points)


def _finding(e: Evidence, code: str, fatal: bool) -> Iterator[Finding]:
    total, first, last, count = _walk(e)
    sign = 1.0 if code == "GRD004" else -1.0
    if not first or sign * total < SAID:
        return
    per = math.exp(total / (count - 1))
    yield Finding(
        code, severity(fatal, "warning" if sign * total > 2.0 * WRONG else "info"), first,
        f"the gradient's squared length is {factor(math.exp(max(min(total, 700.0), -700.0)))} at {first} "
        f"than at {last}: "
        f"times {number(per)} per layer backward",
        "a factor of 10 (χ₁ = 1 keeps it, Schoenholz et al. 1611.01232)",
        "The first layers hardly learn while the last ones do." if sign < 0 else
        "A step that suits the last layers throws the first ones away.",
        'firstlight.initialize(model, "random-walk")', f"brings the factor per layer from {number(per)} to 1",
        {"log_ratio": total, "per_layer": per},
    )  # fmt: skip


@check("GRD003", stage=53)
def vanishing_gradient(e: Evidence) -> Iterator[Finding]:
    """The gradient shrinks on its way back to the first layers.

    What it measures:
        ln of the gradient's squared length at the first over the last hidden layer of the main line.
    Why it matters:
        One learning rate cannot suit layers whose gradients differ by orders of magnitude; below 1e-8 per entry even
        Adam, which divides by the gradient's size plus 1e-8, stands still.
    When it is harmless:
        If it is zero or tiny only until the first step (zero read-out); for biases in front of a BatchNorm.
    Remedy:
        `firstlight.initialize(model, "random-walk")`; for tanh a critical gain, for sigmoid another function.
    Source:
        χ₁ = σ_w² E φ'² of Schoenholz et al. 1611.01232: the factor of the gradient's mean square per layer.
    """
    fate = decide(e)
    if fate.reason != "stalled":
        yield from _finding(e, "GRD003", blame(e).kind in ("faded", "gradient"))
        return
    total, first, _, count = _walk(e)
    yield Finding(
        "GRD003", "error", first, fate.text, f"{STEPS} steps (Adam's ε = 1e-8; a layer of n inputs wakes up in about "
        "4/(n·rate·φ'(0)) steps, 10 where φ is bounded)",
        "The first layers stand still, and the ones above them learn constants for too long.",
        'firstlight.initialize(model, "random-walk")', "", {"log_ratio": total, "layers": float(count)},
    )  # fmt: skip


@check("GRD004", stage=53)
def exploding_gradient(e: Evidence) -> Iterator[Finding]:
    """The gradient grows on its way back to the first layers.

    What it measures:
        ln of the gradient's squared length at the first over the last hidden layer of the main line.
    Why it matters:
        A step that moves the last layers as it should throws the first ones out of range.
    When it is harmless:
        Below a factor of ten; with Adam or clipping larger factors are survived.
    Remedy:
        `firstlight.initialize(model, "random-walk")`, or clip: `torch.nn.utils.clip_grad_norm_`.
    Source:
        χ₁ = σ_w² E φ'² of Schoenholz et al. 1611.01232; Pascanu et al. 1211.5063 for recurrent networks.
    """
    yield from _finding(e, "GRD004", decide(e).reason in ("exploded", "half"))
