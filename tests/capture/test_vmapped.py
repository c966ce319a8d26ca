"""Networks that run under torch.vmap: ensembles over stacked weights, and functions of one sample."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import firstlight
from firstlight.capture.mapped import MOST, written_out
from firstlight.errors import ModelError


class Ensemble(nn.Module):
    """Networks at once by torch.func: functional_call under vmap over stacked weights."""

    def __init__(self, members: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        nets = [nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)) for _ in range(members)]
        stacked, _ = torch.func.stack_module_state(nets)
        self.names = list(stacked)
        self.weights = nn.ParameterList(nn.Parameter(stacked[n].detach()) for n in self.names)
        self.__dict__["skeleton"] = nets[0].to("meta")

    def forward(self, x: Tensor) -> Tensor:
        def one(weights: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(self.skeleton, weights, (x,))

        return torch.func.vmap(one, in_dims=(0, None))(dict(zip(self.names, self.weights, strict=True)), x).mean(0)


X = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))


def test_every_verb() -> None:
    model = Ensemble()
    expected = model(X)
    frame = firstlight.measure(model, X).to_frame()
    assert frame["q"].iloc[-1] == pytest.approx(float(expected.detach().square().mean()), rel=1e-5)
    assert (frame["op"] == "linear").sum() == 6
    plain = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    alone = firstlight.predict(plain, X, "he").to_frame().set_index("name")["q"]
    q = firstlight.predict(model, X, "he").to_frame().set_index("name")["q"]
    assert q[":linear"] == pytest.approx(alone["0:linear"], rel=1e-6)
    assert q[":linear#1"] == pytest.approx(alone["2:linear"], rel=1e-6)
    assert firstlight.diagnose(model, X).verdict == "starts"
    before = [w.clone() for w in model.weights]
    done = firstlight.initialize(model, "he", batch=X)
    firstlight.initialize(plain, "he", batch=X)
    for w, alone in ((model.weights[0], plain[0].weight), (model.weights[2], plain[2].weight)):
        spread = 4 * (2 / alone.numel()) ** 0.5  # of a variance from so many entries
        assert float(w.detach().var()) == pytest.approx(float(alone.detach().var()), rel=spread)
    done.undo()
    assert all(torch.equal(a, b) for a, b in zip(model.weights, before, strict=True))


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (lambda a, b: a * b, {"in_dims": (0, None)}),
        (lambda a, b: {"x": a + b, "y": (a, b.sum())}, {"in_dims": (1, 0), "out_dims": {"x": 1, "y": (-1, 0)}}),
        (lambda a, b: a @ b, {"in_dims": (0, -1), "out_dims": -1, "chunk_size": 2}),
        (lambda a, b: a + b, {"out_dims": (1,)}),
        (lambda a, b: (a + b, 3), {"out_dims": (0, None)}),
        (lambda a, b: torch.func.vmap(torch.sin)(a.new_zeros(0, 3)) + b.sum(), {}),
        (lambda a, b: torch.func.vmap(torch.dot, (None, 0))(a, b.expand(3, -1)), {}),
    ],
)
def test_the_loop_is_what_vmap_is(function, options) -> None:
    a, b = torch.randn(4, 4), torch.randn(4, 4)
    expected = torch.func.vmap(function, **options)(a, b if options.get("in_dims") != (0, None) else b[0])
    with written_out():
        given = torch.func.vmap(function, **options)(a, b if options.get("in_dims") != (0, None) else b[0])
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("same", [True, False])
def test_random_numbers_are_the_same_or_differ(same: bool) -> None:
    with written_out():
        y = torch.func.vmap(lambda x: x + torch.randn(3), randomness="same" if same else "different")(torch.zeros(2, 3))
    assert bool(torch.equal(y[0], y[1])) is same


def test_masks_of_integers_stay_as_they_are() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(100, 100)

        def forward(self, x: Tensor) -> Tensor:
            i = torch.arange(100)
            mask = torch.func.vmap(lambda q: torch.func.vmap(lambda k: k <= q)(i))(i)
            return self.layer(x) @ mask.to(x.dtype)

    x = torch.randn(4, 100)
    assert "stack" not in set(firstlight.measure(Masked(), x).to_frame()["op"])
    assert firstlight.predict(Masked(), x).p_start > 0.9


def test_too_many_turns_are_refused() -> None:
    class Each(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return torch.func.vmap(self.layer)(x)

    model = Each()
    assert firstlight.measure(model, X).to_frame()["q"].iloc[-1] > 0
    for verb in (firstlight.measure, firstlight.predict):
        with pytest.raises(ModelError, match=f"mapped over {MOST + 1} entries.*Give a smaller batch"):
            verb(model, torch.randn(MOST + 1, 16))
    assert model(torch.randn(MOST + 1, 16)).shape == (MOST + 1, 16)  # vmap itself is back


@pytest.mark.parametrize("inside", [True, False])
def test_weights_that_integers_look_up_inside_are_refused_in_words(inside: bool) -> None:
    class Looked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(20, 8), nn.Linear(8, 8)

        def forward(self, ids: Tensor) -> Tensor:
            if inside:
                return torch.func.vmap(lambda i: self.layer(self.table(i)))(ids)
            return torch.func.vmap(self.layer)(self.table(ids))

    ids = torch.randint(20, (4, 5))
    for verb in (firstlight.measure, firstlight.predict):
        if inside:
            with pytest.raises(ModelError, match="Look up the weights before vmap"):
                verb(Looked(), ids)
        else:
            assert verb(Looked(), ids).to_frame()["q"].iloc[-1] > 0
