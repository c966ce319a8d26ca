"""Run a diagnoser over the labelled networks and count what it finds, what it slanders and what it blames."""

from __future__ import annotations

import csv
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.diagnosis.causes import expected
from benchmarks.diagnosis.nets import Case, Config, build
from benchmarks.diagnosis.tasks import BATCH, loss_of
from benchmarks.start.metrics import wilson

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Labelled:
    """A configuration and what became of it in training."""

    id: int
    config: Config
    label: str  # "starts", "never", "ambiguous"
    levels: tuple[float, ...]  # lowest training loss over that of the best constant answer, per batch order; one
    # order only where the first left no doubt in the main set

    @property
    def half(self) -> str:
        """ "fit" or "held": by hash, so that neither depends on the order of the file."""
        text = json.dumps({k: getattr(self.config, k) for k in self.config.__dataclass_fields__}, sort_keys=True)
        return "fit" if hashlib.sha256(text.encode()).digest()[0] % 2 else "held"


@dataclass(frozen=True)
class Answer:
    """What a diagnoser says of one network."""

    broken: bool
    causes: tuple[str, ...] = ()
    p_start: float | None = None
    text: str = ""
    seconds: float = 0.0


def labelled(name: str = "main") -> Iterator[Labelled]:
    """The labelled networks of one set, in the file's order; none where the set has no file."""
    path = FOLDER / ("labels.csv" if name == "main" else f"labels_{name}.csv")
    if not path.exists():
        return
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            levels = tuple(float(row[key]) for key in ("level", "second", "third") if row[key])
            yield Labelled(int(row["id"]), Config(**json.loads(row["config"])), row["label"], levels)


def ours(case: Case) -> Answer:
    """firstlight.diagnose on the first batch."""
    from firstlight.api import diagnose
    from firstlight.errors import FirstlightError

    loss = loss_of(case.loss)
    try:
        report = diagnose(
            case.model, case.x[:BATCH], loss=lambda out, y: loss(out.float(), y), targets=case.task.y[:BATCH]
        )
    except FirstlightError as error:
        return Answer(True, (f"error: {error.where}",), 0.0)
    named = tuple(f.code for f in report.findings if f.severity != "info")
    text = next((f.measured for f in report.findings if f.severity == "error"), "")
    return Answer(report.verdict == "will not start", named, report.p_start, text)


def run(diagnoser: Callable[[Case], Answer], rows: list[Labelled]) -> list[Answer]:
    """Ask for every network; each is built anew, so that no diagnoser can spoil it for the next."""
    torch.set_num_threads(1)
    answers: list[Answer] = []
    for row in rows:
        case = build(row.config)
        case.model.train()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            begun = time.process_time()
            answer = diagnoser(case)
            seconds = time.process_time() - begun
        answers.append(replace(answer, seconds=seconds))
    return answers


@dataclass(frozen=True)
class Score:
    """Counts over one set; the ambiguous are counted apart and enter no rate."""

    broken: int
    sound: int
    ambiguous: int
    found: int
    slandered: int
    ambiguous_named: int
    cause_right: int
    cause_known: int
    seconds: tuple[float, ...]

    @property
    def recall(self) -> float:
        return self.found / max(1, self.broken)

    @property
    def false_alarms(self) -> float:
        return self.slandered / max(1, self.sound)

    @property
    def cause(self) -> float:
        return self.cause_right / max(1, self.cause_known)

    def quantile(self, share: float) -> float:
        """Of the CPU-seconds."""
        return sorted(self.seconds)[int(share * len(self.seconds))] if self.seconds else 0.0


def score(rows: list[Labelled], answers: list[Answer]) -> Score:
    """Recall, false alarms, and the right cause first among the found ones with a known cause."""
    pairs = list(zip(rows, answers, strict=True))
    told = {name: [(r, a) for r, a in pairs if r.label == name] for name in ("never", "starts", "ambiguous")}
    known = [(r, a) for r, a in told["never"] if a.broken and expected(r.config)]
    right = sum(bool(a.causes) and a.causes[0].startswith(tuple(expected(r.config))) for r, a in known)
    count = {name: sum(a.broken for _, a in group) for name, group in told.items()}
    return Score(
        len(told["never"]), len(told["starts"]), len(told["ambiguous"]),
        count["never"], count["starts"], count["ambiguous"],
        right, len(known), tuple(a.seconds for a in answers),
    )  # fmt: skip


def rate(found: int, of: int) -> str:
    """The share with Wilson's interval of 95 %, which stays within 0 and 1."""
    if of == 0:
        return "–"
    middle, half = wilson(found, of)
    return f"{found / of:.3f} ({middle - half:.3f} to {middle + half:.3f})"
