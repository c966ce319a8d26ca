"""Does P(start) tell who starts? AUC and calibration on 800 networks that were trained, beside simple baselines.

``python -m benchmarks start`` predicts the held-out networks anew and scores them against their stored labels;
``python -m benchmarks.start --help`` trains, predicts and draws again. Results: docs/start.md.
"""

from __future__ import annotations

from typing import Any


def run() -> Any:
    """The tables, with P(start) predicted anew."""
    from benchmarks.start.report import rich_report
    from benchmarks.start.score import fresh, held_out

    return rich_report(fresh(held_out()))
