"""Label the canonical cases by training exactly the drawn weights; writes labels.csv, resumes where it stopped.

The definition is that of benchmarks.diagnosis.label, with the learning rates of Adam that people try: 600 steps of 64
samples; the level is the lowest loss over that of the best constant answer; the whole grid with each of three batch
orders where runs can be stacked (together.py), else with the first, and the best rate with the two others.
*starts*: below 0.9 with two of three orders; *never*: 0.98 or more with all; *ambiguous*: anything else.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.canonical.case import cases
from benchmarks.canonical.problems import SAMPLES, Problem
from benchmarks.diagnosis.label import CHANCE, CHECK_EVERY, DEAF, ORDERS, STARTED, STEPS, descend
from benchmarks.diagnosis.together import possible, stacked

LABELS = Path(__file__).parent / "labels.csv"
RATES = ("adam:0.001", "adam:0.01", "adam:0.0001")
FIELDS = ("case", "seed", "label", "level", "second", "third", "run", "seconds")


def levels(model: nn.Module, problem: Problem, seed: int) -> tuple[list[float], str]:
    """The level with each batch order, and the rate that came lowest with the first."""
    chance = problem.chance(SAMPLES // 2)
    seeds = {order: seed + 100_000 * order for order in range(ORDERS)}
    if possible(model, problem.x):
        runs = [(rate, order) for order in range(ORDERS) for rate in RATES]
        limits = (STEPS, CHECK_EVERY, DEAF)
        try:
            found = stacked(
                model, (problem.x, problem.y), torch.vmap(problem.loss), chance, runs, seeds, limits, STARTED
            )
        except RuntimeError:  # no gradient path, or a value outside the loss' domain
            found = []
        if found:
            best = [min((x, r) for x, (r, o) in zip(found, runs, strict=True) if o == order) for order in range(ORDERS)]
            return [x for x, _ in best], best[0][1]

    def level(run: str, order: int) -> float:
        return descend(model, problem.x, problem.y, problem.loss, chance, run, seeds[order])[0]

    best, run = math.inf, RATES[0]
    for rate in RATES:
        found = level(rate, 0)
        best, run = min((best, run), (found, rate))
        if best < STARTED:
            break
    return [best, *(level(run, order) for order in range(1, ORDERS))], run


def name_of(found: list[float]) -> str:
    """The label of three levels."""
    if sum(x < STARTED for x in found) >= 2:
        return "starts"
    return "never" if min(found) >= CHANCE else "ambiguous"


def main() -> None:
    """Label what is not labelled yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="CPU minutes at most")
    args = parser.parse_args()
    torch.set_num_threads(1)
    done: set[tuple[str, str]] = set()
    if LABELS.exists():
        with LABELS.open(newline="") as file:
            done = {(row["case"], row["seed"]) for row in csv.DictReader(file)}
    todo = [(c, seed) for c in cases().values() for seed in range(c.seeds) if (c.name, str(seed)) not in done]
    random.Random(0).shuffle(todo)  # so that a run that was cut short has labelled a fair sample
    todo.sort(key=lambda pair: pair[1])
    with LABELS.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not done:
            writer.writeheader()
        for case, seed in todo:
            if time.process_time() > 60 * args.minutes:
                break
            begun = time.process_time()
            found, run = levels(*case.draw(seed), seed)
            writer.writerow({
                "case": case.name, "seed": seed, "label": name_of(found), "run": run,
                **dict(zip(("level", "second", "third"), (f"{x:.4g}" for x in found), strict=True)),
                "seconds": f"{time.process_time() - begun:.2f}",
            })  # fmt: skip
            file.flush()


if __name__ == "__main__":
    main()
