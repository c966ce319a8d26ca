"""Ask `firstlight.diagnose` about the labelled canonical cases, apply the first remedy, and train again."""

from __future__ import annotations

import contextlib
import csv
import io
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

import firstlight
from benchmarks.canonical.case import Canonical, cases
from benchmarks.canonical.label import LABELS, levels, name_of
from benchmarks.canonical.problems import Problem
from benchmarks.diagnosis.tasks import BATCH
from firstlight.errors import FirstlightError


@dataclass(frozen=True)
class Labelled:
    """One drawn case and what became of it in training."""

    case: Canonical
    seed: int
    label: str
    levels: tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """What was said of it: whether it is broken, the codes that are no mere information, the first remedy."""

    broken: bool
    codes: tuple[str, ...]
    remedy: str
    seconds: float


def labelled() -> Iterator[Labelled]:
    """The drawn cases in the file's order."""
    known = cases()
    with LABELS.open(newline="") as file:
        for row in csv.DictReader(file):
            found = tuple(float(row[key]) for key in ("level", "second", "third"))
            yield Labelled(known[row["case"]], int(row["seed"]), row["label"], found)


def ask(row: Labelled) -> Answer:
    """Diagnose on the first batch."""
    model, problem = row.case.draw(row.seed)
    begun = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own on broadcast targets
            report = firstlight.diagnose(
                model, problem.x[:BATCH], loss=lambda out, y: problem.loss(out.float(), y), targets=problem.y[:BATCH]
            )
    except FirstlightError as error:
        return Answer(True, (f"error: {error.where}",), "", time.process_time() - begun)
    told = tuple(f.code for f in report.findings if f.severity != "info")
    remedy = next((f.remedy for f in report.findings if f.severity == "error"), "")
    return Answer(report.verdict == "will not start", told, remedy, time.process_time() - begun)


def mended(row: Labelled, remedy: str) -> tuple[nn.Module, Problem]:
    """The drawn case after its user ran the remedy's line, with the names that users give these things.

    Raises:
        Exception: Whatever the line raises.
    """
    model, problem = row.case.draw(row.seed)
    names = {
        "firstlight": firstlight, "torch": torch, "nn": nn, "F": F,
        "model": model, "batch": problem.x, "targets": problem.y, "loss": problem.loss,
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # some lines only show the data
        exec(remedy, names)
    unit = problem.unit
    if names["loss"] is not problem.loss:  # the loss of the best constant answer is in its unit
        with torch.no_grad():
            out = names["model"](names["batch"][:BATCH])
            unit *= float(names["loss"](out, problem.y[:BATCH]) / problem.loss(out, problem.y[:BATCH]))
    return names["model"], replace(problem, x=names["batch"], y=names["targets"], loss=names["loss"], unit=unit)


def again(row: Labelled, remedy: str) -> tuple[str, float]:
    """What became of it in training after the remedy: a label or why there is none, and the lowest level."""
    if not remedy or remedy.startswith("#"):
        return "no line of code", min(row.levels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, problem = mended(row, remedy)
            found, _ = levels(model.train(), problem, row.seed)
    except Exception as error:  # noqa: BLE001  the line is text from a report: whatever it does is the result
        return f"raises {type(error).__name__}", min(row.levels)
    return name_of(found), sorted(found)[1]
