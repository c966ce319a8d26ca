"""Gradients behind a maximum over positions, against drawn networks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight


class Words(nn.Module):
    """A text CNN as people write it: ReLU, an axis less, the largest over time."""

    def __init__(self, pooled):
        super().__init__()
        self.words, self.conv, self.out = nn.Embedding(200, 32), nn.Conv2d(1, 48, (3, 32)), nn.Linear(48, 48)
        self.pooled = pooled

    def forward(self, ids):
        h = torch.relu(self.conv(self.words(ids)[:, None])).squeeze(3)
        return self.out(F.max_pool1d(h, h.shape[2]).squeeze(2) if self.pooled else h.max(dim=2)[0])


class Sets(nn.Module):
    """Permutation-equivariant layers G(x) - L(max x): the sum over a set of what a maximum sends back to one member."""

    def __init__(self):
        super().__init__()
        self.own = nn.ModuleList(nn.Linear(32, 32) for _ in range(2))
        self.all = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(2))
        self.first = nn.Linear(32, 32)

    def forward(self, x):
        x = self.first(x)
        for own, everyone in zip(self.own, self.all, strict=True):
            x = torch.tanh(own(x) - everyone(x.max(1, keepdim=True)[0]))
        return x.mean(1)


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (Words(pooled=True), torch.randint(200, (16, 24), generator=torch.Generator().manual_seed(0))),
        (Words(pooled=False), torch.randint(200, (16, 24), generator=torch.Generator().manual_seed(0))),
        (Sets(), torch.randn(16, 20, 32, generator=torch.Generator().manual_seed(0))),
    ],
)
def test_what_was_chosen_is_open_and_one_of_its_group(model, batch):
    """The chosen entry was behind an open ReLU (gradients came out half), and alone (sums over a set 20 times)."""
    draws = 60
    torch.manual_seed(0)
    found = firstlight.predict(model, batch, "xavier")
    for n in firstlight.compare(found, firstlight.measure(model, batch, draws=draws, scheme="xavier")).nodes:
        if n.grad_q_predicted is not None:
            near = abs(n.grad_q_predicted / n.grad_q_measured - 1.0) <= 0.1
            assert near or abs(n.grad_q_z) <= 4.0, (n.node, n.grad_q_predicted, n.grad_q_measured, n.grad_q_z)
