"""Speed of predict after capture: depth 100 to 10,000, and a Llama of 70 billion parameters on the meta device."""

from __future__ import annotations

import csv
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from benchmarks.calibration import stack
from firstlight.capture import predict
from firstlight.capture.trace import trace
from firstlight.graph.ir import Graph
from firstlight.schemes.plan import plan

DEPTHS = (100, 800, 3200, 10_000)
RESULT = Path(__file__).with_name("propagation.csv")
HEAD = {
    "network": "network", "operations": "operations", "capture": "capture, CPU-s", "predict": "predict, CPU-s",
    "per_operation_ms": "ms an operation", "of_capture": "of the capture", "of_export": "of torch.export",
    "peak_gib": "peak, GiB",
}  # fmt: skip


def seconds(
    model: nn.Module, args: Any, kwargs: dict[str, Any], scheme: str, repeat: int = 3
) -> tuple[float, float, Graph]:
    """CPU seconds of the capture and, in the median, of laws, propagation and fluctuation; and the graph."""
    begin = time.process_time()
    graph = trace(model, args, kwargs)
    captured = time.process_time() - begin
    spent: list[float] = []
    for _ in range(repeat):
        begin = time.process_time()
        laws = plan(model, scheme, graph=graph, frozen=True).laws()
        predict.predict(model, args, kwargs, laws=laws, scheme=scheme, graph=graph)
        spent.append(time.process_time() - begin)
    return captured, statistics.median(spent), graph


def llama() -> tuple[nn.Module, dict[str, Any]]:
    """Llama 70B without memory, and a batch."""
    from benchmarks.capture import _llama_70b as build

    with torch.device("meta"):
        model, _, kwargs = build()
    return model, kwargs


def row(network: str, captured: float, spent: float, operations: int, exported: float = 0.0) -> dict[str, str]:
    """A line of the table; times in CPU seconds, the peak is that of the process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "network": network,
        "operations": str(operations),
        "capture": f"{captured:.2f}",
        "predict": f"{spent:.2f}",
        "per_operation_ms": f"{1000.0 * spent / operations:.2f}",
        "of_capture": f"{spent / captured:.2f}",
        "of_export": f"{spent / exported:.2f}" if exported else "",
        "peak_gib": f"{peak:.2f}",
    }


def exported(model: nn.Module, kwargs: dict[str, Any]) -> float:
    """CPU seconds of `torch.export` on the same network."""
    from benchmarks.capture import METHODS

    begin = time.process_time()
    METHODS["export"](model, (), kwargs)
    return time.process_time() - begin


def rows(depths: tuple[int, ...] = DEPTHS, large: bool = True) -> list[dict[str, str]]:
    """The Llama first, since the process's peak is asked for, then the stacks."""
    torch.set_num_threads(1)
    found: list[dict[str, str]] = []
    if large:
        model, kwargs = llama()
        captured, spent, graph = seconds(model, (), kwargs, "normal(0.02)", 3)
        operations, before = len(graph.nodes), row("Llama 70B on meta", captured, spent, len(graph.nodes))
        del graph
        after = row("Llama 70B on meta", captured, spent, operations, exported(model, kwargs))
        found.append(after | {"peak_gib": before["peak_gib"]})
        del model, kwargs
    for depth in depths:
        captured, spent, graph = seconds(stack(depth, 16), torch.randn(8, 16), {}, "he", 3 if depth < 3000 else 1)
        found.append(row(f"ReLU stack of {depth}", captured, spent, len(graph.nodes)) | {"peak_gib": ""})
    return found


def run(depths: tuple[int, ...] = DEPTHS, large: bool = True, keep: bool = True) -> Table:
    """The table; the whole of it is kept for the documentation (docs/speed.md)."""
    found = rows(depths, large)
    if keep and large and depths == DEPTHS:
        with RESULT.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)
    table = Table(*(HEAD[key] for key in found[0]))
    for line in found:
        table.add_row(*line.values())
    table.caption = (
        "goals: Llama ≤ 15 s in all, predict ≤ .25 of the capture, ≤ 2 GiB; stack of 800 ≤ 0.5 s; linear in depth"
    )
    return table
