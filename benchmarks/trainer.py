"""The lab's fused trainer beside eager PyTorch: deep stacks, ensembles, simulation, memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from rich.table import Table
from torch import nn

from firstlight.lab.draws import Member, draw_stack
from firstlight.lab.models import StackConfig
from firstlight.lab.modules import module
from firstlight.lab.products import one_thread_setting, product
from firstlight.lab.schedules import Schedule
from firstlight.lab.simulate import simulate
from firstlight.lab.stack import Stack
from firstlight.lab.trainer import Optimizer, Passes, Training

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DEEP = StackConfig(63, 10, 1000, 63, scheme="he")
NARROW = StackConfig(16, 10, 20, 16, scheme="he")


def _clock() -> float:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _alternate(*works: Callable[[], object], rounds: int) -> list[float]:
    """Median seconds of each work; they take turns, so that a busy machine slows all alike."""
    seconds: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for work, kept in zip(works, seconds, strict=True):
            start = _clock()
            work()
            kept.append(_clock() - start)
    return [statistics.median(kept) for kept in seconds]


def _data(config: StackConfig, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, config.inputs, generator=g)
    return x.to(DEVICE), torch.randint(config.outputs, (batch,), generator=g).to(DEVICE)


def fused(config: StackConfig, members: int = 1, batch: int = 100, library: str | None = None) -> Callable[[], object]:
    """One training step of the lab: forward, loss, backward, update."""
    training = Training(batch=None, schedule=Schedule(1e-6))
    stack = Stack(config, members, batch, device=DEVICE, library=library)
    draw_stack(stack, [Member(seed) for seed in range(members)])
    optimizer = Optimizer(stack, training, [1e-6] * members)
    optimizer.set_factor(1.0)
    passes = Passes(stack, optimizer, "cross-entropy", *_data(config, batch))
    index = torch.arange(batch).numpy()

    def step() -> None:
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


def run(rounds: int = 9) -> Table:
    table = Table("what", "firstlight", "eager PyTorch", "ratio", "goal", title=f"one thread, {DEVICE}, CPU-seconds")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_thread_setting():
            ours, theirs, limit, by_torch = _alternate(
                fused(DEEP), eager(DEEP), products_alone(DEEP), fused(DEEP, library="torch"), rounds=rounds
            )
            goal = "≥ 5" if DEVICE == "cuda" else "≥ 2.5"
            _row(table, "training step, 1000 × 63, batch 100", ours, theirs, goal)
            _row(table, "  the same with torch's products", by_torch, theirs, "")
            table.add_row("  its matrix products alone", f"{1e3 * limit:.1f} ms", "", f"{ours / limit:.2f} of it", "1")
            one = [eager(NARROW, seed) for seed in range(32)]
            ours, theirs = _alternate(fused(NARROW, 32), lambda: [step() for step in one], rounds=rounds)
            _row(table, "step of 32 members, 20 × 16, batch 100", ours, theirs, "≥ 10")
            small = [eager(NARROW, seed, 10) for seed in range(32)]
            ours, theirs = _alternate(fused(NARROW, 32, 10), lambda: [step() for step in small], rounds=rounds)
            _row(table, "step of 32 members, 20 × 16, batch 10", ours, theirs, "≥ 10")
            nets = StackConfig(32, 1, 100, 32, scheme="he")
            loop = _alternate(lambda: modules_loop(nets, 20), rounds=3)[0] * 50
            for method in ("weights", "projected"):
                ours = _alternate(lambda m=method: simulate(nets, 1000, method=m), rounds=3)[0]
                _row(table, f"lengths and gradients, 1,000 nets 100 × 32, {method}", ours, loop, "≥ 20")
    finally:
        torch.set_num_threads(threads)
    if DEVICE == "cpu" and sys.platform == "linux":
        ours, theirs = _peak("fused"), _peak("eager")
        table.add_row("peak memory, 1000 × 63", f"{ours:.0f} MiB", f"{theirs:.0f} MiB", f"{theirs / ours:.1f}×", "≥ 1")
    return table


def _row(table: Table, what: str, ours: float, theirs: float, goal: str) -> None:
    table.add_row(what, f"{1e3 * ours:.1f} ms", f"{1e3 * theirs:.1f} ms", f"{theirs / ours:.1f}×", goal)
