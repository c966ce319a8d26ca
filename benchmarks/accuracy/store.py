"""What a run keeps: one small CSV per network, depth and scheme, so that a run can stop and go on."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HOME = Path(os.environ.get("ACCURACY_STORE", Path(__file__).parent / "drawn"))
COLUMNS = ("node", "draws", "q", "q_error", "grad_q", "grad_q_error", "c", "c_error", "place", "place_error")


@dataclass(frozen=True)
class Case:
    """One network at one depth under one scheme."""

    name: str
    depth: int
    scheme: str

    @property
    def path(self) -> Path:
        """Where its draws are kept."""
        return HOME / f"{self.name}.{self.depth}.{self.scheme}.csv"


@dataclass(frozen=True)
class Drawn:
    """Means over the draws at one operation, each with its standard error; NaN where there is none.

    Attributes:
        node: Name.
        draws: Number of draws.
        q: Mean square and its standard error.
        grad_q: The same of the gradient.
        c: Mean cosine between samples and its standard error.
        place: Mean cosine between positions of one sample and its standard error.
    """

    node: str
    draws: int
    q: tuple[float, float]
    grad_q: tuple[float, float]
    c: tuple[float, float]
    place: tuple[float, float]


def summary(node: str, rows: Iterable[tuple[float, ...]]) -> Drawn:
    """Means and standard errors over the draws of (q, grad q, cosine between samples, between positions)."""
    table = np.array(list(rows), dtype=float)

    def of(column: int) -> tuple[float, float]:
        values = table[:, column]
        values = values[~np.isnan(values)]  # an expert that no token chose has no gradient in that draw
        if not len(values):
            return np.nan, np.nan
        return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.inf

    return Drawn(node, len(table), of(0), of(1), of(2), of(3))


def write(case: Case, found: Mapping[str, list[tuple[float, ...]]]) -> None:
    """Keep the draws of a case; the file appears whole or not at all."""
    HOME.mkdir(parents=True, exist_ok=True)
    part = case.path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for node, rows in found.items():
            d = summary(node, rows)
            out.writerow((d.node, d.draws, *(f"{v:.6g}" for pair in (d.q, d.grad_q, d.c, d.place) for v in pair)))
    part.replace(case.path)


def read(case: Case) -> dict[str, Drawn]:
    """The draws of a case by node; empty if there are none yet."""
    if not case.path.exists():
        return {}
    with case.path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        r["node"]: Drawn(
            r["node"], int(r["draws"]),
            *((float(r[k]), float(r[f"{k}_error"])) for k in ("q", "grad_q", "c", "place")),
        )
        for r in rows
    }  # fmt: skip


def draws_kept(case: Case) -> int:
    """How many draws a case has."""
    return min((d.draws for d in read(case).values()), default=0)
