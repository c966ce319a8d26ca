"""A prediction and a comparison as tables: for pandas, for the terminal, as HTML."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from firstlight.graph.folding import signature, stretches
from firstlight.graph.frames import pandas
from firstlight.graph.prediction import Comparison, NodePrediction, Prediction, TensorPrediction
from firstlight.graph.sweep import Sweep
from firstlight.graph.terminal import Line, fitted, number

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 48  # operations in full; of longer networks repeated blocks are folded


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
    return pandas().DataFrame(rows)


def comparison_frame(c: Comparison) -> pd.DataFrame:
    """One row per operation."""
    rows: list[dict[str, Any]] = []
    for n in c.nodes:
        row: dict[str, Any] = {f.name: getattr(n, f.name) for f in fields(n)}
        row["caveats"] = "; ".join(n.caveats)
        rows.append(row)
    frame = pandas().DataFrame(rows)
    first = [
        "node",
        "module",
        "op",
        "q_predicted",
        "q_measured",
        "q_z",
        "grad_q_predicted",
        "grad_q_measured",
        "grad_q_z",
    ]
    return frame[[*first, *(k for k in frame.columns if k not in first)]] if rows else frame


def _pair(c: float | None) -> str:
    return "–" if c is None else f"{c:.2f}"


def _spread(t: TensorPrediction | None) -> str:
    return "–" if t is None else f"{round(t.log_mean, 2) + 0.0:+.2f} ± {t.log_sd:.2f}"


_Cell = Callable[[NodePrediction], str]
# Column title -> (narrowest console that shows it, its cell).
_COLUMNS: dict[str, tuple[int, _Cell]] = {
    "shape": (110, lambda n: "×".join(map(str, n.shape)) or "scalar"),
    "q": (0, lambda n: number(n.output.q)),
    "mean": (120, lambda n: number(n.output.mean, 2)),
    "c": (0, lambda n: _pair(n.output.c_batch)),
    "c pos": (130, lambda n: _pair(n.output.c_position)),
    "ln q": (80, lambda n: _spread(n.output)),
    "P(off)": (0, lambda n: f"{n.output.p_off():.2f}"),
    "grad q": (0, lambda n: number(n.grad.q) if n.grad else "–"),
    "ln grad q": (95, lambda n: _spread(n.grad)),
    "!": (0, lambda n: "!" if n.caveats else ""),
}


def _lines(nodes: tuple[NodePrediction, ...], cells: list[_Cell]) -> list[Line]:
    """One line per operation; in long networks repeated blocks are folded and what is still too much is left out."""

    def line(n: NodePrediction) -> Line:
        return n.name, [cell(n) for cell in cells], ""

    if len(nodes) <= _SHOWN:
        return [line(n) for n in nodes]
    out: list[Line] = []
    for part in stretches([(signature(n.name), n.op, n.shape) for n in nodes]):
        block = nodes[part.start : part.start + part.period]
        if part.times == 1:
            kept = _thinned(block, _SHOWN // 4)
        else:
            size = f", {len(block)} operations each" if len(block) > 1 else ""
            out.append((f"× {part.times}{size}:", [], "dim"))
            kept = _thinned(block, _SHOWN // 2)
        last = part.start - 1
        for i in kept:
            at = part.start + i
            if at > last + 1:
                out.append((f"… {at - last - 1} more", [], "dim"))
            out.append(line(nodes[at]))
            last = at
        if last < part.start + part.period - 1:
            out.append((f"… {part.start + part.period - 1 - last} more", [], "dim"))
        if part.times > 1:  # how the block's last operation goes on with depth
            steps = sorted({round(k * (part.times - 1) / 4) for k in range(1, 5)})
            out += [line(nodes[part.start + k * part.period + part.period - 1]) for k in steps if k > 0]
            out.append((f"end of × {part.times}", [], "dim"))
    if len(out) > 2 * _SHOWN:  # many different blocks
        keep = sorted(
            {*range(12), *range(len(out) - 12, len(out)), *(round(i * (len(out) - 1) / 30) for i in range(31))}
        )
        gaps = {b: b - a - 1 for a, b in pairwise(keep) if b - a > 1}
        short: list[Line] = []
        for i in keep:
            if i in gaps:
                short.append((f"… {gaps[i]} lines more", [], "dim"))
            short.append(out[i])
        return short
    return out


def _thinned(block: tuple[NodePrediction, ...], most: int) -> list[int]:
    """Indices to show: operations that change the mean square come first, then the ends and a regular choice."""
    n = len(block)
    if n <= most:
        return list(range(n))
    moved = [
        i for i in range(n)
        if i == n - 1 or i == 0 or _moves(block[i - 1], block[i])
    ]  # fmt: skip
    if len(moved) <= most:
        return moved
    return sorted({moved[round(i * (len(moved) - 1) / (most - 1))] for i in range(most)})


def _moves(before: NodePrediction, n: NodePrediction) -> bool:
    return abs(n.output.q - before.output.q) > 1e-9 * n.output.q or bool(n.caveats)


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
        if not any(n.caveats for n in p.nodes):
            del columns["!"]
        yield fitted("operation", list(columns), _lines(p.nodes, list(columns.values())), options.max_width)
        told: dict[str, list[str]] = {}
        for n in p.nodes:
            for text in n.caveats:
                told.setdefault(text, []).append(n.name)
        for text, names in told.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield Text(f"! {names[0]}{more}: {text}", style="yellow")
        for note in p.notes:
            yield Text(f"note: {note}", style="yellow")


class ComparisonView:
    """The operations with their z-scores, in execution order."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console
        titles = ["q predicted", "measured", "z", "grad q", "measured", "z", "c", "measured"]
        lines: list[Line] = []
        for n in self.comparison.nodes:
            style = "yellow" if max(abs(n.q_z), abs(n.grad_q_z or 0.0)) > 4.0 else ""
            cells = [
                number(n.q_predicted), number(n.q_measured), f"{n.q_z:+.1f}", number(n.grad_q_predicted),
                number(n.grad_q_measured), "–" if n.grad_q_z is None else f"{n.grad_q_z:+.1f}", _pair(n.c_predicted),
                _pair(n.c_measured),
            ]  # fmt: skip
            lines.append((n.node, cells, style))
        yield fitted("operation", titles, lines, options.max_width)


