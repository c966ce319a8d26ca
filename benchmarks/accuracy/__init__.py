"""Predicted against drawn: mean squares, gradients and correlations of every operation over the whole zoo.

For each network, depth and scheme the weights are drawn ACCURACY_DRAWS times and run forward and backward, in a
process of its own under a memory limit; the means over the draws are kept (`store`), so that a run can stop and go
on. Then the law of the scheme is predicted once and compared: an error counts beyond two standard errors of the
mean over the draws, and every operation counts. ACCURACY_NETS (a comma-separated list of parts of names),
ACCURACY_SCHEMES, ACCURACY_DEPTHS ("first" or "both") and ACCURACY_STORE (where the draws are kept) narrow a run;
ACCURACY_DRAW=no judges the draws that are kept. A whole run writes `table.csv`, which the documentation shows.
"""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.table import Table

from benchmarks.accuracy import store
from benchmarks.accuracy.draws import draw_apart, drawn
from benchmarks.accuracy.errors import NodeError, part, prediction
from benchmarks.accuracy.errors import errors as errors_of
from benchmarks.accuracy.store import Case
from firstlight.capture.trace import trace
from tests.models import ZOO
from tests.zoo.entry import Entry

DRAWS = int(os.environ.get("ACCURACY_DRAWS", "64"))
SCHEMES = tuple(os.environ.get("ACCURACY_SCHEMES", "he,xavier,torch-default").split(","))
DEPTHS = os.environ.get("ACCURACY_DEPTHS", "both")
PER_PROCESS = 40  # cases
MISS = 0.1  # beyond the sampling error, where a caveat must say why
TABLE = Path(__file__).parent / "table.csv"
COLUMNS = (
    "network", "depth", "scheme", "draws", "operations", "q_median", "q_90", "q_99", "grad_q_median", "grad_q_90",
    "grad_q_99", "c_90", "c_max", "cos_90", "cos_max", "missed", "caveats", "cpu_s", "error",
)  # fmt: skip


@dataclass
class Row:
    """One case with the errors of its operations."""

    case: Case
    draws: int = 0
    found: list[NodeError] = field(default_factory=list)
    caveats: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def forward(self) -> list[float]:
        """Errors of the mean squares."""
        return [e.q for e in self.found if e.q == e.q]

    @property
    def backward(self) -> list[float]:
        """Errors of the gradients' mean squares."""
        return [e.grad_q for e in self.found if e.grad_q == e.grad_q]

    @property
    def correlation(self) -> list[float]:
        """Errors of the correlations between samples and between positions."""
        return [v for e in self.found for v in (e.c, e.place) if v == v]

    @property
    def cosine(self) -> list[float]:
        """The same against the mean cosine of a draw."""
        return [v for e in self.found for v in (e.cosine, e.place_cosine) if v == v]

    def record(self) -> tuple[object, ...]:
        """The case as a line of the table."""
        f, b = self.forward, self.backward
        quantiles = [round(100 * part(x, p), 2) for x in (f, b) for p in (0.5, 0.9, 0.99)]
        alike = [round(part(c, p), 3) for c in (self.correlation, self.cosine) for p in (0.9, 1.0)]
        missed = sum(max(e.q, e.grad_q if e.grad_q == e.grad_q else 0.0) > MISS for e in self.found)
        return (
            self.case.name, self.case.depth, self.case.scheme, self.draws, len(f), *quantiles,
            *alike, missed, self.caveats, round(self.seconds, 2), self.error,
        )  # fmt: skip


def cases() -> Iterator[Case]:
    """What this run is asked for."""
    parts = [p for p in os.environ.get("ACCURACY_NETS", "").split(",") if p]
    for depth in (0, 1) if DEPTHS == "both" else (0,):
        for scheme in SCHEMES:
            for name, entry in ZOO.items():
                if not parts or any(p in name for p in parts):
                    yield Case(name, entry.depths[depth], scheme)


