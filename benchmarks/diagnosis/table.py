"""The benchmark's table: firstlight and its peers over the labelled networks, in one run; kept in result.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.diagnosis.score import FOLDER, Answer, Labelled, Score, labelled, ours, rate, run, score

RESULT = FOLDER / "result.json"
ROOT = FOLDER.parents[1]
HEADLINE = "clean"  # the peers run on it too
PEERS = ("torchtest2", "torchlens", "torch_audit", "torch_audit_errors", "syndset", "syndset_warnings")
HEAD = ("diagnoser", "networks", "never start", "ambiguous", "recall", "false alarms", "right cause first",
        "CPU-s median", "p90")  # fmt: skip
NOTE = (
    "Labels (label.py): the training loss falls below 0.9 of the best constant answer's within 600 steps for some "
    "of six learning rates with two of three batch orders: starts; it stays above 0.98 with all: never; else "
    "ambiguous, counted apart and in no rate. Only the clean set is without hindsight: nothing of it was seen "
    "before this score; the bound on read-outs was sharpened after it, and finds one of its misses. Thresholds were "
    "fixed on the fit half and the tuning set; misses of the held half and the fresh set were read while rules were "
    "written, those of the unseen, sealed, last and blind sets after their first scores (.853, .031; .930, .034; .902, "
    ".044; .955, .018), whereupon rules were mended. In brackets: Wilson's interval of 95 %. Right cause: among those "
    "found whose cause is known by construction (causes.py). Peers run on the clean set, without their training "
    "probes; one that raises counts as 'broken'."
)


def table() -> Group:
    """Recall, false alarms, right cause first and CPU-seconds, per set and diagnoser."""
    sets = {f"{name} set": list(labelled(name)) for name in (HEADLINE, "blind", "last", "sealed", "unseen")}
    main = list(labelled("main"))
    sets |= {f"{half} half": [r for r in main if r.half == half] for half in ("held", "fit")}
    sets |= {f"{name} set": list(labelled(name)) for name in ("fresh", "tuning")}
    result: dict[str, Any] = {"head": HEAD, "rows": [], "peers": [], "wrong": {}, "reliability": [], "note": NOTE}
    for name, picked in sets.items():
        if picked:
            add(result, name, picked, run(ours, picked))
            keep(result)  # after every set, so that a run that is stopped has not been for nothing
    for peer in PEERS:
        answers = _peer(peer)
        if isinstance(answers, str):
            result["wrong"].setdefault("peers", []).append(f"{peer}: {answers}")
        else:
            result["peers"].append(_row(peer, sets[f"{HEADLINE} set"], answers))
        keep(result)
    shown = Table(*HEAD)
    for group in ("rows", "peers"):
        for row in result[group]:
            shown.add_row(*row["cells"])
        shown.add_section()
    lines = [f"{name}: {line}" for name, found in result["wrong"].items() for line in found]
    return Group(shown, *map(Text, [*lines, *result["reliability"], NOTE]))


def add(result: dict[str, Any], name: str, rows: list[Labelled], answers: list[Answer]) -> None:
    """Put firstlight's answers for one set into the result."""
    result["rows"].append(_row(f"firstlight, {name}", rows, answers))
    result["wrong"][name] = wrong(rows, answers)
    if name == f"{HEADLINE} set":
        result["reliability"] = _reliability(rows, answers)


def keep(result: dict[str, Any]) -> None:
    """Write result.json, from which the documentation's page is made."""
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _row(name: str, rows: list[Labelled], answers: list[Answer]) -> dict[str, Any]:
    s: Score = score(rows, answers)
    cause = f"{s.cause:.3f} of {s.cause_known}" if name.startswith("firstlight") else "–"
    cells = (
        name, str(len(rows)), str(s.broken), f"{s.ambiguous} ({s.ambiguous_named} named)",
        rate(s.found, s.broken), rate(s.slandered, s.sound), cause, f"{s.quantile(0.5):.3f}", f"{s.quantile(0.9):.3f}",
    )  # fmt: skip
    counts = {k: v for k, v in asdict(s).items() if k != "seconds"}
    return {"cells": cells, **counts}


def wrong(rows: list[Labelled], answers: list[Answer]) -> list[str]:
    """Every network that was judged wrongly or is ambiguous, with the levels that it reached; misses first."""
    out: list[tuple[int, str]] = []
    for r, a in zip(rows, answers, strict=True):
        if r.label != "ambiguous" and a.broken != (r.label == "starts"):
            continue
        kind = "ambiguous" if r.label == "ambiguous" else "missed" if r.label == "never" else "false alarm"
        made = " ".join(str(v) for v in asdict(r.config).values() if v != "")
        said = ("called broken: " if a.broken else "") + (", ".join(a.causes) or "nothing said")
        levels = "/".join(f"{x:.3g}" for x in r.levels)
        out.append((("missed", "false alarm", "ambiguous").index(kind), f"{kind}: {made}: level {levels}; {said}"))
    return [text for _, text in sorted(out, key=lambda pair: pair[0])]


def _reliability(rows: list[Labelled], answers: list[Answer]) -> list[str]:
    """Said P(start) of the law against what became of the draw."""
    out: list[str] = []
    clear = [(r, a) for r, a in zip(rows, answers, strict=True) if r.label != "ambiguous" and a.p_start is not None]
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        inside = [r.label == "starts" for r, a in clear if a.p_start is not None and low <= a.p_start < high]
        if inside:
            out.append(f"P(start) from {low} to {min(high, 1.0)}: {sum(inside)} of {len(inside)} started")
    return out


def _peer(name: str) -> list[Answer] | str:
    """Answers of a peer on the headline set, from the interpreter in $FIRSTLIGHT_PEERS or this one; or why not."""
    python = os.environ.get("FIRSTLIGHT_PEERS") or sys.executable
    module = name.removesuffix("_errors").removesuffix("_warnings")
    find = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    if subprocess.run([python, "-c", find], capture_output=True, check=False).returncode:
        return "not installed (benchmarks/requirements.txt)"
    done = subprocess.run(
        [python, "-m", "benchmarks.diagnosis.peers", name, HEADLINE],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1:]}"
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [replace(Answer(**a), causes=tuple(a["causes"])) for a in answers]
