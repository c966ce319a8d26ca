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

LABELS = Path(__file__).with_name("labels.csv")


@dataclass(frozen=True)
class Labelled:
    """A configuration and what became of it in training."""

    id: int
    config: Config
    starts: bool
    best: float
    chance: float

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


def labelled(path: Path = LABELS) -> Iterator[Labelled]:
    """The labelled networks, in the file's order."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            config = Config(**json.loads(row["config"]))
            yield Labelled(int(row["id"]), config, row["label"] == "starts", float(row["best"]), float(row["chance"]))


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
    """Counts over one set."""

    broken: int
    sound: int
    found: int
    slandered: int
    cause_right: int
    cause_known: int
    seconds: float

    @property
    def recall(self) -> float:
        return self.found / max(1, self.broken)

    @property
    def false_alarms(self) -> float:
        return self.slandered / max(1, self.sound)

    @property
    def cause(self) -> float:
        return self.cause_right / max(1, self.cause_known)


def score(rows: list[Labelled], answers: list[Answer]) -> Score:
    """Recall, false alarms, right cause first among the found ones with a known cause, median seconds."""
    pairs = list(zip(rows, answers, strict=True))
    broken = [(r, a) for r, a in pairs if not r.starts]
    sound = [(r, a) for r, a in pairs if r.starts]
    known = [(r, a) for r, a in broken if a.broken and expected(r.config)]
    right = [1 for r, a in known if a.causes and a.causes[0].startswith(tuple(expected(r.config)))]
    seconds = sorted(a.seconds for a in answers)
    return Score(
        len(broken), len(sound), sum(a.broken for _, a in broken), sum(a.broken for _, a in sound),
        len(right), len(known), seconds[len(seconds) // 2] if seconds else 0.0,
    )  # fmt: skip
