"""A measurement as a table: for pandas, and for the terminal at 80 columns and above."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from firstlight.errors import InputError
from firstlight.graph.frames import pandas
from firstlight.graph.measurement import Distribution, Measurement, NodeStats, ParameterStats, TensorStats
from firstlight.graph.terminal import Line, fitted, number, plain, share

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 48  # operations in full; longer networks are shown by their ends and their extremes


def measurement_frame(m: Measurement, table: Literal["nodes", "parameters"]) -> pd.DataFrame:
    """One row per operation or parameter; the gradient's statistics with the prefix "grad_".

    Raises:
        InputError: If `table` is unknown, or pandas is not installed.
    """
    if table not in ("nodes", "parameters"):
        raise InputError("to_frame(table=...)", got=repr(table), expected="'nodes' or 'parameters'")
    rows = [_node_row(n) for n in m.nodes] if table == "nodes" else [_parameter_row(p) for p in m.parameters]
    return pandas().DataFrame(rows)


_STATS = [
    "mean",
    "q",
    "rms",
    "abs_max",
    "zero_fraction",
    "units",
    "dead_units",
    "saturated_fraction",
    "cosine",
    "sample_variance",
    "nan_count",
    "inf_count",
    "flushed_fp16",
    "fp16_overflow",
    "bf16_overflow",
    "fp16_underflow",
    "bf16_underflow",
    "sampled",
]


def _node_row(n: NodeStats) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": n.name,
        "op": n.op,
        "module": n.module,
        "module_type": n.module_type,
        "source": n.source,
        "shape": n.output.shape,
        "dtype": n.output.dtype,
    }
    row.update({key: getattr(n.output, key) for key in _STATS})
    row.update({f"grad_{key}": math.nan if n.grad is None else getattr(n.grad, key) for key in _STATS})
    for key, d in (("log_q", n.log_q), ("log_grad_q", n.log_grad_q)):
        if d is not None:
            row |= {f"{key}_mean": d.mean, f"{key}_sd": d.sd, f"{key}_p_off": d.p_off()}
            row |= {f"{key}_q{round(100 * p):02d}": d.quantile(p) for p in (0.05, 0.25, 0.5, 0.75, 0.95)}
    if n.cosines is not None:
        row |= {"cosine_drawn_mean": n.cosines.mean, "cosine_drawn_sd": n.cosines.sd}
    row["inputs"] = n.inputs
    row["parameters"] = n.parameters
    return row


def _parameter_row(p: ParameterStats) -> dict[str, Any]:
    keys = list(p.__dataclass_fields__)
    return {key: getattr(p, key) for key in (*keys, "received_grad", "tied", "grad_ratio")}


class MeasurementView:
    """What rich prints: heading, operations in execution order, parameters, notes; fewer columns where it is narrow."""

    def __init__(self, measurement: Measurement) -> None:
        self.measurement = measurement

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        m = self.measurement
        mode = "train" if m.training else "eval"
        yield Text.assemble(
            (m.model, "bold"),
            f": {len(m.nodes)} operations, {len(m.parameters)} parameters, {mode} mode, batch {m.batch_size}, ",
            f"{m.device}\nloss {number(m.loss, 4)} ({m.loss_kind})\n",
        )
        yield _node_table(m, options.max_width)
        if m.parameters:
            yield Text()
            yield _parameter_table(m, options.max_width)
        for note in m.notes:
            yield Text(f"note: {note}", style="yellow")


def plain_text(m: Measurement, width: int = 100) -> str:
    """The printed form without colours."""
    return plain(MeasurementView(m), width)


# Column title -> (narrowest console that shows it, its cell).
_NODE_COLUMNS: dict[str, tuple[int, Callable[[NodeStats], str]]] = {
    "shape": (100, lambda n: "×".join(map(str, n.output.shape)) or "scalar"),
    "q": (0, lambda n: _length(n.output)),
    "mean": (110, lambda n: number(n.output.mean, 2)),
    "max": (80, lambda n: number(n.output.abs_max, 2)),
    "zero%": (90, lambda n: share(n.output.zero_fraction)),
    "dead": (0, lambda n: str(n.output.dead_units or "")),
    "sat%": (
        100,
        lambda n: "" if n.output.saturated_fraction is None else share(n.output.saturated_fraction),
    ),
    "cos": (0, lambda n: "" if n.output.cosine is None else f"{round(n.output.cosine, 2) + 0.0:.2f}"),
    "grad q": (0, lambda n: "–" if n.grad is None else _length(n.grad)),
    "grad max": (90, lambda n: "–" if n.grad is None else number(n.grad.abs_max, 2)),
}
_DRAW_COLUMNS: dict[str, tuple[int, Callable[[NodeStats], str]]] = {
    "ln q": (0, lambda n: _spread(n.log_q)),
    "P(off)": (0, lambda n: "" if n.log_q is None else f"{n.log_q.p_off():.2f}"),
    "ln grad q": (80, lambda n: _spread(n.log_grad_q)),
    "P(off) back": (90, lambda n: "" if n.log_grad_q is None else f"{n.log_grad_q.p_off():.2f}"),
}


def _node_table(m: Measurement, width: int) -> Table:
    columns = _NODE_COLUMNS
    if m.draws > 1:  # distributions take the place of what is known of one draw only
        kept = ("shape", "q", "grad q")
        columns = {k: v for k, v in columns.items() if k in kept} | _DRAW_COLUMNS
    shown = {title: cell for title, (least, cell) in columns.items() if width >= least}
    rows, gaps = _chosen(m)
    lines: list[Line] = []
    for i in rows:
        if i in gaps:
            lines.append((f"… {gaps[i]} more", [], "dim"))
        n = m.nodes[i]
        healthy = n.output.finite and (n.grad is None or n.grad.finite)
        lines.append((n.name, [cell(n) for cell in shown.values()], "" if healthy else "red"))
    return fitted("operation", list(shown), lines, width)


def _length(s: TensorStats) -> str:
    if s.finite:
        return number(s.q)
    return " ".join(f"{n} {kind}" for n, kind in ((s.nan_count, "NaN"), (s.inf_count, "Inf")) if n)


def _spread(d: Distribution | None) -> str:
    return "" if d is None else f"{round(d.mean, 2) + 0.0:.2f} ± {d.sd:.2f}"


def _chosen(m: Measurement) -> tuple[list[int], dict[int, int]]:
    """Indices of the operations to show, and before which of them how many are left out."""
    n = len(m.nodes)
    if n <= _SHOWN:
        return list(range(n)), {}
    keep = {*range(10), *range(n - 10, n), *(round(i * (n - 1) / 19) for i in range(20))}
    keep.update([i for i in range(n) if not m.nodes[i].output.finite][:4])  # where the first NaN is born
    keep.update([i for i in range(n) if m.nodes[i].output.dead_units == m.nodes[i].output.units][:4])
    rows = sorted(keep)
    return rows, {b: b - a - 1 for a, b in pairwise(rows) if b - a > 1}


def _parameter_table(m: Measurement, width: int) -> Table:
    columns: dict[str, Callable[[ParameterStats], str]] = {
        "shape": lambda p: "×".join(map(str, p.shape)) or "scalar",
        "q": lambda p: number(p.q),
        "grad q": lambda p: number(p.grad_q),
        "grad/weight": lambda p: number(p.grad_ratio),
        "remarks": _remarks,
    }
    if width < 90:
        del columns["shape"]
    if width < 70:
        del columns["grad/weight"]
    n = len(m.parameters)
    rows = list(range(n))
    if n > _SHOWN // 2:
        remarkable = [i for i in rows if _remarks(m.parameters[i])]
        rows = sorted({*range(6), *range(n - 4, n), *(round(i * (n - 1) / 9) for i in range(10)), *remarkable[:8]})
    lines: list[Line] = []
    last = -1
    for i in rows:
        if i > last + 1:
            lines.append((f"… {i - last - 1} more", [], "dim"))
        last = i
        lines.append((m.parameters[i].name, [cell(m.parameters[i]) for cell in columns.values()], ""))
    return fitted("parameter", list(columns), lines, width, {"remarks"})


def _remarks(p: ParameterStats) -> str:
    said = [
        (not p.requires_grad, "frozen"),
        (p.requires_grad and not p.received_grad, "no gradient"),
        (p.tied, f"tied to {', '.join(p.aliases[:2])}{' and more' if len(p.aliases) > 2 else ''}"),
        (p.uses > 1 and not p.tied, f"used {p.uses}×"),
        (p.uses == 0, "not used"),
        (p.nan_count > 0, f"{p.nan_count} NaN"),
        (p.inf_count > 0, f"{p.inf_count} Inf"),
        (p.structure == "orthogonal", "orthogonal"),
        (p.duplicate_rows > 0, f"{p.duplicate_rows} of {p.shape[0] if p.shape else 1} rows repeat"),
        (p.grad_q == 0.0, "gradient exactly zero"),
        (p.grad_nan_count + p.grad_inf_count > 0, "gradient not finite"),
    ]
    return ", ".join(text for true, text in said if true)
