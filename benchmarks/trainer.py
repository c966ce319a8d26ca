"""The lab's fused trainer beside eager PyTorch: deep stacks, ensembles, simulation, memory.

Writes trainer.csv beside this file, trainer_cuda.csv on CUDA, of which the documentation makes its tables.
"""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from rich.table import Table
from torch import nn

from firstlight.lab.draws import Member, draw_stack
from firstlight.lab.models import StackConfig
from firstlight.lab.modules import module
from firstlight.lab.products import one_thread_setting, product
from firstlight.lab.schedules import Schedule
from firstlight.lab.simulate import Method, simulate
from firstlight.lab.stack import Stack
from firstlight.lab.trainer import Optimizer, Passes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DEEP = StackConfig(63, 10, 1000, 63, scheme="he")
NARROW = StackConfig(16, 10, 20, 16, scheme="he")
NETS, DRAWS, LOOP = StackConfig(32, 1, 100, 32, scheme="he"), 1000, 20  # simulated; the loop does a part of them


CSV = Path(__file__).with_name("trainer.csv" if DEVICE == "cpu" else f"trainer_{DEVICE}.csv")


@dataclass(frozen=True)
class Compared:
    """One row of the table.

    Attributes:
        what: What was done.
        firstlight: Seconds or MiB of the lab's way.
        beside: The same of what it is compared with.
        unit: "s" or "MiB".
        ratio: Median over the rounds of beside over firstlight, both of the same round.
        goal: Least ratio that is asked for, or nothing.
    """

    what: str
    firstlight: float
    beside: float
    unit: str
    ratio: float
    goal: str = ""


def _clock() -> float:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _alternate(*works: Callable[[], object], rounds: int) -> list[list[float]]:
    """Seconds of each work in each round; they take turns, so that a busy machine slows all alike."""
    seconds: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for work, kept in zip(works, seconds, strict=True):
            start = _clock()
            work()
            kept.append(_clock() - start)
    return seconds


def _data(config: StackConfig, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, config.inputs, generator=g)
    return x.to(DEVICE), torch.randint(config.outputs, (batch,), generator=g).to(DEVICE)


def fused(config: StackConfig, members: int = 1, batch: int = 100, library: str | None = None) -> Callable[[], object]:
    """One training step of the lab: forward, loss, backward, update."""
    stack = Stack(config, members, batch, device=DEVICE, library=library)
    draw_stack(stack, [Member(seed) for seed in range(members)])
    optimizer = Optimizer(stack, Schedule(1e-6), [1e-6] * members)
    passes = Passes(stack, optimizer, "cross-entropy", *_data(config, batch))
    index = torch.arange(batch).numpy()

    def step() -> None:
        optimizer.begin(0, 1.0)
        passes.forward(index)
        if passes.finite():
            passes.backward()

    return step


def eager(config: StackConfig, seed: int = 0, batch: int = 100) -> Callable[[], object]:
    """One training step as PyTorch users write it."""
    net = nn.Sequential()
    for layer in module(config, Member(seed)).layers:
        net.extend([layer, nn.ReLU()])
    net = net[:-1].to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
    x, y = _data(config, batch)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def products_alone(config: StackConfig, batch: int = 100) -> Callable[[], object]:
    """The three products of every layer and nothing else: the limit of any trainer on this library."""
    n, numpy = config.hidden[0], DEVICE == "cpu"
    weights = list(torch.randn(config.depth, n, n, device=DEVICE))
    signals = list(torch.randn(config.depth, n, batch, device=DEVICE))
    turned = list(torch.randn(config.depth, batch, n, device=DEVICE))
    out, gradient = torch.empty(n, batch, device=DEVICE), torch.empty(n, n, device=DEVICE)
    library = "numpy" if numpy else "torch"
    steps = [
        step
        for w, h, t in zip(weights, signals, turned, strict=True)
        for step in (
            product(w, h, out, library=library),
            product(w.T, h, out, library=library),
            product(h, t, gradient, library=library),
        )
    ]

    def run_all() -> None:
        for step in steps:
            step()

    return run_all


