"""Checks on the loss at the start: OUT002, OUT003, LRN002."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.checks.batch import normalised_first
from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import decide
from firstlight.checks.phrases import number
from firstlight.checks.registry import check
from firstlight.graph.results import Finding


@check("OUT002", stage=60)
def loss_above_guess(e: Evidence) -> Iterator[Finding]:
    """The initial loss is far above that of a uniform guess.

    What it measures:
        The loss at the drawn weights against the loss of the answer 0 for everything (equal logits).
    Why it matters:
        The network starts out sure of wrong answers; the first steps only undo that, at a gradient of the same excess.
    When it is harmless:
        Up to about twice the guess; small excesses vanish in a few steps.
    Remedy:
        A smaller read-out alone: divide its weight by the outputs' size. The layers below may be as they should.
    Source:
        Cross entropy of logits of variance v: ln K + v/2 to first order.
    """
    p = e.probe
    x = p.expected
    if p.loss is None or p.loss_silent is None or not p.finite or (x is not None and not x.as_expected):
        return
    if p.loss < 2.0 * max(p.loss_silent, p.loss_constant or 0.0) or p.loss - p.loss_silent < 0.5:
        return
    ratio = p.loss / max(p.loss_silent, 1e-12)
    # What a raw input makes too large is of ordinary size once that is normalised: no smaller read-out on top of it.
    raw = [x for x in e.inputs if x.floating and x.rms > 10.0 and not normalised_first(e, x)]
    line, effect = _smaller_readout(e), f"loss near {number(p.loss_silent)} at the start"
    if any(p.output_rms < 10.0 * x.rms for x in raw):
        line = effect = ""
    answer = "a uniform guess" if x is not None and x.are else "answering 0 for everything"
    yield Finding(
        "OUT002", "warning" if ratio > 10.0 else "info", "",
        f"loss {number(p.loss)} at the start; {answer} gives {number(p.loss_silent)}",
        "twice that (ln K + v/2 for logits of variance v)",
        "The first steps are spent on unlearning large random answers.",
        line, effect, {"ratio": ratio},
    )  # fmt: skip


def _smaller_readout(e: Evidence) -> str:
    """A line that brings the outputs to size one by the last matrix alone."""
    last = next((n for n in reversed(e.nodes) if n.parameters), None)
    shapes = {p.name: p.shape for p in e.parameters}
    name = next((n for n in last.parameters if len(shapes.get(n, ())) > 1), None) if last is not None else None
    if name is None:
        return "# divide the read-out's weight by the outputs' size"
    return f"model.get_parameter({name!r}).data.div_({number(max(e.probe.output_rms, 1.0))})"


@check("OUT003", stage=61)
def targets_off(e: Evidence) -> Iterator[Finding]:
    """The targets are far from the size of the outputs.

    What it measures:
        Loss of the best constant answer, and of the answer 0.
    Why it matters:
        Outputs start at size 1. Targets of mean 150 or standard deviation 80 have to be reached by steps of the
        learning rate, and the squared error's gradient is as large.
    When it is harmless:
        If the loss is scaled on purpose (a sum instead of a mean).
    Remedy:
        `targets = (targets - targets.mean()) / targets.std()`, or set the read-out's bias to the targets' mean.
    Source:
        Squared error of a constant: the targets' variance, 1 for standardised ones; 100 is 10 in standard deviation.
    """
    p = e.probe
    if p.loss_constant is None or p.loss_silent is None:
        return
    if p.loss_constant > 100.0 or p.loss_silent > 100.0 * max(p.loss_constant, 1e-12) > 1e-10:
        yield Finding(
            "OUT003", "error" if decide(e).reason == "budget" else "warning", "",
            f"the best constant answer has loss {number(p.loss_constant)}, the answer 0 has {number(p.loss_silent)}",
            "100 (standardised targets give 1)", "The targets are far from where the outputs start.",
            "targets = (targets - targets.mean()) / targets.std()",
            evidence={"constant": p.loss_constant, "silent": p.loss_silent},
        )  # fmt: skip


@check("LRN002", stage=62)
def out_of_scale(e: Evidence) -> Iterator[Finding]:
    """The loss is too far above chance for any usual learning rate.

    What it measures:
        Loss at the drawn weights over the loss of the best constant answer.
    Why it matters:
        Gradient descent must keep lr below 2 over the curvature, which grows with the square of the outputs, and Adam
        moves weights by the learning rate only: neither brings such a loss down within the usual number of steps.
    When it is harmless:
        For classes that are perfectly separable, where a huge scale does not matter once all answers are right.
    Remedy:
        `firstlight.initialize(model, "random-walk")`.
    Source:
        Edge of stability lr < 2/λ_max (LeCun et al. 1998); λ_max of the tangent kernel grows with the outputs' square.
    """
    fate = decide(e)
    if fate.reason == "exploded":
        yield Finding(
            "LRN002", "error", "", fate.text, "100000 times (edge of stability against usual learning rates)",
            "The start is so far off that training diverges or never comes down.",
            'firstlight.initialize(model, "random-walk")',
        )  # fmt: skip
