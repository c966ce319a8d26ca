"""The article's 2-6-3-1 medians: which readings of its set-up give them, and which do not.

The network of "Initializing neural networks" in NumPy, apart from the lab's trainer: many networks at once, each
with points of its own. Of every reading the interval that holds nine of ten medians of 25 networks is set beside
the published median, with how likely one is that far out. Writes article.csv beside this file, of which the
documentation makes its table.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from firstlight.lab.data import load
from firstlight.lab.experiments.xavier_article import EPOCHS
from firstlight.lab.figures.xavier_article import ORACLE

CSV = Path(__file__).with_name("article.csv")
CELLS = (("circle", 1.0), ("circle", 0.01), ("circle", 100.0), ("square", 1.0), ("square", 100.0))
WIDTHS = (2, 6, 3, 1)
GROUP, REDRAWN = 25, 2000  # networks of a published median; medians drawn for an interval
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """One reading of the article's set-up.

    Attributes:
        points: Training points.
        shared: Whether the 25 networks of a median see the same points.
        bias: "zero", "none", or "drawn" like the weights.
        fan: Which fan divides v.
        activation: "relu" or "tanh".
        held: Whether the cost is that of fresh points.
        rate: Learning rate.
        cells: Sets and factors.
    """

    points: int = 100
    shared: bool = False
    bias: str = "zero"
    fan: str = "in"
    activation: str = "relu"
    held: bool = False
    rate: float = 0.1
    cells: tuple[tuple[str, float], ...] = CELLS


_CIRCLE = CELLS[:3]
READINGS = {
    "100 points": Reading(),
    "300 points": Reading(300),
    "100 points, the same for all 25": Reading(shared=True),
    "cost on 100 fresh points": Reading(held=True, cells=_CIRCLE),
    "biases drawn like weights": Reading(bias="drawn", cells=_CIRCLE),
    "no biases": Reading(bias="none", cells=_CIRCLE),
    "v / fan_out": Reading(fan="out"),
    "tanh": Reading(activation="tanh", cells=_CIRCLE),
}


def costs(reading: Reading, data: str, factor: float, networks: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Cost of each network after `EPOCHS` epochs of full-batch gradient descent, (networks, 4)."""
    rng = np.random.default_rng((seed, round(1000 * factor)))
    draws = -(-networks // GROUP) if reading.shared else networks
    sets = [load(data, n=reading.points, seed=seed * 100_000 + number) for number in range(draws)]
    which = np.arange(networks) // GROUP if reading.shared else np.arange(networks)
    x = np.stack([s[0].flat().T for s in sets])[which]
    y = np.stack([s[0].y for s in sets])[which][:, None].astype(np.float32)
    fresh = np.stack([s[1].flat().T for s in sets])[which] if reading.held else x
    weights: list[Array] = []
    biases: list[Array] = []
    for n_in, n_out in pairwise(WIDTHS):
        sd = math.sqrt(factor / (n_in if reading.fan == "in" else n_out))
        weights.append((sd * rng.standard_normal((networks, n_out, n_in))).astype(np.float32))
        drawn = sd * rng.standard_normal((networks, n_out, 1)) * (reading.bias == "drawn")
        biases.append(drawn.astype(np.float32))
    kept = []
    for epoch in range(EPOCHS[-1] + 1):
        signals = _forward(reading, weights, biases, x)
        if epoch in EPOCHS:
            z = _forward(reading, weights, biases, fresh)[-1].astype(np.float64)
            kept.append((np.logaddexp(0.0, z) - y * z).mean((1, 2)))
        delta = (1.0 / (1.0 + np.exp(-np.clip(signals[-1], -80.0, 80.0))) - y) / np.float32(reading.points)
        for layer in (2, 1, 0):
            below = signals[layer]
            back = np.matmul(weights[layer].transpose(0, 2, 1), delta) if layer else None
            weights[layer] -= np.float32(reading.rate) * np.matmul(delta, below.transpose(0, 2, 1))
            if reading.bias != "none":
                biases[layer] -= np.float32(reading.rate) * delta.sum(2, keepdims=True)
            if back is not None:
                delta = back * (below > 0 if reading.activation == "relu" else 1.0 - below**2)
    return np.stack(kept, 1)


def _forward(reading: Reading, weights: list[Array], biases: list[Array], x: Array) -> list[Array]:
    """Input, the two hidden layers' outputs, and the logit."""
    signals = [x]
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = np.matmul(w, signals[-1]) + b
        signals.append(z if layer == 2 else np.maximum(z, 0) if reading.activation == "relu" else np.tanh(z))
    return signals


def medians(values: npt.NDArray[np.float64], shared: bool) -> npt.NDArray[np.float64]:
    """Medians of 25 networks, (draws, 4): of those that share their points, or drawn from all with replacement."""
    if shared:
        return np.median(values.reshape(-1, GROUP, values.shape[1]), 1)
    rng = np.random.default_rng(0)
    return np.median(values[rng.integers(len(values), size=(REDRAWN, GROUP))], 1)


def p_value(drawn: npt.NDArray[np.float64], published: float) -> float:
    """Twice the share of medians at least as far out as the published one, which is given to half its last digit."""
    half = 0.5 if published >= 100 else 0.0005
    return min(1.0, 2.0 * min(float((drawn <= published + half).mean()), float((drawn >= published - half).mean())))


def measure(networks: int) -> list[dict[str, object]]:
    """One row per reading, cell and epoch."""
    rows: list[dict[str, object]] = []
    for name, reading in READINGS.items():
        for data, factor in reading.cells:
            count = 4 * networks if reading.shared else networks  # a set of points is one draw
            values = costs(reading, data, factor, count)
            drawn = medians(values, reading.shared)
            low, middle, high = np.quantile(drawn, (0.05, 0.5, 0.95), axis=0)
            for at, epoch in enumerate(EPOCHS):
                row = {"reading": name, "networks": count, "data": data, "factor": factor, "epoch": epoch}
                numbers = {"low": low[at], "median": middle[at], "high": high[at]}
                row |= {k: f"{v:.4g}" for k, v in numbers.items()}
                published = ORACLE[data, factor][at]
                row |= {"published": published, "p": f"{p_value(drawn[:, at], published):.3g}"}
                rows.append(row)
    return rows


def run(networks: int = 500) -> Table:
    """Measure, keep and show."""
    rows = measure(networks)
    with CSV.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    table = Table(*rows[0].keys())
    for row in rows:
        table.add_row(*map(str, row.values()))
    return table
