"""One row of the population -> one network with its drawn weights, and the batch that it is predicted with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from benchmarks.diagnosis.weights import draw
from benchmarks.start.problems import problem

BATCH = 64
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "sigmoid": nn.Sigmoid, "silu": nn.SiLU, "elu": nn.ELU,
    "selu": nn.SELU, "leaky_relu": lambda: nn.LeakyReLU(0.2), "softplus": nn.Softplus, "mish": nn.Mish,
    "hardtanh": nn.Hardtanh, "linear": nn.Identity,
}  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """What a network is made of.

    Attributes:
        family: "plain", "residual", "conv", "resconv" or "attention".
        data: Name of the problem.
        inputs: "standard" (mean 0, variance 1 over the whole set) or "unit" (pixels between 0 and 1).
        depth: Weight layers in front of the read-out along the longest path: a residual block and an attention
            block's halves have two each.
        width: Units, channels, or entries per token.
        activation: Key of `ACTIVATIONS`.
        norm: "", "batch" or "layer" in plain, residual and conv nets; "", "pre" or "post" in attention nets.
        branch: What a residual branch is multiplied by: "1", "depth" (1/√blocks) or "0.2".
        scheme: As in `benchmarks.diagnosis.weights.draw`; also "random-walk".
        seed: Of the weights and of the order of batches.
    """

    family: str
    data: str
    inputs: str
    depth: int
    width: int
    activation: str
    norm: str
    branch: str
    scheme: str
    seed: int

    def text(self) -> str:
        """As one line of JSON; the row's key."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def blocks(self) -> int:
        """Residual or attention blocks; layers in a plain net."""
        per = {"plain": 1, "conv": 1, "residual": 2, "resconv": 2, "attention": 4}[self.family]
        return max(1, round(self.depth / per))

    def short(self) -> str:
        """In a few words."""
        norm = f" {self.norm}-norm" if self.norm else ""
        branch = "" if self.family in ("plain", "conv") else f" branch×{self.branch}"
        return f"{self.family} {self.depth}×{self.width} {self.activation}{norm}{branch} {self.scheme}, {self.data}"


class Branch(nn.Module):
    """x + scale·f(x)."""

    def __init__(self, inner: nn.Module, scale: float) -> None:
        super().__init__()
        self.inner, self.scale = inner, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.inner(x)


class Attention(nn.Module):
    """Multi-head self-attention with an output projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 32)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(b, t, d))


class Rows(nn.Module):
    """An image's rows as tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.squeeze(1)


class MeanToken(nn.Module):
    """The average token."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


def _norm(kind: str, width: int, conv: bool) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(width) if conv else nn.BatchNorm1d(width)]
    if kind == "layer":
        return [nn.GroupNorm(1, width) if conv else nn.LayerNorm(width)]
    return []


def _scale(s: Spec) -> float:
    return s.blocks**-0.5 if s.branch == "depth" else float(s.branch)


def _stack(s: Spec, side: int) -> nn.Module:
    """Plain and residual nets, of matrices or of 3 × 3 kernels; images of side 14 enter with stride 2."""
    conv, act = s.family.endswith("conv"), ACTIVATIONS[s.activation]

    def layer() -> nn.Module:
        return nn.Conv2d(s.width, s.width, 3, padding=1) if conv else nn.Linear(s.width, s.width)

    first = nn.Conv2d(1, s.width, 3, stride=2 if side > 8 else 1, padding=1) if conv else nn.Linear(side**2, s.width)
    parts: list[nn.Module] = [] if conv else [nn.Flatten()]
    if s.family in ("plain", "conv"):
        for i in range(s.depth):
            parts += [layer() if i else first, *_norm(s.norm, s.width, conv), act()]
    else:
        parts.append(first)
        for _ in range(s.blocks):
            norms = [_norm(s.norm, s.width, conv) for _ in range(2)]
            parts.append(Branch(nn.Sequential(*norms[0], act(), layer(), *norms[1], act(), layer()), _scale(s)))
        parts += [*_norm(s.norm, s.width, conv), act()]
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if conv else []
    return nn.Sequential(*parts, nn.Linear(s.width, 10))


def _attention(s: Spec, side: int) -> nn.Module:
    def mlp() -> nn.Module:
        return nn.Sequential(
            nn.Linear(s.width, 2 * s.width), ACTIVATIONS[s.activation](), nn.Linear(2 * s.width, s.width)
        )

    parts: list[nn.Module] = [Rows(), nn.Linear(side, s.width)]
    for _ in range(s.blocks):
        for inner in (Attention(s.width), mlp()):
            if s.norm == "pre":
                parts.append(Branch(nn.Sequential(nn.LayerNorm(s.width), inner), _scale(s)))
            else:
                parts += [Branch(inner, _scale(s)), *([nn.LayerNorm(s.width)] if s.norm == "post" else [])]
    end = [nn.LayerNorm(s.width)] if s.norm == "pre" else []
    return nn.Sequential(*parts, *end, MeanToken(), nn.Linear(s.width, 10))


def inputs(s: Spec) -> torch.Tensor:
    """All training images in the asked scale, shape (samples, 1, side, side)."""
    x = problem(s.data).x
    return (x - x.mean()) / x.std() if s.inputs == "standard" else x


def build(s: Spec) -> nn.Module:
    """The network with its drawn weights, in training mode."""
    side = problem(s.data).side
    torch.manual_seed(s.seed)
    model = _attention(s, side) if s.family == "attention" else _stack(s, side)
    if s.scheme.startswith("random-walk"):
        import firstlight

        firstlight.initialize(model, s.scheme, batch=inputs(s)[:BATCH], seed=s.seed)
    else:
        draw(model, s.scheme, s.seed)
    return model.train()
