"""Networks over sets, graphs, tables, densities and actions, and a diffusion transformer, written by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.breadth.candidate import Arguments, named, tensor
from benchmarks.breadth.written import make


class DeepSets(nn.Module):
    """Permutation-equivariant layers with the largest member, a mean, a readout (Zaheer et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.ModuleList(nn.Linear(a, 32) for a in (8, 32, 32))
        self.every = nn.ModuleList(nn.Linear(a, 32, bias=False) for a in (8, 32, 32))
        self.out = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        for own, every in zip(self.own, self.every, strict=True):
            x = F.elu(own(x) - every(x.max(1, keepdim=True)[0]))
        return self.out(x.mean(1))


class DenseGCN(nn.Module):
    """Graph convolutions with a dense adjacency matrix (Kipf and Welling 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in ((16, 32), (32, 32), (32, 7)))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        degree = adjacency.sum(1).rsqrt()
        adjacency = degree[:, None] * adjacency * degree
        for i, layer in enumerate(self.layers):
            x = adjacency @ layer(x)
            x = F.relu(x) if i < 2 else x
        return x


def _graph() -> Arguments:
    links = (torch.rand(40, 40) < 0.1).float()
    return (torch.randn(40, 16), ((links + links.T + torch.eye(40)) > 0).float()), {}


class Recommender(nn.Module):
    """Bags of categories, their inner products, and two perceptrons (DLRM, Naumov et al. 2019)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(50, width, mode="sum") for _ in range(4))
        self.bottom = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, width), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(width + 10, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        x = self.bottom(dense)
        rows = torch.stack([x, *(bag(sparse[:, i]) for i, bag in enumerate(self.bags))], 1)
        products = torch.bmm(rows, rows.transpose(1, 2))
        i, j = torch.tril_indices(5, 5, offset=-1)
        return self.top(torch.cat([x, products[:, i, j]], 1))


class DeepAndCross(nn.Module):
    """Crosses of all features with one number each, beside a perceptron (Wang et al. 2017)."""

    def __init__(self, width: int = 40) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.cross = nn.ModuleList(nn.Linear(width, 1) for _ in range(3))
        self.deep = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.out = nn.Linear(width + 32, 1)

    def forward(self, kinds: Tensor, x: Tensor) -> Tensor:
        first = h = torch.cat([self.embed(kinds).flatten(1), x], 1)
        for layer in self.cross:
            h = first * layer(h) + h
        return self.out(torch.cat([h, self.deep(first)], 1))


class CoupledFlow(nn.Module):
    """Affine coupling layers with masks (RealNVP, Dinh et al. 2016): the log-density of its input."""

    mask: Tensor

    def __init__(self, size: int = 8) -> None:
        super().__init__()

        def net(*end: nn.Module) -> nn.Module:
            return nn.Sequential(
                nn.Linear(size, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, size), *end
            )

        self.scales = nn.ModuleList(net(nn.Tanh()) for _ in range(4))
        self.shifts = nn.ModuleList(net() for _ in range(4))
        self.register_buffer("mask", (torch.arange(size) % 2).float())

    def forward(self, x: Tensor) -> Tensor:
        volume = torch.zeros(len(x))
        for i, (scale, shift) in enumerate(zip(self.scales, self.shifts, strict=True)):
            kept = self.mask if i % 2 else 1 - self.mask
            size, by = scale(x * kept) * (1 - kept), shift(x * kept) * (1 - kept)
            x, volume = x * kept + (1 - kept) * (x * torch.exp(size) + by), volume + size.sum(1)
        return (-0.5 * x**2).sum(1) + volume


class Policy(nn.Module):
    """An actor and a critic of tanh layers; the log-density of an action under a learnt deviation (PPO)."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(17, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 6))
        self.critic = nn.Sequential(nn.Linear(17, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        self.deviation = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.actor(x), self.deviation.exp()
        density = -((action - mean) ** 2) / (2 * std**2) - std.log() - math.log(math.sqrt(2 * math.pi))
        return density.sum(1), self.critic(x)


class Dueling(nn.Module):
    """A value and advantages less their mean, on convolutions of stacked frames (Wang et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(512, 64)
        )
        self.value, self.advantage = nn.Linear(64, 1), nn.Linear(64, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.body(x))
        advantage = self.advantage(h)
        return self.value(h) + advantage - advantage.mean(1, keepdim=True)


class Modulated(nn.Module):
    """A block whose norms are shifted, scaled and gated by a condition (DiT, Peebles and Xie 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulate = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulate(F.silu(c)).unsqueeze(1).chunk(6, -1)
        h = self.norms[0](x) * (1 + scale) + shift
        x = x + gate * self.attention(h, h, h, need_weights=False)[0]
        return x + gate2 * self.inner(self.norms[1](x) * (1 + scale2) + shift2)


class DiT(nn.Module):
    """Patches, a time embedding, modulated blocks, patches back by einsum; gates and the last map may start at zero."""

    def __init__(self, zero: bool, width: int = 32) -> None:
        super().__init__()
        blocks = [Modulated(width) for _ in range(2)]
        self.patches, self.blocks = nn.Conv2d(3, width, 2, 2), nn.ModuleList(blocks)
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.end = nn.Linear(width, 12)
        if zero:
            for last in (self.end, *(b.modulate for b in blocks)):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(8) / 8)
        c, x = self.time(torch.cat([angles.cos(), angles.sin()], 1)), self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, c)
        x = self.end(x).reshape(-1, 4, 4, 2, 2, 3)
        return torch.einsum("nhwpqc->nchpwq", x).reshape(-1, 3, 8, 8)


def _noised() -> Arguments:
    return (torch.randn(4, 3, 8, 8), torch.rand(4) * 1000), {}


def _table() -> Arguments:
    return (torch.randint(50, (32, 4)), torch.randn(32, 8)), {}


def _clicks() -> Arguments:
    return (torch.randn(32, 8), torch.randint(50, (32, 4, 3))), {}


CANDIDATES = (
    make("deep sets", DeepSets, tensor(16, 12, 8)),
    make("dense GCN", DenseGCN, _graph),
    make("recommender with bags", Recommender, _clicks),
    make("deep and cross", DeepAndCross, _table),
    make("coupling flow", CoupledFlow, tensor(32, 8)),
    make("actor and critic", Policy, named(x=(32, 17), action=(32, 6))),
    make("dueling values", Dueling, tensor(8, 4, 44, 44)),
    make("diffusion transformer", DiT, _noised, False),
    make("diffusion transformer from zero", DiT, _noised, True),
)
