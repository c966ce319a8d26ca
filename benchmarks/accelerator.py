"""What `measure` costs on an accelerator: seconds and peak memory beside the model's own passes there.

Seconds are those of the clock, read after the device has finished; own and measured passes take turns, and a row is
the median of the ratios within the pairs. Memory is the peak that torch's allocator held during one pass, the model's
own weights and gradients included. "host" is the share of a measured pass in which the CPU was busy: near 1 it is
Python that sets the pace, not the device. Where torch sees no accelerator the stored table is shown, if there is one.
"""

from __future__ import annotations

import contextlib
import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor, nn

import firstlight
from benchmarks.overhead import GPT, median, mlp, own_pass, resnet50

RESULT = Path(__file__).with_name("accelerator.csv")


@dataclass(frozen=True)
class Row:
    """One model on one device.

    Attributes:
        device: Its name.
        model: What and which batch.
        own_ms: Milliseconds of the own forward and backward pass.
        measured_ms: The same of `measure`.
        time: Median ratio.
        host: CPU seconds over seconds of the measured pass.
        own_mb: Peak memory in MB.
        measured_mb: The same of `measure`.
        memory: Their ratio.
    """

    device: str
    model: str
    own_ms: float
    measured_ms: float
    time: float
    host: float
    own_mb: float
    measured_mb: float
    memory: float


def _resnet(batch: int) -> tuple[nn.Module, Tensor]:
    return resnet50()[0], torch.randn(batch, 3, 224, 224)


MODELS: dict[str, tuple[Callable[[], tuple[nn.Module, Tensor]], bool]] = {
    "50 linear layers of 1024 units, batch 1024": (lambda: mlp(1024, 1024), False),
    "50 linear layers of 4096 units, batch 4096": (lambda: mlp(4096, 4096), False),
    "The layers of a ResNet-50, batch 64 of 3×224×224": (lambda: _resnet(64), False),
    "GPT-2 small's size, batch 8 of 1024 tokens": (lambda: (GPT(), torch.randint(50257, (8, 1024))), False),
    "the same with bfloat16 autocast": (lambda: (GPT(), torch.randint(50257, (8, 1024))), True),
}


def measure(name: str, device: torch.device, pairs: int = 5) -> Row:
    """A line of the table."""
    build, half = MODELS[name]
    torch.manual_seed(0)
    with device:
        model, x = build()

    def own() -> None:
        with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
            own_pass(model, x)

    def measured() -> None:
        with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
            firstlight.measure(model, x)

    works = (own, measured)
    for work in works * 2:  # libraries choose their kernels
        work()
    seconds = [[_timed(work, device) for work in works] for _ in range(pairs)]
    peaks = [_peak(work, device) for work in works]
    return Row(
        torch.cuda.get_device_name(device),
        name,
        1e3 * median([own for (own, _), _ in seconds]),
        1e3 * median([clock for _, (clock, _) in seconds]),
        median([clock / own for (own, _), (clock, _) in seconds]),
        median([busy / clock for _, (clock, busy) in seconds]),
        peaks[0],
        peaks[1],
        peaks[1] / peaks[0],
    )


def _timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """(seconds of the clock, CPU seconds) until the device has done the work."""
    torch.cuda.synchronize(device)
    clock, busy = time.perf_counter(), time.process_time()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - clock, time.process_time() - busy


def _peak(work: Callable[[], object], device: torch.device) -> float:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) / 2**20


def run() -> Table | str:
    """Measure where there is an accelerator, keep it, and show what is kept."""
    if torch.cuda.is_available():
        torch.set_num_threads(1)
        rows: list[Row] = []
        for name in MODELS:
            print(name, flush=True)
            rows.append(measure(name, torch.device("cuda")))
        with RESULT.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in asdict(r).items()} for r in rows)
    if not RESULT.exists():
        return "torch sees no accelerator, and no earlier table is stored"
    table = Table(*(f.name.replace("_", " ") for f in fields(Row)), title="measure beside the model's own passes")
    with RESULT.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            table.add_row(*row.values())
    return table
