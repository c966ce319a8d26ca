"""Is P(off by more than 10×) right? Predicted beside measured frequencies over draws, forward and backward."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

import firstlight
from firstlight.graph.prediction import TensorPrediction
from firstlight.lab.models import StackConfig
from firstlight.lab.simulate import simulate
from firstlight.schemes.plan import plan

GRID = ((20, 16), (40, 16), (40, 64), (100, 64), (100, 256))  # depth × width
TOLERANCE = 0.05
RESULT = Path(__file__).with_name("calibration.csv")


@dataclass(frozen=True)
class Row:
    """One network, one direction: P(mean square off by more than 10×), predicted and measured."""

    network: str
    direction: str
    predicted: float
    measured: float
    draws: int

    @property
    def error(self) -> float:
        """Standard error of the measured frequency."""
        p = min(max(self.measured, 0.5 / self.draws), 1.0 - 0.5 / self.draws)
        return math.sqrt(p * (1.0 - p) / self.draws)


def off(q: np.ndarray, reference: np.ndarray | float = 1.0) -> float:
    """Share of draws outside a factor of 10; zeros are outside."""
    with np.errstate(divide="ignore"):
        return float((np.abs(np.log(q) - np.log(reference)) > math.log(10.0)).mean())


def stack(depth: int, width: int) -> nn.Sequential:
    """Linear and ReLU, `depth` times, without biases."""
    parts: list[nn.Module] = []
    for _ in range(depth):
        parts += [nn.Linear(width, width, bias=False), nn.ReLU()]
    return nn.Sequential(*parts)


def plain(depth: int, width: int, draws: int, seed: int = 0) -> list[Row]:
    """A cell of the grid: one fixed input, He weights; drawn by `lab.simulate`."""
    torch.manual_seed(seed)
    x = torch.randn(1, width)
    found = firstlight.predict(stack(depth, width), x, "he")
    config = StackConfig(width, width, depth, width, scheme="he", gain=math.sqrt(2.0), bias=False)
    lengths = simulate(config, draws, seed=seed, x=x[0].numpy())
    first, name = found["1:relu"].grad, f"relu {depth}×{width}"
    assert first is not None
    return [
        Row(name, "forward", found.nodes[-1].output.p_off(), off(lengths.forward[:, -1], lengths.input), draws),
        Row(name, "backward", first.p_off(), off(lengths.backward[:, 0]), draws),
    ]


class Residual(nn.Module):
    """x + W₂ relu(W₁ x), `depth` times."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.up = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(depth)])
        self.down = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        """Sum the branches onto the stream."""
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.relu(up(x)))
        return x


class Attention(nn.Module):
    """x + 2·W_o softmax(qkᵀ/√d)v, `depth` times, one head, no normalisation."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.qkv = nn.ModuleList([nn.Linear(width, 3 * width, bias=False) for _ in range(depth)])
        self.out = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        """Sum the heads onto the stream."""
        for qkv, out in zip(self.qkv, self.out, strict=True):
            q, k, v = qkv(x).chunk(3, -1)
            weight = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
            x = x + 2.0 * out(weight @ v)
        return x


def convolutions(depth: int, channels: int) -> nn.Sequential:
    """3×3 convolutions with circular padding and ReLU, without biases."""
    parts: list[nn.Module] = []
    for _ in range(depth):
        parts += [nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular", bias=False), nn.ReLU()]
    return nn.Sequential(*parts)


def drawn(
    name: str, model: nn.Module, x: Tensor, scheme: str, draws: int, group: int = 100, seed: int = 0
) -> list[Row]:
    """Any network: independent normal weights of the scheme's variances, many networks at once."""
    from firstlight.capture.trace import trace

    found = firstlight.predict(model, x, scheme)
    laws = plan(model, scheme, graph=trace(model, x)).laws()
    generator = torch.Generator().manual_seed(seed)

    def one(weights: dict[str, Tensor], cotangent: Tensor) -> tuple[Tensor, Tensor]:
        y, back, *_ = vjp(lambda z: functional_call(model, weights, (z,)), x)
        return y.square().mean(), back(cotangent)[0].square().mean()

    forward: list[Tensor] = []
    backward: list[Tensor] = []
    shape = model(x).shape
    for at in range(0, draws, group):
        n = min(group, draws - at)
        weights = {
            k: laws[k].mean + laws[k].variance ** 0.5 * torch.randn(n, *p.shape, generator=generator)
            for k, p in model.named_parameters()
        }
        f, b = vmap(one)(weights, torch.randn(n, *shape, generator=generator))
        forward.append(f.detach())
        backward.append(b.detach())
    q, g = torch.cat(forward).double().numpy(), torch.cat(backward).double().numpy()
    entry = found.nodes[0].grad
    assert entry is not None
    return [
        Row(name, "forward", found.p_off(), off(q, float(x.double().square().mean())), draws),
        Row(name, "backward", entry.p_off(), off(g), draws),
    ]


def others(draws: int) -> list[Row]:
    """Residual, convolutional and attention networks."""
    torch.manual_seed(0)
    normal = "normal({})".format
    cases: list[tuple[str, nn.Module, Tensor, str]] = [
        ("residual 4×16", Residual(4, 16), torch.randn(1, 16), normal(0.5 * 16**-0.5)),
        ("residual 12×16", Residual(12, 16), torch.randn(1, 16), normal(0.75 * 16**-0.5)),
        ("conv 20×8", convolutions(20, 8), torch.randn(1, 8, 8, 8), "he"),
        ("conv 30×16", convolutions(30, 16), torch.randn(1, 16, 6, 6), "he"),
        ("attention 6×16", Attention(6, 16), torch.randn(1, 8, 16), normal(16**-0.5)),
        ("attention 10×16", Attention(10, 16), torch.randn(1, 8, 16), normal(0.6 * 16**-0.5)),
    ]
    return [row for name, model, x, scheme in cases for row in drawn(name, model, x, scheme, draws)]


def rows(draws: int = 2000) -> list[Row]:
    """All networks."""
    return [row for depth, width in GRID for row in plain(depth, width, draws)] + others(min(draws, 1000))


def keep(found: list[Row]) -> None:
    """Store the table for the documentation (docs/speed.md)."""
    with RESULT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("network", "direction", "predicted", "measured", "error", "draws"))
        for r in found:
            numbers = (f"{r.predicted:.3f}", f"{r.measured:.3f}", f"{r.error:.3f}", r.draws)
            writer.writerow((r.network, r.direction, *numbers))


def run(draws: int = 2000, measured: Callable[[int], list[Row]] = rows) -> Table:
    """The table, worst first."""
    found = sorted(measured(draws), key=lambda r: -abs(r.predicted - r.measured))
    if measured is rows:
        keep(found)
    table = Table("network (depth×width)", "direction", "predicted", "measured", "±", "difference")
    for r in found:
        style = "" if abs(r.predicted - r.measured) <= TOLERANCE else "red"
        cells = (f"{r.predicted:.3f}", f"{r.measured:.3f}", f"{r.error:.3f}", f"{r.predicted - r.measured:+.3f}")
        table.add_row(r.network, r.direction, *cells, style=style)
    worst = max(abs(r.predicted - r.measured) for r in found)
    table.caption = f"P(mean square off by more than 10×); largest difference {worst:.3f}, goal {TOLERANCE}"
    return table


__all__ = ["GRID", "Row", "TensorPrediction", "drawn", "others", "plain", "rows", "run"]
