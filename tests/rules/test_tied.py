"""Readouts tied to the embedding, against draws."""

import pytest
import torch
from torch import nn

import firstlight
from tests.rules.test_along import RMS, Wide, against, close

ROWS, WIDTH = 40, 24


class Tied(nn.Module):
    """A residual stream from a table to the same table, with a norm in front that is written out or not."""

    def __init__(self, norm, tied=True):
        super().__init__()
        self.table, self.branch, self.norm = nn.Embedding(ROWS, WIDTH), Wide(WIDTH), norm
        self.head = nn.Linear(WIDTH, ROWS, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids)
        return self.head(self.norm(x + 0.5 * self.branch(x)))


@pytest.mark.parametrize("norm", [RMS(), nn.LayerNorm(WIDTH)], ids=["written out", "LayerNorm"])
def test_logits_of_a_tied_readout(norm):
    """Of all logits one in ROWS is that of the own row, and WIDTH·cos² times as large."""
    torch.manual_seed(0)
    ids = torch.randint(0, ROWS, (8, 10))
    found = {
        tied: firstlight.predict(Tied(norm, tied), ids, "xavier")["head:linear"].output.q for tied in (True, False)
    }
    drawn = firstlight.measure(Tied(norm), ids, draws=64, scheme="xavier")
    q = torch.tensor(next(n for n in drawn.nodes if n.name == "head:linear").log_q.values).exp()
    error = float(q.std()) / 64**0.5
    assert (
        abs(found[True] - float(q.mean())) < 4.0 * error + float(q.mean()) / WIDTH
    )  # cos² and |e|² go together by 1/n
    assert found[False] < 0.8 * float(q.mean())


def test_gradients_inside_the_norm_before_a_tied_readout():
    """Σ g·x̂ of the readout's input is Σ g·logit."""
    torch.manual_seed(0)
    close(against(Tied(RMS()), torch.randint(0, ROWS, (8, 10)), ["norm:rsqrt", "norm:pow"], 64, "xavier"), 0.1)
