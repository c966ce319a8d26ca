"""Numbers and tables as they are printed: numbers stay whole, names give way first."""

from __future__ import annotations

import math
from collections.abc import Collection
from io import StringIO
from typing import cast

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

Line = tuple[str, list[str], str]  # name, cells (none for a remark across the table), style
LEAST_NAME = 18


def number(x: float | None, digits: int = 3) -> str:
    """Short text for a number: "1.23", "4.5e-09", "nan", "–" for None."""
    if x is None:
        return "–"
    if x == 0.0:
        return "0"
    if not math.isfinite(x):
        return str(x)
    if 1e-3 <= abs(x) < 1e4:
        return f"{x:.{digits}g}" if abs(x) < 1000 else f"{x:.0f}"
    mantissa, exponent = f"{x:.{max(digits - 2, 0)}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def share(x: float | None) -> str:
    """A share in per cent: "0", "<1", "51", "100"."""
    if x is None:
        return "–"
    if 0.0 < x < 0.01:
        return "<1"
    return ">99" if 0.99 < x < 1.0 else f"{100 * x:.0f}"


def fitted(first: str, titles: list[str], lines: list[Line], width: int, wrap: Collection[str] = ()) -> Table:
    """A table whose numbers are never cut: names give way from the left, then whole columns from the right.

    Args:
        first: Title of the column of names.
        titles: Of the other columns.
        lines: Rows.
        width: Of the console, in characters.
        wrap: Titles of columns of text, which may wrap and stand at the left.
    """
    widths = [max([len(t), *(len(cells[i]) for _, cells, _ in lines if cells)]) + 2 for i, t in enumerate(titles)]
    widths = [min(w, LEAST_NAME) if t in wrap else w for t, w in zip(titles, widths, strict=True)]
    while widths and sum(widths) + LEAST_NAME > width:
        widths.pop()
    room = max(LEAST_NAME, width - sum(widths))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), collapse_padding=True)
    table.add_column(first, no_wrap=True)
    for title in titles[: len(widths)]:
        table.add_column(title, justify="left" if title in wrap else "right", no_wrap=title not in wrap)
    for name, cells, style in lines:
        short = name if len(name) <= room - 2 else "…" + name[-(room - 3) :]
        table.add_row(Text(short), *(Text(c) for c in cells[: len(widths)]), style=style)
    return table


def plain(what: RenderableType, width: int = 100) -> str:
    """The printed form without colours."""
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(what)
    return "\n".join(line.rstrip() for line in cast(StringIO, console.file).getvalue().splitlines())
