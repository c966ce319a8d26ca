"""The figure of docs/start.md: who is told apart, and whether what is said happens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.start.metrics import area, bins
from benchmarks.start.score import Row
from firstlight.lab.figures._style import COLOURS, GREY, panels, style

SHOWN = {
    "p_start": "P(start)",
    "p_first": "P(start) as first scored",
    "output": "output length",
    "gradient": "gradient norm",
    "widths": "Σ1/n",
    "anyinit_scale": "distance from AnyInit's scales",
}


def draw(rows: Sequence[Row], path: str | Path) -> None:
    """ROC curves with the baselines, and the calibration curve with Wilson's intervals."""
    starts = np.array([r.starts for r in rows])
    with style():
        figure, (left, right) = panels(1, 2, f"P(start) against {len(rows)} trained networks", width=4.8, height=4.0)
        for i, (key, title) in enumerate(SHOWN.items()):
            value = np.array([r.p_start if key == "p_start" else r.values.get(key, math.nan) for r in rows])
            if np.isnan(value).all() or (key == "p_first" and all(r.p_start == r.values[key] for r in rows)):
                continue
            value = np.nan_to_num(value, nan=-math.inf, neginf=-1e300)
            order = np.unique(value)[::-1]
            false = [0.0, *(float((value[~starts] >= v).mean()) for v in order)]
            true = [0.0, *(float((value[starts] >= v).mean()) for v in order)]
            label = f"{title}: {area(value, starts).value:.3f}"
            left.plot(false, true, color=COLOURS[i], lw=2.2 if i == 0 else 1.2, label=label, zorder=3 - i / 10)
        left.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        left.set(
            xlabel="share of those that do not start, called starting",
            ylabel="share of those that start, called so",
            title="Told apart (area under the curve)",
        )
        left.legend(loc="lower right")
        found = bins(np.array([r.p_start for r in rows]), starts)
        right.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        x, y = [b.said for b in found], [b.started for b in found]
        low = [max(0.0, b.started - b.below) for b in found]
        high = [max(0.0, b.above - b.started) for b in found]
        right.errorbar(x, y, yerr=(low, high), fmt="o", color=COLOURS[0], capsize=3, lw=1.2)
        for b in found:
            right.annotate(str(b.count), (b.said, b.started), textcoords="offset points", xytext=(7, -11), fontsize=8,
                           color=GREY)  # fmt: skip
        right.set(
            xlabel="P(start), mean of the bin",
            ylabel="share that starts",
            title="Calibration (networks per bin)",
            xlim=(-0.04, 1.04),
            ylim=(-0.04, 1.04),
        )
        figure.savefig(path)
