"""What `Prediction.sweep` returns: one row per combination of a factory's arguments."""

from __future__ import annotations

from collections.abc import Mapping
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
