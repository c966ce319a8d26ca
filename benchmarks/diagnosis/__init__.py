"""Diagnosis at the drawn weights: who finds the small networks that never start, and at what price."""

from __future__ import annotations

from typing import Any


def run() -> Any:
    """The table, for firstlight and for the peers that are installed."""
    from benchmarks.diagnosis.table import table

    return table()
