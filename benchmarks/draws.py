"""Speed of the random draws: entries per CPU-second beside torch.nn.init, and whole initializations."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from rich.table import Table
from torch import nn

from firstlight.schemes import plan, write
from firstlight.schemes.draws import Distribution, Stream
from firstlight.schemes.haar import haar_maps

ENTRIES = 1 << 23
REPEATS = 5


def cpu_seconds(call: Callable[[], object]) -> float:
    """Median over repeats, the first one discarded."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def run() -> Table:
    """One table: ours beside torch's, and the ratio; one thread, so that CPU seconds compare."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _table()
    finally:
        torch.set_num_threads(threads)


def _table() -> Table:
    table = Table("draw", "ours", "torch", "torch/ours in time", title="random draws, one thread")
    tensor = torch.empty(ENTRIES)
    array = tensor.numpy()
    rows: list[tuple[str, Distribution, Callable[[], object]]] = [
        ("normal", Distribution("normal", 1.0), lambda: nn.init.normal_(tensor)),
        ("uniform", Distribution("uniform", 1.0), lambda: nn.init.uniform_(tensor)),
        ("truncated", Distribution("truncated", 1.0), lambda: nn.init.trunc_normal_(tensor)),
    ]
    for name, law, theirs in rows:
        ours = cpu_seconds(lambda law=law: Stream(0, "w").fill(law, array))
        other = cpu_seconds(theirs)
        million = ENTRIES / 1e6
        table.add_row(f"{name}, M/s", f"{million / ours:.0f}", f"{million / other:.0f}", f"{other / ours:.2f}")
    square = torch.empty(1024, 1024)
    ours = cpu_seconds(lambda: haar_maps(Stream(0, "w"), (1024, 1024), 1, (1,), torch.float32))
    other = cpu_seconds(lambda: nn.init.orthogonal_(square))
    table.add_row("orthogonal 1024², s", f"{ours:.3f}", f"{other:.3f}", f"{other / ours:.2f}")
    for name, model in (
        ("1000 layers × 64, he, s", nn.Sequential(*(nn.Linear(64, 64) for _ in range(1000)))),
        ("4 layers × 2048, he-truncated, s", nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(4)))),
    ):
        truncated = "truncated" in name
        ours = cpu_seconds(lambda m=model, t=truncated: write(plan(m, "he-truncated" if t else "he"), 0))
        other = cpu_seconds(lambda m=model, t=truncated: _by_hand(m, t))
        table.add_row(name, f"{ours:.3f}", f"{other:.3f}", f"{other / ours:.2f}")
    return table


def _by_hand(model: nn.Sequential, truncated: bool) -> None:
    for layer in model:
        assert isinstance(layer, nn.Linear)
        if truncated:
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
        else:
            nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
