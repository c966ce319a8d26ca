"""Predicted against drawn: mean squares, gradients and correlations of every operation over the whole zoo.

For each network the law of a scheme is predicted once, then the weights are drawn DRAWS times and run forward and
backward. An error counts beyond two standard errors of the mean over the draws; every operation with finite
moments counts. ``ACCURACY_DRAWS`` and ``ACCURACY_NETS`` (a comma-separated list of parts of names) narrow a run.
"""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from rich.table import Table

from firstlight.capture import predict as capture
from firstlight.capture.record import Event, recording
from firstlight.capture.tensors import named_tensors
from firstlight.capture.trace import trace
from firstlight.schemes import apply
from firstlight.schemes.plan import plan
from tests.models import ZOO
from tests.zoo.entry import Entry

DRAWS = int(os.environ.get("ACCURACY_DRAWS", "64"))
SCHEMES = ("he", "xavier", "torch-default")


@dataclass
class Row:
    """One network under one scheme."""

    name: str
    scheme: str
    forward: np.ndarray = field(default_factory=lambda: np.zeros(0))
    backward: np.ndarray = field(default_factory=lambda: np.zeros(0))
    correlation: np.ndarray = field(default_factory=lambda: np.zeros(0))
    caveats: int = 0
    seconds: float = 0.0
    error: str = ""


class Draws:
    """Mean squares, gradients' mean squares and cosines of every operation, one row per draw."""

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[float, float, float]]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self.now: dict[str, tuple[float, float]] = {}

    def sink(self, event: Event) -> None:
        x = event.outputs[0]
        if not x.is_floating_point():
            return
        self.tensors[event.name] = x
        if x.requires_grad:
            x.retain_grad()
        data = x.detach().double()
        self.now[event.name] = float(data.square().mean()), _cosine(data)

    def close(self) -> None:
        for name, x in self.tensors.items():
            grad = x.grad if x.requires_grad else None
            q, c = self.now[name]
            self.values.setdefault(name, []).append(
                (q, np.nan if grad is None else float(grad.double().square().mean()), c)
            )
        self.tensors, self.now = {}, {}


def _cosine(x: torch.Tensor) -> float:
    if x.dim() < 2 or x.shape[0] < 2:
        return np.nan
    flat = torch.nn.functional.normalize(x.flatten(1), dim=1)
    n = len(flat)
    return float((flat.sum(0).square().sum() - flat.square().sum()) / (n * (n - 1)))


def draws_of(model: torch.nn.Module, args: tuple, kwargs: dict, scheme: str, graph: object, count: int) -> Draws:
    """Draw, run and collect."""
    found = Draws()
    for seed in range(count):
        apply.initialize(model, scheme, graph=graph, seed=seed, frozen=True)
        model.zero_grad()
        torch.manual_seed(10_000 + seed)
        with recording(model, found.sink) as recorder:
            recorder.start(args, kwargs)
            output = model(*args, **kwargs)
        outputs = [t for _, t in named_tensors(output) if t.is_floating_point() and t.requires_grad]
        torch.autograd.backward(outputs, [torch.randn(o.shape, dtype=o.dtype) for o in outputs])
        found.close()
    return found


def beyond(predicted: float, drawn: np.ndarray) -> float | None:
    """|predicted/mean - 1| beyond two standard errors of the mean."""
    if not np.isfinite(drawn).all() or not 1e-200 < drawn.mean() < 1e15:
        return None
    error = float(drawn.std() / np.sqrt(len(drawn)) / drawn.mean())
    return max(abs(predicted / float(drawn.mean()) - 1.0) - 2.0 * error, 0.0)


def compare(entry: Entry, scheme: str, draws: int = DRAWS) -> Row:
    """Errors of every operation of one network."""
    row = Row(entry.name, scheme)
    model, args, kwargs = entry.make()
    graph = trace(model, args, kwargs)
    laws = plan(model, scheme, graph=graph, frozen=True).laws()
    start = time.process_time()
    found = capture.predict(model, args, kwargs, laws=laws, scheme=scheme, graph=graph, on_missing="measure")
    row.seconds = time.process_time() - start
    row.caveats = sum(bool(n.caveats) for n in found.nodes)
    table = draws_of(model, args, kwargs, scheme, graph, draws).values
    forward, backward, correlation = [], [], []
    for node in found.nodes:
        if node.op == "input" or node.name not in table:
            continue
        q, grad_q, c = np.array(table[node.name]).T
        forward.append(beyond(node.output.q, q))
        if node.grad is not None:
            backward.append(beyond(node.grad.q, grad_q))
        if node.output.c_batch is not None and node.shape[0] == args_batch(args, kwargs) and np.isfinite(c).all():
            correlation.append(abs(node.output.c_batch - c.mean()))
    row.forward = np.array([e for e in forward if e is not None])
    row.backward = np.array([e for e in backward if e is not None])
    row.correlation = np.array(correlation)
    return row


def args_batch(args: tuple, kwargs: dict) -> int:
    """Length of the first axis of the first input."""
    first = next((t for _, t in named_tensors((args, kwargs))), None)
    return int(first.shape[0]) if first is not None and first.dim() else 1


def rows(names: list[str] | None = None, schemes: tuple[str, ...] = SCHEMES, draws: int = DRAWS) -> list[Row]:
    """All networks under all schemes; a failure is a row."""
    wanted = os.environ.get("ACCURACY_NETS", "")
    parts = [p for p in wanted.split(",") if p]
    chosen = names or [n for n in ZOO if not parts or any(p in n for p in parts)]
    out: list[Row] = []
    for name in chosen:
        for scheme in schemes:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    out.append(compare(ZOO[name], scheme, draws))
                except Exception as error:  # noqa: BLE001 - a network that fails is a row of the table
                    out.append(Row(name, scheme, error=f"{type(error).__name__}: {error}"[:60]))
    return out


def _part(values: np.ndarray, p: float) -> float:
    return float(np.quantile(values, p)) if len(values) else 0.0


def table(found: list[Row]) -> Table:
    """Worst network first, the whole zoo in the last line (per cent; correlations absolute)."""
    out = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("network", "scheme", "n", "q med", "q 99 %", "grad med", "grad 99 %", "c max", "caveats", "CPU s"):
        out.add_column(title, justify="left" if title in ("network", "scheme") else "right", no_wrap=True)

    def line(name: str, scheme: str, rows: list[Row]) -> list[str]:
        f, b, c = (np.concatenate([getattr(r, k) for r in rows]) for k in ("forward", "backward", "correlation"))
        return [
            name, scheme, str(len(f)), f"{100 * _part(f, 0.5):.1f}", f"{100 * _part(f, 0.99):.1f}",
            f"{100 * _part(b, 0.5):.1f}", f"{100 * _part(b, 0.99):.1f}", f"{_part(c, 1.0):.2f}",
            str(sum(r.caveats for r in rows)), f"{sum(r.seconds for r in rows):.2f}",
        ]  # fmt: skip

    worst = sorted(found, key=lambda r: -(1e9 if r.error else max(_part(r.forward, 0.99), _part(r.backward, 0.99))))
    for r in worst:
        out.add_row(*((r.name, r.scheme, r.error) if r.error else line(r.name, r.scheme, [r])))
    good = [r for r in found if not r.error]
    if good:
        out.add_section()
        out.add_row(*line("all", "", good))
    return out


def run() -> Table:
    """Over the zoo, with He's, Xavier's and torch's own law."""
    torch.set_num_threads(1)
    return table(rows())


__all__ = ["Row", "compare", "rows", "run", "table"]
