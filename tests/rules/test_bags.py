"""Bags of look-ups, against drawn tables."""

import pytest
import torch
from torch import nn

import firstlight
from tests.rules.drawn_parameters import drawn_gradients

DRAWS = 100


class Bags(nn.Module):
    """Bags of words, and a classifier."""

    def __init__(self, mode):
        super().__init__()
        self.bag, self.out = nn.EmbeddingBag(200, 32, mode=mode), nn.Linear(32, 32)

    def forward(self, *words):
        return self.out(self.bag(*words))


def words(*sizes):
    return torch.randint(200, sizes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize(
    "batch",
    [
        (words(16, 5),),
        (words(80), torch.arange(0, 80, 5)),
        (words(80), torch.tensor([0, 1, 4, 9, 11, 14, 20, 26, 30, 41, 43, 50, 55, 61, 70, 77])),
    ],
)
def test_bags_of_rows(mode, batch):
    torch.manual_seed(0)
    model = Bags(mode)
    found = firstlight.predict(model, batch)
    ragged = len(batch) > 1 and len(set(batch[1].diff().tolist())) > 1
    for n in firstlight.compare(found, firstlight.measure(model, batch, draws=DRAWS)).nodes:
        if n.node == "bag:embedding_bag" and not (ragged and mode == "max"):
            assert abs(n.q_z) <= 4.0 or abs(n.q_predicted / n.q_measured - 1.0) <= 0.03, (n.q_predicted, n.q_measured)
            assert abs(n.grad_q_z) <= 4.0, (n.grad_q_predicted, n.grad_q_measured)
    said = {p.name: p.grad_q for p in firstlight.predict(model, batch, "torch-default").parameters}
    real, error = drawn_gradients(lambda: Bags(mode), *batch)["bag.weight"]
    assert abs(said["bag.weight"] - real) <= 4.0 * error
    assert found.p_start > 0.9
    assert not ragged or mode != "max" or "average one" in " ".join(found["bag:embedding_bag"].caveats)
