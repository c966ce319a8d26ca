"""Signs that hold for every value of the weights: against networks run on many draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import firstlight
from firstlight.capture.trace import trace
from firstlight.graph.ir import Graph, Node
from firstlight.graph.signs import signs


class Decays(nn.Module):
    """A function of -e^a·softplus(W x), as state-space models have it, by position."""

    def __init__(self, rest: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.a, self.rest = nn.Linear(8, 4), nn.Parameter(torch.randn(4)), rest

    def forward(self, x: Tensor) -> Tensor:
        return self.rest((-self.a.exp() * F.softplus(self.layer(x))).transpose(1, 2))  # (sample, head, position)


def segments(d: Tensor, mask: int, fill: float = float("-inf"), turned: bool = False) -> Tensor:
    c = d.cumsum(-1)
    pairs = c.unsqueeze(-1) - c.unsqueeze(-2)
    if turned:
        pairs = c.unsqueeze(-2) - c.unsqueeze(-1)
    n = d.shape[-1]
    return pairs.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(mask), fill)


def _softplus(x: Tensor) -> Tensor:
    """As Kimi's linear attention has it: x itself where it is large."""
    x = 8.0 * x.sin()
    return torch.where(x > 5.0, x, torch.log(1.0 + torch.exp(x)))


NEVER = {
    "decays": lambda d: d.clone(),
    "running sum": lambda d: d.cumsum(-1),
    "segments": lambda d: segments(d, 1),
    "segments, diagonal hidden": lambda d: segments(d, 0),
    "segments, filled with zero": lambda d: segments(d, 1, 0.0),
    "last minus each": lambda d: _last(d),
    "summed": lambda d: d.reshape(len(d), -1).sum(-1, keepdim=True),
    "masked first": lambda d: (
        d[..., None].expand(-1, -1, -1, 6).masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(-1), 0).cumsum(-2)
    ),
    "times its square": lambda d: d * d.square(),
    "padded": lambda d: F.pad(d, (0, 2)),
    "of fewer axes": lambda d: _summed(d, lambda c: hidden(c[None, ..., None] - c[..., None, :])),
    "last of fewer axes": lambda d: _summed(d, lambda c: c[..., -1:] - c[None]),
    "softplus written out": lambda d: -_softplus(d) * d.exp(),
    "held below zero": lambda d: (d + 1.0).clamp(max=0.0),
    "held below zero by one bound": lambda d: (d + 1.0).clamp_max(-0.1),
    "held above a number below zero": lambda d: d.clamp(min=-2.0),
    "numbers": lambda d: d.nan_to_num(),
    "last, turned": lambda d: _summed(d, lambda c: c[:, :, -1:, None] - c[:, :, None]),
}
SOMETIMES = {
    "logarithm of less than one and more": lambda d: -(d.exp() + 0.5).log(),
    "the other side of a comparison": lambda d: -torch.where(d.sin() < 0.1, d.sin(), d.exp()),
    "one diagonal of the others left": lambda d: segments(d, 2),
    "the other way round": lambda d: segments(d, 1, turned=True),
    "filled with one": lambda d: segments(d, 1, 1.0),
    "each minus the first": lambda d: d.cumsum(-1) - d.cumsum(-1)[..., :1],
    "padded with one": lambda d: F.pad(d, (0, 2), value=1.0),
    "its square": lambda d: d.square(),
    "held above a number above zero": lambda d: d.clamp_min(0.1),
    "held below a number above zero": lambda d: (d + 1.0).clamp(-1.0, 1.0),
    "shifted": lambda d: d + 1.0,
    "less of what is below zero": lambda d: torch.add(d, d.square().neg(), alpha=-2),
    "less than nothing of what is above": lambda d: torch.sub(d, d.square(), alpha=-2),
    "last minus twice each": lambda d: torch.sub(d.cumsum(-1)[..., -1:], d.cumsum(-1), alpha=2),
    "last minus twice each of one sum": lambda d: _summed(d, lambda c: torch.sub(c[..., -1:], c, alpha=2)),
    "between heads": lambda d: _summed(d, lambda c: hidden(c[:, :, None, :, None] - c[:, None, :, None, :])),
    "last minus those of other heads": lambda d: _summed(d, lambda c: c[:, :, None, -1:] - c[:, None, :, :]),
    "truth": lambda d: d.bool().float(),
    "running sum of both signs": lambda d: segments(d + 1.0, 1),
}


