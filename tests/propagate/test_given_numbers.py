"""Numbers that a network is given, entry by entry: masks of zeros and ones, short lists of scalars."""

import pytest
import torch
from torch import nn

import firstlight

NODES = 40


class Attending(nn.Module):
    """Attention of nodes to their neighbours, as it is written for a dense adjacency matrix."""

    def __init__(self):
        super().__init__()
        self.values = nn.Linear(16, 16, bias=False)
        self.scores = nn.Linear(16, NODES, bias=False)

    def forward(self, x, adjacency):
        scores = self.scores(x).masked_fill(adjacency == 0, -9e15)
        return scores.softmax(-1) @ self.values(x)


class Mixing(nn.Module):
    """A stream beside its start, each times an entry of a list."""

    def __init__(self, entries):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(entries))
        self.layer = nn.Linear(64, 64)

    def forward(self, x):
        y = self.layer(x)
        first, second = self.weights[0], self.weights[1]
        return self.layer(first * x + second * y)


@pytest.fixture
def adjacency():
    torch.manual_seed(0)
    return (torch.rand(NODES, NODES) < 0.1) | torch.eye(NODES, dtype=torch.bool)


def test_a_mask_of_floats_is_the_mask_of_booleans(adjacency):
    torch.manual_seed(1)
    model, x = Attending(), torch.randn(NODES, 16)
    floats = firstlight.predict(model, (x, adjacency.float()))
    booleans = firstlight.predict(model, (x, adjacency))
    for name in (":masked_fill", ":softmax", ":matmul", "values:linear", "scores:linear"):
        assert floats[name].output.q == pytest.approx(booleans[name].output.q), name
        assert floats[name].grad.q == pytest.approx(booleans[name].grad.q), name


def test_masked_attention_against_draws(adjacency):
    torch.manual_seed(2)
    x, draws = torch.randn(NODES, 16), 64
    predicted = firstlight.predict(Attending(), (x, adjacency.float()), "normal(0.25)")
    drawn = []
    for _ in range(draws):
        model = Attending()
        for p in model.parameters():
            nn.init.normal_(p, std=0.25)
        with torch.no_grad():
            drawn.append(float(model(x, adjacency.float()).square().mean()))
    drawn = torch.tensor(drawn)
    error = float(drawn.std()) / draws**0.5
    assert predicted.nodes[-1].output.q == pytest.approx(float(drawn.mean()), abs=4.0 * error)


def test_zeros_and_ones_that_meet_weights_are_a_signal():
    class Conditioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.time = nn.Linear(64, 64), nn.Linear(1, 64)

        def forward(self, pixels, time):
            return self.layer(pixels.flatten(1)) + self.time(time)

    torch.manual_seed(5)
    pixels, time = (torch.rand(32, 1, 8, 8) < 0.3).float(), torch.rand(32, 1)
    model = Conditioned()
    beside = firstlight.predict(model, (pixels, time))["layer:linear"].output
    alone = firstlight.predict(model.layer, pixels.flatten(1)).nodes[-1].output
    assert beside.q == pytest.approx(alone.q, rel=1e-6)
    assert beside.c_batch == pytest.approx(alone.c_batch, abs=1e-6)


def test_zeros_and_ones_alone_are_the_signal():
    torch.manual_seed(3)
    x = (torch.rand(32, 64) < 0.3).float()
    predicted = firstlight.predict(nn.Linear(64, 64), x)
    assert predicted.nodes[0].grad is not None


def test_a_short_list_of_half_precision():
    model = Mixing([1.0, 0.0]).to(torch.bfloat16)
    predicted = firstlight.predict(model, torch.randn(16, 64, dtype=torch.bfloat16))
    assert [n.output.q for n in predicted.nodes if n.op == "mul"][1] == 0.0


def test_entries_of_a_short_list_are_themselves():
    torch.manual_seed(4)
    x = torch.randn(16, 64)
    model = Mixing([1.0, 0.0])
    predicted = firstlight.predict(model, x)
    products = [n for n in predicted.nodes if n.op == "mul"]
    assert products[0].output.q == pytest.approx(float(x.square().mean()))
    assert products[1].output.q == 0.0
    swapped = firstlight.predict(Mixing([0.0, 1.0]), x)
    assert next(n for n in swapped.nodes if n.op == "mul").output.q == 0.0
