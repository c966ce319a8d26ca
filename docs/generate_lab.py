"""Tables of the page about the lab, from what benchmarks and experiments stored: each its head and its rows."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Cells = tuple[Iterable[str], Iterable[Iterable[object]]]


def times() -> Cells:
    """CPU-seconds of every experiment's quick form, as ``python -m benchmarks reproduce`` last measured them."""
    rows = [list(row.values()) for row in _stored("reproduce")]
    return ("experiment", "figures", "runs", "CPU-seconds", "seconds on the clock"), rows


def trainer() -> Cells:
    """The trainer beside eager PyTorch, as ``python -m benchmarks trainer`` last measured them."""

    def amount(value: str, unit: str) -> str:
        number = float(value)
        if unit != "s":
            return f"{number:.0f} {unit}"
        return f"{number:.2g} s" if number >= 0.5 else f"{1e3 * number:.3g} ms"

    rows = []
    for r in _stored("trainer"):
        ours, beside = amount(r["firstlight"], r["unit"]), amount(r["beside"], r["unit"])
        rows.append((r["what"], ours, beside, f"{float(r['ratio']):.3g}", r["goal"]))
    return ("one thread, CPU-seconds", "firstlight", "beside it", "ratio", "goal"), rows


def depth() -> Cells:
    """Training error against depth from ``results/``: median, least and largest over seeds, and the rates."""
    from firstlight.lab.experiment import part_of
    from firstlight.lab.figures.sussillo_2014 import NAMES, TASKS
    from firstlight.lab.store import Store

    frame = Store(ROOT / "results").frame(part_of("sussillo-2014/depth"))
    frame = frame[(frame["pilot"] > 0) & (frame["pilot_loss"].isna() if "pilot_loss" in frame else True)]
    last = frame.sort_values("step").groupby("key").last()
    depths = sorted(int(d) for d in last["depth"].unique())
    rows = []
    for task in TASKS:
        for scheme in NAMES:
            runs, cells = last[(last["task"] == task) & (last["scheme"] == scheme)], []
            for depth in depths if len(runs) else ():
                at = runs[runs["depth"] == depth]
                error = at["loss"] if task.endswith("autoencoder") else 100 * (1 - at["accuracy"])
                unit = "" if task.endswith("autoencoder") else " %"
                rates = ", ".join(f"{rate:g}" for rate in sorted(set(at["rate"])))
                spread = f" [{error.min():.2g}–{error.max():.2g}]" if error.notna().sum() > 1 else ""
                done = f"{error.median():.2g}{unit}{spread} ({rates})" if error.notna().any() else "overflow"
                cells.append(done if len(at) else "")
            if cells:
                rows.append((TASKS[task], NAMES[scheme], *cells))
    return ("task", "start", *(f"{d:,} layers" for d in depths)), rows


def medians() -> Cells:
    """The article's published medians beside those of ``results/``: of as many seeds, and of all."""
    from firstlight.lab.experiment import part_of
    from firstlight.lab.figures.xavier_article import EPOCHS, ORACLE
    from firstlight.lab.store import Store

    frame = Store(ROOT / "results").frame(part_of("xavier-article/plane"))
    rows = []
    for (data, factor), published in sorted(ORACLE.items()):
        runs, cells = frame[(frame["data"] == data) & (frame["factor"] == factor)], []
        for epoch, there in zip(EPOCHS, published, strict=True):
            at = runs[(runs["epoch"] == epoch) & (runs["points"] == 100)]
            here = at[at["seed"] < 25]["cost"].median(), at["cost"].median()
            cells.append(" / ".join(_three_digits(value) for value in (there, *here)))
        rows.append((f"{data}, {factor:g}", *cells))
    return ("set, v", *map(str, EPOCHS)), rows


def article() -> Cells:
    """Medians of 25 networks under each reading of the article's set-up, from ``python -m benchmarks article``.

    A reading's cell is the median and the interval of nine in ten; bold where the published one lies outside.
    """
    rows = _stored("article")
    epochs = sorted({int(row["epoch"]) for row in rows})
    lines: dict[tuple[str, str], list[str]] = {}
    for row in sorted(rows, key=lambda r: (r["data"], float(r["factor"]))):
        what = f"{row['data']}, v = {float(row['factor']):g}"
        lines.setdefault((what, "*published*"), [""] * len(epochs))
        at = epochs.index(int(row["epoch"]))
        lines[what, "*published*"][at] = f"*{float(row['published']):.3g}*"
        middle, low, high = (_three_digits(float(row[name])) for name in ("median", "low", "high"))
        cell = f"{middle} ({low}–{high})"
        lines.setdefault((what, row["reading"]), [""] * len(epochs))[at] = (
            f"**{cell}**" if float(row["p"]) < 0.1 else cell
        )
    head = ("set", "reading", *(f"after {e} epochs" for e in epochs))
    return head, ((*key, *cells) for key, cells in lines.items())


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _stored(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
