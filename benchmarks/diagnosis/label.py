"""Label the population by training exactly the drawn weights; writes labels.csv, resumes where it stopped.

A network *starts* if, for at least one optimizer and learning rate of the grid, its training loss falls below 0.9
of the loss of the best constant answer within 600 steps of 64 samples. Every run begins from the drawn weights.
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
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.diagnosis.nets import Case, Config, build
from benchmarks.diagnosis.population import population
from benchmarks.diagnosis.tasks import BATCH, SAMPLES, loss_of

FOLDER = Path(__file__).parent
# "main" is split in halves by hash; "fresh", of the hard kinds only, was labelled after all thresholds were fixed.
SETS = {
    "main": {"count": 380, "hard": 85, "seed": 2024},
    "fresh": {"count": 0, "hard": 70, "seed": 7},
}
STEPS, CHECK_EVERY, SHARE = 600, 10, 0.9
GRID = (("adam", 1e-3), ("sgd", 0.1), ("adam", 1e-2), ("sgd", 0.01), ("adam", 1e-4), ("sgd", 1.0))
FIELDS = ("id", "config", "label", "best", "chance", "run", "steps", "seconds")


def train(case: Case, optimizer: str, lr: float) -> tuple[float, int]:
    """Train a copy; return the lowest evaluated loss and the steps taken."""
    model = copy.deepcopy(case.model).train()
    params = [p for p in model.parameters() if p.requires_grad]
    if not params:
        return math.inf, 0
    step = torch.optim.Adam(params, lr) if optimizer == "adam" else torch.optim.SGD(params, lr)
    loss_fn, chance = loss_of(case.loss), case.task.chance()
    order = torch.Generator().manual_seed(case.config.seed)
    best = math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(STEPS):
            pick = torch.randint(len(case.x), (BATCH,), generator=order)
            try:
                loss = loss_fn(model(case.x[pick]).float(), case.task.y[pick])
                step.zero_grad()
                loss.backward()
            except RuntimeError:
                return best, i  # no gradient path, or a value outside the loss' domain
            step.step()
            if not math.isfinite(loss.item()):
                return best, i
            if i % CHECK_EVERY == CHECK_EVERY - 1 and (loss.item() < 1.1 * chance or i > STEPS - CHECK_EVERY):
                with torch.no_grad():
                    value = float(loss_fn(model(case.x[: SAMPLES // 2]).float(), case.task.y[: SAMPLES // 2]))
                best = min(best, value)
                if best < SHARE * chance:
                    return best, i + 1
    return best, STEPS


def label(config: Config) -> dict[str, object]:
    """Train over the grid until one run starts."""
    begun = time.process_time()
    case = build(config)
    chance, best, where, steps = case.task.chance(), math.inf, "", 0
    for optimizer, lr in GRID:
        value, steps = train(case, optimizer, lr)
        if value < best:
            best, where = value, f"{optimizer}:{lr:g}"
        if best < SHARE * chance:
            break
    started = best < SHARE * chance
    return {
        "label": "starts" if started else "never", "best": f"{best:.4g}", "chance": f"{chance:.4g}",
        "run": where, "steps": steps if started else "", "seconds": f"{time.process_time() - begun:.2f}",
    }  # fmt: skip


def main() -> None:
    """Label what is not labelled yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=sorted(SETS), default="main")
    parser.add_argument("--minutes", type=float, default=40.0, help="CPU minutes at most")
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
        numbered = list(enumerate(population(**SETS[args.set])))
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
