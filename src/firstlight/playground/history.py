"""The cost over the steps of one run, thinned as it grows, and what its course says in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

CAPACITY = 1024
# Windows, in steps, over which a course is judged; a run younger than that is "starting".
WINDOW = 50
# Change over a window, as a share of the cost, below which the cost stands still.
FLAT = 5e-3
_CENTRED = np.arange(WINDOW) - (WINDOW - 1) / 2


@dataclass(slots=True)
class History:
    """Cost by step. When `CAPACITY` points are held every second one goes and the stride doubles.

    The last `WINDOW` costs are kept at full resolution beside it, because a course is judged on them.
    """

    stride: int = 1
    steps: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    first: float = math.nan
    peak: float = math.nan

    def add(self, step: int, cost: float) -> None:
        """Note the cost before update number `step`."""
        if not self.steps:
            self.first = self.peak = cost
        self.peak = max(self.peak, cost)
        self.recent.append(cost)
        del self.recent[:-WINDOW]
        if step % self.stride:
            return
        self.steps.append(step)
        self.train.append(cost)
        if len(self.steps) >= CAPACITY:
            del self.steps[1::2]
            del self.train[1::2]
            self.stride *= 2

    @property
    def last(self) -> float:
        """The newest cost; NaN before the first step."""
        return self.recent[-1] if self.recent else math.nan

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Steps and costs for drawing."""
        with np.errstate(over="ignore"):
            return {
                "cost_step": np.asarray(self.steps, dtype=np.float32),
                "cost": np.asarray(self.train, dtype=np.float32),
            }

    def course(self, floor: float) -> str:
        """One of "starting", "falling", "plateau", "oscillating", "learned".

        Args:
            floor: Cost below which the task counts as learned.

        A window is called a plateau when a straight line through it changes by less than `FLAT` of the cost while the
        cost is still above nine tenths of its first value or has not come down to `floor`; oscillating when
        consecutive changes alternate in sign more often than not and their size exceeds the trend over the window.
        """
        cost = np.asarray(self.recent)
        if len(cost) < WINDOW or not np.isfinite(cost).all():
            return "starting"
        if cost[-1] <= floor:
            return "learned"
        change = np.diff(cost)
        flips = np.mean(np.sign(change[1:]) * np.sign(change[:-1]) < 0)
        slope = float(_CENTRED @ cost / (_CENTRED @ _CENTRED)) * WINDOW  # of the line of least squares
        if flips > 0.5 and float(np.abs(change).mean()) > max(abs(slope), 0.01 * float(cost.mean())):
            return "oscillating"
        if abs(slope) < FLAT * abs(float(cost.mean())):
            return "plateau"
        return "falling"
