"""One configuration -> one network with its drawn weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.diagnosis.faults import inject
from benchmarks.diagnosis.tasks import Task, task
from benchmarks.diagnosis.weights import draw

ACTIVATIONS: dict[str, Any] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "selu": nn.SELU, "gelu": nn.GELU,
    "silu": nn.SiLU, "mish": nn.Mish, "softplus": nn.Softplus, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
    "hardtanh": nn.Hardtanh, "hardswish": nn.Hardswish, "relu6": nn.ReLU6, "softsign": nn.Softsign,
    "linear": nn.Identity,
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What a network is made of; `seed` fixes its weights, `fault` what was broken on purpose."""

    family: str
    task: str
    depth: int
    width: int
    activation: str = "relu"
    norm: str = ""
    scheme: str = "default"
    head: str = ""  # "", "softmax", "sigmoid", "relu", "softmax1"
    fault: str = ""
    inputs: str = ""  # "", "raw" (x100+128), "tiny" (x1e-5), "constant", "zero", "huge" (x1e4)
    seed: int = 0


@dataclass
class Case:
    """A built network with its data."""

    config: Config
    model: nn.Module
    task: Task
    x: torch.Tensor
    loss: str


class Residual(nn.Module):
    """x + scale * branch(x), or act(x + branch(x)) for the post-activation form."""

    def __init__(self, branch: nn.Module, scale: float = 1.0, after: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.scale, self.after = branch, scale, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x + self.scale * self.branch(x)
        return out if self.after is None else self.after(out)


class Attention(nn.Module):
    """Multi-head self-attention with an output projection."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    """A transformer block: `norm` is "pre", "post" or "" (none)."""

    def __init__(self, width: int, activation: str, norm: str) -> None:
        super().__init__()
        self.norm = norm
        self.attention = Attention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), ACTIVATIONS[activation](), nn.Linear(4 * width, width))
        self.norm1 = nn.LayerNorm(width) if norm else nn.Identity()
        self.norm2 = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.norm == "post":
            x = self.norm1(x + self.attention(x))
            return self.norm2(x + self.mlp(x))
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, c: Config, t: Task, outputs: int) -> None:
        super().__init__()
        embed = nn.Embedding(16, c.width) if t.kind == "tokens" else nn.Linear(t.shape[-1], c.width)
        self.embed = embed
        self.blocks = nn.Sequential(*[Block(c.width, c.activation, c.norm) for _ in range(c.depth)])
        self.norm = nn.LayerNorm(c.width) if c.norm == "pre" else nn.Identity()
        self.head = nn.Linear(c.width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.embed(x))).mean(1))


class Recurrent(nn.Module):
    def __init__(self, c: Config, t: Task, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, c.width) if t.kind == "tokens" else nn.Identity()
        size = c.width if t.kind == "tokens" else t.shape[-1]
        kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[c.family]
        self.rnn = kind(size, c.width, num_layers=c.depth, batch_first=True)
        self.head = nn.Linear(c.width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(self.embed(x))[0][:, -1])


class Gated(nn.Module):
    """act(A x) * (B x), as in gated linear units."""

    def __init__(self, size: int, width: int, act: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Linear(size, width), nn.Linear(size, width), act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.a(x)) * self.b(x)


class Dense(nn.Module):
    """The input beside act(A x): every layer reads all earlier ones."""

    def __init__(self, size: int, width: int, act: nn.Module) -> None:
        super().__init__()
        self.a, self.act = nn.Linear(size, width), act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.act(self.a(x))], -1)


class Channels(nn.Module):
    """Time last, as 1-d convolutions want it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)


def _gated(c: Config, t: Task, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    size = t.shape[0]
    for _ in range(c.depth):
        layers += [Gated(size, c.width, ACTIVATIONS[c.activation]()), *_norm(c.norm, c.width)]
        size = c.width
    return nn.Sequential(*layers, nn.Linear(size, outputs))


def _dense(c: Config, t: Task, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    size = t.shape[0]
    for _ in range(c.depth):
        layers += [*_norm(c.norm, size), Dense(size, c.width, ACTIVATIONS[c.activation]())]
        size += c.width
    return nn.Sequential(*layers, nn.Linear(size, outputs))


def _taper(c: Config, t: Task, outputs: int) -> nn.Module:
    """Widths fall geometrically from `width` to a quarter of it."""
    layers: list[nn.Module] = []
    size = t.shape[0]
    for i in range(c.depth):
        width = max(3, round(c.width * 0.25 ** (i / max(1, c.depth - 1))))
        layers += [nn.Linear(size, width), *_norm(c.norm, width), ACTIVATIONS[c.activation]()]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, outputs))


