"""Checks on the lengths of activations: FWD001 to FWD003, and on residual streams: FWD006, FWD007."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

import numpy as np

from firstlight.checks.blame import blame
from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import NOISE, decide
from firstlight.checks.laws import gain_squared, layers
from firstlight.checks.mainline import main_line, sensitivity
from firstlight.checks.norms import norms
from firstlight.checks.phrases import factor, number, severity
from firstlight.checks.registry import check
from firstlight.graph.results import Finding, NodeStats
from firstlight.theory import activations, gaussian, length_law

# Mean squares off by 10 are Hanin & Rolnick's failure; a network forgives that, so it is only said. At 1000 the
# amplitude is off by 30 and learning rates no longer carry over: the scale is wrong.
SAID, WRONG = math.log(10.0), math.log(1000.0)


def affine(e: Evidence) -> list[NodeStats]:
    """Operations of the main line that read a weight matrix, in order, the read-out left out."""
    wide = {p.name for p in e.parameters if len(p.shape) > 1}
    found = [n for n in main_line(e.measurement) if wide.intersection(n.parameters)]
    return found[:-1]


def stretch(e: Evidence, points: list[NodeStats]) -> list[NodeStats]:
    """The longest run of `points` without a normalisation on the main line in between, which would reset lengths."""
    names = {n.name for n in points}
    runs: list[list[NodeStats]] = [[]]
    resets = norms(e)
    for n in main_line(e.measurement):
        if n.name in resets:
            runs.append([])
        elif n.name in names:
            runs[-1].append(n)
    return max(runs, key=len)


def drift(e: Evidence, differing: bool = False) -> tuple[float, list[NodeStats]]:
    """ln(last/first) of the mean square along the main line: of pre-activations, or of the residual stream.

    Args:
        e: The evidence.
        differing: Take only the part that differs between samples (the variance over the batch).

    Returns:
        The drift, and the operations between which it was taken; 0 and none with fewer than three.
    """
    points = stretch(e, [n for n in affine(e) if n.output.finite])
    if len(points) < 3:
        points = stretch(e, _adds(e))
    if differing:  # below the floor there is only rounding error, which does not shrink
        points = [n for n in points if (sensitivity(n) or 0.0) >= NOISE * e.eps]
    if len(points) < 3:
        return 0.0, []
    first, last = (_part(n, differing) for n in (points[0], points[-1]))
    if first <= 0.0:
        return 0.0, []
    return math.log(max(last, 1e-300) / first), points


def _part(n: NodeStats, differing: bool) -> float:
    variance = n.output.sample_variance
    return n.output.q if not differing or variance is None else variance


def _adds(e: Evidence) -> list[NodeStats]:
    return [n for n in main_line(e.measurement) if n.op == "add" and len(n.inputs) == 2 and n.output.finite]


def _theory(e: Evidence) -> str:
    """What mean field says about the factor per layer, where it is one number."""
    used = {n.op for n in e.nodes}.intersection({"relu", "leaky_relu"})
    ps = layers(e)
    if len(used) != 1 or len(ps) < 3 or _joined(e):  # skips pass some layers by: no factor holds for each
        return ""
    act = activations.get(used.pop())
    g2 = statistics.median(gain_squared(p) for p in ps)
    per = g2 * float(gaussian.second_moment(act, 1.0))
    return f"; theory: g²·Eφ² = {number(per)} per layer with g² = fan_in·E w² = {number(g2)}"


def _joined(e: Evidence) -> bool:
    """Whether branches or skips come together on the main line."""
    return any(n.op in ("add", "cat") and len(n.inputs) > 1 for n in main_line(e.measurement))


def _scale_finding(e: Evidence, code: str, fatal: bool) -> Iterator[Finding]:
    growing = code == "FWD001"
    total, points = drift(e, differing=not growing)
    size = total if growing else -total
    if size < SAID and not (fatal and size > 0.0):
        return
    per = math.exp(total / (len(points) - 1))
    step = "layer that every path passes" if _joined(e) else "layer"
    what = "mean square" if growing else "the part of the mean square that depends on the input is"
    yield Finding(
        code, severity(fatal, "warning" if size > WRONG else "info"), points[-1].name,
        f"{what} {factor(math.exp(max(min(total, 690.0), -690.0)))} at {points[-1].name} than at {points[0].name}: "
        f"times {number(per)} per {step}{_theory(e)}",
        "a factor of 10 (Hanin & Rolnick 1803.01719, FM1)",
        "The signal grows with every layer." if growing else "The signal about the input shrinks with every layer.",
        'firstlight.initialize(model, "random-walk")', f"brings the factor per {step} from {number(per)} to about 1",
        {"log_drift": total, "per_layer": per},
    )  # fmt: skip


@check("FWD001", stage=45)
def exploding(e: Evidence) -> Iterator[Finding]:
    """Activations grow from layer to layer.

    What it measures:
        ln of the mean square of the last over the first pre-activation of the main line (of the residual stream).
    Why it matters:
        Outputs and loss start at the product of all factors; the first gradients are as large and throw the weights
        out of range.
    When it is harmless:
        Below a factor of ten, and in front of a normalisation. A wrong scale that trains anyway is "mis-scaled".
    Remedy:
        `firstlight.initialize(model, "random-walk")` or "he".
    Source:
        Poole et al. 1606.05340 (length map), Hanin & Rolnick 1803.01719 (FM1).
    """
    yield from _scale_finding(e, "FWD001", decide(e).reason in ("exploded", "half", "non-finite"))


@check("FWD002", stage=45)
def vanishing(e: Evidence) -> Iterator[Finding]:
    """The signal about the input shrinks from layer to layer.

    What it measures:
        ln of the variance over samples of the last over the first pre-activation of the main line: biases may keep the
        mean square up while what depends on the input vanishes.
    Why it matters:
        The output forgets the input: biases, and in the end rounding errors, are all that is left.
    When it is harmless:
        Below a factor of ten; in shallow networks, which recover in the first steps (torch's defaults do this).
    Remedy:
        `firstlight.initialize(model, "random-walk")` or "he".
    Source:
        Poole et al. 1606.05340 (length map), Hanin & Rolnick 1803.01719 (FM1). torch.nn.Linear's default has variance
        1/(3 fan_in): times 1/6 per ReLU layer.
    """
    yield from _scale_finding(e, "FWD002", blame(e).kind in ("faded", "gradient"))


@check("FWD003", stage=46)
def fluctuating(e: Evidence) -> Iterator[Finding]:
    """The network is too narrow for its depth: lengths are decided by the draw.

    What it measures:
        S = Σ 1/n over the ReLU layers of the main line, and P(length off by more than ten) from the exact law.
    Why it matters:
        ln M is a random walk of variance 5S (drift -2.5S under He): some seeds start and others do not.
    When it is harmless:
        With saturating functions, which pull the length back, and with normalisation, which resets it.
    Remedy:
        Wider layers, or `firstlight.initialize(model, "random-walk")`, which removes the drift, not the spread.
    Source:
        Hanin & Rolnick 1803.01719 (FM2); Sussillo & Abbott 1412.6558; theory.length_law.p_off.
    """
    widths = relu_widths(e)
    if len(widths) < 3:
        return
    p = float(np.asarray(length_law.p_off(widths, 10.0)))
    s = sum(1.0 / n for n in widths)
    if p < 0.1:
        return
    total, _ = drift(e)
    meaning = "The same law gives a good network with one seed and a bad one with the next."
    if p < 0.5:
        meaning = f"About one draw in {round(1.0 / p)} of this law has lengths off by more than ten."
    yield Finding(
        "FWD003", "warning" if p > 0.5 and abs(total) > SAID else "info", "",
        f"Σ1/n = {number(s)} over {len(widths)} ReLU layers: P(off by >10x) = {p:.2f}",
        "0.1 (exact law of the product of χ² factors, theory.length_law)", meaning,
        'firstlight.initialize(model, "random-walk")',
        f"widths of {_wide_enough(len(widths), widths)} would bring it to 0.1",
        {"inverse_width_sum": s, "p_off": p},
    )  # fmt: skip


def _wide_enough(depth: int, widths: list[int]) -> int:
    """The least width, to a tenth, at which layers of one width have P(off by >10x) ≤ 0.1."""
    n = max(2, math.floor(depth / sum(1.0 / w for w in widths)))
    while float(np.asarray(length_law.p_off([n] * depth, 10.0))) > 0.1:
        n = math.ceil(1.1 * n)
    return n


def relu_widths(e: Evidence) -> list[int]:
    """Widths of the ReLU layers on the main line; empty where normalisation, sums or skips join them (U-Nets)."""
    line = main_line(e.measurement)
    if any(n.name in norms(e) for n in line) or len(_adds(e)) > 1:
        return []
    first = next((i for i, n in enumerate(line) if n.op == "relu"), len(line))
    if any(n.op == "cat" and len(n.inputs) > 1 for n in line[first:]):
        return []
    return [n.output.units for n in line if n.op == "relu" and n.output.units > 1]


@check("FWD006", stage=47)
def growing_stream(e: Evidence) -> Iterator[Finding]:
    """A residual stream grows with depth.

    What it measures:
        Mean square of the stream after the last over before the first residual sum.
    Why it matters:
        Every branch adds its variance: with weight η per branch the mean square is multiplied by Π(1+η²s), so Ση² must
        stay bounded; the last blocks then hardly change a stream that has grown, and gradients grow likewise.
    When it is harmless:
        Up to a factor of ten; in pre-norm networks whose last norm takes the scale out (the branches still count less).
    Remedy:
        Scale the branches by 1/√L: `firstlight.initialize(model, "depth-scaled")`, or zero the last layer of each.
    Source:
        Exact law of linear branch ends, theory.residual (Hanin & Rolnick 1803.01719; Hayou et al. 2010.12859).
    """
    sums = stretch(e, _adds(e))
    if len(sums) < 4 or sums[0].output.q <= 0.0:
        return
    total = math.log(max(sums[-1].output.q, 1e-300) / sums[0].output.q)
    if total < SAID:
        return
    per = math.expm1(total / (len(sums) - 1))
    fatal = decide(e).reason in ("exploded", "half")
    yield Finding(
        "FWD006", severity(fatal, "warning" if total > WRONG else "info"), sums[-1].name,
        f"the stream's mean square grows {number(math.exp(min(total, 700.0)))} times over {len(sums)} sums: "
        f"each branch adds {number(per)} of it, Ση² = {number(per * len(sums))}",
        "10 (Ση² must stay bounded, theory.residual)", "Later blocks change a stream that outgrows them.",
        f"branch = branch * {len(sums)} ** -0.5  # in every block",
        f"growth e^Ση² = {number(math.exp(min(per, 50.0)))} at any depth",
        {"log_growth": total, "per_branch": per},
    )  # fmt: skip


@check("FWD007", stage=48)
def starving_branches(e: Evidence) -> Iterator[Finding]:
    """Residual branches add next to nothing to their stream.

    What it measures:
        Mean square of each branch over that of the sum it enters.
    Why it matters:
        A branch of a thousandth of the stream takes part in neither the answer nor the gradient: depth without effect.
    When it is harmless:
        If it is exactly zero on purpose (Fixup, SkipInit): the first step gives it a size. If a normalisation stands
        at the branches' entry or behind the sum (transformers with weights of 0.02): it hands every branch a signal and
        a gradient of ordinary size, whatever the stream's. Neither is reported.
    Remedy:
        A normalisation at the branch's entry, or `firstlight.initialize(model, "he")`.
    Source:
        Residual sum rule q₁+q₂ of uncorrelated tensors; the post-activation ResNets without norm of the PEERS study.
    """
    if norms(e):
        return
    starving: list[NodeStats] = []
    sums = _adds(e)
    by_name = {n.name: n for n in e.nodes}
    for n in sums:
        qs = sorted(by_name[name].output.q for name in n.inputs if name in by_name)
        if len(qs) == 2 and 0.0 < qs[0] < 1e-3 * qs[1]:
            starving.append(n)
    if len(sums) >= 3 and len(starving) > 0.5 * len(sums):
        yield Finding(
            "FWD007", "warning", starving[-1].name,
            f"{len(starving)} of {len(sums)} branches have less than 0.001 of their stream's mean square",
            "0.001 (branches of a thousandth leave q₁+q₂ as it is)",
            "These blocks hardly take part in the answer until training has grown them.",
            'firstlight.initialize(model, "he")',
        )  # fmt: skip
