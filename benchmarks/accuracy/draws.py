"""Monte Carlo over weight draws: mean squares, gradients and correlations of every operation of one network.

``python -m benchmarks.accuracy.draws NAME DEPTH SCHEME COUNT`` draws one case in this process and keeps it.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy import store
from benchmarks.accuracy.pairs import Pairs
from firstlight.capture.measure import random_cotangent
from firstlight.capture.record import Event, recording
from firstlight.capture.tensors import named_tensors
from firstlight.capture.trace import trace
from firstlight.graph.ir import Graph, Node
from firstlight.propagate.fluctuation import unit_axis
from firstlight.schemes import apply
from firstlight.schemes.plan import plan

MEMORY = 4 << 30  # bytes of private memory that one case may take
Table = dict[str, list[tuple[float, ...]]]


class Draws:
    """Mean squares, gradients' mean squares and cosines of every operation, one row per draw, and sums over pairs."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.values: Table = {}
        self.pairs: dict[str, Pairs] = {}
        self.forward: dict[str, tuple[float, float, float]] = {}
        self.backward: dict[str, float] = {}

    def sink(self, event: Event) -> None:
        """Look at the first output of an operation, and at its gradient once it is there."""
        x = event.outputs[0]
        if not x.is_floating_point() or not x.numel():
            return
        name = event.name
        data = x.detach().double()
        axis = self.axis_of_units(event, data)
        self.forward[name] = float(data.square().mean()), cosine(data), between_positions(data, axis)
        if data.dim() > 1 and data.shape[0] == self.batch:
            self.pairs.setdefault(name, Pairs(axis)).add(data)
        if x.requires_grad:  # a hook sees the gradient of this value, also if the tensor is overwritten later
            x.register_hook(lambda g: self.backward.__setitem__(name, float(g.double().square().mean())))

    def axis_of_units(self, event: Event, x: torch.Tensor) -> int | None:
        """The axis of the units of a tensor that has positions beside them."""
        if x.dim() < 3 or x.shape[0] != self.batch:
            return None
        return unit_axis(Node(event.name, event.op), x.dim())

    def close(self) -> None:
        """End of one draw."""
        for name, (q, c, place) in self.forward.items():
            self.values.setdefault(name, []).append((q, self.backward.get(name, np.nan), c, place))
        self.forward, self.backward = {}, {}

    def summaries(self) -> dict[str, store.Drawn]:
        """Means over the draws of each operation."""
        return {name: store.summary(name, rows, self.pairs.get(name)) for name, rows in self.values.items()}


def between_positions(x: torch.Tensor, axis: int | None) -> float:
    """Mean cosine between two positions of one sample, over the units."""
    if axis is None:
        return np.nan
    found = [c for sample in x.movedim(axis, -1).flatten(1, -2) if not np.isnan(c := cosine(sample))]
    return float(np.mean(found)) if found else np.nan


def cosine(x: torch.Tensor) -> float:
    """Mean cosine between two entries of the first axis; what a mask has set to zero everywhere is like nothing."""
    if x.dim() < 2 or x.shape[0] < 2:
        return np.nan
    flat = torch.nn.functional.normalize(x.flatten(1), dim=1)
    flat = flat[flat.any(dim=1)]
    n = len(flat)
    if n < 2:
        return np.nan
    return float((flat.sum(0).square().sum() - flat.square().sum()) / (n * (n - 1)))


def drawn(
    model: torch.nn.Module, args: Any, kwargs: Any, scheme: str, graph: Graph, count: int
) -> dict[str, store.Drawn]:
    """Draw, run forward and backward, and collect."""
    found = Draws(next((t.shape[0] for _, t in named_tensors((args, kwargs)) if t.dim()), 0))
    chosen = plan(model, scheme, graph=graph, frozen=True)
    for seed in range(count):
        apply.write(chosen, seed)
        model.zero_grad(set_to_none=True)
        torch.manual_seed(10_000 + seed)
        with recording(model, found.sink) as recorder:
            recorder.start(args, kwargs)
            output = model(*args, **kwargs)
        outputs = [t for _, t in named_tensors(output) if t.is_floating_point() and t.requires_grad]
        generator = torch.Generator().manual_seed(20_000 + seed)
        torch.autograd.backward(outputs, [random_cotangent(o, generator) for o in outputs])
        del output, outputs, recorder
        found.close()
    return found.summaries()


def finite(found: Mapping[str, store.Drawn]) -> bool:
    """Whether every length of every draw is a number."""
    return all(np.isfinite(d.q[0]) and not np.isinf(d.grad_q[0]) for d in found.values())


def draw(case: store.Case, count: int) -> None:
    """Draw one case and keep it; in double precision where single precision overflows."""
    from tests.models import ZOO

    model, args, kwargs = ZOO[case.name].make(depth=case.depth)
    graph = trace(model, args, kwargs)
    found = drawn(model, args, kwargs, case.scheme, graph, count)
    if not finite(found):
        model, args, kwargs = ZOO[case.name].make(depth=case.depth)
        model = model.double()
        args, kwargs = _double(args), _double(kwargs)
        found = drawn(model, args, kwargs, case.scheme, trace(model, args, kwargs), count)
    store.write(case, found)


def _double(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.double() if x.is_floating_point() else x
    if isinstance(x, tuple):
        return tuple(_double(i) for i in x)
    return {k: _double(v) for k, v in x.items()} if isinstance(x, dict) else x


def draw_apart(case: store.Case, count: int) -> str:
    """Draw one case in a forked process under the memory limit; returns what went wrong, or nothing.

    Forked rather than started: what torch and the model libraries take to load is then paid once.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=_child, args=(case, count, theirs))
    worker.start()
    theirs.close()
    try:
        told = str(ours.recv())
    except EOFError:
        told = ""
    worker.join()
    return told or (f"ended with {worker.exitcode}" if worker.exitcode else "")


def _child(case: store.Case, count: int, tell: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            draw(case, count)
            tell.send("")
        except Exception as error:  # noqa: BLE001 - a network that fails is a line of the table
            tell.send(f"{type(error).__name__}: {error}"[:100])


def main(arguments: list[str]) -> int:
    """Draw one case."""
    name, depth, scheme, count = arguments
    failed = draw_apart(store.Case(name, int(depth), scheme), int(count))
    print(failed or "done")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