def modules_loop(config: StackConfig, draws: int) -> None:
    """Lengths and gradients of `draws` networks, each an nn.Sequential of its own."""
    for _ in range(draws):
        net = nn.Sequential()
        for _ in range(config.depth):
            layer = nn.Linear(config.hidden[0], config.hidden[0], bias=False)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            net.extend([layer, nn.ReLU()])
        h, kept = torch.randn(1, config.inputs), []
        for part in net:
            h = part(h)
            if isinstance(part, nn.ReLU):
                h.retain_grad()
                kept.append(h)
        h.backward(torch.randn_like(h))
        _ = (
            [k.detach().square().mean() for k in kept],
            [k.grad.square().mean() for k in kept if k.grad is not None],
        )


def _peak(which: str) -> float:
    """Growth of the peak resident memory in MiB over building and three steps, in a process of its own."""
    code = (
        "import benchmarks.trainer as b\n"
        "lines = lambda: open('/proc/self/status').readlines()\n"
        "now = lambda key: next(int(line.split()[1]) for line in lines() if line.startswith(key)) / 1024\n"
        "b.eager(b.NARROW)(); b.fused(b.NARROW)()\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"  # resets the peak to what is resident now
        "before = now('VmRSS')\n"
        f"step = b.{which}(b.DEEP)\n"
        "step(); step(); step()\n"
        "print(now('VmHWM') - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _compared(what: str, ours: list[float], theirs: list[float], goal: str = "", times: float = 1.0) -> Compared:
    """A row of two works' seconds; `theirs` did 1/times of the work."""
    ratio = statistics.median(times * b / a for a, b in zip(ours, theirs, strict=True))
    return Compared(what, statistics.median(ours), times * statistics.median(theirs), "s", ratio, goal)


def measure(rounds: int = 9) -> list[Compared]:
    """All rows, with one thread."""
    rows: list[Compared] = []
    ours, theirs, limit, by_torch = _alternate(
        fused(DEEP), eager(DEEP), products_alone(DEEP), fused(DEEP, library="torch"), rounds=rounds
    )
    rows.append(
        _compared(
            "training step, 1000 × 63, batch 100, beside eager PyTorch",
            ours,
            theirs,
            "5" if DEVICE == "cuda" else "2.5",
        )
    )
    rows.append(_compared("the same with torch's matrix products", by_torch, theirs))
    rows.append(_compared("its matrix products alone, beside the whole step", limit, ours))
    for batch in (100, 10):
        one = [eager(NARROW, seed, batch) for seed in range(32)]
        ours, theirs = _alternate(fused(NARROW, 32, batch), lambda all=one: [step() for step in all], rounds=rounds)
        rows.append(_compared(f"step of 32 networks 20 × 16, batch {batch}, beside a loop", ours, theirs, "10"))
    if DEVICE != "cpu":
        return rows  # what is simulated is NumPy's work
    ways: tuple[tuple[Method, str], ...] = (
        ("weights", "all weights drawn"),
        ("projected", "drawing only what the two passes see"),
    )
    for method, how in ways:
        ours, theirs = _alternate(
            lambda m=method: simulate(NETS, DRAWS, method=m), lambda: modules_loop(NETS, LOOP), rounds=5
        )
        what = f"lengths and gradients of 1,000 nets 100 × 32, {how}, beside a loop of modules"
        rows.append(_compared(what, ours, theirs, "20", times=DRAWS / LOOP))
    return rows


def run(rounds: int = 9) -> Table:
    """Measure, keep and show."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_thread_setting():
            rows = measure(rounds)
    finally:
        torch.set_num_threads(threads)
    if DEVICE == "cpu" and sys.platform == "linux":
        ours, theirs = _peak("fused"), _peak("eager")
        rows.append(Compared("peak memory, 1000 × 63, beside eager PyTorch", ours, theirs, "MiB", theirs / ours, "1"))
    with CSV.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Compared)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in asdict(r).items()} for r in rows)
    table = Table(
        "what",
        "firstlight",
        "beside it",
        "ratio",
        "goal",
        title=f"one thread, {DEVICE}, {'CPU-' if DEVICE == 'cpu' else ''}seconds",
    )
    for row in rows:
        table.add_row(
            row.what, *(f"{v:.4g} {row.unit}" for v in (row.firstlight, row.beside)), f"{row.ratio:.3g}", row.goal
        )
    return table
