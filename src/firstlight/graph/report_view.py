"""A report as a table for pandas, and for the terminal: the verdict, why, and what to do, in that order."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from firstlight.graph.frames import pandas

if TYPE_CHECKING:
    import pandas as pd

    from firstlight.graph.results import Finding, Report

_COLOUR = {"starts": "green", "at risk": "yellow", "mis-scaled": "yellow", "will not start": "red"}
_MARK = {"error": ("✗", "red"), "warning": ("!", "yellow"), "info": ("·", "dim")}
_SHOWN = 3


def report_frame(report: Report) -> pd.DataFrame:
    """One row per finding, worst first.

    Raises:
        InputError: If pandas is not installed.
    """
    columns = ["code", "severity", "where", "measured", "threshold", "meaning", "remedy", "effect"]
    return pandas().DataFrame([[getattr(f, c) for c in columns] for f in report.findings], columns=columns)


def report_view(report: Report) -> RenderableType:
    """The verdict on top, then why and what to do, then what else was seen."""
    m = report.measurement
    colour = _COLOUR[report.verdict]
    title = Text.assemble(
        (f" {report.verdict.upper()} ", f"bold reverse {colour}"),
        ("  ", ""),
        (m.model, "bold"),
        (f"  {_parameters(report)}, batch of {m.batch_size}", "dim"),
        (f"  P(this law starts) = {report.p_start:.2f}", "dim"),
    )
    parts: list[RenderableType] = [title, Text(report.headline, style=colour)]
    if report.p_start_from:
        parts.append(Text(f"P(start) {report.p_start_from}", style="dim"))
    strong = [f for f in report.findings if f.severity != "info"]
    if strong:
        parts += [Text(""), Text("Why", style="bold"), _why(strong[:_SHOWN])]
        if len(strong) > _SHOWN:
            rest = ", ".join(dict.fromkeys(f.code for f in strong[_SHOWN:]))
            parts.append(
                Text(f"  and {len(strong) - _SHOWN} more that follow from these or add to them: {rest}", style="dim")
            )
        remedies: dict[str, str] = {}
        for f in strong[:_SHOWN]:
            if f.remedy and not remedies.get(f.remedy):
                remedies[f.remedy] = f.effect
        helping = {r: effect for r, effect in remedies.items() if "not enough alone" not in effect}
        remedies = helping or remedies
        if remedies:
            parts += [Text(""), Text("What to do", style="bold")]
            for remedy, effect in list(remedies.items())[:2]:
                parts.append(Text(f"  {remedy}", style="cyan"))
                if effect:
                    parts.append(Text(f"    {effect}", style="dim"))
    notes = [f for f in report.findings if f.severity == "info"]
    if notes:
        parts += [Text(""), Text("Worth knowing", style="bold"), _why(notes[:_SHOWN])]
    if report.findings:
        parts.append(Text(f"Details: firstlight explain {report.findings[0].code}", style="dim"))
    return Group(*parts)


def _why(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=2, justify="right")
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for f in findings:
        mark, style = _MARK[f.severity]
        body = Text.assemble((f"{f.where}  " if f.where else "", "bold"), f.meaning)
        body.append(f"\n{f.measured}", style="dim")
        if f.severity != "info":
            body.append(f"\nheld against {f.threshold}", style="dim italic")
        table.add_row(Text(mark, style=style), Text(f.code, style=style), body)
    return table


def _parameters(report: Report) -> str:
    """How many there are, and how many of them are trained where not all are."""
    parameters = report.measurement.parameters
    entries = sum(_size(p.shape) for p in parameters)
    trained = sum(_size(p.shape) for p in parameters if p.requires_grad)
    return f"{entries:,} parameters" + (f" ({trained:,} trained)" if trained < entries else "")


def _size(shape: tuple[int, ...]) -> int:
    n = 1
    for s in shape:
        n *= s
    return n


def plain_text(report: Report, width: int = 100) -> str:
    """The view without colours."""
    out = StringIO()
    Console(file=out, width=width, color_system=None, highlight=False).print(report_view(report))
    return out.getvalue().rstrip("\n")
