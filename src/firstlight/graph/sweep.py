"""What `Prediction.sweep` returns: one row per combination of a factory's arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One combination of a sweep.

    Attributes:
        settings: The factory's arguments, and the scheme if it was varied.
        p_start: Probability of a start.
        limit: What limits it.
        q: Mean square of the output.
        log_sd: Standard deviation over draws of its logarithm.
        grad_q: Mean square of the gradient at the first operation.
        grad_log_sd: Standard deviation over draws of its logarithm.
    """

    settings: Mapping[str, int | float | str]
    p_start: float
    limit: str
    q: float
    log_sd: float
    grad_q: float
    grad_log_sd: float


@dataclass(frozen=True, slots=True)
class Advice:
    """One changed argument and what it is predicted to do.

    Attributes:
        name: The factory's argument.
        before: Its value now.
        after: The nearest value tried that reaches the goal; the best one tried where none does.
        p_before: P(start) now.
        p_after: P(start) then.
    """

    name: str
    before: float
    after: float
    p_before: float
    p_after: float

    def __str__(self) -> str:
        """In words: "width 64 → 160 raises P(start) from 0.02 to 0.97"."""
        if self.p_after <= self.p_before:
            return f"no {self.name} tried raises P(start) above {self.p_before:.2f}"
        step = f"{self.name} {self.before:g} → {self.after:g}"
        return f"{step} raises P(start) from {self.p_before:.2f} to {self.p_after:.2f}"


def search(name: str, now: float, p_now: float, probe: Callable[[float], float], goal: float) -> Advice:
    """The smallest change of one argument, in either direction, that raises P(start) to the goal.

    Factors 1.25, 1.25², … up to 16 are tried either way by doubling of the exponent and then by bisection, so that
    P(start) may rise or fall with the argument but is taken as monotone on each side. Whole numbers stay whole.
    """
    whole = isinstance(now, int)
    tried: dict[float, float] = {now: p_now}

    def at(power: int) -> float:
        value = now * 1.25**power
        return max(1, round(value)) if whole else value

    def p(power: int) -> float:
        value = at(power)
        if value not in tried:
            tried[value] = probe(value)
        return tried[value]

    found: list[tuple[int, float]] = []
    for sign in (1, -1):
        low, high = 0, 1
        while high < _REACH and p(sign * high) < goal:
            low, high = high, min(2 * high, _REACH)
        if p(sign * high) < goal:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if p(sign * middle) >= goal else (middle, high)
        found.append((high, at(sign * high)))
    after = min(found)[1] if found else max(tried, key=lambda v: tried[v])
    return Advice(name, now, after, p_now, tried[after])


_REACH = 12  # 1.25¹² = 14.6


@dataclass(frozen=True, slots=True)
class Sweep:
    """Predictions for a grid of settings.

    Attributes:
        names: What was varied.
        rows: One per combination, the last argument varying fastest.
    """

    names: tuple[str, ...]
    rows: tuple[SweepRow, ...]

    @property
    def best(self) -> SweepRow:
        """The combination with the highest probability of a start."""
        return max(self.rows, key=lambda r: r.p_start)

    def to_frame(self) -> pd.DataFrame:
        """As a pandas DataFrame with one row per combination."""
        from firstlight.graph.prediction_tables import sweep_frame

        return sweep_frame(self)

    def to_json(self, indent: int | None = None) -> str:
        """As JSON."""
        from firstlight.graph.records import to_json

        return to_json(self, indent)

    def __rich__(self) -> RenderableType:
        """The table that rich prints."""
        from firstlight.graph.prediction_tables import SweepView

        return SweepView(self)

    def __str__(self) -> str:
        """The same table as plain text, 100 columns wide."""
        from firstlight.graph.terminal import plain

        return plain(self)
