"""Transformers and recurrent networks on characters and waves: sound ones and broken ones."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.canonical.case import canonical
from benchmarks.canonical.problems import CONTEXT, Problem, text, waves

Made = tuple[nn.Module, Problem]
SYMBOLS = 32


class Block(nn.Module):
    """A pre-norm transformer block with a causal mask."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + self.proj(y)
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class GPT(nn.Module):
    def __init__(self, depth: int = 1, width: int = 32, tied: bool = False, std: float | None = 0.02) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(SYMBOLS, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, SYMBOLS, bias=False)
        if std is not None:
            for m in self.modules():
                if isinstance(m, nn.Linear | nn.Embedding):
                    nn.init.normal_(m.weight, 0, std)
                if isinstance(m, nn.Linear) and m.bias is not None:
                    nn.init.zeros_(m.bias)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        return self.head(self.norm(self.blocks(x)))


@canonical()
def gpt_of_small_weights() -> Made:
    return GPT(), text()


@canonical()
def gpt_without_residual_scale() -> Made:
    return GPT(depth=4, std=None), text()


@canonical()
def gpt_tied_to_a_table_of_one() -> Made:
    model = GPT(tied=True)
    nn.init.normal_(model.tokens.weight)
    return model, text()


@canonical()
def gpt_with_zero_projections() -> Made:
    """As modern speed runs begin: every branch's end, and the head, at zero."""
    model = GPT()
    for block in model.blocks:
        nn.init.zeros_(block.proj.weight)
        nn.init.zeros_(block.down.weight)
    nn.init.zeros_(model.head.weight)
    return model, text()


@canonical("WGT003")
def gpt_with_a_zero_norm_and_head() -> Made:
    """The last gain and the head are both zero: a product of zeros."""
    model = GPT()
    nn.init.zeros_(model.norm.weight)
    nn.init.zeros_(model.head.weight)
    return model, text()


@canonical()
def gpt_with_a_zero_norm() -> Made:
    model = GPT()
    nn.init.zeros_(model.norm.weight)
    return model, text()


@canonical()
def gpt_embedding_scaled_twice() -> Made:
    """A table of deviation sqrt(width), multiplied by sqrt(width) again."""
    model = GPT(width=32)
    nn.init.normal_(model.tokens.weight, 0, 32.0)
    return model, text()


@canonical("WGT003", "FWD004")
def gpt_with_zero_tables() -> Made:
    """Both tables zero: the first norm sees a constant."""
    model = GPT()
    nn.init.zeros_(model.tokens.weight)
    nn.init.zeros_(model.places.weight)
    return model, text()


@canonical("FWD001", "OUT002", "LRN002")
def gpt_head_a_thousand_times() -> Made:
    model = GPT()
    nn.init.normal_(model.head.weight, 0, 1e3)
    return model, text()


@canonical()
def gpt_of_std_one() -> Made:
    return GPT(std=1.0), text()


@canonical()
def attention_of_huge_logits() -> Made:
    model = GPT()
    with torch.no_grad():
        for block in model.blocks:
            block.qkv.weight[:64].mul_(1e3)
    return model, text()


@canonical("WGT003")
def gpt_of_zeros() -> Made:
    model = GPT()
    for p in model.parameters():
        nn.init.zeros_(p)
    return model, text()


class Encoder(nn.Module):
    """Torch's own encoder on waves."""

    def __init__(self, width: int = 16, depth: int = 1, norm_first: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(1, width)
        self.places = nn.Parameter(0.1 * torch.randn(24, width))
        layer = nn.TransformerEncoderLayer(width, 2, 32, 0.1, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x) + self.places).mean(1))


@canonical()
def encoder_of_torch() -> Made:
    return Encoder(), waves()


@canonical("WGT008", "FWD004", "ACT001", "ACT002")
def encoder_without_norm_gains() -> Made:
    """All gains zero: what is behind a post-norm is its bias, the same for every input."""
    model = Encoder()
    for m in model.modules():
        if isinstance(m, nn.LayerNorm):
            nn.init.zeros_(m.weight)
    return model, waves()


@canonical("WGT004")
def encoder_of_constants() -> Made:
    model = Encoder()
    for p in model.parameters():
        if p.dim() > 1:
            nn.init.constant_(p, 0.02)
    return model, waves()


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], width: int = 24) -> None:
        super().__init__()
        self.rnn, self.head = kind(1, width, batch_first=True), nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


@canonical()
def lstm_with_forget_bias() -> Made:
    model = Recurrent(nn.LSTM)
    nn.init.ones_(model.rnn.bias_ih_l0[24:48])
    return model, waves()


@canonical("WGT008", "ACT002", "FWD004")
def lstm_with_closed_output_gate() -> Made:
    model = Recurrent(nn.LSTM)
    nn.init.constant_(model.rnn.bias_ih_l0[72:], -110.0)
    return model, waves()


@canonical("WGT003")
def lstm_of_zeros() -> Made:
    model = Recurrent(nn.LSTM)
    for p in model.parameters():
        nn.init.zeros_(p)
    return model, waves()


@canonical()
def gru_orthogonal() -> Made:
    model = Recurrent(nn.GRU)
    for w in model.rnn.weight_hh_l0.data.chunk(3):
        nn.init.orthogonal_(w)
    return model, waves()


@canonical()
def rnn_of_identity() -> Made:
    model = Recurrent(lambda a, b, batch_first: nn.RNN(a, b, batch_first=batch_first, nonlinearity="relu"))  # type: ignore[arg-type]
    nn.init.eye_(model.rnn.weight_hh_l0)
    return model, waves()


@canonical("FWD001", "LRN002", "OUT002", "NUM001", "GRD004")
def rnn_relu_of_std_one() -> Made:
    model = Recurrent(lambda a, b, batch_first: nn.RNN(a, b, batch_first=batch_first, nonlinearity="relu"))  # type: ignore[arg-type]
    nn.init.normal_(model.rnn.weight_hh_l0)
    return model, waves()


class Bag(nn.Module):
    """Attention pooling over a wave's steps, by one learned query."""

    def __init__(self, query: float) -> None:
        super().__init__()
        self.embed, self.query = nn.Linear(1, 32), nn.Parameter(query * torch.randn(32))
        self.value, self.head = nn.Linear(32, 32), nn.Linear(32, 4)
        self.places = nn.Parameter(torch.randn(24, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.embed(x) + self.places)
        p = ((h @ self.query) / math.sqrt(32)).softmax(-1)
        return self.head(torch.relu((p[..., None] * self.value(h)).sum(1)))


@canonical()
def pooling_by_a_zero_query() -> Made:
    return Bag(0.0), waves()


@canonical()
def pooling_by_a_huge_query() -> Made:
    return Bag(1e4), waves()
