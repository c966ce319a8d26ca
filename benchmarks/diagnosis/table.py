"""The benchmark's table: firstlight and its peers over the labelled networks, in one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.diagnosis.score import LABELS, Answer, Labelled, Score, labelled, ours, run, score

FRESH = LABELS.with_name("labels_fresh.csv")
ROOT = LABELS.parents[2]
PEERS = ("torchtest2", "torchlens", "torch_audit", "torch_audit_errors", "syndset", "syndset_warnings")


def table() -> Group:
    """Recall, false alarms, right cause first and CPU-seconds, per set and diagnoser."""
    shown = Table(
        "diagnoser", "networks", "broken", "recall", "false alarms", "right cause first", "CPU-s median", "p90"
    )
    sets = {"main": LABELS} | ({"fresh": FRESH} if FRESH.exists() else {})
    notes: list[str] = []
    for name, path in sets.items():
        rows = list(labelled(path))
        mine = run(ours, rows)
        halves = [("fit half", "fit"), ("held half", "held")] if name == "main" else [("fresh set", "")]
        for title, half in halves:
            picked = [(r, a) for r, a in zip(rows, mine, strict=True) if not half or r.half == half]
            _row(shown, f"firstlight, {title}", *map(list, zip(*picked, strict=True)))
        notes += _misses(rows, mine)
        for peer in PEERS:
            answers = _peer(peer, path)
            if isinstance(answers, str):
                notes.append(f"{peer}: {answers}")
            else:
                _row(shown, f"{peer}, {name}", rows, answers)
        shown.add_section()
    notes.append(_calibration())
    return Group(shown, *map(Text, dict.fromkeys(notes)))


def _row(shown: Table, name: str, rows: list[Labelled], answers: list[Answer]) -> None:
    s: Score = score(rows, answers)
    mine = name.startswith("firstlight")
    seconds = sorted(a.seconds for a in answers)
    cause = f"{s.cause:.3f} of {s.cause_known}" if mine else "–"
    shown.add_row(
        name, str(s.broken + s.sound), str(s.broken), f"{s.recall:.3f}", f"{s.false_alarms:.3f}", cause,
        f"{s.seconds:.3f}", f"{seconds[int(0.9 * len(seconds))]:.3f}",
    )  # fmt: skip


def _misses(rows: list[Labelled], answers: list[Answer]) -> list[str]:
    """Every network that was judged wrongly, with the loss that it reached."""
    out: list[str] = []
    for r, a in zip(rows, answers, strict=True):
        if a.broken == r.starts:
            kind = "false alarm" if r.starts else "missed"
            made = " ".join(
                str(getattr(r.config, f)) for f in r.config.__dataclass_fields__ if getattr(r.config, f) != ""
            )
            out.append(
                f"{kind}: {made}: reached {r.best:.3g} of {r.chance:.3g}; said {', '.join(a.causes) or 'nothing'}"
            )
    return out


def _peer(name: str, path: Path) -> list[Answer] | str:
    """Answers of a peer, from the interpreter in $FIRSTLIGHT_PEERS or this one; or why there are none."""
    python = os.environ.get("FIRSTLIGHT_PEERS") or sys.executable
    module = name.removesuffix("_errors").removesuffix("_warnings")
    known = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
    if known.returncode:
        return "not installed (benchmarks/requirements.txt)"
    done = subprocess.run(
        [python, "-m", "benchmarks.diagnosis.peers", name, str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1:]}"
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [replace(Answer(**a), causes=tuple(a["causes"])) for a in answers]


def _calibration() -> str:
    return (
        "Labels: started = training loss below 0.9 of the best constant answer's within 600 steps, any of six learning "
        "rates (label.py). Right cause: among those found whose cause is known by construction (causes.py). Peers run "
        "without their training probes; one that raises counts as having said 'broken'."
    )
