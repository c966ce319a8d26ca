"""Which initialization to recommend, and what it gave when it was tried on a copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from firstlight.checks.evidence import Probe
from firstlight.errors import FirstlightError
from firstlight.graph.results import Report

# In the order in which they are tried: the first that starts is recommended. "centred" is for what has a mean that
# drowns the signal (sigmoid, softplus); where the first three keep nothing of the input, no scale will.
CANDIDATES = ("random-walk", "orthogonal", "centred", "xavier")
_DIFFERENT = 3

_CALL = "firstlight.initialize("


def asks_for_draw(report: Report) -> bool:
    """Whether the network does not start, and an initialization is among what is recommended against it."""
    if report.verdict not in ("will not start", "at risk"):
        return False
    return any(f.remedy.startswith(_CALL) and f.severity != "info" for f in report.findings)


def tried_on(report: Report, looked: Callable[[str], Probe], tried: Callable[[str], Report]) -> Report:
    """Put the initialization that helps into the findings that ask for one, with what it gives.

    Args:
        report: Of the network as it is.
        looked: Draws a copy of the network from a scheme and probes it: one forward pass and two gradients.
        tried: The same, diagnosed in full. Asked once, of the first scheme that the probe finds healthy, or of the one
            that keeps most of the input; not at all where none keeps anything.
    """
    if not asks_for_draw(report):
        return report
    kept: dict[str, float] = {}
    for spec in CANDIDATES:
        try:
            probe = looked(spec)
        except _CANNOT:
            continue  # a module that cannot be copied or drawn anew keeps its plain remedy
        kept[spec] = min(probe.contrast, _HEALTHY) if probe.finite and probe.output_rms < _LARGE else 0.0
        if kept[spec] >= _HEALTHY or (len(kept) >= _DIFFERENT and max(kept.values()) < _ANYTHING):
            break
    if not kept:
        return report
    best = max(kept, key=lambda spec: kept[spec])
    if kept[best] < _ANYTHING:
        note = f"tried on a copy ({', '.join(kept)}): not enough alone, {kept[best]:.1e} of the gradient is left"
        return _written(report, best, f"{note} to tell samples apart")
    try:
        return with_remedy(report, best, tried(best))
    except _CANNOT:
        return report


_CANNOT = (FirstlightError, RuntimeError, TypeError, NotImplementedError)
# A tenth of the gradient tells samples apart; outputs beyond a hundred are sure of wrong answers.
_HEALTHY, _LARGE = 0.1, 100.0
# Below this share of the gradient no scheme is worth a full diagnosis.
_ANYTHING = 1e-4


def with_remedy(report: Report, spec: str, after: Report) -> Report:
    """The report with that initialization in its remedies, and what it gave; or the news that none helps."""
    helps = after.verdict != "will not start"
    gave = f"tried on a copy: {after.verdict}, P(start) {report.p_start:.2f} -> {after.p_start:.2f}"
    first = next((f for f in after.findings if f.severity == "error"), None)
    left = (
        f"tried on a copy, with the other schemes: not enough alone, {first.code} remains"
        if first is not None
        else gave
    )
    return _written(report, spec, gave if helps else left)


def _written(report: Report, spec: str, effect: str) -> Report:
    findings = tuple(
        replace(f, remedy=f'{_CALL}model, "{spec}")', effect=effect)
        if f.remedy.startswith(_CALL) and f.severity != "info"
        else f
        for f in report.findings
    )
    return replace(report, findings=findings)