def sweep_frame(s: Sweep) -> pd.DataFrame:
    """One row per combination."""
    keys = ("p_start", "limit", "q", "log_sd", "grad_q", "grad_log_sd")
    return pandas().DataFrame([{**r.settings, **{k: getattr(r, k) for k in keys}} for r in s.rows])


class SweepView:
    """Settings with the probability of a start and what limits it."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console
        names = list(self.sweep.names)
        lines: list[Line] = []
        for r in self.sweep.rows:
            settings = [str(r.settings[n]) for n in names]
            cells = [
                *settings[1:], f"{r.p_start:.3f}", number(r.q), f"{r.log_sd:.2f}", number(r.grad_q),
                f"{r.grad_log_sd:.2f}", r.limit,
            ]  # fmt: skip
            lines.append((settings[0] if settings else "", cells, ""))
        titles = [*names[1:], "P(start)", "q out", "sd ln q", "grad q in", "sd", "limited by"]
        yield fitted(names[0] if names else "", titles, lines, options.max_width, {"limited by"})


_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2rem;color:#222;background:#fff}table{border-collapse:collapse}"
    "td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}"
    "td:first-child,th:first-child{text-align:left}.caveat{color:#8a5a00}"
)


def prediction_html(p: Prediction) -> str:
    """One page: heading, table, caveats; everything that came from the user is escaped."""

    def cells(values: list[str], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(v)}</{tag}>" for v in values) + "</tr>"

    columns = {k: cell for k, (_, cell) in _COLUMNS.items() if k != "!"}
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
