"""The report as one HTML page: no script, no request to anywhere, everything escaped."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Literal

import jinja2
from markupsafe import Markup

from firstlight import __version__
from firstlight.graph.prediction import Prediction
from firstlight.graph.results import Report
from firstlight.report import numbers
from firstlight.report.charts import Area, Cell, Line, chart, strip
from firstlight.report.view import SEVERITY_SIGN, VERDICT_SIGN, Row, View, build_view

TEMPLATES = Path(__file__).parent / "templates"
Direction = Literal["forward", "contrast", "backward"]

_FINDINGS_SHOWN = 12
_ROWS_SHOWN = 240  # rows of a table; of longer ones the remarkable rows and an even sample are shown


def render_html(report: Report, prediction: Prediction | None = None) -> str:
    """The report as a page that stands alone: below 150 KB for a network of 100 layers.

    Args:
        report: What `diagnose` returned.
        prediction: What `predict` returned for the same model; its bands are drawn under the walks.

    Returns:
        HTML. Names and texts of the model and the findings are escaped; the page's own policy forbids scripts
        and requests.
    """
    return render_view(build_view(report, prediction))


def render_view(view: View) -> str:
    """The page of a view that is already worked out."""
    rows = remarkable(view.rows)
    parameters = view.measurement.parameters
    shown = parameters if len(parameters) <= _ROWS_SHOWN else parameters[:: math.ceil(len(parameters) / _ROWS_SHOWN)]
    findings = view.report.findings
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            view=view,
            findings=findings[:_FINDINGS_SHOWN],
            more=findings[_FINDINGS_SHOWN : 10 * _FINDINGS_SHOWN],
            rows=rows,
            rows_left_out=len(view.rows) - len(rows),
            parameters=shown,
            parameters_left_out=len(parameters) - len(shown),
        )
    )


@functools.cache
def environment() -> jinja2.Environment:
    """The templates, with everything escaped that is not markup of our own."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.globals.update(
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        version=__version__,
        verdict_sign=VERDICT_SIGN,
        severity_sign=SEVERITY_SIGN,
        number=numbers.number,
        factor=numbers.factor,
        percent=numbers.percent,
        shape=numbers.shape,
        count=numbers.count,
        inf=math.inf,
        strip=strip_of,
        walk=walk_of,
        directions=shown_directions,
    )
    return made


def remarkable(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """All rows of a table of ordinary length; of a longer one those with findings and an even sample."""
    if len(rows) <= _ROWS_SHOWN:
        return rows
    every = math.ceil(len(rows) / (_ROWS_SHOWN // 2))
    flagged = [row.number for row in rows if row.findings][: _ROWS_SHOWN // 2]
    chosen = {*flagged, *(row.number for row in rows[::every]), rows[-1].number}
    return tuple(row for row in rows if row.number in chosen)


def strip_of(view: View, links: bool = True) -> Markup:
    """The strip of all operations, signal above gradient; each column leads to its row of the table."""
    in_table = {row.number for row in remarkable(view.rows)} if links else set[int]()
    directions = shown_directions(view)
    cells = [
        Cell(
            tuple(_value(row, direction) for direction in directions),
            f"{row.number} {row.label[-60:]}\n{', '.join(_said(row, direction) for direction in directions)}",
            f"#o{row.number}" if row.number in in_table else "",
        )
        for row in view.rows
    ]
    return strip(cells, f"{view.forward_text} {view.contrast_text} {view.backward_text}")


def shown_directions(view: View) -> tuple[Direction, ...]:
    """The walks that were measured; a batch of one sample shows no differences between inputs."""
    return ("forward", "contrast", "backward") if view.contrast_text else ("forward", "backward")


def walk_of(view: View, direction: Literal["forward", "backward"]) -> Markup:
    """The walk of one direction with the predicted band; forward also what differs between inputs."""
    letter = direction[0]
    band = view.forward_band if direction == "forward" else view.backward_band
    spine = [row for row in view.rows if row.spine]
    others = [row for row in view.rows if not row.spine]
    finite = [y for row in view.rows if (y := _value(row, direction)) is not None and math.isfinite(y)]
    lines = [
        Line([row.number for row in rows], [_drawn(row, direction) for row in rows], f"l{letter}", markers=dots)
        for rows, dots in ((others, True), (spine, False))
    ]
    areas: list[Area] = []
    if band is not None:
        low = [median - 2.0 * sd for median, sd in zip(band.median, band.sd, strict=True)]
        high = [median + 2.0 * sd for median, sd in zip(band.median, band.sd, strict=True)]
        areas.append(Area(band.rows, low, high, f"b{letter}"))
        lines.insert(1, Line(band.rows, band.median, f"m{letter}"))
    if direction == "forward" and view.contrast_text:
        lines.insert(1, Line([row.number for row in spine], [_drawn(row, "contrast") for row in spine], "lc"))
    text = f"{view.forward_text} {view.contrast_text}" if direction == "forward" else view.backward_text
    ends = f" Largest {10 ** max(finite):.3g}, smallest {10 ** min(finite):.3g} times the start." if finite else ""
    return chart(
        lines,
        areas=areas,
        title={"forward": "Walk of the signal", "backward": "Walk of the gradient"}[direction],
        description=text + ends,
        x_label="operation",
        x_range=(1.0, float(max(len(view.rows), 2))),
        y_text=lambda y: numbers.power_of_ten(round(y)),
        whole_ticks=True,
        reference=0.0,
    )


def _value(row: Row, direction: Direction) -> float | None:
    return {"forward": row.forward, "contrast": row.contrast, "backward": row.backward}[direction]


def _drawn(row: Row, direction: Direction) -> float | None:
    value = _value(row, direction)
    return value if value is not None and math.isfinite(value) else None


def _said(row: Row, direction: Direction) -> str:
    value = _value(row, direction)
    name = {"forward": "size", "contrast": "difference", "backward": "gradient"}[direction]
    if value is None:
        return f"no {name}"
    if math.isnan(value):
        return f"{name} not finite"
    return f"{name} " + ("exactly zero" if value == -math.inf else numbers.factor(value))
