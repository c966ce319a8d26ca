"""Roles from the graph: what ends a residual branch, what reads the output, which activation a layer reads."""

import torch
import torch.nn.functional as F
from torch import nn

import firstlight


class Block(nn.Module):
    """A pre-norm transformer block with a functional activation, which module hooks would not see."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Token embedding, blocks, and a readout that is tied to the embedding."""

    def __init__(self, tokens: int = 100, d: int = 32, blocks: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, d)
        self.blocks = nn.Sequential(*(Block(d, 4) for _ in range(blocks)))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, tokens, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.embed(tokens))))


if __name__ == "__main__":
    batch = torch.randint(100, (8, 16), generator=torch.Generator().manual_seed(0))
    for scheme in ("he", "scaled-branches", "gpt-2"):
        model = Transformer()
        result = firstlight.initialize(model, scheme, batch=batch)
        ends = [row for row in result.table.rows if row.role == "branch end"]
        sds = sorted({round(row.law.variance**0.5, 4) for row in ends if row.law is not None})
        measured = firstlight.measure(model, batch)
        stream = [node.output.q for node in measured.nodes if node.op == "add"]
        growth = stream[-1] / measured["embed:embedding"].output.q
        print(f"{scheme:16} {len(ends)} branch ends, sd {sds}; the stream's mean square grows ×{growth:.2f}")
