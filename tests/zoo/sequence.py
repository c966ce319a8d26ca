"""Networks on sequences: attention in every spelling, language models, routing, recurrence, embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.entry import Arguments, Entry, Residual, images, sequences, tokens

VOCABULARY = 50


class Attention(nn.Module):
    """Self-attention: `how` is "sdpa", "manual" (softmax written out with a mask) or "einsum"."""

    def __init__(
        self, width: int, heads: int = 4, how: str = "sdpa", causal: bool = True, rotary: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.how, self.causal, self.rotary = heads, how, causal, rotary
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.register_buffer("mask", torch.tril(torch.ones(64, 64, dtype=torch.bool)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = (p.view(b, t, self.heads, -1).transpose(1, 2) for p in self.qkv(x).chunk(3, dim=-1))
        if self.rotary:
            q, k = rotate(q), rotate(k)
        if self.how == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        elif self.how == "manual":
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            if self.causal:
                scores = scores.masked_fill(~self.mask[:t, :t], float("-inf"))
            y = scores.softmax(-1) @ v
        else:
            scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
            y = torch.einsum("bhqk,bhkd->bhqd", F.softmax(scores, dim=-1), v)
        return self.out(y.transpose(1, 2).reshape(b, t, d))


def rotate(x: torch.Tensor) -> torch.Tensor:
    t, half = x.shape[-2], x.shape[-1] // 2
    frequency = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(t, device=x.device)[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class RMS(nn.Module):
    """Root-mean-square normalisation, written out as Llama does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class SwiGLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Experts(nn.Module):
    """Every token is sent to the best two of four experts; a loop over the experts that somebody chose."""

    def __init__(self, width: int, count: int = 4) -> None:
        super().__init__()
        self.router = nn.Linear(width, count, bias=False)
        self.experts = nn.ModuleList(SwiGLU(width) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = torch.topk(self.router(flat).softmax(-1), 2, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            rows, slots = torch.where(chosen == i)
            out.index_add_(0, rows, expert(flat[rows]) * weights[rows, slots, None])
        return out.view_as(x)


def feed_forward(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class Block(nn.Module):
    """One transformer block, normalised before ("pre") or after ("post") each branch."""

    def __init__(
        self, width: int, attention: nn.Module, ffn: nn.Module, norm: Callable[[int], nn.Module], post: bool
    ) -> None:
        super().__init__()
        self.attention, self.ffn, self.post = attention, ffn, post
        self.norm_1, self.norm_2 = norm(width), norm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.post:
            x = self.norm_1(x + self.attention(x))
            return self.norm_2(x + self.ffn(x))
        x = x + self.attention(self.norm_1(x))
        return x + self.ffn(self.norm_2(x))


class Language(nn.Module):
    """Embedding, blocks, readout (tied to the embedding on demand)."""

    def __init__(
        self,
        depth: int,
        width: int,
        how: str = "sdpa",
        post: bool = False,
        llama: bool = False,
        experts: bool = False,
        tied: bool = False,
    ) -> None:
        super().__init__()
        norm: Callable[[int], nn.Module] = RMS if llama else nn.LayerNorm
        self.embed = nn.Embedding(VOCABULARY, width)
        self.place = None if llama else nn.Embedding(64, width)
        self.blocks = nn.ModuleList(
            Block(
                width,
                Attention(width, how=how, rotary=llama),
                Experts(width) if experts else SwiGLU(width) if llama else feed_forward(width),
                norm,
                post,
            )
            for _ in range(depth)
        )
        self.norm = norm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        if self.place is not None:
            x = x + self.place(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Vision(nn.Module):
    """ViT: patches, a class token, learned positions."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.Sequential(
            *(
                Block(width, Attention(width, causal=False), feed_forward(width), nn.LayerNorm, False)
                for _ in range(depth)
            )
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


def encoder(depth: int, width: int, norm_first: bool = False, dropout: float = 0.0) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


def decoder(depth: int, width: int) -> nn.Module:
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(width, 4, 2 * width, 0.0, batch_first=True), depth)


def two_sequences(width: int) -> Arguments:
    args = (torch.randn(8, 12, width), torch.randn(8, 7, width))
    return args, {"tgt_mask": nn.Transformer.generate_square_subsequent_mask(12)}


class Pooled(nn.Module):
    """Attention by `nn.MultiheadAttention` (its weights asked for), then a mean over the sequence."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.MultiheadAttention(width, 4, batch_first=True) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = x
        for layer in self.layers:
            y, weights = layer(x, x, x, need_weights=True)
            x = x + y
        return self.head(x.mean(1)), weights


class Recurrent(nn.Module):
    def __init__(self, depth: int, width: int, kind: type[nn.RNNBase], bidirectional: bool = False) -> None:
        super().__init__()
        self.rnn = kind(width, width, depth, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(width * (1 + bidirectional), 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Cell(nn.Module):
    """A recurrent net written out; `depth` steps; the state starts as a constant and is written in place."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.steps = depth
        self.enter, self.keep = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(x.shape[0], x.shape[2])
        seen = torch.empty_like(x[:, : self.steps])
        for i in range(self.steps):
            state = torch.tanh(self.enter(x[:, i]) + self.keep(state))
            seen[:, i] = state
        return seen


class Bag(nn.Module):
    """Mean of embeddings with a padding mask, then an MLP."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width, padding_idx=0)
        self.body = nn.Sequential(*(Residual(feed_forward(width), 0.5) for _ in range(depth)), nn.Linear(width, 5))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        keep = (ids != 0).unsqueeze(-1).to(torch.float32)
        return self.body((self.embed(ids) * keep).sum(1) / keep.sum(1).clamp(min=1.0))


def _entry(name: str, build: Callable[[int, int], nn.Module], inputs: Callable[[int], Arguments], *tags: str) -> Entry:
    return Entry(name, build, inputs, 32, (2, 6), frozenset({"sequence", *tags}))


ENTRIES = (
    _entry("gpt_pre", Language, tokens, "attention", "norm"),
    _entry("gpt_post", partial(Language, post=True), tokens, "attention", "norm"),
    _entry("gpt_manual_attention", partial(Language, how="manual"), tokens, "attention", "norm"),
    _entry("gpt_einsum_attention", partial(Language, how="einsum"), tokens, "attention", "norm"),
    _entry("gpt_tied", partial(Language, tied=True), tokens, "attention", "norm", "tied"),
    _entry("llama_like", partial(Language, llama=True), tokens, "attention", "norm"),
    _entry("experts", partial(Language, llama=True, experts=True), tokens, "attention", "norm", "routing"),
    _entry("vit_like", Vision, images, "attention", "norm"),
    _entry("encoder_post", encoder, sequences, "attention", "norm"),
    _entry("encoder_pre", partial(encoder, norm_first=True, dropout=0.1), sequences, "attention", "norm", "dropout"),
    _entry("decoder", decoder, two_sequences, "attention", "norm"),
    _entry("attention_weights", Pooled, sequences, "attention"),
    _entry("rnn", partial(Recurrent, kind=nn.RNN), sequences, "recurrent"),
    _entry("gru", partial(Recurrent, kind=nn.GRU), sequences, "recurrent"),
    _entry("lstm", partial(Recurrent, kind=nn.LSTM), sequences, "recurrent"),
    _entry("lstm_two_ways", partial(Recurrent, kind=nn.LSTM, bidirectional=True), sequences, "recurrent"),
    _entry("recurrent_by_hand", Cell, sequences, "recurrent", "in-place"),
    _entry("bag_of_words", Bag, tokens, "residual"),
)
