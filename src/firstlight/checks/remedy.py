"""Which initialization to recommend, and what it gave when it was tried on a copy."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
    """Whether the network does not start as it should, and an initialization is among what is recommended."""
    if report.verdict not in ("will not start", "at risk", "mis-scaled"):
        return False
    return any(f.remedy.startswith(_CALL) and f.severity != "info" for f in report.findings)


def tried_on(
    report: Report, looked: Callable[[str], Probe], tried: Callable[[str], Report], line: Callable[[str], str]
) -> Report:
    """Put the initialization that helps into the findings that ask for one, with what it gives.

    Args:
        report: Of the network as it is.
        looked: Draws a copy of the network from a scheme and probes it: one forward pass and two gradients.
        tried: The same, diagnosed in full. Asked once, of the first scheme that the probe finds healthy, its loss at
            the start included, or of the one that keeps most of the input; not at all where none keeps anything.
        line: The line of code that draws from a scheme as it was tried.
    """
    if not asks_for_draw(report):
        return report
    if report.verdict == "mis-scaled":
        return _rescaled(report, tried, line)
    kept: dict[str, float] = {}
    above: dict[str, float] = {}
    for spec in CANDIDATES:
        try:
            probe = looked(spec)
        except _CANNOT:
            continue  # a module that cannot be copied or drawn anew keeps its plain remedy
        kept[spec] = min(probe.contrast, _HEALTHY) if probe.finite and probe.output_rms < _LARGE else 0.0
        above[spec] = excess(probe)
        fine = kept[spec] >= _HEALTHY and above[spec] <= 1.0
        if fine or (len(kept) >= _DIFFERENT and max(kept.values()) < _ANYTHING):
            break
    if not kept:
        return report
    best = max(kept, key=lambda spec: (kept[spec], -above[spec]))
    if kept[best] < _ANYTHING:
        note = f"tried on a copy ({', '.join(kept)}): not enough alone, {kept[best]:.1e} of the gradient is left"
        return _written(report, line(best), f"{note} to tell samples apart")
    try:
        return with_remedy(report, line(best), tried(best))
    except _CANNOT:
        return report


def _rescaled(report: Report, tried: Callable[[str], Report], line: Callable[[str], str]) -> Report:
    """The first scheme after which nothing is out of scale; a network that learns all the same is tried in full."""
    failed: list[str] = []
    for spec in CANDIDATES:
        try:
            after = tried(spec)
        except _CANNOT:
            continue
        if after.verdict == "starts":
            return with_remedy(report, line(spec), after)
        failed.append(spec)
    if not failed:
        return report
    return _written(
        report, line(failed[0]), f"tried on a copy ({', '.join(failed)}): not enough alone, still mis-scaled"
    )


def excess(p: Probe) -> float:
    """Loss at the start over twice that of the answer 0 or the best constant one, where OUT002 begins; at least 1."""
    if p.loss is None or p.loss_silent is None:
        return 0.0
    return max(1.0, p.loss / max(2.0 * max(p.loss_silent, p.loss_constant or 0.0), 1e-30))


_CANNOT = (FirstlightError, RuntimeError, TypeError, NotImplementedError)
# A tenth of the gradient tells samples apart; outputs beyond a hundred are sure of wrong answers.
_HEALTHY, _LARGE = 0.1, 100.0
# Below this share of the gradient no scheme is worth a full diagnosis.
_ANYTHING = 1e-4


def with_remedy(report: Report, line: str, after: Report) -> Report:
    """The report with that line in its remedies, and what it gave; or the news that none helps."""
    helps = after.verdict != "will not start"
    gave = f"tried on a copy: {report.verdict} -> {after.verdict}"
    before, then = f"{report.p_start:.2f}", f"{after.p_start:.2f}"
    if before != then:
        gave += f", P(start) {before} -> {then}"
    first = next((f for f in after.findings if f.severity == "error"), None)
    left = (
        f"tried on a copy, with the other schemes: not enough alone, {first.code} remains"
        if first is not None
        else gave
    )
    still = {f.code for f in after.findings if f.severity != "info"}
    gone = {f.code for f in report.findings} - still if helps else set[str]()
    return _written(report, line, gave if helps else left, gone)


def _written(report: Report, line: str, effect: str, gone: Collection[str] = ()) -> Report:
    """The line in place of every remedy that asks for a draw, and of what follows from these and is gone after it.

    Applied as well, such a remedy would mend what is no longer wrong: a read-out made small for outputs that were too
    large. Findings stand in the order of cause and consequence.
    """
    asks = [f.remedy.startswith(_CALL) and f.severity != "info" for f in report.findings]
    findings = tuple(
        replace(f, remedy=line, effect=effect)
        if asks[i] or (f.severity != "info" and f.code in gone and any(asks[:i]))
        else f
        for i, f in enumerate(report.findings)
    )
    return replace(report, findings=findings)