def _conv1d(c: Config, t: Task, outputs: int) -> nn.Module:
    layers: list[nn.Module] = [Channels()]
    size = t.shape[-1]
    for i in range(c.depth):
        stride = 2 if i in (1, 3) else 1
        layers += [nn.Conv1d(size, c.width, 3, stride, 1), *_norm(c.norm, c.width), ACTIVATIONS[c.activation]()]
        size = c.width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(2 * size, outputs))


def _norm(kind: str, width: int, conv: bool = False) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(width) if conv else nn.BatchNorm1d(width)]
    if kind == "layer":
        return [nn.GroupNorm(1, width) if conv else nn.LayerNorm(width)]
    return []


def _mlp(c: Config, t: Task, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    size = t.shape[0]
    for _ in range(c.depth):
        layers += [nn.Linear(size, c.width), *_norm(c.norm, c.width), ACTIVATIONS[c.activation]()]
        if c.norm == "dropout":
            layers.append(nn.Dropout(0.5))
        size = c.width
    return nn.Sequential(*layers, nn.Linear(size, outputs))


def _conv(c: Config, t: Task, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    size = t.shape[0]
    for i in range(c.depth):
        layers += [nn.Conv2d(size, c.width, 3, padding=1), *_norm(c.norm, c.width, conv=True)]
        layers.append(ACTIVATIONS[c.activation]())
        if i == 1:
            layers.append(nn.MaxPool2d(2))
        size = c.width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * size, outputs))


def _residual(c: Config, t: Task, outputs: int) -> nn.Module:
    act = ACTIVATIONS[c.activation]
    conv = c.family == "resconv"
    scale = c.depth**-0.5 if c.norm == "scaled" else 1.0

    def lin(a: int, b: int) -> nn.Module:
        return nn.Conv2d(a, b, 3, padding=1) if conv else nn.Linear(a, b)

    blocks: list[nn.Module] = [lin(t.shape[0], c.width)]
    for _ in range(c.depth):
        branch = nn.Sequential(
            *_norm(c.norm, c.width, conv), act(), lin(c.width, c.width), act(), lin(c.width, c.width)
        )
        blocks.append(Residual(branch, scale, act() if c.norm == "after" else None))
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if conv else []
    return nn.Sequential(*blocks, act(), *tail, nn.Linear(c.width, outputs))


def build(c: Config) -> Case:
    """Build and draw the network of `c`, and put its data into the asked form."""
    t = task(c.task)
    outputs = t.outputs
    torch.manual_seed(c.seed)
    make = {
        "mlp": _mlp, "conv": _conv, "resmlp": _residual, "resconv": _residual,
        "gated": _gated, "dense": _dense, "taper": _taper, "conv1d": _conv1d,
    }.get(c.family)  # fmt: skip
    if make is not None:
        model = make(c, t, outputs)
    else:
        model = (Transformer if c.family == "transformer" else Recurrent)(c, t, outputs)
    draw(model, c.scheme, c.seed)
    loss = t.loss
    if c.head:
        head = {
            "softmax": nn.Softmax(-1),
            "softmax1": nn.Softmax(-1),
            "sigmoid": nn.Sigmoid(),
            "relu": nn.ReLU(),
        }
        model = nn.Sequential(model, head[c.head])
        if c.head in {"softmax", "softmax1", "sigmoid"} and loss != "mse":
            loss = f"prob_{loss}"
    x = t.x
    if x.is_floating_point():
        if c.inputs == "raw":
            x = (x - x.min()) / (x.max() - x.min()) * 255.0
        scale = {"tiny": 1e-5, "huge": 1e4, "zero": 0.0}.get(c.inputs, 1.0)
        x = x * scale
        if c.inputs == "constant":
            x = x[:1].expand_as(x).clone()
        if c.inputs == "nan":
            x = x.clone()
            x.view(len(x), -1)[3, 0] = float("nan")
    model = inject(model, c.fault, c.seed)
    if x.is_floating_point() and c.fault == "float16":
        x = x.half()
    elif x.is_floating_point() and c.fault == "bfloat16":
        x = x.bfloat16()
    return Case(c, model, t, x, loss)
