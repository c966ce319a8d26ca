"""Several heads of queries that look at one of keys, and parts that index lists take, against draws."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight as fl

DRAWS = 32


class Shared(nn.Module):
    """Multi-query attention: one head of keys and values that is broadcast (Falcon), or two that are repeated."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(64, 64 + 32 * heads, bias=False), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        fused = self.qkv(x).view(n, t, 4 + 2 * self.heads, 16)
        if self.heads == 1:
            q, k, v = fused[..., :-2, :], fused[..., [-2], :], fused[..., [-1], :]
        else:
            q, k, v = fused.split((4, 2, 2), 2)
        q, k, v = (s.transpose(1, 2) for s in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.heads > 1)
        return self.out(y.transpose(1, 2).reshape(n, t, 64))


@pytest.mark.parametrize("heads", [1, 2])
def test_a_head_of_keys_gets_the_gradients_of_all_that_look_at_it(heads: int) -> None:
    """One that was broadcast got a quarter of it."""
    torch.manual_seed(0)
    model, x = Shared(heads), torch.randn(8, 12, 64)
    prediction = fl.predict(model, x)
    assert not [n for n in prediction.nodes if any("random sample" in c for c in n.caveats)]
    for n in fl.compare(prediction, fl.measure(model, x, draws=DRAWS)).nodes:
        assert abs(math.log(n.q_predicted / n.q_measured)) < 0.08, n
        if n.grad_q_measured:
            assert abs(math.log(n.grad_q_predicted / n.grad_q_measured)) < 0.1, n


@pytest.mark.parametrize("index", [[1], [-1], [0, 2, 4], [3, 0], [2, 2]])
def test_an_index_list_takes_what_it_says(index: list[int]) -> None:
    class Taken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(x * torch.arange(1.0, 6.0)[:, None])[:, index]

    torch.manual_seed(0)
    nodes = {n.op: n for n in fl.predict(Taken(), torch.randn(64, 5, 16)).nodes}
    taken = nodes["getitem"]
    exact = index in ([1], [-1], [0, 2, 4])
    assert bool(taken.caveats) != exact
    if exact:
        squares = torch.arange(1.0, 6.0).square()
        w, b = nodes["linear"].output.q, 1 / 48.0
        expected = (w - b) * float(squares[index].mean() / squares.mean()) + b
        assert taken.output.q == pytest.approx(expected, rel=0.05)


def test_the_empty_part_of_heads_that_are_rotated_whole_is_nothing() -> None:
    """q[..., rotary:] with rotary = all channels, put behind the rest again (Phi-3)."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.up(x)
            return self.down(torch.cat((y[..., :16] * 2.0, y[..., 16:]), dim=-1))

    torch.manual_seed(0)
    prediction = fl.predict(Whole(), torch.randn(64, 5, 16))
    assert not [c for n in prediction.nodes for c in n.caveats]
    nodes = {n.op: n for n in prediction.nodes}
    assert nodes["cat"].output.q == pytest.approx(nodes["mul"].output.q)
    assert nodes["cat"].grad is not None
