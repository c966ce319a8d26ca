"""The benchmark's table: first score, present score, what is judged wrongly, and what the remedies give."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.canonical.score import Answer, Labelled, again, ask, labelled

FOLDER = Path(__file__).parent
RESULT, FIRST = FOLDER / "result.json", FOLDER / "first.csv"
HEAD = ("rules", "drawn networks", "never start", "ambiguous", "recall", "false alarms", "right cause first", "CPU-s")
REMEDY_HEAD = ("case", "first finding", "its line of code", "after it", "level")


def table() -> Group:
    """Score every labelled draw; run the first remedy of every one that never starts and was found, and train again."""
    torch.set_num_threads(1)
    rows = list(labelled())
    now = [ask(row) for row in rows]
    first = _first(rows)
    result: dict[str, Any] = {
        "head": HEAD,
        "rows": [score("when the cases were new", rows, first), score("now", rows, now)],
        "wrong": wrong(rows, now),
        "wrong_first": wrong(rows, first),
        "remedy_head": REMEDY_HEAD,
        "remedies": remedies(rows, now),
    }
    started = sum(r[3] == "starts" for r in result["remedies"])
    result["share"] = [started, len(result["remedies"])]
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shown, mended = Table(*HEAD), Table(*REMEDY_HEAD)
    for cells in result["rows"]:
        shown.add_row(*cells)
    for cells in result["remedies"]:
        mended.add_row(*cells)
    return Group(shown, *map(Text, result["wrong"]), mended, Text(f"{started} of {len(result['remedies'])} start"))


def _first(rows: Iterable[Labelled]) -> list[Answer]:
    """What the rules said before any of these cases was looked at."""
    with FIRST.open(newline="") as file:
        said = {(r["case"], int(r["seed"])): r for r in csv.DictReader(file)}
    found = [said[row.case.name, row.seed] for row in rows]
    return [Answer(r["broken"] == "1", (r["first"],) if r["first"] else (), "", float("nan")) for r in found]


def score(name: str, rows: list[Labelled], answers: list[Answer]) -> tuple[str, ...]:
    """Counts and rates; the ambiguous enter none."""
    pairs = list(zip(rows, answers, strict=True))
    told = {label: [(r, a) for r, a in pairs if r.label == label] for label in ("never", "starts", "ambiguous")}
    found = [(r, a) for r, a in told["never"] if a.broken]
    slandered = sum(a.broken for _, a in told["starts"])
    known = [(r, a) for r, a in found if r.case.cause]
    right = sum(bool(a.codes) and a.codes[0].startswith(r.case.cause) for r, a in known)
    times = sorted(a.seconds for a in answers)
    return (
        name, str(len(rows)), str(len(told["never"])), str(len(told["ambiguous"])),
        f"{len(found) / max(1, len(told['never'])):.3f} ({len(found)})",
        f"{slandered / max(1, len(told['starts'])):.3f} ({slandered} of {len(told['starts'])})",
        f"{right / max(1, len(known)):.3f} of {len(known)}", f"{times[len(times) // 2]:.3f}" if times[0] >= 0 else "–",
    )  # fmt: skip


def wrong(rows: list[Labelled], answers: list[Answer]) -> list[str]:
    """Every draw that was judged wrongly, and every ambiguous one."""
    out: list[str] = []
    for row, a in zip(rows, answers, strict=True):
        if row.label != "ambiguous" and a.broken == (row.label == "never"):
            continue
        kind = {"never": "missed", "starts": "false alarm"}.get(row.label, "ambiguous")
        reached = "/".join(f"{x:.3g}" for x in row.levels)
        said = ("called broken: " if a.broken else "") + (", ".join(a.codes) or "nothing said")
        out.append(f"{kind}: {row.case.name}, seed {row.seed}: level {reached}; {said}")
    return sorted(out, key=lambda text: ("missed", "false alarm", "ambiguous").index(text.partition(":")[0]))


def remedies(rows: list[Labelled], answers: list[Answer]) -> list[tuple[str, ...]]:
    """One row per draw that never starts and was found."""
    out: list[tuple[str, ...]] = []
    for row, a in zip(rows, answers, strict=True):
        if row.label == "never" and a.broken:
            label, level = again(row, a.remedy)
            code = a.codes[0] if a.codes else ""
            out.append((f"{row.case.name}, {row.seed}", code, a.remedy or "–", label, f"{level:.3g}"))
    return sorted(out)
