"""A prediction and a comparison as tables: for pandas, for the terminal, as HTML."""

from __future__ import annotations

import html
from dataclasses import fields
from io import StringIO
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from firstlight.errors import InputError
from firstlight.graph.prediction import Comparison, NodePrediction, Prediction, Sweep, TensorPrediction

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 60


def _pandas() -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise InputError(
            "to_frame()",
            got="no pandas in this environment",
            expected="pandas",
            action="pip install 'firstlight[frames]', or use to_json().",
        ) from error
    return pd


_STATS = ("mean", "q", "c_batch", "c_position", "c_feature", "log_mean", "log_sd", "p_dead")


def prediction_frame(p: Prediction) -> pd.DataFrame:
    """One row per operation; the gradient's statistics with the prefix "grad_"."""
    rows: list[dict[str, Any]] = []
    for n in p.nodes:
        row: dict[str, Any] = {
            "name": n.name, "op": n.op, "module": n.module, "module_type": n.module_type, "source": n.source,
            "shape": n.shape,
        }  # fmt: skip
        row.update({k: getattr(n.output, k) for k in _STATS})
        row["p_off"] = n.output.p_off()
        row.update({f"grad_{k}": None if n.grad is None else getattr(n.grad, k) for k in _STATS})
        row["grad_p_off"] = None if n.grad is None else n.grad.p_off()
        row["caveats"] = "; ".join(n.caveats)
        rows.append(row)
    return _pandas().DataFrame(rows)


def comparison_frame(c: Comparison) -> pd.DataFrame:
    """One row per operation."""
    rows: list[dict[str, Any]] = []
    for n in c.nodes:
        row: dict[str, Any] = {f.name: getattr(n, f.name) for f in fields(n)}
        row["caveats"] = "; ".join(n.caveats)
        rows.append(row)
    frame = _pandas().DataFrame(rows)
    first = ["node", "module", "op", "q_predicted", "q_measured", "q_z", "grad_q_predicted", "grad_q_measured", "grad_q_z"]
    return frame[[*first, *(k for k in frame.columns if k not in first)]] if rows else frame


def number(x: float | None, digits: int = 3) -> str:
    """Short text for a number; "–" for None."""
    if x is None:
        return "–"
    if x == 0.0:
        return "0"
    return f"{x:.{digits}g}"


def _pair(c: float | None) -> str:
    return "–" if c is None else f"{c:.2f}"


def _spread(t: TensorPrediction | None) -> str:
    return "–" if t is None else f"{t.log_mean:+.2f} ± {t.log_sd:.2f}"


_COLUMNS: dict[str, tuple[int, Any]] = {
    "shape": (110, lambda n: "×".join(map(str, n.shape)) or "scalar"),
    "q": (0, lambda n: number(n.output.q)),
    "mean": (100, lambda n: number(n.output.mean, 2)),
    "c": (0, lambda n: _pair(n.output.c_batch)),
    "c pos": (120, lambda n: _pair(n.output.c_position)),
    "ln q": (80, lambda n: _spread(n.output)),
    "P(off)": (0, lambda n: f"{n.output.p_off():.2f}"),
    "grad q": (0, lambda n: number(n.grad.q) if n.grad else "–"),
    "ln grad q": (100, lambda n: _spread(n.grad)),
    "": (0, lambda n: "!" if n.caveats else ""),
}


def _rows(nodes: tuple[NodePrediction, ...]) -> list[NodePrediction | int]:
    """What is shown: all, or the ends and a regular choice in between with the numbers left out."""
    n = len(nodes)
    if n <= _SHOWN:
        return list(nodes)
    keep = sorted({*range(10), *range(n - 10, n), *(round(i * (n - 1) / 29) for i in range(30))})
    out: list[NodePrediction | int] = []
    last = -1
    for i in keep:
        if i > last + 1:
            out.append(i - last - 1)
        out.append(nodes[i])
        last = i
    return out


