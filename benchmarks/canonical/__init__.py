"""Diagnosis of canonical PyTorch mistakes, and of what only looks like one: who starts, and which remedies work."""

from __future__ import annotations

from typing import Any


def run() -> Any:
    """The table; labels come from ``python -m benchmarks.canonical.label``."""
    from benchmarks.canonical.table import table

    return table()
