"""From findings to the verdict, the probability and the headline."""

from __future__ import annotations

import math
from dataclasses import replace

from firstlight.checks.blame import blame
from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import NOISE, decide
from firstlight.checks.lengths import affine, relu_widths
from firstlight.checks.mainline import sensitivity
from firstlight.checks.registry import checks
from firstlight.checks.registry import findings as run_checks
from firstlight.graph.results import Finding, Report, Severity, Verdict
from firstlight.theory import lengths, special

_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}
# Warnings of a start that works but is wrong.
_WRONG = frozenset(
    [
        "INP002",
        "INP005",
        "WGT003",
        "WGT004",
        "WGT005",
        "WGT006",
        "WGT007",
        "FWD001",
        "FWD002",
        "FWD006",
        "GRD003",
        "GRD004",
        "OUT002",
        "OUT003",
        "OUT006",
        "OUT007",
        "OUT008",
        "FWD009",
        "FWD010",
        "FWD004",
    ]
)
# What `Report.p_start` was worked out from: the two definitions do not mix, and neither replaces the other.
MEASURED = "is judged from these weights; theory=True (--theory) takes what is predicted for their law"
PREDICTED = "predict's, of the weights' law (docs/signal.md, section 6)"
# Standard deviation of ln(signal) by which measured and true margins differ for other reasons than the draw.
_MARGIN_SD = 1.0


def judge(evidence: Evidence) -> Report:
    """Run every check and sum up: worst finding first, a cause before its consequences."""
    stage = {c.code: c.stage for c in checks()}
    found = sorted(run_checks(evidence), key=lambda f: (_ORDER[f.severity], stage[f.code]))
    fate = decide(evidence)
    p = probability(evidence)
    verdict: Verdict = "starts"
    if not fate.starts or any(f.severity == "error" for f in found):
        verdict, p = "will not start", p if not fate.starts else 0.0
    elif p < 0.5 or any(f.severity == "warning" and f.code.startswith("OPT") for f in found):
        verdict = "at risk"
    elif any(f.severity == "warning" and f.code in _WRONG for f in found):
        verdict = "mis-scaled"
    elif any(f.severity == "warning" for f in found):
        verdict = "at risk" if p < 0.9 else "starts"
    if verdict == "starts":  # nothing is to be mended: no remark may talk anybody out of a scheme that works
        found = [replace(f, remedy="", effect="") if _redraws(f) else f for f in found]
    law = fate.starts and evidence.law_p_start is not None
    return Report(
        verdict, p, tuple(found), evidence.measurement, _headline(verdict, p, found), PREDICTED if law else MEASURED
    )


def _redraws(f: Finding) -> bool:
    return f.severity == "info" and f.remedy.startswith("firstlight.initialize(")


def probability(evidence: Evidence) -> float:
    """P(a network drawn from this law starts).

    The margin ln(signal/needed) of the drawn network varies between draws like the log-norm: with variance 5S/4 of the
    amplitude (Hanin & Nica 1812.05994), S = Σ1/n over its ReLU layers. A layer is dead with probability 2^-n.
    Failures that are no matter of the draw (a cut graph, NaN, zeros, a dead bias) give 0. Where theory was asked, its
    own P(start) of the law is taken for a network that starts.
    """
    fate = decide(evidence)
    if fate.starts and evidence.law_p_start is not None:
        return evidence.law_p_start
    widths = relu_widths(evidence)
    alive = 1.0 - lengths.p_dead(widths) if widths else 1.0
    if not fate.starts:
        by_draw = blame(evidence).kind == "dead" and not _shifted(evidence)
        if by_draw:
            return alive
        if not math.isfinite(fate.margin) or fate.reason != "silent" or blame(evidence).kind != "faded":
            return 0.0
    margin = fate.margin if fate.starts else min(fate.margin, faded_margin(evidence))
    sd = math.hypot(math.sqrt(1.25 * sum(1.0 / n for n in widths)), _MARGIN_SD)
    return float(special.ndtr(margin / sd)) * alive if math.isfinite(margin) else alive


def faded_margin(evidence: Evidence) -> float:
    """ln(signal/needed) in front of the read-out of a stack that fades, where rounding errors cover the signal.

    What is measured there is rounding error, of about the needed size at any depth. The signal itself is followed on
    from the last layer where it can be seen, by the factor per layer up to there.
    """
    line = [s for n in affine(evidence) if (s := sensitivity(n)) is not None]
    floor = NOISE * evidence.eps
    seen = next((i for i, s in enumerate(line) if s < floor), len(line))
    if seen < 2:
        return math.inf
    step = math.log(line[seen - 1] / line[0]) / (seen - 1)
    return math.log(line[seen - 1] / floor) + step * (len(line) - seen)


def _shifted(evidence: Evidence) -> bool:
    """Whether constants, not the draw, put the units to death: pre-activations far below zero."""
    node = blame(evidence).node
    if node is None:
        return True
    fed = [n for n in evidence.nodes if n.name in node.inputs]
    return any(n.output.mean < -3.0 * max(n.output.sample_variance or 0.0, 1e-12) ** 0.5 for n in fed) or any(
        n.output.q == 0.0 for n in fed
    )


def _headline(verdict: Verdict, p: float, found: list[Finding]) -> str:
    first = next((f for f in found if f.severity != "info"), None)
    match verdict:
        case "will not start":
            why = f": {_lower(first.meaning)}" if first is not None else "."
            return f"This network will not start{why}"
        case "at risk":
            if p >= 0.5 and first is not None:
                return f"This network may not start: {_lower(first.meaning)}"
            return f"This network may not start: networks of this law do with probability {p:.2f}."
        case "mis-scaled":
            why = next((_lower(f.meaning) for f in found if f.severity == "warning" and f.code in _WRONG), "")
            return f"This network can start, but not as it should: {why}"
        case "starts" if first is not None:
            return f"This network can start, but: {_lower(first.meaning)}"
        case "starts":
            return "A signal gets through this network and back: it can start."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def with_effect(report: Report, code: str, effect: str) -> Report:
    """The same report with another predicted effect on its findings of `code`."""
    return replace(report, findings=tuple(replace(f, effect=effect) if f.code == code else f for f in report.findings))
