"""Train a set's networks from exactly their drawn weights into ``labels_SET_OPTIMIZER.csv``; resumes where it stopped.

A network *starts* if its training loss, averaged over 10 consecutive steps of 64 samples, falls below 0.9 of chance
level (the entropy of the classes) within 200 steps of Adam at one of the learning rates 10⁻⁴, 10⁻³ and 10⁻²: no
decay, no warm-up, no clipping. A network that is not below 0.98 of chance after 100 steps is given up. Every run
begins from the drawn weights and takes the same batches. ``--optimizer sgd`` labels with SGD instead (rates 0.01,
0.1 and 1), to see what depends on the optimizer.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
import warnings
from pathlib import Path

import torch
from torch import nn

from benchmarks.start.ensemble import Ensemble
from benchmarks.start.networks import BATCH, Spec, build, inputs
from benchmarks.start.population import SETS, population
from benchmarks.start.problems import problem

FOLDER = Path(__file__).parent
STEPS, WINDOW, SHARE = 200, 10, 0.9
PATIENCE, MOVED = 100, 0.98  # steps after which a run has to be below that share of chance
RATES = {"adam": (1e-3, 1e-4, 1e-2), "sgd": (0.1, 0.01, 1.0)}
FIELDS: tuple[str, ...] = ("id", "spec", "starts", "best", "first", "rates", "seconds", "note")


class Watch:
    """Losses of runs side by side, averaged over windows as shares of chance, and when there is nothing to wait for.

    Attributes:
        best: The lowest window of each run so far.
    """

    def __init__(self, runs: int, chance: float) -> None:
        self.chance = chance
        self.best, self.recent = torch.full((runs,), math.inf), torch.zeros(runs)

    def over(self, step: int, losses: torch.Tensor) -> bool:
        """Whether after this step one has started, none has moved for too long, or all are beyond numbers."""
        self.recent += losses.detach() / (WINDOW * self.chance)
        if step % WINDOW:
            return False
        self.best = torch.minimum(self.best, self.recent.nan_to_num(nan=math.inf))
        finite = torch.isfinite(self.recent)  # a loss that is not stays so: that run is out
        self.recent = torch.where(finite, torch.zeros_like(self.recent), self.recent)
        lowest = float(self.best.min())
        return not finite.any() or lowest < SHARE or (step >= PATIENCE and lowest > MOVED)


def train(model: nn.Module, s: Spec, optimizer: str, rates: tuple[float, ...]) -> list[tuple[float, int]]:
    """Train at several rates at once until one starts.

    Returns:
        Per rate the lowest loss over a window as a share of chance, and the steps taken.
    """
    team = Ensemble(model, len(rates))
    x, set_ = inputs(s), problem(s.data)
    order = torch.Generator().manual_seed(s.seed)
    rate = team.per_member(rates)
    first, second = torch.zeros_like(team.vector), torch.zeros_like(team.vector)
    watch = Watch(len(rates), set_.chance)
    for i in range(1, STEPS + 1):
        pick = torch.randint(len(x), (BATCH,), generator=order)
        losses = team.losses(x[pick], set_.y[pick])
        g = team.gradient(losses)
        with torch.no_grad():
            if optimizer == "adam":  # betas .9 and .999, epsilon 1e-8 (Kingma and Ba 1412.6980)
                first.lerp_(g, 0.1)
                second.mul_(0.999).addcmul_(g, g, value=0.001)
                root = (second / (1.0 - 0.999**i)).sqrt_().add_(1e-8)
                team.vector.sub_((first / root).mul_(rate), alpha=1.0 / (1.0 - 0.9**i))
            else:
                team.vector.sub_(g.mul_(rate))
        if watch.over(i, losses):
            return [(b, i) for b in watch.best.tolist()]
    return [(b, STEPS) for b in watch.best.tolist()]


def label(s: Spec, optimizer: str) -> dict[str, object]:
    """Train one network and make its row."""
    begun = time.process_time()
    model, note = build(s), ""
    together = s.width <= 128 and not s.family.endswith("conv")  # what costs less: kernels in groups are slow
    teams = [RATES[optimizer]] if together else [(rate,) for rate in RATES[optimizer]]
    found: dict[float, tuple[float, int]] = {}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = nn.functional.cross_entropy(model(inputs(s)[:BATCH]), problem(s.data).y[:BATCH]).item()
    try:
        for team in teams:
            found |= dict(zip(team, train(model, s, optimizer, team), strict=True))
            if min(b for b, _ in found.values()) < SHARE:
                break
    except RuntimeError as error:  # out of memory, say: recorded, and the network counts as failed
        note = type(error).__name__
    lowest = min((b for b, _ in found.values()), default=math.inf)
    return {
        "starts": int(lowest < SHARE), "best": f"{lowest:.4f}", "first": f"{first / problem(s.data).chance:.4g}",
        "rates": " ".join(f"{rate:g}:{b:.4f}:{n}" for rate, (b, n) in found.items()),
        "seconds": f"{time.process_time() - begun:.1f}", "note": note,
    }  # fmt: skip


def relabel(name: str, optimizer: str = "adam", minutes: float = math.inf, folder: Path = FOLDER) -> None:
    """Label what is not labelled yet, at most for so many CPU minutes.

    A network in which the process was killed twice is found by the file that ends in ``.busy`` and recorded as killed
    instead of being tried for ever.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # numbers below 1e-38 are 0: no label depends on them, but they are slow
    try:
        _relabel(name, optimizer, minutes, folder)
    finally:
        torch.set_flush_denormal(False)


def _relabel(name: str, optimizer: str, minutes: float, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"labels_{name}_{optimizer}.csv"
    busy = out.with_suffix(".busy")
    done: set[str] = set()
    if out.exists():
        with out.open(newline="") as file:
            done = {row["spec"] for row in csv.DictReader(file)}
    tried = busy.read_text().splitlines() if busy.exists() else []
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not done:
            writer.writeheader()
        for i, s in enumerate(population(name)):
            if time.process_time() > 60.0 * minutes:
                break
            if s.text() in done:
                continue
            row: dict[str, object] = {"note": "killed"}
            if tried.count(s.text()) < 2:
                with busy.open("a") as mark:
                    mark.write(s.text() + "\n")
                row = label(s, optimizer)
            writer.writerow({"id": i, "spec": s.text(), **row})
            file.flush()
            busy.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", choices=sorted(SETS), default=list(SETS))
    parser.add_argument("--optimizer", choices=sorted(RATES), default="adam")
    parser.add_argument("--minutes", type=float, default=math.inf, help="CPU minutes at most")
    args = parser.parse_args()
    for each in args.sets:
        relabel(each, args.optimizer, args.minutes)
