"""The user's own module on the same panels: any architecture, any batch form, left as it came."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from playground_tools import Direct
from torch import nn
from typer.testing import CliRunner

import firstlight
from firstlight.cli import app
from firstlight.errors import InputError, ModelError
from firstlight.playground.own import own_model


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, image, *, scale):
        h = torch.relu(self.norm(self.first(image))) * scale
        h = h.flatten(2).transpose(1, 2)
        h, _ = self.attend(h, h, h)
        return {"logits": self.head(h.mean(1))}


@pytest.fixture
def conv():
    torch.manual_seed(0)
    return own_model(Conv(), ((torch.randn(8, 1, 8, 8),), {"scale": torch.ones(1)}))


def test_an_own_model_trains_on_its_batch(conv):
    with Direct(conv) as page:
        hello, _ = page.until("hello")
        assert hello["own"]["title"] == "Conv"
        opening, _ = page.until("open")
        assert opening["layers"][0] == "first"
        assert opening["layers"][-1] == "head"
        page.send("step", count=30)
        _header, arrays = page.until("frame", where=lambda m: m["step"] == 30)
        assert arrays["cost"][-1] < arrays["cost"][0]
        assert len(arrays["forward"]) == len(opening["layers"])
        assert np.isfinite(arrays["forward"]).all()


def test_reset_brings_the_given_weights_back(conv):
    before = [p.detach().clone() for p in conv.model.parameters()]
    with Direct(conv) as page:
        page.until("open")
        page.send("step", count=5)
        _, first = page.until("frame", where=lambda m: m["step"] == 5)
        page.send("reset")
        page.send("step", count=5)
        page.until("open")
        _, again = page.until("frame", where=lambda m: m["step"] == 5)
    np.testing.assert_array_equal(first["cost"], again["cost"])
    assert all(torch.equal(a, b) for a, b in zip(before, conv.model.parameters(), strict=True))


def test_an_own_model_can_be_initialized_anew(conv):
    with Direct(conv) as page:
        page.until("open")
        page.send("configure", runs=[{}, {"scheme": "he"}, {"scheme": "zero"}])
        state, _ = page.until("state", where=lambda m: len(m["runs"]) == 3)
        assert [r["config"]["scheme"] for r in state["runs"]] == ["given", "he", "zero"]
        page.send("step", count=1)
        _header, arrays = page.until("frame", where=lambda m: m["run"] == 2 and m["step"] == 1)
        assert arrays["forward"][0] == -np.inf


def test_what_raises_in_the_model_is_told_and_ends_nothing():
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 12:
                raise KeyError("enough")
            return self.layer(x)

    with Direct(own_model(Moody(), torch.randn(4, 2))) as page:
        page.until("open")
        page.send("step", count=500)
        assert "enough" in page.until("error")[0]["text"]
        page.send("ping", sent=1.0)
        page.until("pong")


def test_arguments_that_cannot_be_used():
    with pytest.raises(ModelError, match="mat1 and mat2"):
        own_model(nn.Linear(3, 2), torch.randn(4, 5))
    with pytest.raises(InputError, match="scalar"):
        own_model(nn.Linear(3, 2), torch.randn(4, 3), lambda y: y)
    with pytest.raises(InputError, match="floating"):
        own_model(Whole(), torch.zeros(2, dtype=torch.long))
    with pytest.raises(InputError, match="batch"):
        firstlight.playground(nn.Linear(3, 2))


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()

    def forward(self, x):
        return x


def test_the_verb_and_the_package_share_their_name():
    with firstlight.playground(nn.Linear(3, 2), torch.randn(4, 3), browser=False) as running:
        assert "token=" in running.url
        assert running.url in running._repr_html_()
    module = importlib.import_module("firstlight.playground.config")
    assert module.RunConfig().data == "circle"
    assert callable(firstlight.playground)  # still, after the package was imported


def test_the_command_line_refuses_what_it_cannot_open():
    done = CliRunner().invoke(app, ["playground", "--input", "3,3", "--no-browser"])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["playground", "no_such_module:f", "--input", "3,3", "--no-browser"])
    assert done.exit_code == 2
