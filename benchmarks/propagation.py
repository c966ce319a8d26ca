"""Speed of predict after capture: depth 100 to 10,000, and a Llama of 70 billion parameters on the meta device."""

from __future__ import annotations

import resource
import statistics
import time
from typing import Any

import torch
from rich.table import Table
from torch import nn

from benchmarks.calibration import stack
from firstlight.capture import predict
from firstlight.capture.trace import trace
from firstlight.graph.ir import Graph
from firstlight.schemes.plan import plan

DEPTHS = (100, 800, 3000, 10_000)


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


def run(depths: tuple[int, ...] = DEPTHS, large: bool = True) -> Table:
    """The table."""
    torch.set_num_threads(1)
    table = Table("network", "operations", "capture, CPU-s", "predict, CPU-s", "per operation, ms", "goal")
    for depth in depths:
        captured, spent, graph = seconds(stack(depth, 16), torch.randn(8, 16), {}, "he", 3 if depth < 3000 else 1)
        n = len(graph.nodes)
        goal = "≤ 0.5" if depth == 800 else "linear"
        table.add_row(
            f"ReLU stack of {depth}", str(n), f"{captured:.2f}", f"{spent:.2f}", f"{1000 * spent / n:.2f}", goal
        )
    if large:
        model, kwargs = llama()
        captured, spent, graph = seconds(model, (), kwargs, "normal(0.02)", 1)
        goal = f"≤ 15 in all, predict ≤ {0.25 * captured:.1f}"
        n = len(graph.nodes)
        table.add_row("Llama 70B on meta", str(n), f"{captured:.2f}", f"{spent:.2f}", f"{1000 * spent / n:.2f}", goal)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    table.caption = f"peak memory of the process {peak:.2f} GiB (goal for the Llama: 2)"
    return table
