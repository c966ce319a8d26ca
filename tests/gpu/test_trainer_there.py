"""The lab's trainer, whose passes are CUDA graphs there, trains the same networks as on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_other_device import DEVICE
from test_other_device import pytestmark as pytestmark

from firstlight.lab.draws import Member
from firstlight.lab.models import StackConfig
from firstlight.lab.schedules import Schedule
from firstlight.lab.trainer import Training, train

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 1)
CONFIG = StackConfig(6, 3, 4, 12, scheme="he", activation="tanh")
MEMBERS = [Member(seed, rate=0.05 * (1 + seed)) for seed in range(3)]
WAYS = {
    "batches": Training(steps=25, batch=20, schedule=Schedule(0.1)),
    "whole, momentum": Training(steps=25, batch=None, momentum=0.8, schedule=Schedule(0.1, "cosine", warmup=5)),
    "adam": Training(steps=25, batch=20, method="adam", schedule=Schedule(0.01)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_same_training(way: str, activation: str) -> None:
    config = replace(CONFIG, activation=activation)
    mine, here = train(config, WAYS[way], (X, Y), MEMBERS)
    theirs, other = train(config, WAYS[way], (X, Y), MEMBERS, device=DEVICE.type)
    for a, b in zip(here.weights, other.weights, strict=True):
        # float32 (6e-8) over 25 steps of five layers; Adam's division by |g| lifts it for weights with small gradients
        torch.testing.assert_close(b.cpu(), a, rtol=2e-3, atol=2e-4)
    for a, b in zip(mine, theirs, strict=True):
        assert b.rows[-1]["loss"] == pytest.approx(a.rows[-1]["loss"], rel=1e-3)


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    training = replace(WAYS["batches"], steps=24, report_every=6)
    whole, full = train(CONFIG, training, (X, Y), MEMBERS, device=DEVICE.type)

    class StopError(Exception):
        pass

    def stop(step: int, _steps: int, _results: object) -> None:
        if step >= 12:
            raise StopError

    path = tmp_path / "run.pt"
    with pytest.raises(StopError):
        train(CONFIG, training, (X, Y), MEMBERS, device=DEVICE.type, save_to=path, save_every=0.0, on_row=stop)
    assert path.exists()
    again, resumed = train(CONFIG, training, (X, Y), MEMBERS, device=DEVICE.type, save_to=path, save_every=0.0)
    for a, b in zip(full.weights, resumed.weights, strict=True):
        assert torch.equal(a, b)
    assert [r.rows[-1]["loss"] for r in whole] == [r.rows[-1]["loss"] for r in again]


def test_overflow_is_recorded_at_the_same_place() -> None:
    hot = [Member(0, rate=0.05), Member(1, rate=1e9)]
    training = Training(steps=10, batch=20, schedule=Schedule(0.1))
    config = replace(CONFIG, activation="relu")
    mine, _ = train(config, training, (X, Y), hot)
    theirs, _ = train(config, training, (X, Y), hot, device=DEVICE.type)
    assert [r.divergence for r in theirs] == [r.divergence for r in mine]
    assert theirs[1].divergence is not None