def draw(wanted: list[Case], draws: int) -> dict[Case, str]:
    """Draw what is not there yet, each case in a process of its own; returns what went wrong."""
    failed: dict[Case, str] = {}
    for case in wanted:
        if store.draws_kept(case) >= draws or os.environ.get("ACCURACY_DRAW") == "no":
            continue
        told = draw_apart(case, draws)
        if told:
            failed[case] = told
    return failed


def judge(case: Case) -> Row:
    """Predict one case and compare."""
    torch.set_num_threads(1)
    row = Row(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            drawn = store.read(case)
            found, row.seconds = prediction(case)
            row.draws = min((d.draws for d in drawn.values()), default=0)
            row.found = errors_of(found, drawn)
            row.caveats = sum(bool(n.caveats) for n in found.nodes)
            if not row.found:
                row.error = "no draws"
        except Exception as error:  # noqa: BLE001 - a network that fails is a row of the table
            row.error = f"{type(error).__name__}: {error}"[:80]
    return row


def compare(entry: Entry, scheme: str, draws: int = DRAWS) -> Row:
    """Errors of every operation of one network, drawn here and now."""
    case = Case(entry.name, entry.depths[0], scheme)
    model, args, kwargs = entry.make()
    table = drawn(model, args, kwargs, scheme, trace(model, args, kwargs), draws)
    row = Row(case, draws)
    found, row.seconds = prediction(case)
    row.found = errors_of(found, table)
    row.caveats = sum(bool(n.caveats) for n in found.nodes)
    return row


def overall(found: list[Row], name: str = "all") -> Row:
    """All operations of all networks as one."""
    good = [r for r in found if not r.error]
    out = Row(Case(name, 0, ""), min((r.draws for r in good), default=0))
    out.found = [e for r in good for e in r.found]
    out.caveats = sum(r.caveats for r in good)
    out.seconds = sum(r.seconds for r in good)
    return out


def used_once(found: list[Row]) -> list[Row]:
    """The rows of networks that use each weight once; loops over one block and two views are a class of their own."""
    from tests.models import ZOO

    return [r for r in found if "shared" not in ZOO[r.case.name].tags]


def worst_first(found: list[Row]) -> list[Row]:
    """Failures, then by the larger of the two 99th percentiles."""
    return sorted(
        found, key=lambda r: -(float("inf") if r.error else max(part(r.forward, 0.99), part(r.backward, 0.99)))
    )


def keep(found: list[Row], path: Path = TABLE) -> None:
    """Write the table that the documentation shows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        out.writerow(overall(found).record())
        out.writerow(overall(used_once(found), "used once").record())
        out.writerows(r.record() for r in worst_first(found))


def table(found: list[Row]) -> Table:
    """Worst network first, the whole zoo in the last line (per cent; correlations absolute)."""
    out = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in COLUMNS:
        out.add_column(title.replace("_", " "), justify="left" if title in ("network", "scheme") else "right")
    for row in [*worst_first(found), overall(found)]:
        out.add_row(*map(str, row.record()))
    return out


def run() -> Table:
    """Over the zoo, with He's, Xavier's and torch's own law."""
    wanted = list(cases())
    if os.environ.get("ACCURACY_DRAW") == "no":
        wanted = [c for c in wanted if store.draws_kept(c)]
    failed = draw(wanted, DRAWS)
    known = [c for c in wanted if c not in failed]
    found: list[Row] = []
    # a new process now and then, for the memory; `max_tasks_per_child` never starts a second one (CPython issue 115634)
    for at in range(0, len(known), PER_PROCESS):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found += pool.map(judge, known[at : at + PER_PROCESS])
    found += [Row(c, error=text) for c, text in failed.items()]
    if not os.environ.get("ACCURACY_NETS"):
        keep(found)
    return table(found)


__all__ = ["Row", "compare", "judge", "keep", "run", "table"]
