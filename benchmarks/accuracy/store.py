"""What a run keeps: one small CSV per network, depth and scheme, so that a run can stop and go on."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.accuracy.pairs import Pairs

HOME = Path(os.environ.get("ACCURACY_STORE", Path(__file__).parent / "drawn"))
PAIRS = ("q", "grad_q", "c", "place", "cosine", "place_cosine")
COLUMNS = ("node", "draws", *(name for pair in PAIRS for name in (pair, f"{pair}_error")))
NONE = (np.nan, np.nan)


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
        c: Correlation between samples, of moments over draws (`pairs`), and its standard error.
        place: The same between positions of one sample.
        cosine: Mean over draws of the mean cosine between samples and its standard error.
        place_cosine: The same between positions of one sample.
    """

    node: str
    draws: int
    q: tuple[float, float]
    grad_q: tuple[float, float]
    c: tuple[float, float]
    place: tuple[float, float]
    cosine: tuple[float, float]
    place_cosine: tuple[float, float]


def summary(node: str, rows: Iterable[tuple[float, ...]], pairs: Pairs | None = None) -> Drawn:
    """Means and standard errors over the draws of (q, grad q, cosine between samples, between positions).

    Args:
        node: Name.
        rows: One for each draw.
        pairs: Sums over pairs of its entries, where its first axis is that of samples.
    """
    table = np.array(list(rows), dtype=float)

    def of(column: int) -> tuple[float, float]:
        values = table[:, column]
        values = values[~np.isnan(values)]  # an expert that no token chose has no gradient in that draw
        if not len(values):
            return np.nan, np.nan
        return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.inf

    c, place = (NONE, NONE) if pairs is None else pairs.correlations()
    return Drawn(node, len(table), of(0), of(1), c, place, of(2), of(3))


def write(case: Case, found: Mapping[str, Drawn]) -> None:
    """Keep the draws of a case; the file appears whole or not at all."""
    HOME.mkdir(parents=True, exist_ok=True)
    part = case.path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for d in found.values():
            out.writerow((d.node, d.draws, *(f"{v:.6g}" for name in PAIRS for v in getattr(d, name))))
    part.replace(case.path)


def read(case: Case) -> dict[str, Drawn]:
    """The draws of a case by node; empty if there are none yet.

    Of draws that were kept before moments of pairs were, the mean cosine stands for the correlation.
    """
    if not case.path.exists():
        return {}
    with case.path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    before = bool(rows) and "cosine" not in rows[0]
    names = ("q", "grad_q", "c", "place", "c", "place") if before else PAIRS
    return {
        r["node"]: Drawn(r["node"], int(r["draws"]), *((float(r[k]), float(r[f"{k}_error"])) for k in names))
        for r in rows
    }


def draws_kept(case: Case) -> int:
    """How many draws a case has."""
    return min((d.draws for d in read(case).values()), default=0)
