"""Samples that read each other: told from networks whose first axis is time, and from norms of a batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from axis_cases import CLASSES, POSITIONS, SAMPLES, WIDTH, Ended, TimeFirst, each_position, each_sample, sequences
from check_cases import seeded
from torch import nn

import firstlight as fl


def found(model: nn.Module, x: torch.Tensor, loss: Callable[..., torch.Tensor], y: torch.Tensor) -> fl.Finding | None:
    report = fl.diagnose(model, x, loss, targets=y, try_remedies=False)
    return next((f for f in report.findings if f.code == "INP005"), None)


class Encoded(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, WIDTH, batch_first=batch_first)
        self.layers, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layers(x).mean(1))


class Viewed(nn.Module):
    """`view` where `transpose` was meant."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        self.mix, self.out, self.right = nn.Linear(POSITIONS, 6), nn.Linear(6 * WIDTH, CLASSES), right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(1, 2) if self.right else x.reshape(POSITIONS, -1).t()
        return self.out(self.mix(x).relu().reshape(SAMPLES, -1))


class LastOfTime(nn.Module):
    """Time first, as `nn.GRU` takes it; one answer for each of the samples along the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.out = nn.GRU(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.cells(x)[0][-1])


class OneSequence(nn.Module):
    """The tagger of PyTorch's tutorial: the first axis holds the words of one sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.cells, self.out = nn.Embedding(20, WIDTH), nn.LSTM(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.out(self.cells(self.table(words).view(len(words), 1, -1))[0].view(len(words), -1))


@pytest.mark.parametrize("make", [Ended, Encoded])
def test_a_forgotten_batch_first_is_found_and_mended(make: Callable[[bool], nn.Module]) -> None:
    seeded()
    (x, y), model = sequences(), make(False)
    f = found(model, x, each_sample, y)
    assert f is not None
    assert f.severity == "warning"
    exec(f.remedy, {"model": model})
    assert found(model, x, each_sample, y) is None


def test_the_change_is_that_of_the_outputs() -> None:
    """What is reported is what a user gets who exchanges the first sample himself."""
    seeded()
    (x, y), model = sequences(), Ended(False)
    f = found(model, x, each_sample, y)
    other = x.clone()
    other[0] = other[-1]
    with torch.no_grad():
        a, b = model(x)[1:], model(other)[1:]
    assert f is not None
    assert f.evidence["change"] == pytest.approx(float((b - a).norm() / a.norm()), rel=1e-4)


def test_a_view_over_the_samples_is_said() -> None:
    seeded()
    x, y = sequences()
    f = found(Viewed(False), x, each_sample, y)
    assert f is not None
    assert f.severity == "info"
    assert found(Viewed(True), x, each_sample, y) is None


def test_one_sentence_is_no_batch() -> None:
    seeded()
    words, tags = torch.randint(20, (9,)), torch.randint(CLASSES, (9,))
    f = found(OneSequence(), words, F.cross_entropy, tags)
    assert f is None or f.severity == "info"


def test_time_first_is_not_mistaken_for() -> None:
    seeded()
    x, y = sequences()
    assert found(LastOfTime(), x, lambda out, t: F.cross_entropy(out, t[0]), y) is None
    assert found(TimeFirst(), x, each_position, y) is None


def test_batch_statistics_are_no_mixing_and_everything_comes_back() -> None:
    seeded()
    x, y = sequences()
    model = nn.Sequential(nn.Flatten(), nn.Linear(POSITIONS * WIDTH, 16), nn.BatchNorm1d(16), nn.Dropout(0.5))
    model = nn.Sequential(*model, nn.Linear(16, CLASSES))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    random = torch.get_rng_state()
    assert found(model, x, each_sample, y) is None
    assert all(m.training for m in model.modules())
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
