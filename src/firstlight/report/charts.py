"""Charts as inline SVG, without scripts: a strip of cells and line charts with a band."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup, escape

# Borders of the strip's colours, in decades from the start of the walk; the middle class is a factor of 3.
BINS = (-6.0, -3.0, -1.0, -0.5, 0.5, 1.0, 3.0, 6.0)
_CELLS = 600  # more operations than this share cells, so that the page stays small


@dataclass(frozen=True, slots=True)
class Cell:
    """One column of the strip: a value per row, what to say about them, and where the column leads."""

    values: tuple[float | None, ...]
    text: str
    link: str = ""


def colour_class(decades: float | None) -> str:
    """Colour of a value: "b0" (vanished) … "b4" (kept) … "b8" (exploded), "bz" zero, "bn" NaN, "bx" none."""
    if decades is None:
        return "bx"
    if math.isnan(decades):
        return "bn"
    if decades == -math.inf:
        return "bz"
    return f"b{sum(decades > border for border in BINS)}"


def strip(cells: Sequence[Cell], name: str) -> Markup:
    """Rows of cells, one column per operation, that stretch to the width of the page.

    With more than 600 operations, neighbours share a column and the worst of them colours it. Every column has
    a text under the pointer and, where it has one, leads to its link.
    """
    group = max(1, math.ceil(len(cells) / _CELLS))
    shown = [max(cells[i : i + group], key=_badness) for i in range(0, len(cells), group)]
    rows = max((len(cell.values) for cell in cells), default=1)
    parts = [*_coloured([[cell.values[row] for cell in shown] for row in range(rows)], name), '<g class="hit">']
    for x, cell in enumerate(shown):
        inner = f'<title>{escape(cell.text)}</title><path d="M{x} 0h1v9h-1"/>'
        parts.append(f'<a href="{escape(cell.link)}" tabindex=-1>{inner}</a>' if cell.link else f"<g>{inner}</g>")
    return Markup("".join((*parts, "</g></svg>")))


def plain_strip(rows: Sequence[Sequence[float | None]], name: str) -> Markup:
    """The same without texts and links."""
    return Markup("".join((*_coloured(rows, name), "</svg>")))


def _coloured(rows: Sequence[Sequence[float | None]], name: str) -> list[str]:
    """The opened drawing with its cells; neighbours of one colour are one rectangle."""
    width = max((len(row) for row in rows), default=1)
    parts = [
        f'<svg class="strip" viewBox="0 0 {width} {1.1 * len(rows) - 0.1:.1f}" preserveAspectRatio="none" '
        f'shape-rendering="crispEdges" role="img" aria-label="{escape(name)}">'
    ]
    for number, row in enumerate(rows):
        x = 0
        for colour, run in groupby(row, colour_class):
            length = len(list(run))
            y = f' y="{1.1 * number:.1f}"' if number else ""
            parts.append(f'<rect class="{colour}" x="{x}"{y} width="{length}" height="1"/>')
            x += length
    return parts


def _badness(cell: Cell) -> float:
    return max((_distance(value) for value in cell.values), default=-1.0)


def _distance(value: float | None) -> float:
    if value is None:
        return -1.0
    return math.inf if math.isnan(value) else abs(value)


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: points with y None are gaps; `style` names a CSS class."""

    xs: Sequence[float]
    ys: Sequence[float | None]
    style: str = "l0"
    name: str = ""
    markers: bool = False


@dataclass(frozen=True, slots=True)
class Area:
    """A band between two curves."""

    xs: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    style: str = "band"


_W, _H = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 40


