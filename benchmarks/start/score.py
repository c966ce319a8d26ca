"""Predict the networks of a set and keep every score beside the labels: ``scores_SET.csv``."""

from __future__ import annotations

import csv
import json
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.start.baselines import BASELINES, scores
from benchmarks.start.networks import BATCH, Spec, build, inputs
from benchmarks.start.population import HELD_OUT, population
from firstlight.errors import DataError

FOLDER = Path(__file__).parent
PARTS = ("forward", "backward", "alive", "distinguishable", "range")
FIRST = "p_first"  # what the definition at the time said when the set was scored for the first time
FIELDS = ("spec", "p_start", *PARTS, "limit", *BASELINES, FIRST, "seconds")


@dataclass(frozen=True)
class Named:
    """A network of which only the name is known."""

    name: str

    def short(self) -> str:
        """The name."""
        return self.name


@dataclass(frozen=True)
class Row:
    """One trained network with what was said of it.

    Attributes:
        spec: What it is made of, or its name alone.
        starts: Its label.
        best: Lowest training loss as a share of chance.
        p_start: `Prediction.p_start` of its live weights.
        limit: What limits it.
        values: Every other score, by name.
        seconds: CPU seconds of the prediction, tracing included; NaN where not taken.
    """

    spec: Spec | Named
    starts: bool
    best: float
    p_start: float
    limit: str
    values: dict[str, float]
    seconds: float


def predicted(s: Spec) -> dict[str, object]:
    """P(start) with its parts, from the drawn weights and the first batch; no label and no loss is seen."""
    torch.set_num_threads(1)
    return told(build(s), inputs(s)[:BATCH])


def told(model: nn.Module, x: torch.Tensor) -> dict[str, object]:
    """What `predict` says of live weights and one batch."""
    import firstlight

    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = firstlight.predict(model, x).start
    seconds = time.process_time() - begun
    parts = {k: f"{start.parts[k]:.6g}" for k in PARTS}
    return {"p_start": f"{start.p:.6g}", **parts, "limit": start.limit, "seconds": f"{seconds:.2f}"}


def store(name: str, folder: Path = FOLDER) -> None:
    """Write ``scores_SET.csv``: predictions of all networks, baselines of those that have none yet."""
    path = folder / f"scores_{name}.csv"
    known = {r["spec"]: r for r in _read(path)} if path.exists() else {}
    lines: list[dict[str, object]] = []
    for s in population(name):
        old = known.get(s.text(), {})
        base: dict[str, object] = {k: old[k] for k in BASELINES if old.get(k) not in (None, "", "nan")}
        if len(base) < len(BASELINES):
            base = {k: f"{v:.6g}" for k, v in scores(s).items()}
        now = predicted(s)
        lines.append({"spec": s.text(), **now, **base, FIRST: old.get(FIRST) or now["p_start"]})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(lines)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(str(path), got="no such file", expected="stored rows", action="Use --relabel and --score.")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scored(name: str, optimizer: str = "adam", folder: Path = FOLDER) -> list[Row]:
    """Stored scores with stored labels; networks whose training was killed have no label and are left out.

    Raises:
        DataError: No stored labels or scores of the set in the folder.
    """
    labels = {r["spec"]: r for r in _read(folder / f"labels_{name}_{optimizer}.csv") if r["starts"]}
    out: list[Row] = []
    for r in _read(folder / f"scores_{name}.csv"):
        label = labels.get(r["spec"])
        if label is not None:
            values = {k: float(r[k] or math.nan) for k in (*PARTS, *BASELINES, FIRST)}
            out.append(
                Row(Spec(**json.loads(r["spec"])), label["starts"] == "1", float(label["best"]), float(r["p_start"]),
                    r["limit"], values, float(r["seconds"] or math.nan))
            )  # fmt: skip
    return out


def held_out() -> list[Row]:
    """Stored scores and labels of all networks that were drawn after the definition was settled."""
    return [row for name in HELD_OUT for row in scored(name)]


def fresh(rows: Sequence[Row]) -> list[Row]:
    """The same networks with P(start) predicted now.

    Raises:
        DataError: A data set of the networks is on no disk (set FIRSTLIGHT_DATA).
    """
    out: list[Row] = []
    for r in rows:
        assert isinstance(r.spec, Spec)
        p = predicted(r.spec)
        values = {**r.values, **{k: float(str(p[k])) for k in PARTS}}
        out.append(
            replace(r, p_start=float(str(p["p_start"])), limit=str(p["limit"]), values=values,
                    seconds=float(str(p["seconds"])))
        )  # fmt: skip
    return out
