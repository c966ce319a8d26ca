"""The report for the terminal, and numbers as people write them."""

from __future__ import annotations

import math
from io import StringIO

import pytest
from records import chain, report
from rich.console import Console

from firstlight.graph.results import Finding
from firstlight.report import charts, numbers
from firstlight.report.text import render_text, spark


def printed(made: object, width: int = 100) -> str:
    stream = StringIO()
    Console(file=stream, width=width, highlight=False).print(made)
    return stream.getvalue()


def test_verdict_walks_findings_and_remedy_are_printed() -> None:
    text = " ".join(printed(render_text(report())).split())
    for part in ("✕ will not start", "<1 % of networks", "The signal shrinks to 10⁻³⁹", "FWD001 at layers.99:linear"):
        assert part in text
    assert 'remedy firstlight.initialize(model, "he")' in text
    assert "Every check passed" in printed(render_text(report(findings=()))).replace("every", "Every")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_keep_to_the_width(width: int) -> None:
    assert max(len(line) for line in printed(render_text(report()), width).splitlines()) <= width


def test_many_findings_are_counted_not_printed() -> None:
    many = tuple(Finding(f"TST{i:03}", "warning", "", "m", "t", "meaning") for i in range(50))
    text = printed(render_text(report(findings=many)))
    assert "TST007" in text
    assert "TST008" not in text
    assert "42 further findings" in text


def test_hostile_names_neither_colour_nor_move_the_terminal() -> None:
    name = "[red]x[/red]\x1b[2J\r\n:boom:\u202e"
    finding = Finding("FWD001", "error", name, name, name, name, name, name)
    text = printed(render_text(report(chain(3, path=name + "{}"), findings=(finding,), headline=name)))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]x[/red]\\x1b[2J\\r\\n:boom:" in text


def test_spark_shows_the_worst_of_each_group() -> None:
    values: list[float | None] = [0.0] * 1000
    values[500] = math.nan
    line = spark(values, width=64).plain
    assert len(line) <= 64
    assert line.count("!") == 1
    assert spark([None, -math.inf, -9.0, 9.0]).plain == " 0▁█"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0.0, "0"), (1.0, "1"), (-2.5, "-2.5"), (0.012345, "0.0123"), (123456.0, "123,456"),
        (1234567.0, "1.23×10⁶"), (1.2345e-9, "1.23×10⁻⁹"), (5e-324, "4.94×10⁻³²⁴"), (1.7e308, "1.70×10³⁰⁸"),
        (math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "-∞"), (9.999, "10"), (0.00099999, "0.001"),
        (999999.0, "1.00×10⁶"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert numbers.number(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.0, "0 %"), (0.004, "<1 %"), (0.996, ">99 %"), (1.0, "100 %")])
def test_percent_never_rounds_to_certainty(share: float, text: str) -> None:
    assert numbers.percent(share) == text


def test_colours_follow_the_value() -> None:
    found = [charts.colour_class(value) for value in (-9.0, -4.0, -2.0, -0.7, 0.0, 0.7, 2.0, 4.0, 9.0)]
    assert found == [f"b{i}" for i in range(9)]
    assert [charts.colour_class(value) for value in (None, math.nan, -math.inf)] == ["bx", "bn", "bz"]
    merged = charts.plain_strip([[0.0, 0.0, 9.0], [None, 0.0, 0.0]], "name")
    assert merged.count("<rect") == 4
    assert 'width="2"' in merged


def test_charts_survive_what_cannot_be_drawn() -> None:
    for ys in ([], [math.nan, None], [1.0], [0.0, 1e300], [5.0, 5.0]):
        line = charts.Line(list(range(len(ys))), ys)
        drawn = charts.chart([line], title="<t>", description="d&", x_label="x", y_text=lambda y: f"{y:g}")
        assert drawn.startswith("<svg")
        assert "&lt;t&gt;" in drawn
        assert "nan" not in drawn
