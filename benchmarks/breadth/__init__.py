"""Networks that this project did not write: every verb on more than 200 third-party architectures, tiny and random.

Each runs in a process of its own under a limit of memory and time (`judge`). What a line says: whether a verb raised,
which operations have no rule, the share of operations whose mean square (gradient) is within 20 % or three standard
errors of a few draws, the verdict on the model's own default initialization and, where that is not "starts", how far a
few steps of training bring its loss. BREADTH (a comma-separated list of names) narrows a run and replaces these lines
of `table.csv` alone. Packages beyond transformers and diffusers: benchmarks/requirements.txt.
"""

from __future__ import annotations

import csv
import importlib
import logging
import math
import os
import statistics
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.breadth.candidate import Candidate
from benchmarks.breadth.judge import Result, apart, plain

PARTS = (
    "written",
    "unusual",
    "images",
    "patches",
    "sequences",
    "sets_and_tables",
    "hugging_face",
    "sights_and_sounds",
    "diffusion",
    "packages",
)
TABLE = Path(__file__).with_name("table.csv")
COLUMNS = tuple(f.name for f in fields(Result) if f.name != "detail")
LEAST = 0.9  # share of operations below which a network is called badly met


def candidates() -> list[Candidate]:
    """All that are installed."""
    return [c for part in PARTS for c in importlib.import_module(f"benchmarks.breadth.{part}").CANDIDATES]


def record(r: Result) -> dict[str, str]:
    """A line of the table."""
    out: dict[str, str] = {}
    for name in COLUMNS:
        value = getattr(r, name)
        if isinstance(value, float):
            out[name] = "" if math.isnan(value) else f"{value:.2f}"
        else:
            out[name] = plain(str(value)) if value is not False else ""
    return out


def read(path: Path = TABLE) -> dict[str, dict[str, str]]:
    """The lines kept, by name."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def badness(row: Mapping[str, Any]) -> tuple[int, float]:
    """Order of the table: what raises, what lacks a rule, then by the share of operations that are met."""
    met = min(float(row["forward"] or 0.0), float(row["backward"] or 0.0))
    return (0 if row["failed"] else 1 if row["missing"] else 2, met)


def write(rows: dict[str, dict[str, str]], path: Path = TABLE) -> None:
    """Worst first."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(sorted(rows.values(), key=lambda row: (badness(row), row["name"])))


def summary(rows: list[dict[str, str]]) -> dict[str, str]:
    """The whole table in a few numbers."""
    ran = [r for r in rows if not r["failed"]]
    predicted = [r for r in rows if r["forward"]]
    median = {k: statistics.median(float(r[k]) for r in predicted) if predicted else math.nan for k in _SHARES}
    good = sum(min(float(r["forward"]), float(r["backward"])) >= LEAST for r in predicted)
    return {
        "networks": str(len(rows)),
        "all verbs run": str(len(ran)),
        "without a missing rule": str(sum(not r["missing"] for r in ran)),
        f"≥ {LEAST:.0%} of the operations met, forward and backward": str(good),
        "median share met, forward": f"{median['forward']:.2f}",
        "median share met, backward": f"{median['backward']:.2f}",
        'not "starts" although a few steps halve the loss': str(
            sum(r["verdict"] == "will not start" and float(r["loss_fell"] or 1.0) < 0.5 for r in rows)
        ),
    }


_SHARES = ("forward", "backward")


def run() -> Table:
    """Every candidate, or those of BREADTH; lines are kept as they come."""
    wanted = [n for n in os.environ.get("BREADTH", "").split(",") if n]
    logging.disable(logging.WARNING)  # what the packages have to say about kernels and configurations
    rows = read() if wanted or os.environ.get("BREADTH_GO_ON") else {}
    found = [c for c in candidates() if (c.name in wanted if wanted else c.name not in rows)]
    for i, candidate in enumerate(found):
        result = apart(candidate)
        rows[candidate.name] = record(result)
        write(rows)
        print(f"{i + 1}/{len(found)} {candidate.name}: {result.failed or 'ok'}", file=sys.stderr, flush=True)
        folder = os.environ.get("BREADTH_DETAIL")
        if folder:
            (Path(folder) / f"{candidate.name}.txt").write_text(result.detail, encoding="utf-8")
    table = Table(*COLUMNS, box=None, header_style="bold")
    for row in sorted(rows.values(), key=badness):
        table.add_row(*(row[k] for k in COLUMNS))
    table.caption = ", ".join(f"{k}: {v}" for k, v in summary(list(rows.values())).items())
    return table