class PredictionView:
    """What rich prints: heading, operations in execution order, caveats, notes."""

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        p = self.prediction
        del console
        mode = "train" if p.training else "eval"
        yield Text.assemble((p.model, "bold"), f": {len(p.nodes)} operations, {mode} mode, weights: {p.scheme}")
        where = f" ({p.start.where})" if p.start.where else ""
        yield Text(f"P(start) {p.start.p:.3f}: {p.start.limit}{where}\n")
        columns = {k: cell for k, (least, cell) in _COLUMNS.items() if options.max_width >= least}
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), collapse_padding=True)
        table.add_column("operation", overflow="ellipsis", no_wrap=True, max_width=40)
        for title in columns:
            table.add_column(title, justify="right", no_wrap=True)
        for row in _rows(p.nodes):
            if isinstance(row, int):
                table.add_row(Text(f"… {row} more", style="dim"))
            else:
                table.add_row(Text(row.name), *(cell(row) for cell in columns.values()))
        yield table
        told: dict[str, list[str]] = {}
        for n in p.nodes:
            for text in n.caveats:
                told.setdefault(text, []).append(n.name)
        for text, names in told.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield Text(f"! {names[0]}{more}: {text}", style="yellow")
        for note in p.notes:
            yield Text(f"note: {note}", style="yellow")


def comparison_view(c: Comparison) -> Table:
    """The operations with their z-scores, in execution order."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), collapse_padding=True)
    table.add_column("operation", overflow="ellipsis", no_wrap=True, max_width=40)
    for title in ("q predicted", "measured", "z", "c", "measured", "grad q", "measured", "z"):
        table.add_column(title, justify="right", no_wrap=True)
    for n in c.nodes:
        style = "yellow" if max(abs(n.q_z), abs(n.grad_q_z or 0.0)) > 4.0 else None
        table.add_row(
            Text(n.node), number(n.q_predicted), number(n.q_measured), f"{n.q_z:+.1f}", _pair(n.c_predicted),
            _pair(n.c_measured), number(n.grad_q_predicted), number(n.grad_q_measured),
            "–" if n.grad_q_z is None else f"{n.grad_q_z:+.1f}", style=style,
        )  # fmt: skip
    return table


def sweep_frame(s: Sweep) -> pd.DataFrame:
    """One row per combination."""
    keys = ("p_start", "limit", "q", "log_sd", "grad_q", "grad_log_sd")
    return _pandas().DataFrame([{**r.settings, **{k: getattr(r, k) for k in keys}} for r in s.rows])


def sweep_view(s: Sweep) -> Table:
    """Settings with the probability of a start and what limits it."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), collapse_padding=True)
    for name in (*s.names, "P(start)", "q out", "sd ln q", "grad q in", "sd"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("limited by", overflow="fold")
    for r in s.rows:
        settings = [str(r.settings[n]) for n in s.names]
        table.add_row(
            *settings, f"{r.p_start:.3f}", number(r.q), f"{r.log_sd:.2f}", number(r.grad_q), f"{r.grad_log_sd:.2f}", r.limit
        )
    return table


def plain(p: Prediction | Comparison | Sweep, width: int = 100) -> str:
    """The printed form without colours."""
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(p)
    return "\n".join(line.rstrip() for line in cast(StringIO, console.file).getvalue().splitlines())


_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2rem;color:#222;background:#fff}table{border-collapse:collapse}"
    "td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}"
    "td:first-child,th:first-child{text-align:left}.caveat{color:#8a5a00}"
)


def prediction_html(p: Prediction) -> str:
    """One page: heading, table, caveats; everything that came from the user is escaped."""

    def cells(values: list[str], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(v)}</{tag}>" for v in values) + "</tr>"

    columns = {k: cell for k, (_, cell) in _COLUMNS.items() if k}
    rows = [cells(["operation", *columns], "th")]
    rows += [cells([n.name, *(str(cell(n)) for cell in columns.values())]) for n in p.nodes]
    said = [f"{n.name}: {text}" for n in p.nodes for text in n.caveats]
    caveats = "".join(f"<li>{html.escape(s)}</li>" for s in said[:200])
    title = html.escape(p.model)
    where = f" ({p.start.where})" if p.start.where else ""
    head = html.escape(f"weights: {p.scheme}; P(start) {p.start.p:.3f}: {p.start.limit}{where}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}: prediction</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1><p>{head}</p><table>{''.join(rows)}</table>"
        f'<ul class="caveat">{caveats}</ul></html>'
    )
