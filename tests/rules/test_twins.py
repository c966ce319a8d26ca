"""Tensors that the same weights made of different ones, against draws."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from tests.zoo.sequence import Attention
from tests.zoo.shared import Looped, LoopedGPT, LoopedImages, Siamese

WIDTH, DRAWS, USES = 128, 48, 4


def beside_draws(model, batch, scheme="torch-default"):
    """(node, predicted over drawn mean square, its standard error), forward and backward."""
    predicted = firstlight.predict(model, batch, scheme)
    for node in firstlight.measure(model, batch, draws=DRAWS, scheme=scheme).nodes:
        for drawn, mine in ((node.log_q, predicted[node.name].output), (node.log_grad_q, predicted[node.name].grad)):
            if drawn is not None and mine is not None and np.isfinite(drawn.values).all():
                q = np.exp(drawn.values)
                yield node.name, float(mine.q / q.mean()), float(q.std(ddof=1) / q.mean() / DRAWS**0.5)


class LoopedRelu(nn.Module):
    """x + W·relu(x)/2, again and again: the masks of two steps are alike, and dependent on both ways."""

    def __init__(self, depth, width):
        super().__init__()
        self.depth, self.first, self.map = depth, nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        x = self.first(x)
        for _ in range(self.depth):
            x = x + 0.5 * self.map(F.relu(x))
        return x


@pytest.mark.parametrize("kind", [Looped, LoopedRelu, LoopedImages])
def test_a_stream_to_which_one_map_is_added_again_and_again(kind):
    """Six masks are more than a gradient follows one by one; places at the border of an image are shorter."""
    torch.manual_seed(0)
    uses, width = 6, 64 if kind is LoopedImages else 256
    batch = torch.randn(8, 3, 8, 8) if kind is LoopedImages else torch.randn(16, width)
    for name, ratio, error in beside_draws(kind(uses, width), batch, scheme="he"):
        assert abs(ratio - 1.0) < 4.0 * error + uses / width, name


def test_the_same_stream_with_a_map_of_its_own_in_each_step_is_shorter():
    """The check above can tell: without what the uses have in common the stream is a third too short."""

    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = nn.ModuleList([Looped(1, WIDTH) for _ in range(USES)])

        def forward(self, x):
            for f in self.maps:
                x = f(x)
            return x

    torch.manual_seed(0)
    batch = torch.randn(16, WIDTH)
    one = firstlight.predict(Looped(USES, WIDTH), batch, "he").nodes[-1].output.q
    many = firstlight.predict(Apart(), batch, "he").nodes[-1].output.q
    assert many < 0.67 * one


@pytest.mark.parametrize("how", ["sdpa", "manual"])
def test_a_transformer_of_one_block(how):
    """All of it, queries and keys among it: their gradients go like the square of what positions differ by."""
    torch.manual_seed(0)
    model = LoopedGPT(USES, 64)
    model.attention = Attention(64, how=how)
    found = [r for r in beside_draws(model, torch.randint(50, (8, 12))) if "mask" not in r[0]]
    assert len(found) > 100
    for name, ratio, error in found:
        assert abs(ratio - 1.0) < 4.0 * error + USES / 64, name


def common_of_two(f, draws=150):
    """(predicted, drawn, standard error) of E (f(x) + f(y))² and of its mean over places; those of y go apart."""
    torch.manual_seed(0)
    z = torch.randn(8, 8, 64)
    batch = (z + 0.7 * torch.randn(8, 1, 64), z + 0.5 * torch.randn(8, 8, 64))

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = f

        def forward(self, x, y):
            total = self.f(x) + self.f(y)
            return total, total.mean(1)

    predicted = firstlight.predict(Both(), batch, "xavier").nodes[-2:]
    drawn = firstlight.measure(Both(), batch, draws=draws, scheme="xavier").nodes[-2:]
    for mine, other in zip(predicted, drawn, strict=True):
        assert other.log_q is not None
        q = np.exp(other.log_q.values)
        yield mine.output.q, q.mean(), q.std(ddof=1) / draws**0.5


class Normed(nn.Module):
    """A norm of a linear map."""

    def __init__(self, norm):
        super().__init__()
        self.map, self.norm = nn.Linear(64, 64, bias=False), norm

    def forward(self, x):
        x = self.map(x)
        return self.norm(x.transpose(1, 2)).transpose(1, 2) if isinstance(self.norm, nn.BatchNorm1d) else self.norm(x)


@pytest.mark.parametrize(
    "f", [Normed(nn.LayerNorm(64)), Normed(nn.BatchNorm1d(64)), Attention(64), Attention(64, causal=False)]
)
def test_what_two_have_in_common_at_one_place_and_at_two(f):
    """x has what all its places have in common, y has not; a norm over places takes what both have in common."""
    for mine, drawn, error in common_of_two(f):
        assert abs(mine - drawn) < 4.0 * error + 2.0 / 64 * drawn  # the wide network, up to 1/width


def test_two_views_through_one_encoder():
    torch.manual_seed(0)
    x = torch.randn(16, WIDTH)
    batch = (x, x + 0.5 * torch.randn(16, WIDTH))
    ratios = {name: (ratio, error) for name, ratio, error in beside_draws(Siamese(2, WIDTH), batch) if ":su" in name}
    assert set(ratios) == {":sum", ":sub"}  # the cosine, and a - b
    for ratio, error in ratios.values():
        assert abs(ratio - 1.0) < 4.0 * error + 2.0 / WIDTH**0.5  # a cosine of WIDTH units scatters by 1/√WIDTH


def test_two_unlike_inputs_have_in_common_what_two_samples_have():
    torch.manual_seed(0)
    x, y = torch.randn(64, WIDTH), torch.randn(64, WIDTH)
    node = firstlight.predict(Siamese(2, WIDTH), (x, y), "he")
    one = next(n for n in node.nodes if n.name == "encoder.4:linear").output
    difference = next(n for n in node.nodes if n.op == "sub").output
    assert one.c_batch is not None
    assert difference.q == pytest.approx(2.0 * one.q * (1.0 - one.c_batch), rel=0.05)


def test_one_input_twice_is_one_output():
    torch.manual_seed(0)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = Looped(1, WIDTH)

        def forward(self, x):
            return self.f(x) - self.f(x)

    assert firstlight.predict(Twice(), torch.randn(8, WIDTH), "he").nodes[-1].output.q < 1e-12


def test_dropout_between_leaves_what_two_passes_have_in_common():
    """E (d(h) - d'(h))² = 2·E h²·p/(1 - p) of two masks d, d' of one tensor h."""
    torch.manual_seed(0)

    class Passes(nn.Module):
        def __init__(self, p):
            super().__init__()
            self.f, self.p = nn.Linear(WIDTH, WIDTH), p

        def forward(self, x):
            return F.dropout(self.f(x), self.p) - F.dropout(self.f(x), self.p)

    p = 0.25
    found = firstlight.predict(Passes(p).train(), torch.randn(8, WIDTH), "he")
    h = next(n for n in found.nodes if n.op == "linear").output.q
    assert found.nodes[-1].output.q == pytest.approx(2.0 * h * p / (1.0 - p), rel=1e-9)


def test_a_dense_layer_in_one_step_is_what_its_rule_gives(monkeypatch):
    from firstlight.rules.state import twins

    torch.manual_seed(0)
    model, batch = Looped(3, 16), torch.randn(8, 16)
    short = [n.output.q for n in firstlight.predict(model, batch, "he").nodes]
    monkeypatch.setattr(twins.Twins, "_dense", lambda *_: None)
    assert [n.output.q for n in firstlight.predict(model, batch, "he").nodes] == pytest.approx(short, rel=1e-9)


def test_many_uses_of_a_narrow_weight_carry_a_caveat():
    torch.manual_seed(0)
    batch = torch.randn(8, 16)
    for uses, said in ((8, True), (1, False)):
        found = firstlight.predict(Looped(uses, 16), batch, "he")
        assert any("uses²/width" in c for n in found.nodes for c in n.caveats) is said


def test_deep_encoders_and_long_loops_are_followed_to_their_beginning():
    """Two views meet for the first time behind the last of 400 layers; a cell written out has 100 steps."""
    import sys

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.before = nn.Linear(4, 16), nn.Linear(16, 16)

        def forward(self, x):
            h = torch.zeros(len(x), 16)
            for t in range(x.shape[1]):
                h = torch.tanh(self.inside(x[:, t]) + self.before(h))
            return h

    torch.manual_seed(0)
    limit, x = sys.getrecursionlimit(), torch.randn(8, 16)
    views = firstlight.predict(Siamese(200, 16), (x, x + 0.1 * torch.randn(8, 16)), "he")
    last = next(n for n in reversed(views.nodes) if n.op == "linear").output
    difference = next(n for n in views.nodes if n.op == "sub").output
    assert difference.q < 0.1 * last.q  # views of one sample become one, as all samples do
    found = firstlight.predict(Cell(), torch.randn(8, 100, 4), "xavier")
    assert np.isfinite(found.nodes[-1].output.q)
    assert sys.getrecursionlimit() == limit


def test_one_sample_and_none():
    class Part(nn.Module):
        def __init__(self, samples):
            super().__init__()
            self.f, self.samples = Looped(3, 16), samples

        def forward(self, x):
            return self.f(x[: self.samples])

    for samples in (0, 1):
        found = firstlight.predict(Part(samples), torch.randn(4, 16), "he")
        assert all(np.isfinite(n.output.q) for n in found.nodes)


def test_tensors_of_one_entry_and_sequences_of_one_token():
    one = torch.randn(1, 1)
    for model, batch in (
        (Looped(3, 1), one), (LoopedRelu(3, 1), one), (Siamese(2, 1), (one, one + 1.0)),
        (LoopedImages(3, 1), torch.randn(1, 3, 1, 1)), (LoopedGPT(2, 4), torch.zeros(1, 1, dtype=torch.long)),
    ):  # fmt: skip
        nodes = firstlight.predict(model, batch, "he").nodes
        assert all(np.isfinite(n.output.q) for n in nodes)
        assert not [c for n in nodes for c in n.caveats if "failed" in c]


def test_copies_of_a_layer_are_other_weights():
    """A deep copy has entries of its own as soon as weights are drawn."""

    class Copied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(WIDTH, WIDTH)
            self.other = copy.deepcopy(self.one)

        def forward(self, x):
            return self.one(x) - self.other(x)

    torch.manual_seed(0)
    found = firstlight.predict(Copied(), torch.randn(8, WIDTH), "he")
    one = next(n for n in found.nodes if n.op == "linear").output.q
    assert found.nodes[-1].output.q == pytest.approx(2.0 * one, rel=1e-9)
