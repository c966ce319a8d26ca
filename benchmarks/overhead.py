"""What `measure` costs: CPU time and peak memory beside the model's own forward and backward pass.

Time: CPU seconds of one thread, own and measured passes in turn (so that other work on the machine hits both), the
median of the ratios within the pairs. Memory: each pass in a fresh process; peak resident size minus the resident size
before the model was built.

The floor: three reductions (range, product with itself, sum) pass over every output, gradient and parameter, and two
over every parameter's gradient. The column "floor" is 1 + their time over the model's own, where `moments` alone runs
over tensors of the same sizes that are not in the cache; samples, units, and Python's time per operation come on top.

The gradient at the input is measured too; a training step does not compute it. The column "own s" is without it, the
column "with input" is the model's own pass with a gradient at the input, relative to the one without.
"""

from __future__ import annotations

import csv
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import firstlight
from firstlight.capture.moments import moments

GOAL_TIME, GOAL_MEMORY = 1.15, 1.10
RESULT = Path(__file__).with_name("overhead.csv")
HEAD = {
    "model": "model", "own_s": "own s", "measured_s": "measured s", "time": "time ×", "with_input": "with input ×",
    "floor": "floor ×", "own_mb": "own MB", "measured_mb": "measured MB", "memory": "memory ×", "pairs": "pairs",
    "load": "load",
}  # fmt: skip


def mlp(width: int, batch: int) -> tuple[nn.Module, Tensor]:
    """50 linear layers with ReLU. Arithmetic per number that is read grows with the width and with the batch."""
    layers = [m for _ in range(50) for m in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers), torch.randn(batch, width)


def mlp_1024() -> tuple[nn.Module, Tensor]:
    """50 linear layers of 1024 units, batch 1024."""
    return mlp(1024, 1024)


def mlp_512() -> tuple[nn.Module, Tensor]:
    """50 linear layers of 512 units, batch 256."""
    return mlp(512, 256)


def mlp_64() -> tuple[nn.Module, Tensor]:
    """50 linear layers of 64 units, batch 64: so small that Python's own time counts."""
    return mlp(64, 64)


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.down = None
        if stride != 1 or channels != 4 * width:
            self.down = nn.Sequential(nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.down is None else self.down(x)))


def resnet50() -> tuple[nn.Module, Tensor]:
    """The layers of a ResNet-50, batch 4 of 3×224×224."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    ]  # fmt: skip
    channels = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(blocks):
            layers.append(_Bottleneck(channels, width, stride if i == 0 else 1))
            channels = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    return nn.Sequential(*layers), torch.randn(4, 3, 224, 224)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, w = x.shape
        q, k, v = self.qkv(self.ln_1(x)).split(w, dim=2)
        q, k, v = (y.view(b, t, self.heads, w // self.heads).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, w))
        return x + self.out(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12, vocab: int = 50257) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, width), nn.Embedding(1024, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))


def gpt2() -> tuple[nn.Module, Tensor]:
    """A transformer of GPT-2 small's size with tied embeddings, batch 2 of 256 tokens."""
    return GPT(), torch.randint(50257, (2, 256))


MODELS: dict[str, tuple[Callable[[], tuple[nn.Module, Tensor]], int]] = {
    "mlp_1024": (mlp_1024, 3), "mlp_512": (mlp_512, 11), "mlp_64": (mlp_64, 21), "resnet50": (resnet50, 5),
    "gpt2": (gpt2, 3),
}  # fmt: skip


def own_pass(model: nn.Module, x: Tensor, at_input: bool = False) -> None:
    """The model's own forward and backward pass with a random cotangent; gradients are dropped afterwards."""
    y = model(x.detach().requires_grad_() if at_input and x.is_floating_point() else x)
    y.backward(torch.randn_like(y))
    for p in model.parameters():
        p.grad = None


