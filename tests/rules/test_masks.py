"""What hides entries from a softmax is no signal: minus infinity, the lowest number, -1e9 or -1e4, in any spelling."""

import math

import pytest
import torch
from torch import nn

import firstlight

LOWEST = torch.finfo(torch.float32).min


class Causal(nn.Module):
    """One head of causal attention, with its mask as a buffer."""

    def __init__(self, how, fill, width=32, length=16):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.how, self.fill, self.head = how, fill, nn.Linear(width, 5)
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        self.register_buffer("hidden", hidden)
        self.register_buffer("seen", (~hidden).float())
        self.register_buffer("bias", torch.zeros(length, length).masked_fill(hidden, fill))

    def forward(self, x):
        s = self.q(x) @ self.k(x).transpose(1, 2) / x.shape[-1] ** 0.5
        s = {
            "masked_fill": lambda: s.masked_fill(self.hidden, self.fill),
            "equals zero": lambda: s.masked_fill(self.seen == 0, self.fill),
            "where": lambda: torch.where(self.hidden, torch.tensor(self.fill), s),
            "where not": lambda: torch.where(~self.hidden, s, self.fill),
            "add": lambda: s + self.bias,
        }[self.how]()
        return self.head(x + self.o(s.softmax(-1) @ self.v(x)))


@pytest.mark.parametrize("fill", [-math.inf, LOWEST, -1e9, -1e4])
@pytest.mark.parametrize("how", ["masked_fill", "equals zero", "where", "where not", "add"])
def test_a_mask_is_no_signal(how, fill):
    torch.manual_seed(0)
    model, x = Causal(how, fill), torch.randn(8, 16, 32)
    found = firstlight.predict(model, x)
    assert found.p_start > 0.95, found.start
    measured = {n.name: n.output.q for n in firstlight.measure(model, x, draws=1).nodes}
    softmax = next(i for i, n in enumerate(found.nodes) if n.op == "softmax")
    hides, weights = found.nodes[softmax - 1], found.nodes[softmax]
    # one network: 128 rows of at most 16 weights; the sampling error of their mean square is below a twentieth
    assert weights.output.q == pytest.approx(measured[weights.name], rel=0.05)
    assert hides.output.q == pytest.approx(measured[hides.name], rel=0.1)
    assert not firstlight.diagnose(model, x, theory=True).findings


def test_a_mask_of_which_only_the_shape_is_known_is_no_signal_either():
    class Padded(Causal):
        def forward(self, x, hidden):
            s = self.q(x) @ self.k(x).transpose(1, 2) / x.shape[-1] ** 0.5
            return self.head(x + self.o(s.masked_fill(hidden, self.fill).softmax(-1) @ self.v(x)))

    x, hidden = torch.randn(8, 16, 32), torch.empty(8, 1, 16, dtype=torch.bool, device="meta")
    for fill in (-math.inf, -1e9):
        found = firstlight.predict(Padded("", fill), (x, hidden), "lecun")
        assert found.p_start > 0.95, found.start


def test_a_table_of_positions_in_a_buffer_counts_entry_by_entry():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            angle = torch.arange(32)[:, None] * 0.5 ** torch.arange(8)[None, :]
            self.register_buffer("table", torch.cat([angle.sin(), angle.cos()], 1))
            self.map = nn.Linear(16, 64, bias=False)

        def forward(self, x):
            return self.map(3.0 * x + self.table)

    model, x = Positions(), torch.randn(64, 32, 16)
    predicted = next(n for n in firstlight.predict(model, x, "lecun").nodes if n.op == "linear").output
    drawn = []
    for seed in range(64):
        firstlight.initialize(model, "lecun", seed=seed)
        drawn.append(next(n for n in firstlight.measure(model, x).nodes if n.op == "linear").output.cosine)
    found = torch.tensor(drawn)
    assert predicted.c_batch is not None
    assert abs(predicted.c_batch - float(found.mean())) < 4.0 * float(found.std()) / 8.0
    assert predicted.c_batch > 0.02  # what two samples have in common is the table


def test_a_parameter_that_is_not_finite_is_still_refused():
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight[0, 0] = math.inf
    with pytest.raises(firstlight.errors.InputError, match="NaN or infinite"):
        firstlight.predict(model, torch.randn(2, 4))
