"""One network that makes each check fire, and one near miss that must not; by code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Case:
    """Arguments of one diagnosis."""

    model: nn.Module
    batch: Any
    loss: Any = None
    targets: Any = None
    optimizer: Any = None
    extra: dict[str, Any] = field(default_factory=dict)


def seeded(seed: int = 0) -> None:
    torch.manual_seed(seed)


def data(features: int = 16, samples: int = 32, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(samples, features, generator=g), torch.randint(classes, (samples,), generator=g)


def mlp(
    depth: int = 3, width: int = 32, act: Callable[[], nn.Module] = nn.ReLU, gain: float | None = 2.0, inputs: int = 16
) -> nn.Sequential:
    """Weights of variance gain/fan_in and zero biases; torch's own for gain None."""
    seeded()
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else inputs, width), act()]
    model = nn.Sequential(*layers, nn.Linear(width if depth else inputs, 4))
    if gain is not None:
        for m in model:
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0, (gain / m.in_features) ** 0.5)
                nn.init.zeros_(m.bias)
    return model


def case(model: nn.Module, x: torch.Tensor | None = None, **changes: Any) -> Case:
    batch, y = data()
    return Case(model, batch if x is None else x, F.cross_entropy, changes.pop("targets", y), **changes)


def edit(model: nn.Module, name: str, change: Callable[[torch.Tensor], Any]) -> nn.Module:
    with torch.no_grad():
        change(model.get_parameter(name))
    return model


def each(model: nn.Module, change: Callable[[torch.Tensor], Any], last: bool = True) -> nn.Module:
    """Apply to every matrix (without the last one if asked)."""
    ps = [p for p in model.parameters() if p.dim() > 1]
    with torch.no_grad():
        for p in ps if last else ps[:-1]:
            change(p)
    return model


class Residual(nn.Module):
    def __init__(
        self, width: int, blocks: int, scale: float = 1.0, zero_ends: bool = False, branch: float = 1.0
    ) -> None:
        super().__init__()
        seeded()
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.ends = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(width, 4)
        self.scale = scale
        with torch.no_grad():
            for a, b in zip(self.inner, self.ends, strict=True):
                a.weight.normal_(0, (2.0 / width) ** 0.5)
                b.weight.normal_(0, branch * width**-0.5)
                a.bias.zero_()
                b.bias.zero_()
                if zero_ends:
                    b.weight.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for a, b in zip(self.inner, self.ends, strict=True):
            x = x + self.scale * b(F.relu(a(x)))
        return self.head(x)


