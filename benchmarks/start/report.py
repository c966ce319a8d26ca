"""The tables of the start benchmark, for the terminal and (as rows) for docs/start.md."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from benchmarks.start.baselines import BASELINES
from benchmarks.start.metrics import Area, area, bins, brier, calibration_error
from benchmarks.start.networks import Spec
from benchmarks.start.score import FIRST, Row

TITLES = {
    "p_start": "**P(start)**, today's definition",
    FIRST: "**P(start)**, as it was when these networks were first scored",
    "forward": "its part *forward*",
    "backward": "its part *backward*",
    "alive": "its part *alive*",
    "distinguishable": "its part *distinguishable*",
    "range": "its part *range*",
    **BASELINES,
}
Cells = tuple[tuple[str, ...], list[tuple[str, ...]]]


def _value(r: Row, key: str) -> float:
    return r.p_start if key == "p_start" else r.values.get(key, math.nan)


def _between(a: Area) -> str:
    """The interval; one network of a kind has none."""
    return f"{a.low:.3f} … {a.high:.3f}" if math.isfinite(a.low) else "no interval"


def comparison(rows: Sequence[Row]) -> Cells:
    """AUC of P(start), of its parts and of the baselines; a network without a score counts as the worst of all."""
    starts = np.array([r.starts for r in rows])
    out: list[tuple[str, ...]] = []
    for key, title in TITLES.items():
        value = np.array([_value(r, key) for r in rows])
        known = int((~np.isnan(value)).sum())
        if not known or (key == FIRST and all(r.p_start == r.values[key] for r in rows)):
            continue
        a = area(np.nan_to_num(value, nan=-math.inf, neginf=-1e300), starts)
        out.append((title, str(known), f"{a.value:.3f}", _between(a)))
    return ("score", "networks with a score", "AUC", "95 %"), out


def strata(rows: Sequence[Row]) -> Cells:
    """AUC of P(start) within families, depths, widths, activations and ways of normalising."""
    kinds: dict[str, Callable[[Spec], str]] = {
        "family": lambda s: s.family,
        "depth": lambda s: _range(s.depth, (2, 8, 32, 201)),
        "width": lambda s: _range(s.width, (8, 16, 64, 513)),
        "activation": lambda s: s.activation,
        "normalisation": lambda s: s.norm or "none",
        "data": lambda s: s.data,
    }
    known = [(r.spec, r) for r in rows if isinstance(r.spec, Spec)]
    out: list[tuple[str, ...]] = []
    for kind, of in kinds.items():
        for name in sorted({of(s) for s, _ in known}, key=lambda n: (n.split(" ")[0].zfill(4), n)):
            inside = [r for s, r in known if of(s) == name]
            starts = np.array([r.starts for r in inside])
            a = area(np.array([r.p_start for r in inside]), starts)
            cell = "—" if math.isnan(a.value) else f"{a.value:.3f}"
            out.append((kind, name, str(len(inside)), str(int((~starts).sum())), cell))
    return ("", "", "networks", "do not start", "AUC"), out


def _range(n: int, edges: tuple[int, ...]) -> str:
    low, high = next((a, b) for a, b in itertools.pairwise(edges) if n < b)
    return f"{low} … {high - 1}"


def calibration(rows: Sequence[Row]) -> Cells:
    """The calibration curve as a table."""
    p, starts = np.array([r.p_start for r in rows]), np.array([r.starts for r in rows])
    return ("P(start)", "networks", "said, on average", "start", "95 %"), [
        (f"{b.low:g} … {b.high:g}", str(b.count), f"{b.said:.2f}", f"{b.started:.2f}", f"{b.below:.2f} … {b.above:.2f}")
        for b in bins(p, starts)
    ]


def misses(rows: Sequence[Row], count: int = 12) -> Cells:
    """The networks of which P(start) was most wrong."""
    worst = sorted(rows, key=lambda r: -abs(r.p_start - r.starts))[:count]
    return ("network", "P(start)", "what limits it", "lowest loss / chance", "in truth"), [
        (r.spec.short(), f"{r.p_start:.2f}", r.limit, f"{r.best:.3f}", "starts" if r.starts else "does not")
        for r in worst
    ]


def summary(rows: Sequence[Row]) -> str:
    """Counts, AUC and calibration in a sentence."""
    p, starts = np.array([r.p_start for r in rows]), np.array([r.starts for r in rows])
    a = area(p, starts)
    seconds = [r.seconds for r in rows if not math.isnan(r.seconds)]
    return (
        f"{len(rows)} networks, {int(starts.sum())} start; AUC of P(start) {a.value:.3f} ({_between(a)}); "
        f"mean distance of said and started {calibration_error(p, starts):.3f}; Brier score {brier(p, starts):.3f} "
        f"(always saying the share of starts: {starts.mean() * (1 - starts.mean()):.3f})"
        + (f"; {float(np.median(seconds)):.2f} CPU-s each (median)" if seconds else "")
    )


def rich_report(rows: Sequence[Row]) -> RenderableType:
    """All tables for the terminal."""
    parts: list[RenderableType] = [summary(rows)]
    titles = {"AUC": comparison(rows), "by kind": strata(rows), "calibration": calibration(rows),
              "most wrong": misses(rows)}  # fmt: skip
    for title, (head, lines) in titles.items():
        if not lines:  # networks of which the name alone is known have no kinds
            continue
        table = Table(*head, title=title, title_justify="left")
        for line in lines:
            table.add_row(*(c.replace("**", "").replace("*", "") for c in line))
        parts.append(table)
    return Group(*parts)
