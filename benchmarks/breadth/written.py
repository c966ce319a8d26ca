"""Small networks written the way people write them: shapes, caches, custom gradients, control flow, whatever works."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from benchmarks.breadth.candidate import Arguments, Candidate, tensor


class EinsumAttention(nn.Module):
    """Attention by einsum, with a causal mask in a buffer and raw parameters."""

    def __init__(self, dim: int = 32, heads: int = 4, length: int = 12) -> None:
        super().__init__()
        self.wqkv = nn.Parameter(torch.randn(3, heads, dim, dim // heads) * dim**-0.5)
        self.wo = nn.Parameter(torch.randn(heads, dim // heads, dim) * dim**-0.5)
        self.register_buffer("mask", torch.tril(torch.ones(length, length, dtype=torch.bool)))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = torch.einsum("btd,nhde->nbhte", x, self.wqkv)
        scores = torch.einsum("bhte,bhse->bhts", q, k) / math.sqrt(q.size(-1))
        scores = scores.masked_fill(~self.mask[: x.size(1), : x.size(1)], float("-inf"))
        return x + torch.einsum("bhts,bhse,hed->btd", scores.softmax(-1), v, self.wo)


class SwishFunction(torch.autograd.Function):
    """x·σ(x) with the backward pass written by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return grads[0] * s * (1 + x * (1 - s))


class StraightThrough(torch.autograd.Function):
    """Sign forward, identity backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class Custom(nn.Module):
    """Linear layers with a custom autograd function between them."""

    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.function.apply(layer(x))  # pyright: ignore[reportAssignmentType]
        return x


class Checkpointed(nn.Module):
    """Blocks under torch.utils.checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False)  # pyright: ignore[reportOperatorIssue]
        return x


class ParameterLists(nn.Module):
    """Weights in ParameterList and ParameterDict, products with @."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(32, 32) * (2 / 32) ** 0.5) for _ in range(5))
        self.scales = nn.ParameterDict({"in": nn.Parameter(torch.ones(32)), "out": nn.Parameter(torch.ones(1))})

    def forward(self, x: Tensor) -> Tensor:
        h = x * self.scales["in"]
        for w in self.weights:
            h = torch.relu(h @ w)
        return h * self.scales["out"]


class ComplexRotary(nn.Module):
    """Attention whose positions are turned by multiplication with complex numbers."""

    def __init__(self, dim: int = 32, heads: int = 4, length: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        frequencies = 1.0 / 10_000 ** (torch.arange(0, dim // heads, 2).float() / (dim // heads))
        angles = torch.outer(torch.arange(length), frequencies)
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))

    def turned(self, x: Tensor) -> Tensor:
        as_complex = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(as_complex * self.turns[None, :, None]).flatten(3).type_as(x)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).unbind(2)
        q, k = self.turned(q), self.turned(k)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return x + self.out(y.transpose(1, 2).reshape(b, t, d))


class MaskedAttention(nn.Module):
    """scaled_dot_product_attention with a boolean padding mask, and nn.MultiheadAttention with its weights used."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.mha = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (t.unflatten(-1, (4, 8)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :])
        x = x + y.transpose(1, 2).flatten(2)
        z, weights = self.mha(x, x, x, key_padding_mask=~keep, need_weights=True)
        return x + z, weights


def _padded() -> Arguments:
    keep = torch.ones(4, 10, dtype=torch.bool)
    keep[0, 6:] = False
    return (torch.randn(4, 10, 32), keep), {}


class WeightNormed(nn.Module):
    """Weight and spectral norm and orthogonal weights, all by parametrization."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            parametrizations.weight_norm(nn.Linear(32, 64)), nn.ReLU(),
            parametrizations.spectral_norm(nn.Linear(64, 64)), nn.ReLU(),
            parametrizations.orthogonal(nn.Linear(64, 32)),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PackedTagger(nn.Module):
    """A bidirectional LSTM over packed sequences of different length."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(60, 32, padding_idx=0)
        self.lstm = nn.LSTM(32, 32, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(64, 60)

    def forward(self, words: Tensor) -> Tensor:
        lengths = (words != 0).sum(1)
        packed = pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.out(y)


def _words() -> Arguments:
    words = torch.randint(1, 60, (4, 10))
    words[1, 7:] = 0
    return (words,), {}


@dataclass
class Answer:
    """Output of `Structured`."""

    logits: Tensor
    hidden: list[Tensor]


class Structured(nn.Module):
    """Takes a list and a dict, returns a data class."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(n, 32) for n in (8, 16, 24))
        self.context = nn.Linear(10, 32)
        self.out = nn.Linear(32, 60)

    def forward(self, features: list[Tensor], extra: Mapping[str, Tensor]) -> Answer:
        hidden = [torch.tanh(layer(x)) for layer, x in zip(self.parts, features, strict=True)]
        total = torch.stack(hidden).sum(0) + self.context(extra["context"])
        return Answer(self.out(F.gelu(total)), hidden)


def _lists() -> Arguments:
    return ([torch.randn(16, n) for n in (8, 16, 24)], {"context": torch.randn(16, 10)}), {}


class Pyramid(nn.Module):
    """Halves an image until it is small enough: control flow on shapes, padding where a side is odd."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.shared = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        while x.shape[-1] > 4:
            if x.shape[-1] % 2:
                x = F.pad(x, (0, 1, 0, 1))
            x = F.max_pool2d(F.relu(self.shared(x)), 2)
        return x.mean((2, 3))


def make(name: str, kind: type[nn.Module], inputs: Any, *args: Any) -> Candidate:
    """A small network with its inputs."""
    return Candidate(name, "written", lambda: kind(*args), inputs)


CANDIDATES: tuple[Candidate, ...] = (
    make("einsum attention", EinsumAttention, tensor(4, 12, 32)),
    make("custom swish", Custom, tensor(16, 32), SwishFunction),
    make("straight-through sign", Custom, tensor(16, 32), StraightThrough),
    make("checkpointed blocks", Checkpointed, tensor(16, 32)),
    make("parameter lists", ParameterLists, tensor(16, 32)),
    make("complex rotary", ComplexRotary, tensor(4, 12, 32)),
    make("masked attention", MaskedAttention, _padded),
    make("parametrized weights", WeightNormed, tensor(16, 32)),
    make("packed LSTM", PackedTagger, _words),
    make("lists and data classes", Structured, _lists),
    make("pyramid", Pyramid, tensor(4, 3, 22, 22)),
)
