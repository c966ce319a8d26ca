"""The stored two-hour run is a whole one, is flat within the goal, and is what the page of the playground says."""

import csv
from pathlib import Path

from benchmarks.playground.memory import FIELDS, WARM_UP, verdict

ROOT = Path(__file__).parents[2]


def test_two_hours_leak_nothing():
    with (ROOT / "benchmarks/playground/memory.csv").open(encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert tuple(rows[0]) == FIELDS
    assert rows[-1]["minute"] >= 120.0
    assert sum(r["minute"] >= WARM_UP for r in rows) > 60
    page = (ROOT / "docs/playground.md").read_text(encoding="utf-8")
    for first, last, ratio in verdict(rows).values():
        assert ratio <= 1.10
        assert f"| {first:.1f} | {last:.1f} | {ratio:.3f} |" in page
