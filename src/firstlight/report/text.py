"""The command line's report: the verdict, the walks as strips, the findings with their remedies.

`Report.__rich__` (graph/report_view.py) is the short one for notebooks and `print`: it may use records alone, shows
three findings and no strips. This one reads the same findings and headline; its strips and sentences come from
report/view.py, which the HTML report shares and which graph/ must not import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from firstlight.graph.results import Finding, Report
from firstlight.report.charts import colour_class
from firstlight.report.numbers import count, percent
from firstlight.report.view import SEVERITY_SIGN, VERDICT_SIGN, View, build_view

if TYPE_CHECKING:
    from rich.console import RenderableType

_VERDICT_STYLE = {"starts": "green", "at risk": "yellow", "mis-scaled": "cyan", "will not start": "red"}
_SEVERITY_STYLE = {"error": "red", "warning": "yellow", "info": "cyan"}
# From vanished to exploded; the same classes as in the HTML report. Size and colour say the same thing.
_BLOCKS = {
    **{"b0": ("▁", "blue"), "b1": ("▂", "blue"), "b2": ("▃", "bright_blue"), "b3": ("▄", "bright_blue")},
    "b4": ("▄", "white"),
    **{"b5": ("▅", "yellow"), "b6": ("▆", "yellow"), "b7": ("▇", "red"), "b8": ("█", "red")},
    **{"bz": ("0", "magenta"), "bn": ("!", "magenta"), "bx": (" ", "")},
}
_STRIP_WIDTH = 64
_FINDINGS_SHOWN = 8


def render_text(report: Report) -> RenderableType:
    """The verdict, the network at a glance and the findings, for rich to print.

    Names and texts are printed as they are: nothing in them is read as markup, and control characters are
    shown escaped.
    """
    return render_view(build_view(report))


def render_view(view: View, most: int = _FINDINGS_SHOWN) -> RenderableType:
    """The same for a view that is already worked out, with at most so many findings."""
    findings = view.report.findings
    parts: list[RenderableType] = [_verdict(view), _glance(view)]
    parts += [_finding(finding) for finding in findings[:most]]
    if len(findings) > most:
        left = count(len(findings) - most, "further finding")
        parts.append(Text(f"… {left}: --format html or json shows all.", style="dim"))
    if not findings:
        parts.append(Text("No findings: every check passed.", style="green"))
    return Group(*parts)


def _verdict(view: View) -> RenderableType:
    report = view.report
    style = _VERDICT_STYLE[report.verdict]
    title = Text(f"{VERDICT_SIGN[report.verdict]} {report.verdict}", style=f"bold {style}")
    chance = Text(f"{percent(report.p_start)} of networks drawn like this can start", style="dim")
    facts = Text(" · ".join(f"{name} {printable(value)}" for name, value in view.facts), style="dim")
    return Panel(
        Group(Text(printable(view.headline)), chance, facts),
        title=title,
        title_align="left",
        border_style=style,
    )


def _glance(view: View) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    for name, values, text in (
        ("size →", [row.forward for row in view.rows], view.forward_text),
        ("differences →", [row.contrast for row in view.rows], view.contrast_text),
        ("← gradient", [row.backward for row in view.rows], view.backward_text),
    ):
        if text:
            grid.add_row(Text(name), spark(values))
            grid.add_row("", Text(text, style="dim"))
    return Padding(grid, (0, 1, 1, 1))


def spark(values: Sequence[float | None], width: int = _STRIP_WIDTH) -> Text:
    """One character per operation or group of them: low and blue has shrunk, high and red has grown."""
    text = Text(no_wrap=True, overflow="crop")
    group = max(1, math.ceil(len(values) / width))
    for start in range(0, len(values), group):
        part = values[start : start + group]
        worst = max(part, key=lambda v: -1.0 if v is None else math.inf if math.isnan(v) else abs(v))
        text.append(*_BLOCKS[colour_class(worst)])
    return text


def _finding(finding: Finding) -> RenderableType:
    style = _SEVERITY_STYLE[finding.severity]
    head = Text.assemble(
        (f"{SEVERITY_SIGN[finding.severity]} {finding.severity} ", f"bold {style}"),
        (finding.code, "bold"),
        f" at {printable(finding.where)}" if finding.where else " in the whole network",
    )
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for name, value in (
        ("measured", finding.measured),
        ("held against", finding.threshold),
        ("remedy", finding.remedy),
        ("effect", finding.effect),
    ):
        if value:
            grid.add_row(name, Text(printable(value), style="bold" if name == "remedy" else ""))
    return Group(head, Padding(Text(printable(finding.meaning)), (0, 0, 0, 2)), Padding(grid, (0, 0, 1, 2)))


def printable(text: str) -> str:
    """The text with control characters escaped: a name must not move the cursor or recolour the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
