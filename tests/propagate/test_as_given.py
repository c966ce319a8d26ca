"""The same network in another wrapper or number format is predicted, diagnosed and drawn as the plain one."""

import copy

import pytest
import torch
from torch import nn

import firstlight


class Around(nn.Module):
    """A module that holds another one, as frameworks do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


def network():
    torch.manual_seed(0)
    layers = [m for _ in range(12) for m in (nn.Linear(32, 32), nn.Tanh())]
    return nn.Sequential(*layers, nn.LayerNorm(32), nn.Linear(32, 10))


X = torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
FORMS = {
    "compiled": lambda m: torch.compile(m, backend="eager"),
    "around": Around,
    "a compiled part": lambda m: Around(torch.compile(m, backend="eager")),
    "data parallel": nn.DataParallel,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scheme", [None, "xavier"])
def test_wrapped(form, scheme):
    plain, wrapped = firstlight.predict(network(), X, scheme), firstlight.predict(FORMS[form](network()), X, scheme)
    assert wrapped.p_start == plain.p_start
    assert [n.op for n in wrapped.nodes] == [n.op for n in plain.nodes]
    for a, b in zip(wrapped.nodes, plain.nodes, strict=True):
        assert a.output == b.output
        assert a.grad == b.grad


@pytest.mark.parametrize("form", FORMS)
def test_a_wrapped_network_is_diagnosed_and_drawn_alike(form):
    plain, wrapped = network(), FORMS[form](network())
    one, other = firstlight.diagnose(plain, X), firstlight.diagnose(wrapped, X)
    assert (other.verdict, other.p_start) == (one.verdict, one.p_start)
    assert [f.code for f in other.findings] == [f.code for f in one.findings]
    if form in ("compiled", "a compiled part"):  # numbers hang on parameters' names, not on the compiler's wrapper
        inside = plain if form == "compiled" else Around(plain)
        done, again = (firstlight.initialize(m, "random-walk", batch=X) for m in (inside, wrapped))
        for a, b in zip(inside.parameters(), wrapped.parameters(), strict=True):
            assert torch.equal(a, b)
        assert [r.gain for r in done.table.rows] == [r.gain for r in again.table.rows]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_in_another_number_format(dtype):
    plain = firstlight.predict(network(), X, "he")
    found = firstlight.predict(copy.deepcopy(network()).to(dtype), X.to(dtype), "he")
    for a, b in zip(found.nodes, plain.nodes, strict=True):
        assert a.output.q == pytest.approx(b.output.q, rel=0.02)  # of the input, whose entries are rounded
        assert a.grad is None or a.grad.q == pytest.approx(b.grad.q, rel=0.02)


class Tokens(nn.Module):
    """Token ids that are laid out anew, with positions, through one layer."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(100, 32), nn.Embedding(12, 32)
        self.layer, self.head = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), nn.Linear(32, 100)

    def forward(self, ids):
        ids = ids.view(-1, ids.shape[-1])
        return self.head(self.layer(self.words(ids) + self.places(torch.arange(ids.shape[1])[None])))


def test_one_sample_is_enough():
    ids = torch.randint(100, (4, 12), generator=torch.Generator().manual_seed(0))
    model = Tokens()
    assert firstlight.predict(model, ids[:1], "he").p_start == pytest.approx(
        firstlight.predict(model, ids, "he").p_start, abs=0.02
    )
