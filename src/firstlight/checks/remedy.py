"""Which initialization to recommend, and what it gave when it was tried on a copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from firstlight.errors import FirstlightError
from firstlight.graph.results import Report, Verdict

# In the order in which they are tried: the first that starts is recommended.
CANDIDATES = ("random-walk", "orthogonal", "xavier")

_RANK: dict[Verdict, int] = {"starts": 3, "mis-scaled": 2, "at risk": 1, "will not start": 0}
_CALL = "firstlight.initialize("


def asks_for_draw(report: Report) -> bool:
    """Whether the network does not start, and an initialization is among what is recommended against it."""
    if report.verdict not in ("will not start", "at risk"):
        return False
    return any(f.remedy.startswith(_CALL) and f.severity != "info" for f in report.findings)


def better(a: Report, b: Report) -> bool:
    """Whether `a` is the better outcome."""
    return (_RANK[a.verdict], a.p_start) > (_RANK[b.verdict], b.p_start)


def tried_on(report: Report, tried: Callable[[str], Report]) -> Report:
    """Put the initialization that helps most into the findings that ask for one, with what it gives.

    Args:
        report: Of the network as it is.
        tried: Draws a copy of the network from a scheme and diagnoses that.
    """
    if not asks_for_draw(report):
        return report
    best: tuple[str, Report] | None = None
    for spec in CANDIDATES:
        try:
            after = tried(spec)
        except (FirstlightError, RuntimeError, TypeError, NotImplementedError):
            continue  # a module that cannot be copied or drawn anew keeps its plain remedy
        if best is None or better(after, best[1]):
            best = spec, after
        if after.verdict == "starts":
            break
    return report if best is None else with_remedy(report, *best)


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
    findings = tuple(
        replace(f, remedy=f'{_CALL}model, "{spec}")', effect=gave if helps else left)
        if f.remedy.startswith(_CALL) and f.severity != "info"
        else f
        for f in report.findings
    )
    return replace(report, findings=findings)