def timed(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(model: nn.Module, x: Tensor, pairs: int) -> tuple[float, float, float, float]:
    """(seconds of the own pass, of the measured pass, median of their ratios, the same for an input gradient)."""
    own_pass(model, x)
    firstlight.measure(model, x)
    rows = [
        (
            timed(lambda: own_pass(model, x)),
            timed(lambda: firstlight.measure(model, x)),
            timed(lambda: own_pass(model, x, True)),
        )
        for _ in range(pairs)
    ]
    own, measured, with_input = zip(*rows, strict=True)
    return median(own), median(measured), median(_ratios(measured, own)), median(_ratios(with_input, own))


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def floor_seconds(model: nn.Module, x: Tensor) -> float:
    """CPU seconds of the reductions alone over as many bytes as `measure` has to read, from outside the caches."""
    m = firstlight.measure(model, x)
    entries = sum(_numel(s.shape) for n in m.nodes for s in (n.output, n.grad) if s is not None)
    weights = [p.numel() for p in model.parameters()]
    piece = torch.randn(64, 1 << 19)  # 128 MB: more than the caches hold
    full = median([timed(lambda: [moments(row) for row in piece]) for _ in range(5)]) / piece.numel()
    part = median([timed(lambda: [moments(row, with_mean=False) for row in piece]) for _ in range(5)]) / piece.numel()
    return full * (entries + sum(weights)) + part * sum(weights)


def _numel(shape: tuple[int, ...]) -> int:
    n = 1
    for size in shape:
        n *= size
    return n


def peak(name: str, measured: bool) -> float:
    """Peak memory in MB of one pass in a fresh process."""
    code = f"from benchmarks import overhead; print(overhead.peak_here({name!r}, {measured}))"
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=_environment()
    )
    return float(done.stdout)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def peak_here(name: str, measured: bool) -> float:
    torch.set_num_threads(1)
    warm = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    own_pass(warm, torch.randn(2, 4))
    firstlight.measure(warm, torch.randn(2, 4))  # imports are not the model's memory
    gc.collect()
    before = _resident()
    torch.manual_seed(0)
    model, x = MODELS[name][0]()
    if measured:
        firstlight.measure(model, x)
    else:
        own_pass(model, x)
    return _status("VmHWM") - before


def _resident() -> float:
    return _status("VmRSS")


def _status(key: str) -> float:
    """A memory figure of this process in MB. (`getrusage` would hand down the peak of the parent process.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {key} in /proc/self/status: the memory columns need Linux")


def row(name: str) -> dict[str, str]:
    """A line of the table: seconds are CPU seconds, the load is the machine's at the end (1 minute)."""
    torch.manual_seed(0)
    build, pairs = MODELS[name]
    model, x = build()
    own, measured, ratio, with_input = compare(model, x, pairs)
    floor = 1.0 + floor_seconds(model, x) / own
    what = (build.__doc__ or name).split(":")[0].split("\n")[0].rstrip(".")
    del model, x
    gc.collect()
    a, b = peak(name, False), peak(name, True)
    return {
        "model": what, "own_s": f"{own:.3f}", "measured_s": f"{measured:.3f}", "time": f"{ratio:.3f}",
        "with_input": f"{with_input:.3f}", "floor": f"{floor:.3f}", "own_mb": f"{a:.0f}", "measured_mb": f"{b:.0f}",
        "memory": f"{b / a:.3f}", "pairs": str(pairs), "load": f"{os.getloadavg()[0]:.1f}",
    }  # fmt: skip


def run(names: tuple[str, ...] = ("mlp_1024", "mlp_512", "resnet50", "gpt2", "mlp_64"), keep: bool = True) -> Table:
    """The table; the whole of it is kept for the documentation (docs/speed.md)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    table = Table(
        title=f"measure beside the model's own pass (goal: time ≤ {GOAL_TIME}×, memory ≤ {GOAL_MEMORY}×)",
        caption="CPU seconds of one thread, median of interleaved pairs; peak resident memory of fresh processes",
    )
    for key, title in HEAD.items():
        table.add_column(title, justify="left" if key == "model" else "right")
    found = [row(name) for name in names]
    torch.set_num_threads(threads)
    for line in found:
        table.add_row(*line.values())
    if keep and set(names) == set(MODELS):
        with RESULT.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(HEAD))
            writer.writeheader()
            writer.writerows(found)
    return table
