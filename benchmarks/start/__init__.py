"""Does P(start) tell who starts? AUC and calibration on networks that were trained, beside simple baselines.

The networks and their labels are those of `benchmarks.diagnosis` (each was trained from exactly the drawn weights
with a small grid of optimizers and rates; started = training loss below .9 of chance level), without the ones that
carry an implanted fault or spoilt inputs: here the question is the initialization alone. Nothing is tuned on them.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.diagnosis.nets import Case, build
from benchmarks.diagnosis.score import Labelled, labelled
from benchmarks.diagnosis.tasks import BATCH, loss_of
from benchmarks.diagnosis.weights import matrices

Scores = dict[str, float]
NAMES = {
    "diagnose": "P(start) of diagnose",
    "predict": "P(start) of predict, live weights",
    "gradient": "first against last layer's gradient",
    "output": "length of the output alone",
    "widths": "Σ1/n alone",
}


def clean(rows: Sequence[Labelled]) -> list[Labelled]:
    """The networks whose initialization is all that can be wrong with them."""
    return [r for r in rows if not getattr(r.config, "fault", "") and not getattr(r.config, "inputs", "")]


def scores(case: Case) -> Scores:
    """All scores of one network; larger means more likely to start, NaN where there is none."""
    import firstlight
    from firstlight.errors import FirstlightError

    x, y, loss_fn = case.x[:BATCH], case.task.y[:BATCH], loss_of(case.loss)
    out: Scores = dict.fromkeys(NAMES, math.nan)
    with contextlib.suppress(FirstlightError):
        out["diagnose"] = firstlight.diagnose(case.model, x, loss=lambda z, t: loss_fn(z.float(), t), targets=y).p_start
    with contextlib.suppress(FirstlightError):
        out["predict"] = firstlight.predict(case.model, x, on_missing="measure").p_start
    out |= _baselines(case, x, y)
    return out


def _baselines(case: Case, x: torch.Tensor, y: torch.Tensor) -> Scores:
    found = matrices(case.model)
    case.model.train()
    z = case.model(x)
    z = z if isinstance(z, torch.Tensor) else z[0]
    try:
        loss_of(case.loss)(z.float(), y).backward()
    except RuntimeError:
        return {}
    sizes = [p.grad.square().mean().item() if p.grad is not None else 0.0 for p in found]
    length = z.detach().float().square().mean().item()
    return {
        "gradient": -_distance(sizes[0], sizes[-1]) if sizes else -math.inf,
        "output": -_distance(length, 1.0),
        "widths": -sum(1.0 / p.shape[0] for p in found[:-1]),
    }


def _distance(a: float, b: float) -> float:
    ok = a > 0 and b > 0 and math.isfinite(a) and math.isfinite(b)
    return abs(math.log(a / b)) if ok else 1e9


def auc(score: NDArray[np.float64], starts: NDArray[np.bool_]) -> float:
    """Probability that a network that starts scores above one that does not; ties count half."""
    good, bad = score[starts], score[~starts]
    if not len(good) or not len(bad):
        return math.nan
    above = (good[:, None] > bad[None, :]).mean() + 0.5 * (good[:, None] == bad[None, :]).mean()
    return float(above)


def _interval(score: NDArray[np.float64], starts: NDArray[np.bool_]) -> tuple[float, float]:
    rng, values = np.random.default_rng(0), []
    for _ in range(300):
        pick = rng.integers(len(score), size=len(score))
        if 0 < starts[pick].sum() < len(pick):
            values.append(auc(score[pick], starts[pick]))
    return (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))) if values else (math.nan, math.nan)


def collect(rows: Sequence[Labelled]) -> list[Scores]:
    """Scores of all networks, each built anew."""
    torch.set_num_threads(1)
    found = []
    for row in rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(scores(build(row.config)))
    return found


def run(limit: int = 0) -> Table:
    """The table; `limit` takes only the first networks."""
    rows = clean(list(labelled()))
    rows = rows[:limit] if limit else rows
    begin = time.process_time()
    found = collect(rows)
    spent = (time.process_time() - begin) / max(len(rows), 1)
    starts = np.array([r.starts for r in rows])
    title = f"{len(rows)} networks, {int(starts.sum())} start; {spent:.2f} CPU-s each"
    table = Table("score", "scored", "AUC", "95 %", "below .1", ".1–.5", ".5–.9", "above .9", title=title)
    for key, name in NAMES.items():
        value = np.array([s[key] for s in found])
        known = ~np.isnan(value)
        low, high = _interval(value[known], starts[known])
        cells = [name, str(int(known.sum())), f"{auc(value[known], starts[known]):.3f}", f"{low:.3f} … {high:.3f}"]
        if key in ("diagnose", "predict"):  # of the networks with a P(start) in the band, how many start
            for a, b in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
                inside = known & (value >= a) & (value < b)
                cells.append(f"{starts[inside].mean():.2f} of {inside.sum()}" if inside.any() else "none")
        table.add_row(*cells)
    best = np.array([s["diagnose"] for s in found])
    wrong = np.argsort(-np.abs(np.nan_to_num(best, nan=0.5) - starts))[:8]
    table.caption = "most wrong: " + "; ".join(
        f"{rows[i].config.family} {rows[i].config.depth}×{rows[i].config.width} {rows[i].config.activation} "
        f"{rows[i].config.scheme} P={best[i]:.2f} {'starts' if starts[i] else 'does not'}"
        for i in wrong
    )
    return table