class Lora(nn.Module):
    """A frozen layer with a trained low-rank correction B A."""

    def __init__(self, zero_a: bool, zero_b: bool) -> None:
        super().__init__()
        seeded()
        self.base = nn.Linear(16, 4)
        self.base.requires_grad_(False)
        self.a, self.b = nn.Linear(16, 2, bias=False), nn.Linear(2, 4, bias=False)
        if zero_a:
            nn.init.zeros_(self.a.weight)
        if zero_b:
            nn.init.zeros_(self.b.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.b(self.a(x))


class Through(nn.Module):
    """A model with a function in front of its last layer, or behind it."""

    def __init__(
        self, body: nn.Sequential, function: Callable[[torch.Tensor], torch.Tensor], behind: bool = False
    ) -> None:
        super().__init__()
        self.body, self.head, self.function, self.behind = body[:-1], body[-1], function, behind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.behind:
            return self.function(self.head(self.body(x)))
        return self.head(self.function(self.body(x)))


def one_unit(head: nn.Module, width: int) -> Case:
    seeded()
    x, y = data(classes=2)
    return Case(
        nn.Sequential(nn.Linear(16, width), head),
        x,
        lambda out, t: F.binary_cross_entropy(out[:, :1].clamp(0, 1), t[:, None].float()),
        y,
    )


def rings(act: Callable[[], nn.Module]) -> Case:
    """One ring inside another, which no linear function tells apart."""
    angle = torch.linspace(0, 12.5, 32)
    y = torch.arange(32) % 2
    x = (1.0 + y)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return case(mlp(2, 32, act, inputs=2), x, targets=y)


def squared(classes_last: bool) -> Case:
    """Targets with the outputs' last axis, or without, whereupon they are broadcast."""
    x, _ = data()
    y = (x @ torch.ones(16)) / 4
    seeded()
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    return Case(model, x, lambda o, t: (o - t).square().mean(), y[:, None] if classes_last else y)


class Listed(nn.Module):
    """Hidden layers in a list, which torch does not see; or in a ModuleList."""

    def __init__(self, hidden: bool) -> None:
        super().__init__()
        layers = list(mlp())
        self.layers = layers[:-1] if hidden else nn.ModuleList(layers[:-1])
        self.head = layers[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def with_softmax(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Case:
    """Probabilities as outputs: cross entropy makes probabilities of them again, their log-likelihood does not."""
    c = case(nn.Sequential(*mlp(), nn.Softmax(-1)))
    c.loss = loss
    return c


def regression(scale: float, shift: float) -> Case:
    x, _ = data()
    g = torch.Generator().manual_seed(2)
    y = shift + scale * (x @ torch.randn(16, generator=g) / 4)
    seeded()
    return Case(
        nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)), x, lambda o, t: F.mse_loss(o[:, 0], t), y
    )


def garbage(p: torch.Tensor) -> None:
    p.view(-1).copy_(torch.tensor([0.0, 1e-41, 0.0, 4.6e-41]).repeat(p.numel() // 4 + 1)[: p.numel()])


def with_dropout(depth: int, p: float, gain: float) -> Case:
    model = mlp(depth, 32, nn.Tanh, gain)
    layers = [part for m in model for part in ((m, nn.Dropout(p)) if isinstance(m, nn.Tanh) else (m,))]
    return case(nn.Sequential(*layers))


def held_by(optimizer: type[torch.optim.Optimizer], partly: bool) -> Case:
    model = mlp()
    params = list(model.parameters())
    return case(model, optimizer=optimizer(params[:2] if partly else params, lr=0.1))


def stepped(lr: float, kind: type[torch.optim.Optimizer] = torch.optim.SGD) -> Case:
    model = mlp()
    return case(model, optimizer=kind(model.parameters(), lr=lr))


def unused(freeze: bool) -> Case:
    model = mlp()
    model.spare = nn.Linear(3, 3)  # type: ignore[assignment]
    model.forward = lambda x: nn.Sequential(*list(model)[:-1])(x)  # type: ignore[method-assign]
    model.spare.requires_grad_(not freeze)
    return case(model)


def half(dtype: torch.dtype, scale: float) -> Case:
    model = edit(mlp(gain=2.0), "6.weight", lambda p: p.mul_(scale)).to(dtype)
    x, y = data()
    return Case(model, x.to(dtype), lambda o, t: F.cross_entropy(o.float(), t), y)


def frozen(gain: float, act: Callable[[], nn.Module], depth: int) -> Case:
    model = mlp(depth, 16, act, gain)
    for p in model[:-1].parameters():
        p.requires_grad_(False)
    return case(model)


def scaled(x: torch.Tensor, factor: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return x * factor + shift


def uneven(ratio: float) -> torch.Tensor:
    x = data()[0].clone()
    x[:, 0] *= ratio
    return x / x.square().mean().sqrt()


X = data()[0]


def aligned(along: bool) -> Case:
    """A first layer whose rows all lie along the one direction in which the data vary, or along random ones."""
    seeded()
    direction = torch.randn(64)
    x = torch.randn(32, 1) * direction
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 4))
    with torch.no_grad():
        rows = direction * torch.randn(64, 1) if along else torch.randn(64, 64)
        model[0].weight.copy_(rows / 8)
    return Case(model, x, F.cross_entropy, data()[1], extra={"theory": True})


# code -> (fires, near miss)
CASES: dict[str, tuple[Callable[[], Case], Callable[[], Case]]] = {
    "INP002": (
        lambda: case(mlp(), torch.rand(32, 16, generator=torch.Generator().manual_seed(3)) * 255),
        lambda: case(nn.Sequential(nn.BatchNorm1d(16), *mlp()), X * 100 + 128),
    ),
    "INP003": (lambda: case(mlp(), X[:1].expand(32, 16)), lambda: case(mlp(), X[:1] + 0.1 * X)),
    "INP004": (lambda: case(mlp(), uneven(1e3)), lambda: case(mlp(), uneven(3.0))),
    "WGT001": (
        lambda: case(edit(mlp(), "2.weight", lambda p: p[0, 0].fill_(float("nan")))),
        lambda: case(edit(mlp(), "2.weight", lambda p: p[0, 0].fill_(3.0))),
    ),
    "WGT002": (
        lambda: case(edit(mlp(), "2.weight", garbage)),
        lambda: case(edit(mlp(), "2.weight", lambda p: p.mul_((p.abs() > 0.1).float()))),  # sparse on purpose
    ),
    "WGT003": (
        lambda: case(edit(mlp(), "2.weight", lambda p: p.zero_())),
        lambda: case(edit(mlp(), "6.weight", lambda p: p.zero_())),
    ),
    "WGT004": (
        lambda: case(each(mlp(), lambda p: p.fill_(0.05))),
        lambda: case(edit(mlp(), "2.weight", lambda p: p[1].copy_(p[0]))),
    ),
    "WGT005": (
        lambda: case(edit(mlp(), "2.weight", lambda p: p.mul_(1e-6))),
        lambda: case(edit(mlp(), "6.weight", lambda p: p.mul_(0.01))),  # a small read-out is a choice
    ),
    "WGT006": (
        lambda: case(each(mlp(), lambda p: p.uniform_(0, 1))),
        lambda: case(each(mlp(), lambda p: p.uniform_(-1, 1).mul_(0.3))),
    ),
    "WGT007": (
        lambda: case(
            each(mlp(14, 64), lambda p: nn.init.trunc_normal_(p, 0, s := (2 / p.shape[1]) ** 0.5, -2 * s, 2 * s))
        ),
        lambda: case(
            each(
                mlp(14, 64),
                lambda p: nn.init.trunc_normal_(p, 0, s := (2 / p.shape[1] / 0.77374) ** 0.5, -2 * s, 2 * s),
            )
        ),
    ),
    "WGT008": (
        lambda: case(edit(mlp(act=nn.Tanh), "2.bias", lambda p: p.fill_(-20.0))),
        lambda: case(edit(mlp(), "6.bias", lambda p: p.fill_(-4.0))),  # a class prior
    ),
    "GRD001": (
        lambda: case(Through(mlp(), lambda z: z.detach(), behind=True)),
        lambda: case(Through(mlp(), lambda z: z + 0 * z.detach(), behind=True)),
    ),
    "GRD002": (lambda: unused(freeze=False), lambda: unused(freeze=True)),
    "GRD005": (lambda: frozen(0.05, nn.Sigmoid, 3), lambda: frozen(2.0, nn.ReLU, 3)),
    "OPT001": (lambda: held_by(torch.optim.SGD, True), lambda: held_by(torch.optim.SGD, False)),
    "OPT002": (lambda: stepped(1e-9), lambda: stepped(1e-9, torch.optim.Adam)),
    "NUM001": (
        lambda: case(Through(mlp(act=nn.Tanh), torch.sqrt)),
        lambda: case(Through(mlp(), lambda z: torch.sqrt(z + 1))),
    ),
    "NUM002": (lambda: half(torch.float16, 500.0), lambda: half(torch.bfloat16, 500.0)),
    "OUT001": (lambda: one_unit(nn.Softmax(-1), 1), lambda: one_unit(nn.Softmax(-1), 2)),
    "ACT001": (
        lambda: case(edit(mlp(), "2.bias", lambda p: p.fill_(-50.0))),
        lambda: case(edit(mlp(), "2.bias", lambda p: p[:10].fill_(-50.0))),
    ),
    "ACT002": (lambda: case(mlp(act=nn.Tanh), X * 300), lambda: case(mlp(act=nn.Tanh), X * 2)),
    "FWD001": (lambda: case(mlp(10, 32, gain=8.0)), lambda: case(mlp(10, 64))),
    "FWD002": (lambda: case(mlp(30, 32, gain=None)), lambda: case(mlp(2, 32, gain=None))),
    "FWD003": (lambda: case(mlp(40, 8, gain=2.0)), lambda: case(mlp(40, 8, nn.Tanh, gain=2.0))),
    "FWD004": (lambda: case(mlp(20, 32, nn.Sigmoid, gain=None)), lambda: case(mlp(20, 32, nn.Tanh, gain=1.6))),
    "FWD005": (lambda: case(mlp(25, 32, nn.Softplus, gain=None)), lambda: case(mlp(10, 32))),
    "FWD006": (
        lambda: case(Residual(16, 12)),
        lambda: case(Residual(16, 12, scale=12**-0.5)),
    ),
    "FWD008": (lambda: rings(nn.Identity), lambda: rings(nn.Tanh)),
    "GRD006": (lambda: case(Listed(True)), lambda: case(Listed(False))),
    "OUT004": (lambda: squared(False), lambda: squared(True)),
    "OUT006": (lambda: with_softmax(F.cross_entropy), lambda: with_softmax(lambda p, y: F.nll_loss(p.log(), y))),
    "OUT005": (
        lambda: case(Through(mlp(), lambda z: 1e-9 * z, behind=True)),
        lambda: case(Through(mlp(), lambda z: 1e-2 * z, behind=True)),
    ),
    "FWD007": (lambda: case(Residual(16, 6, branch=1e-3)), lambda: case(Residual(16, 6, zero_ends=True))),
    "LRN001": (lambda: with_dropout(40, 0.5, 9.0), lambda: with_dropout(3, 0.5, 2.0)),
    "GRD003": (
        lambda: case(mlp(20, 32, nn.Sigmoid, gain=1.0)),
        lambda: case(edit(mlp(), "6.weight", lambda p: p.zero_())),
    ),
    "GRD004": (lambda: case(mlp(30, 32, nn.Tanh, gain=20.0)), lambda: case(mlp(30, 32, nn.Tanh, gain=1.2))),
    "OUT002": (
        lambda: case(edit(mlp(), "6.weight", lambda p: p.mul_(50.0))),
        lambda: case(edit(mlp(), "6.weight", lambda p: p.mul_(1.5))),
    ),
    "OUT003": (lambda: regression(80.0, 150.0), lambda: regression(1.0, 0.5)),
    "THY001": (lambda: aligned(True), lambda: aligned(False)),
    "LRN002": (lambda: case(mlp(10, 32, gain=80.0)), lambda: case(mlp(10, 32, gain=4.0))),
}
