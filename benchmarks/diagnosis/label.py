"""Label the networks by training exactly the drawn weights; writes labels*.csv, resumes where it stopped.

Trained is with each optimizer and learning rate of the grid, 600 steps of 64 samples, every run from the drawn
weights; the level of a run is its lowest training loss, evaluated every ten steps, over the loss of the best
constant answer *on the same samples* (no network that ignores its input gets below 1). A run that gave 256 samples
bitwise the same output for 150 steps is ended. Three batch orders: the whole grid with each where the runs can be
stacked (together.py), else the whole grid with the first and the run that came lowest with the two others. Then

- *starts*: a level below 0.9 with at least two of the three orders;
- *never*: every level, of every run and order, is 0.98 or more: at chance;
- *ambiguous*: anything else; the order decides, or 600 steps leave it between chance and a start.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from benchmarks.diagnosis.nets import Case, Config, build
from benchmarks.diagnosis.population import NAMES, population
from benchmarks.diagnosis.tasks import BATCH, SAMPLES, loss_of
from benchmarks.diagnosis.together import levels as together
from benchmarks.diagnosis.together import possible

FOLDER = Path(__file__).parent
STEPS, CHECK_EVERY, STARTED, CHANCE, ORDERS = 600, 10, 0.9, 0.98, 3
DEAF = 15  # evaluations in a row with bitwise the same output for all samples, after which a run is ended
GRID = ("adam:0.001", "sgd:0.1", "adam:0.01", "sgd:0.01", "adam:0.0001", "sgd:1")
FIELDS: tuple[str, ...] = ("id", "config", "label", "level", "second", "third", "run", "steps", "chance", "seconds")


def train(case: Case, run: str, order: int = 0) -> tuple[float, int]:
    """Train a copy; return its level (see above) and the steps taken."""
    chance = case.task.chance(SAMPLES // 2)
    return descend(case.model, case.x, case.task.y, loss_of(case.loss), chance, run, case.config.seed + 100_000 * order)


def descend(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    chance: float, run: str, order: int,
) -> tuple[float, int]:  # fmt: skip
    """Train a copy on batches drawn by the seed `order`; return its level and the steps taken."""
    model = copy.deepcopy(model).train()
    params = [p for p in model.parameters() if p.requires_grad]
    if not params:
        return math.inf, 0
    optimizer, _, lr = run.partition(":")
    kind = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
    step = kind(params, float(lr), fused=all(p.dtype == torch.float32 for p in params))  # the same, half the time
    batches = torch.Generator().manual_seed(order)
    best, same = math.inf, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(STEPS):
            pick = torch.randint(len(x), (BATCH,), generator=batches)
            try:
                loss = loss_fn(model(x[pick]).float(), y[pick])
                step.zero_grad()
                loss.backward()
            except RuntimeError:
                return best / chance, i  # no gradient path, or a value outside the loss' domain
            step.step()
            if not math.isfinite(loss.item()):
                return best / chance, i
            if i % CHECK_EVERY == CHECK_EVERY - 1 and (loss.item() < 1.1 * chance or i > STEPS - CHECK_EVERY):
                with torch.no_grad():
                    out = model(x[: SAMPLES // 2]).float()
                    value = float(loss_fn(out, y[: SAMPLES // 2]))
                best = min(best, value)
                same = same + 1 if bool((out == out[:1]).all()) else 0
                if best < STARTED * chance or same == DEAF:
                    return best / chance, i + 1
    return best / chance, STEPS


def _first_order(case: Case) -> tuple[float, str, int]:
    """The grid with the first batch order, until one run starts: lowest level, its run, its steps."""
    best = (math.inf, GRID[0], 0)
    for run in GRID:
        level, steps = train(case, run)
        best = min(best, (level, run, steps))
        if level < STARTED:
            break
    return best


def _by_order(case: Case) -> tuple[list[float], str, int]:
    """Lowest level of each batch order; the run that gave the first one, and its steps (0 where not counted)."""
    if possible(case.model, case.x):
        runs = [(run, order) for order in range(ORDERS) for run in GRID]
        try:
            found = together(case, runs, STEPS, CHECK_EVERY, STARTED, DEAF)
        except RuntimeError:  # no gradient path, or a value outside the loss' domain
            found = []
        if found:
            best = [min(zip(found, runs, strict=True), key=lambda x: (x[1][1] != o, x[0])) for o in range(ORDERS)]
            return [level for level, _ in best], best[0][1][0], 0
    level, run, steps = _first_order(case)
    return [level] + [train(case, run, order)[0] for order in range(1, ORDERS)], run, steps


def label(config: Config) -> dict[str, object]:
    """Train over the grid and the orders."""
    begun = time.process_time()
    case = build(config)
    levels, run, steps = _by_order(case)
    started = sum(x < STARTED for x in levels)
    name = "starts" if started >= 2 else "never" if min(levels) >= CHANCE else "ambiguous"
    return {
        "label": name, "level": f"{levels[0]:.4g}", "second": f"{levels[1]:.4g}", "third": f"{levels[2]:.4g}",
        "run": run, "steps": steps if steps and levels[0] < STARTED else "",
        "chance": f"{case.task.chance(SAMPLES // 2):.4g}", "seconds": f"{time.process_time() - begun:.2f}",
    }  # fmt: skip


def main() -> None:
    """Label what is not labelled yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=NAMES, default="main")
    parser.add_argument("--minutes", type=float, default=90.0, help="CPU minutes at most")
    args = parser.parse_args()
    torch.set_num_threads(1)
    done: set[str] = set()
    out = FOLDER / ("labels.csv" if args.set == "main" else f"labels_{args.set}.csv")
    if out.exists():
        with out.open(newline="") as file:
            done = {row["config"] for row in csv.DictReader(file)}
    fresh = not done
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if fresh:
            writer.writeheader()
        numbered = list(enumerate(population(args.set)))
        if args.set != "main":  # so that a run that was cut short has labelled a fair sample
            random.Random(0).shuffle(numbered)
        for i, config in numbered:
            if time.process_time() > 60 * args.minutes:
                break
            text = json.dumps({k: v for k, v in asdict(config).items() if v != ""}, sort_keys=True)
            if text in done:
                continue
            writer.writerow({"id": i, "config": text, **label(config)})
            file.flush()


if __name__ == "__main__":
    main()