def _last(d: Tensor) -> Tensor:
    c = d.cumsum(-1)
    return c[..., -1:] - c


def _summed(d: Tensor, rest: Callable[[Tensor], Tensor]) -> Tensor:
    return rest(d.cumsum(-1))


def hidden(pairs: Tensor) -> Tensor:
    n = pairs.shape[-1]
    return pairs.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), float("-inf"))


def found(graph: Graph) -> frozenset[str]:
    exponentials = replace(graph, nodes=(*graph.nodes, Node("end", "exp", (graph.outputs[0],))))
    return signs(exponentials).never_above


X = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NEVER)
def test_no_entry_is_above_zero(name: str) -> None:
    torch.manual_seed(0)
    model = Decays(NEVER[name])
    graph = trace(model, (X,))
    assert graph.outputs[0].node in found(graph)
    for _ in range(20):
        nn.init.normal_(model.a, 0, 3)
        nn.init.normal_(model.layer.weight)
        assert float(model(X).detach().max()) <= 1e-4 * float(model(X).detach().nan_to_num(neginf=0.0).abs().max())


@pytest.mark.parametrize("name", SOMETIMES)
def test_nothing_is_said_where_an_entry_may_be(name: str) -> None:
    torch.manual_seed(0)
    graph = trace(Decays(SOMETIMES[name]), (X,))
    assert graph.outputs[0].node not in found(graph)


@pytest.mark.parametrize("name", ["segments", "last minus each", "running sum"])
def test_the_exponential_of_a_decay_is_at_most_one(name: str) -> None:
    torch.manual_seed(0)
    model = Decays(lambda d: NEVER[name](30.0 * d).exp())
    prediction = firstlight.predict(model, X)
    node = prediction.nodes[-1]
    assert 0.0 < node.output.q <= 1.0
    assert node.grad is not None
    if name != "running sum":  # of which the law near zero decides: e^-|x| comes out .003 for .0002
        assert abs(firstlight.compare(prediction, firstlight.measure(model, X, draws=64)).nodes[-1].q_z) < 3.0


def test_a_gated_delta_rule_is_predicted() -> None:
    """Qwen3-Next's linear attention: the decays between positions had been taken to explode (P(start) 0)."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Qwen3NextConfig(
        num_hidden_layers=1, hidden_size=128, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2,
        head_dim=32, vocab_size=500, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=32,
        linear_value_head_dim=32, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    )  # fmt: skip
    model = transformers.Qwen3NextForCausalLM(config)
    batch = {"input_ids": torch.randint(500, (4, 64), generator=torch.Generator().manual_seed(0))}
    prediction = firstlight.predict(model, batch)
    assert prediction.p_start > 0.9
    nodes = firstlight.compare(prediction, firstlight.measure(model, batch, draws=16)).nodes
    (decays,) = (n for n in nodes if n.op == "exp" and n.node.endswith("exp#1"))
    values = next(n for n in nodes if n.op == "linalg_solve_triangular")
    for n in (decays, values):
        assert abs(n.q_z) < 3.0, n


def test_a_triangular_system_is_sampled_from_decays_that_are_a_running_sum() -> None:
    """Qwen 3.5's delta rule: drawn by themselves, differences of the sum's entries made its solution 10^73."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Qwen3_5TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16,
        linear_value_head_dim=16, layer_types=["linear_attention"],
    )  # fmt: skip
    model, batch = transformers.Qwen3_5ForCausalLM(config), {"input_ids": torch.randint(64, (2, 48))}
    drawn: list[float] = []
    for seed in range(16):
        firstlight.initialize(model, "normal(0.02)", seed=seed)
        drawn.append(next(n for n in firstlight.measure(model, batch).nodes if "triangular" in n.op).output.q)
    q = torch.tensor(drawn)
    found = firstlight.predict(model, batch, "normal(0.02)")
    level = next(n for n in found.nodes if "triangular" in n.op).output.q
    assert abs(level - float(q.mean())) < 4.0 * float(q.std()) / len(q) ** 0.5
    assert found.p_start > 0.9
