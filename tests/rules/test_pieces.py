"""Tensors put together from pieces that are not equally alike, against drawn networks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import firstlight
from benchmarks.accuracy.draws import drawn
from benchmarks.accuracy.errors import NodeError, errors
from firstlight.capture import predict as capture
from firstlight.capture.trace import trace
from firstlight.schemes.plan import plan

DRAWS, UNITS = 100, 64


class Token(nn.Module):
    """A small token that is the same in every sample beside tokens of data, through a block to an index."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(0.05 * torch.randn(1, 1, UNITS))
        self.inside, self.up = nn.Linear(UNITS, UNITS, bias=False), nn.Linear(UNITS, 2 * UNITS, bias=False)
        self.down = nn.Linear(2 * UNITS, UNITS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.inside(x)], dim=1)
        x = x + self.down(F.gelu(self.up(F.layer_norm(x, (UNITS,)))))
        return F.layer_norm(x, (UNITS,))[:, 0]


class Attending(nn.Module):
    """The same token among others in front of attention, which answers it more alike than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, UNITS))
        self.maps = nn.ModuleList(nn.Linear(UNITS, UNITS, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1), (UNITS,))
        q, k, v = (m(x).view(*x.shape[:2], 4, UNITS // 4).transpose(1, 2) for m in self.maps)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, 0]


class Side(nn.Module):
    """A large map of which samples have much in common, beside a small one of which they have little, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(64, 32, 1, bias=False) for _ in range(2))
        self.first, self.last = nn.Conv2d(64, 64, 1, bias=False), nn.Conv2d(64, 16, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        both = torch.cat([3.0 * self.one(x.relu()), 0.2 * self.two(x)], dim=1)
        return self.last(F.relu(F.batch_norm(both, None, None, training=True)))


def worst(model: nn.Module, x: Tensor) -> dict[str, NodeError]:
    graph = trace(model, (x,), {})
    laws = plan(model, "he", graph=graph, frozen=True).laws()
    found = capture.predict(model, (x,), {}, laws=laws, scheme="he", graph=graph)
    table = drawn(model, (x,), {}, "he", graph, DRAWS)
    return {e.node: e for e in errors(found, table)}


def test_a_class_token_stays_alike_through_norms_sums_maps_and_bends() -> None:
    torch.manual_seed(0)
    found = worst(Token(), torch.randn(6, 8, UNITS))
    for name in (":layer_norm", "up:linear", ":gelu", ":layer_norm#1", ":getitem"):
        assert found[name].c < 0.02, (name, found[name])
    # the mean over all tokens would have said of the one that is taken out
    assert found[":getitem"].values[7] > 0.5 > found[":layer_norm#1"].values[7]


def test_pieces_are_normalised_each_by_what_it_has_in_common() -> None:
    torch.manual_seed(0)
    found = worst(Side(), torch.randn(6, 64, 8, 8))
    for name in (":batch_norm", ":relu#1", "last:conv2d"):
        assert found[name].c < 0.02, (name, found[name])
    for name, error in found.items():
        assert not error.q > 0.03, (name, error)
        assert not error.grad_q > 0.06, (name, error)


def test_attention_answers_a_query_alike_where_it_is_the_same() -> None:
    torch.manual_seed(0)
    found = worst(Attending(), torch.randn(6, 32, UNITS))
    token, every = found[":getitem"], found[":scaled_dot_product_attention"]
    assert token.c < 0.05, token
    assert every.c < 0.02, every
    assert token.values[7] > 0.15 > 0.1 > every.values[7]


class Windowed(nn.Module):
    """A class token in front, to which a convolution over the tokens is added: what it gets is not followed."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.window = nn.Parameter(torch.randn(1, 1, UNITS)), nn.Conv1d(UNITS, UNITS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return (x + self.window(x.mT).mT)[:, 0]


def test_a_caveat_says_where_a_class_token_is_not_followed() -> None:
    torch.manual_seed(0)
    found = firstlight.predict(Windowed(), torch.randn(6, 8, UNITS), "he")
    assert any("a class token" in text for text in found.nodes[-1].caveats)
    found = firstlight.predict(Token(), torch.randn(6, 8, UNITS), "he")
    assert not any("a class token" in text for node in found.nodes for text in node.caveats)