def chart(
    lines: Sequence[Line],
    *,
    areas: Sequence[Area] = (),
    title: str,
    description: str,
    x_label: str,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    y_text: Callable[[float], str] = str,
    whole_ticks: bool = False,
    reference: float | None = None,
) -> Markup:
    """A line chart with axes and grid.

    Args:
        lines: Curves; the last is drawn on top.
        areas: Bands beneath the curves.
        title: For screen readers.
        description: What is to be seen, for screen readers.
        x_label: Written below the axis.
        y_range: Limits of the y axis; by default those of the data.
        x_range: Limits of the x axis; by default those of the data.
        y_text: Text of a y tick.
        whole_ticks: Whether y ticks lie on whole numbers only (decades).
        reference: A horizontal line to compare with.
    """
    xs = [x for line in lines for x in line.xs] or [0.0, 1.0]
    ys = [y for line in lines for y in line.ys if y is not None and math.isfinite(y)]
    room = max(3.0, max(ys, default=0.0) - min(ys, default=0.0))  # a band must not squeeze the curves flat
    low, high = min(ys, default=0.0) - room, max(ys, default=0.0) + room
    ys += [min(max(y, low), high) for area in areas for y in (*area.low, *area.high) if math.isfinite(y)]
    ys += [] if reference is None else [reference]
    x0, x1 = x_range or (min(xs), max(xs))
    y0, y1 = y_range or _padded(min(ys, default=0.0), max(ys, default=1.0))
    x1 = x1 if x1 > x0 else x0 + 1.0

    def px(x: float) -> float:
        return _LEFT + (x - x0) / (x1 - x0) * (_W - _LEFT - _RIGHT)

    def py(y: float) -> float:
        clipped = min(max(y, y0), y1)
        return _TOP + (y1 - clipped) / (y1 - y0) * (_H - _TOP - _BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {_W} {_H}" role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>"
    ]
    for tick in _ticks(y0, y1, 5, whole_ticks):
        y = f"{py(tick):.1f}"
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_W - _RIGHT}"/>')
        parts.append(f'<text class="ty" x="{_LEFT - 7}" y="{y}" dy=".32em">{escape(y_text(tick))}</text>')
    parts += [
        f'<text class="tx" x="{px(tick):.1f}" y="{_H - _BOTTOM + 17}">{tick:,.0f}</text>'
        for tick in _ticks(x0, x1, 6, whole=True)
    ]
    parts.append(f'<text class="tx axis" x="{(_LEFT + _W - _RIGHT) / 2}" y="{_H - 5}">{escape(x_label)}</text>')
    if reference is not None:
        parts.append(f'<path class="ref" d="M{_LEFT} {py(reference):.1f}H{_W - _RIGHT}"/>')
    for area in areas:
        up = [f"{px(x):.1f} {py(y):.1f}" for x, y in zip(area.xs, area.high, strict=True)]
        down = [f"{px(x):.1f} {py(y):.1f}" for x, y in zip(area.xs, area.low, strict=True)]
        parts.append(f'<path class="{area.style}" d="M{"L".join((*up, *reversed(down)))}Z"/>')
    parts += [_curve(line, px, py) for line in lines]
    return Markup("".join((*parts, "</svg>")))


def _curve(line: Line, px: Callable[[float], float], py: Callable[[float], float]) -> str:
    drawn = [
        (px(x), py(y)) if y is not None and not math.isnan(y) else None for x, y in zip(line.xs, line.ys, strict=True)
    ]
    if line.markers:
        dots = "".join(f"M{p[0]:.1f} {p[1]:.1f}h0" for p in drawn if p)
        return f'<path class="{line.style} dots" d="{dots}"/>' if dots else ""
    path, pen_up = "", True
    for point in drawn:
        if point is None:
            pen_up = True
            continue
        path += f"{'M' if pen_up else 'L'}{point[0]:.1f} {point[1]:.1f}"
        pen_up = False
    name = f"<title>{escape(line.name)}</title>" if line.name else ""
    return f'<path class="{line.style}" d="{path}">{name}</path>' if path else ""


def _padded(low: float, high: float) -> tuple[float, float]:
    """Limits with a margin, and never so narrow that noise fills the chart."""
    if high - low < 2.0:
        middle = (low + high) / 2
        low, high = min(low, middle - 1.0), max(high, middle + 1.0)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _ticks(low: float, high: float, most: int, whole: bool) -> list[float]:
    """Round numbers between the limits, at most `most` + 1 of them."""
    raw = (high - low) / most
    step = 10.0 ** math.floor(math.log10(raw))
    step *= next(m for m in (1, 2, 5, 10) if m * step >= raw * 0.999)
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]
