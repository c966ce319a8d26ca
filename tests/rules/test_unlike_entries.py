"""Norms of tensors whose entries have known means: tables of positions beside drawn embeddings."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight

WIDTH, LENGTH, DRAWS = 32, 12, 200


def sines():
    """The usual table: a sine or cosine for each unit, whose rows have means of their own."""
    angles = torch.arange(LENGTH)[:, None] / 10_000 ** (torch.arange(WIDTH // 2)[None] * 2 / WIDTH)
    return torch.cat([angles.sin(), angles.cos()], -1)


class Embedded(nn.Module):
    """Token embeddings of some size, a table, a norm and a layer."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.tokens, self.layer = nn.Embedding(60, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.register_buffer("table", sines())

    def forward(self, ids):
        return self.layer(self.norm(self.size * self.tokens(ids) + self.table))


@pytest.mark.parametrize("size", [0.1, 0.7, 3.0])
def test_lengths_and_gradients(size):
    torch.manual_seed(0)
    ids = torch.randint(60, (8, LENGTH))
    predicted = firstlight.predict(Embedded(size), ids, "torch-default")
    forward, back = [], []
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        model = Embedded(size)
        nn.init.uniform_(model.layer.weight, -(WIDTH**-0.5), WIDTH**-0.5)
        drawn = firstlight.measure(model, ids)
        forward.append(drawn["layer:linear"].output.q)
        back.append(drawn[":add"].grad.q)
    assert predicted["norm:layer_norm"].output.q == pytest.approx(1.0, rel=1e-3)
    for found, q in ((forward, predicted["layer:linear"].output.q), (back, predicted[":add"].grad.q)):
        error = np.std(found, ddof=1) / DRAWS**0.5
        # how g goes along with x̂, and with the mean, is left out: 1/n each of a group of n entries (a caveat says so)
        left = 2.0 / WIDTH if found is back else 0.0
        assert q == pytest.approx(np.mean(found), abs=4.0 * error + left * q)


def test_without_a_table_nothing_changes():
    """Means that are one number are centred as before: E (x - x̄)² is q less what the group has in common."""
    torch.manual_seed(1)
    predicted = firstlight.predict(
        nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.LayerNorm(WIDTH)), torch.randn(8, WIDTH)
    )
    assert predicted.nodes[-1].output.q == pytest.approx(1.0, rel=1e-3)
