"""Networks of patches, points and capsules as people type them from the papers, small."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.breadth.candidate import Arguments, Candidate, tensor
from benchmarks.breadth.images import DropPath


class Attention(nn.Module):
    """Heads of one projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        if mask is not None:
            windows = mask.shape[0]
            weights = weights.view(b // windows, windows, self.heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
            weights = weights.view(-1, self.heads, n, n)
        weights = self.drop(weights.softmax(dim=-1))
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


def mlp(dim: int, ratio: int = 4) -> nn.Sequential:
    """Two linear maps and a GELU."""
    return nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))


class ViTBlock(nn.Module):
    """Pre-norm, LayerScale and stochastic depth."""

    def __init__(self, dim: int, heads: int, scale: float, drop: float) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), mlp(dim)
        self.gamma1, self.gamma2 = (nn.Parameter(scale * torch.ones(dim)) for _ in range(2))
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.gamma1 * self.attn(self.norm1(x)))
        return x + self.drop(self.gamma2 * self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """A class token in front of the patches."""

    def __init__(self, dim: int = 48, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 8, 8)
        self.token, self.place = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.zeros(1, 17, dim))
        self.blocks = nn.Sequential(*[ViTBlock(dim, heads, 0.1, 0.1) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, 10)
        nn.init.trunc_normal_(self.place, std=0.02)
        nn.init.normal_(self.token, std=0.02)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.trunc_normal_(m.weight, std=0.02)
                nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


def cut(x: Tensor, w: int) -> Tensor:
    """An image with channels last, in windows."""
    b, height, width, c = x.shape
    x = x.view(b, height // w, w, width // w, w, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, w * w, c)


class SwinBlock(nn.Module):
    """Attention in windows, every other time moved by half of one with `torch.roll`."""

    def __init__(self, dim: int, size: int, window: int, shift: int, heads: int = 4) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, window, shift
        self.norm1, self.attn, self.norm2, self.mlp = (
            nn.LayerNorm(dim), Attention(dim, heads), nn.LayerNorm(dim), mlp(dim),
        )  # fmt: skip
        mask = None
        if shift:
            region = torch.zeros(1, size, size, 1)
            parts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
            for i, rows in enumerate(parts):
                for j, columns in enumerate(parts):
                    region[:, rows, columns] = 3 * i + j
            of = cut(region, window).squeeze(-1)
            mask = (of.unsqueeze(1) - of.unsqueeze(2)).ne(0) * -100.0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        s, w = self.size, self.window
        y = self.norm1(x).view(b, s, s, c)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = self.attn(cut(y, w), self.mask).view(b, s // w, s // w, w, w, c)
        y = y.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, s, s, c)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y.view(b, n, c)
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    """Two blocks on 8 × 8 patches."""

    def __init__(self, dim: int = 48) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim)
        self.blocks = nn.Sequential(SwinBlock(dim, 8, 4, 0), SwinBlock(dim, 8, 4, 2))
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.norm(self.patch(x).flatten(2).transpose(1, 2))).mean(1))


class SpatialGate(nn.Module):
    """gMLP: half of the units gates the other half, mixed along the patches; near one at the start."""

    def __init__(self, dim: int, patches: int) -> None:
        super().__init__()
        self.norm_in, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.Linear(2 * dim, dim)
        self.norm, self.mix = nn.LayerNorm(2 * dim), nn.Conv1d(patches, patches, 1)
        nn.init.uniform_(self.mix.weight, -1e-3 / patches, 1e-3 / patches)
        assert self.mix.bias is not None
        nn.init.ones_(self.mix.bias)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.up(self.norm_in(x))).chunk(2, dim=-1)
        return x + self.down(u * self.mix(self.norm(v)))


class Mixer(nn.Module):
    """MLP-Mixer's block."""

    def __init__(self, dim: int, patches: int) -> None:
        super().__init__()
        self.norm1, self.tokens = nn.LayerNorm(dim), mlp(patches, 2)
        self.norm2, self.channels = nn.LayerNorm(dim), mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Patches(nn.Module):
    """Blocks over patches, and their mean."""

    def __init__(self, block: Callable[[int, int], nn.Module], dim: int = 48, depth: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 8, 8)
        self.blocks = nn.Sequential(*[block(dim, 16) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patch(x).flatten(2).transpose(1, 2))).mean(1))


