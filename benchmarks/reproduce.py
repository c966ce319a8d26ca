"""The quick form of every experiment from an empty store: CPU-seconds, against five minutes on two cores.

Writes reproduce.csv beside this file, of which the documentation makes its table.
"""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.table import Table

from firstlight.lab.experiment import experiment_names
from firstlight.lab.reproduce import figures, tasks_of

CSV = Path(__file__).with_name("reproduce.csv")
ALLOWED = 600.0  # CPU-seconds: five minutes of two cores


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(name: str, out: Path) -> dict[str, object]:
    """Run one experiment into the empty folder `out`, as a user would, in a process of its own."""
    before, began = _cpu(), time.monotonic()
    call = "from firstlight.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", call, "reproduce", name, "--quick", "--out", str(out)], check=True, capture_output=True
    )
    return {
        "experiment": name,
        "figures": len(figures(name)),
        "runs": sum(len(task.seeds) for task in tasks_of(name, None, "quick")),
        "cpu_s": round(_cpu() - before, 1),
        "wall_s": round(time.monotonic() - began, 1),
    }


def run() -> Table:
    """Measure, keep and show."""
    table = Table("experiment", "figures", "runs", "CPU-seconds", f"of {ALLOWED:.0f}", "wall-clock seconds")
    rows = []
    for name in experiment_names():
        with tempfile.TemporaryDirectory() as out:
            rows.append(measure(name, Path(out)))
        cells = [str(rows[-1][key]) for key in ("experiment", "figures", "runs", "cpu_s")]
        share = f"{100 * float(str(rows[-1]['cpu_s'])) / ALLOWED:.0f} %"
        table.add_row(*cells, share, str(rows[-1]["wall_s"]))
    with CSV.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return table
