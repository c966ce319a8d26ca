"""Models of visitors that raise, draw random numbers, hold NaN, have nothing to train, or come in half precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from playground_tools import Direct
from torch import nn

from firstlight.errors import InputError, ModelError
from firstlight.playground import views
from firstlight.playground.config import parse
from firstlight.playground.own import own_model
from firstlight.playground.run import Run


def run_of(model: nn.Module, batch: torch.Tensor | None = None, **settings) -> Run:
    batch = torch.randn(5, 3) if batch is None else batch
    return Run(parse({"data": "own", "scheme": "given", **settings}), own=own_model(model, batch))


@pytest.mark.parametrize("error", [ValueError("enough"), ModelError("layer", got="enough", expected="less")], ids=repr)
def test_what_goes_on_raising_stops_the_training_and_is_told_once(error):
    class Sulking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.sulks = False

        def forward(self, x):
            if self.sulks:
                raise error
            return self.layer(x)

    with Direct(own_model(Sulking(), torch.randn(4, 2))) as page:
        page.until("report")
        page.send("play")
        page.until("frame", where=lambda m: m["step"] > 3)
        page.session._runs[0].model.sulks = True
        assert "enough" in page.until("error")[0]["text"]
        assert page.until("state")[0]["playing"] is False  # the page's button follows it
        page.send("ping", sent=1.0)
        page.until("pong")
        with pytest.raises(TimeoutError):
            page.until("error", seconds=0.5)


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (nn.ReLU(), "without trainable parameters"),
        (nn.Linear(3, 2).requires_grad_(False), "without trainable parameters"),
        (nn.Linear(3, 2, device="meta"), "on meta"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_here_is_refused_before_the_page_opens(model, got):
    with pytest.raises(InputError, match=got):
        own_model(model, torch.randn(4, 3))


def test_a_loss_that_reaches_no_parameter_is_refused():
    with pytest.raises(InputError, match="no trainable parameter reaches"):
        own_model(nn.Linear(3, 2), torch.randn(4, 3), lambda y: y.detach().mean())


class Luck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(3, 32), nn.Dropout(), nn.Linear(32, 3)

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.first(x))))


def test_a_model_that_draws_in_every_pass_repeats_itself_looked_at_or_not():
    torch.manual_seed(0)  # one batch of forty lets the cost leave the range of numbers, which ends the run
    own = own_model(Luck(), torch.randn(4, 3))
    first, again, other = (Run(parse({"data": "own", "scheme": "he", "seed": s}), own=own) for s in (3, 3, 4))
    before = torch.get_rng_state()
    for _ in range(11):
        for run in (first, again, other):
            run.advance()
        views.layers(again, set(views.PANELS))
    assert first.history.train == again.history.train != other.history.train
    assert torch.equal(before, torch.get_rng_state())
    told: dict[int, float] = {}
    names = {"model": Luck(), "args": own.args, "kwargs": own.kwargs, "loss": own.loss, "print": told.__setitem__}
    exec(first.exported().replace("range(1000)", "range(11)"), names)
    assert told == {0: first.history.train[0], 10: first.history.train[10]}


def test_lazy_layers_take_their_shapes_from_the_batch():
    assert run_of(nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(2))).advance()


def test_half_precision_is_shown_like_any_other():
    run = run_of(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).bfloat16(), torch.randn(5, 3).bfloat16())
    run.advance()
    arrays = views.layers(run, set(views.PANELS))[1]
    assert arrays["weights"].dtype == np.float32
    assert np.isfinite(arrays["forward"]).all()


def test_nan_weights_blame_the_start_not_the_rate():
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    run = run_of(model)
    assert not run.advance()
    status = views.layers(run, set())[0]["status"]
    assert (status["word"], status["fix"]) == ("non-finite", {"scheme": "auto"})


def test_pictures_of_many_draws_need_something_to_draw():
    with Direct(own_model(Luck(), torch.randn(4, 3))) as page:
        for kind in ("walks", "strip"):
            page.send(kind, run=0)
            assert "as they came" in page.until("error")[0]["text"]
        page.send("configure", runs=[{"scheme": "he"}])
        page.send("walks", run=0, draws=4)
        assert page.until("walks", where=lambda m: m["end"])[0]["draws"] == 4


def test_weights_are_as_given_only_in_the_model_that_was_given():
    with Direct(own_model(Luck(), torch.randn(4, 3))) as page:
        page.until("open")
        page.send("configure", runs=[{"data": "moon", "scheme": "given"}, {"scheme": "given"}])
        state, _ = page.until("state", where=lambda m: m["runs"][0]["config"]["data"] == "moon")
        assert [r["config"]["scheme"] for r in state["runs"]] == ["torch-default"] * 2
