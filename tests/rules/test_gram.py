"""Products of a tensor with itself or its twin, against draws of the network."""

import numpy as np
import pytest
import torch
from torch import nn

import firstlight

DRAWS, SD = 300, 0.25


class Products(nn.Module):
    """What a kind of product gives of a drawn layer's output."""

    def __init__(self, product, relu):
        super().__init__()
        self.layer = nn.Linear(32, 48, bias=False)
        self.product, self.relu = product, relu

    def forward(self, *views):
        made = [self.layer(x).relu() if self.relu else self.layer(x) for x in views]
        return self.product(made[0], made[-1])


def rows(x, y):
    return x @ y.transpose(-1, -2)


def features(x, y):
    return torch.einsum("nc,nd->cd", x, y)


def off_diagonal(x, y):
    c = x.t() @ y
    n = len(c)
    return c.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()


def below(x, y):
    g = rows(x, y)
    i, j = torch.tril_indices(len(g), len(g), -1)
    return g[i, j]


def unmasked(x, y):
    g = rows(x, y)
    return g[~torch.eye(len(g), dtype=torch.bool)]


def diagonal(x, y):
    return torch.diagonal(rows(x, y), dim1=-2, dim2=-1)


def attended(x, y):
    return torch.softmax(rows(x, y) / 48**0.5, -1) @ x


def drawn(product, relu, views):
    """Mean squares and means over draws, with their standard errors."""
    found = []
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        model = Products(product, relu)
        nn.init.normal_(model.layer.weight, std=SD)
        with torch.no_grad():
            y = model(*views).double()
        found.append((float(y.square().mean()), float(y.mean())))
    found = np.array(found)
    return found.mean(0), found.std(0, ddof=1) / DRAWS**0.5


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(0)
    return torch.randn(24, 32)


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("product", [rows, features, off_diagonal, below, unmasked, diagonal])
def test_against_draws(product, relu, batch):
    predicted = firstlight.predict(Products(product, relu), batch, f"normal({SD})").nodes[-1].output
    # what given samples have in common behind a rectifier is followed to first order in c², 1/32 on average
    beyond = 1.0 / 32.0 if product is features and relu else 0.0
    (q, mean), (q_error, mean_error) = drawn(product, relu, (batch,))
    assert predicted.q == pytest.approx(q, abs=4.0 * q_error + beyond * q)
    assert predicted.mean == pytest.approx(mean, abs=4.0 * mean_error)


@pytest.mark.parametrize("product", [features, diagonal])
def test_two_views_through_one_layer(product, batch):
    torch.manual_seed(1)
    views = (batch, batch + 0.3 * torch.randn_like(batch))
    predicted = firstlight.predict(Products(product, True), views, f"normal({SD})").nodes[-1].output
    beyond = 1.0 / 32.0 if product is features else 0.0
    (q, mean), (q_error, mean_error) = drawn(product, True, views)
    assert predicted.q == pytest.approx(q, abs=4.0 * q_error + beyond * q)
    assert predicted.mean == pytest.approx(mean, abs=4.0 * mean_error)


def test_independent_layers_have_no_diagonal(batch):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(32, 48, bias=False), nn.Linear(32, 48, bias=False)

        def forward(self, x):
            return self.one(x) @ self.two(x).t()

    predicted = firstlight.predict(Two(), batch, f"normal({SD})")
    assert predicted[":matmul"].output.mean == 0.0


@pytest.mark.parametrize("shape", [(1, 32), (3, 1, 32), (2, 2, 4, 32)])
def test_odd_shapes(shape):
    x = torch.randn(*shape)
    predicted = firstlight.predict(Products(rows, True), x, f"normal({SD})").nodes[-1].output
    assert np.isfinite(predicted.q)
    assert predicted.q >= predicted.mean**2 * (1.0 - 1e-9)


def test_no_words_about_what_is_followed(batch):
    predicted = firstlight.predict(Products(rows, False), batch, f"normal({SD})")
    assert not any("dependence" in c for c in predicted[":matmul"].caveats)
