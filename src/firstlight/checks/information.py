"""Checks on what is left of the input: FWD004, FWD005, LRN001."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from firstlight.checks.blame import between, blame, zero_matrix
from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import NOISE, decide
from firstlight.checks.lengths import affine
from firstlight.checks.mainline import Station, stations
from firstlight.checks.phrases import number, severity
from firstlight.checks.registry import check
from firstlight.graph.results import Finding

_LOST = {
    "input": "the input itself does not differ between samples",
    "zero": "a zero matrix stops it",
    "tiny": "a matrix that is far too small stops it",
    "one unit": "a softmax over one unit answers 1 for everything",
    "dead": "the non-linearity is dead for every sample",
    "saturated": "the non-linearity is saturated for every sample",
    "offset": "a constant far larger than the signal covers it",
    "faded": "it fades with every layer",
    "gradient": "the forward signal is alive, but no gradient that tells samples apart comes back",
}


@check("FWD004", stage=50)
def insensitive(e: Evidence) -> Iterator[Finding]:
    """The output does not depend on the input, beyond rounding errors.

    What it measures:
        The share of the signal that differs between samples, √(variance over samples / mean square), along the
        operations that every path must pass; and |Jᵀr_c|/|Jᵀu|, the gradient that tells samples apart against the one
        that shifts all answers together, here and at a random nearby point that training reaches.
    Why it matters:
        Lengths can look healthy while nothing of the input is left (sigmoid stacks, biases, zero matrices): the network
        can then only learn the best constant answer.
    When it is harmless:
        A zero read-out or branch end: there the gradient still tells samples apart, and this does not fire.
    Remedy:
        Mend the cause named in `where`; for a stack that fades, `firstlight.initialize(model, "random-walk")`.
    Source:
        Correlation map c → c* of Schoenholz et al. 1611.01232; tangent kernel's spectrum, Jacot et al. 1806.07572. The
        floor is the unit roundoff of the format.
    """
    fate = decide(e)
    line = stations(e)
    if fate.reason == "silent":
        cause = blame(e)
        where = cause.node.name if cause.node is not None else ""
        yield Finding(
            "FWD004", "error", where, fate.text, f"{NOISE:.0f} units of {e.dtype} roundoff ({number(NOISE * e.eps)})",
            f"Nothing of the input reaches the loss: {_LOST.get(cause.kind, 'it is lost')}.",
            'firstlight.initialize(model, "random-walk")', evidence={"before": cause.before, "after": cause.after},
        )  # fmt: skip
        return
    left = [s for s in _until_zero(e, line) if s.node.output.q > 0.0]
    if not fate.starts or len(left) < 2 or e.probe.repeat is not None:
        return
    weakest = min(left, key=lambda s: s.sensitivity)
    if weakest.sensitivity < 1e-3 * left[0].sensitivity:
        yield Finding(
            "FWD004", "warning", weakest.node.name,
            f"samples differ by {number(weakest.sensitivity)} of the signal's size here, by "
            f"{number(left[0].sensitivity)} at the input",
            "a thousandth of the input's (0.000001 of the mean square)",
            "Most of the input's information is covered by constants; learning starts on a plateau.",
            'firstlight.initialize(model, "random-walk")',
        )  # fmt: skip


def _until_zero(e: Evidence, line: tuple[Station, ...]) -> list[Station]:
    """The stations in front of the first zero matrix that gets a gradient telling samples apart.

    Behind it nothing differs between samples, until the first step: what is there says nothing about the start.
    """
    kept = list(line[:1])
    for before, here in itertools.pairwise(line):
        zeros = [p for n in between(e, before.node, here.node) if (p := zero_matrix(e, n)) is not None]
        if any(p.name in e.probe.pulls and e.probe.pulls[p.name].signal > 0.0 for p in zeros):
            break
        kept.append(here)
    return kept


@check("FWD005", stage=51)
def indistinguishable(e: Evidence) -> Iterator[Finding]:
    """Different inputs become the same direction.

    What it measures:
        Mean cosine between samples at the input and at the last hidden layer.
    Why it matters:
        At cosine 1 the last layer cannot separate them; the distance has to be regrown by training.
    When it is harmless:
        ReLU stacks approach 1 slowly (1-c ~ 44/l²) and train to some tens of layers.
    Remedy:
        `firstlight.initialize(model, "orthogonal")`, normalisation, residual branches, or a critical gain.
    Source:
        c-map of Poole et al. 1606.05340 and Schoenholz et al. 1611.01232 (depth scale ξ_c; trains to about 6 ξ_c).
    """
    points = affine(e)
    if len(points) < 3 or e.measurement.batch_size < 2:
        return
    first, last = points[0].output.cosine, points[-1].output.cosine
    if first is None or last is None or not last > 0.999 or first > 0.99:
        return
    cause = blame(e)
    fatal = cause.kind == "faded"
    yield Finding(
        "FWD005", severity(fatal, "info"), points[-1].name,
        f"1 - cosine between samples falls from {number(1 - first)} to {number(max(0.0, 1 - last))}",
        "0.001 (ordered phase: c* = 1)", "Samples arrive at the last layer as one and the same.",
        'firstlight.initialize(model, "orthogonal")', evidence={"first": first, "last": last},
    )  # fmt: skip


@check("LRN001", stage=52)
def drowned(e: Evidence) -> Iterator[Finding]:
    """Dropout's noise covers the input's signal.

    What it measures:
        Correlation over samples between the outputs of passes with different dropout masks and, where that is chance,
        between their gradients.
    Why it matters:
        If a sample's two outputs are as different as two samples', the gradient is noise.
    When it is harmless:
        Correlations well above chance, of the outputs or of the gradients: noise then averages out over steps.
    Remedy:
        A tenth of the dropout, or none, in deep networks; or initialize nearer to the ordered side.
    Source:
        Schoenholz et al. 1611.01232, §4: dropout destroys the critical point and bounds the trainable depth. Chance is
        three standard errors, 3/√(number of outputs).
    """
    fate = decide(e)
    if fate.reason == "drowned":
        yield Finding(
            "LRN001", "error", "", fate.text, "three standard errors of a correlation",
            "Two passes of the same sample differ as much as two samples: the gradient is noise.",
            "for m in (m for m in model.modules() if 'Dropout' in type(m).__name__): m.p /= 10",
        )  # fmt: skip