class PoolBlock(nn.Module):
    """PoolFormer: a window's mean minus its middle in place of attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, dim), nn.GroupNorm(1, dim)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.mlp = nn.Sequential(nn.Conv2d(dim, 4 * dim, 1), nn.GELU(), nn.Conv2d(4 * dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.pool(y) - y
        return x + self.mlp(self.norm2(x))


class Radiance(nn.Module):
    """NeRF's network: sines and cosines of points and directions."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(63, width), nn.Linear(width, width)
        self.third, self.feature = nn.Linear(width + 63, width), nn.Linear(width, width)
        self.density, self.view, self.rgb = nn.Linear(width, 1), nn.Linear(width + 27, 32), nn.Linear(32, 3)

    def encoded(self, x: Tensor, octaves: int) -> Tensor:
        out = [x]
        for k in range(octaves):
            out += [torch.sin(2.0**k * x), torch.cos(2.0**k * x)]
        return torch.cat(out, dim=-1)

    def forward(self, points: Tensor, directions: Tensor) -> Tensor:
        p, d = self.encoded(points, 10), self.encoded(directions, 4)
        h = F.relu(self.second(F.relu(self.first(p))))
        h = F.relu(self.third(torch.cat((p, h), dim=-1)))
        colour = F.relu(self.view(torch.cat((self.feature(h), d), dim=-1)))
        return torch.cat((torch.sigmoid(self.rgb(colour)), self.density(h)), dim=-1)


def _rays() -> Arguments:
    return (torch.rand(32, 8, 3) * 2.0 - 1.0, F.normalize(torch.randn(32, 8, 3), dim=-1)), {}


class Sine(nn.Module):
    """A layer of SIREN."""

    def __init__(self, i: int, o: int, first: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(i, o)
        bound = 1.0 / i if first else math.sqrt(6.0 / i) / 30.0
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30.0 * self.linear(x))


def squash(x: Tensor) -> Tensor:
    """Vectors with lengths below one."""
    n = (x**2).sum(-1, keepdim=True)
    return n / (1.0 + n) * x / (torch.sqrt(n) + 1e-8)


class Capsules(nn.Module):
    """Capsules with three rounds of routing by agreement."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.primary = nn.Conv2d(1, 16, 5), nn.Conv2d(16, 32, 5, 2)
        self.weight = nn.Parameter(0.1 * torch.randn(1, 4 * 16, 5, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        u = self.primary(F.relu(self.conv(x)))
        b = u.size(0)
        u = squash(u.view(b, 4, 8, -1).permute(0, 1, 3, 2).reshape(b, -1, 8))
        votes = (self.weight @ u[:, :, None, :, None]).squeeze(-1)
        logits = torch.zeros(b, votes.size(1), 5, 1, device=x.device)
        v = votes.mean(1)
        for _ in range(3):
            v = squash((F.softmax(logits, dim=2) * votes).sum(1))
            logits = logits + (votes * v.unsqueeze(1)).sum(-1, keepdim=True)
        return v.norm(dim=-1)


def _pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 48, 7, 4, 2),
        PoolBlock(48),
        PoolBlock(48),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def make(name: str, build: Callable[[], nn.Module], *sizes: int) -> Candidate:
    """A network for images."""
    return Candidate(name, "written", build, tensor(*(sizes or (8, 3, 32, 32))))


CANDIDATES: tuple[Candidate, ...] = (
    make("ViT by hand", ViT),
    make("Swin by hand", Swin),
    make("gMLP by hand", lambda: Patches(SpatialGate)),
    make("Mixer by hand", lambda: Patches(Mixer)),
    make("PoolFormer by hand", _pooled),
    Candidate("NeRF by hand", "written", Radiance, _rays),
    make(
        "SIREN by hand", lambda: nn.Sequential(Sine(2, 64, True), Sine(64, 64), Sine(64, 64), nn.Linear(64, 3)), 256, 2
    ),
    make("capsules by hand", Capsules, 4, 1, 16, 16),
)
