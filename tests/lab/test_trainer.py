"""Training equals torch's SGD; overflow is a result; checkpoints resume exactly."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from firstlight.errors import DataError, InputError
from firstlight.lab import checkpoint, models, trainer
from firstlight.lab.draws import Member, layer_draw
from firstlight.lab.evaluate import evaluate
from firstlight.lab.models import StackConfig
from firstlight.lab.modules import module, to_module
from firstlight.lab.replay import rehearse
from firstlight.lab.schedules import Schedule, layer_factors, step_factor
from firstlight.lab.trainer import Batches, Result, Training, train

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 1)
CONFIG = StackConfig(6, 3, 4, 12, scheme="he", activation="tanh")


def _with_torch(config: StackConfig, training: Training, member: Member) -> nn.Module:
    net = module(config, member)
    rate = training.schedule.rate if member.rate is None else member.rate
    factors = layer_factors(training.schedule, config.depth + 1)
    groups = [
        {"params": list(layer.parameters()), "factor": factor}
        for layer, factor in zip(net.layers, factors, strict=True)
    ]
    optimizer: torch.optim.Optimizer = (
        torch.optim.Adam(groups, lr=1.0)
        if training.method == "adam"
        else torch.optim.SGD(groups, lr=1.0, momentum=training.momentum)
    )
    batches = Batches(len(X), training.batch or len(X), training.data_seed)
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"] * step_factor(training.schedule, step, training.steps)
        index = torch.from_numpy(batches[step])
        optimizer.zero_grad()
        out = net(torch.from_numpy(X)[index])
        goal = torch.from_numpy(Y)[index]
        (nn.functional.cross_entropy(out, goal)).backward()
        optimizer.step()
    return net


@pytest.mark.parametrize(
    "training",
    [
        Training(steps=25, batch=20, schedule=Schedule(0.1)),
        Training(steps=25, batch=None, momentum=0.8, schedule=Schedule(0.1, "cosine", warmup=5)),
        Training(steps=25, batch=20, schedule=Schedule(0.1, lambda_in=2.0, lambda_out=0.1)),
        Training(steps=25, batch=20, schedule=Schedule(0.1, lambda_in=2.0, lambda_out=0.1, reading="steps")),
        Training(
            steps=25, batch=20, momentum=0.9, schedule=Schedule(0.02, lambda_in=5.0, lambda_out=3.0, reading="ends")
        ),
        Training(steps=25, batch=20, method="adam", schedule=Schedule(0.003, "cosine", warmup=5)),
        Training(steps=25, batch=20, method="adam", schedule=Schedule(0.003, lambda_in=2.0, lambda_out=0.1)),
    ],
    ids=[
        "plain",
        "momentum, cosine, full batch",
        "rates over layers",
        "rates over steps",
        "momentum, rates of the ends",
        "adam, cosine",
        "adam, rates over layers",
    ],
)
@pytest.mark.parametrize("own", [None, 0.01], ids=["one rate", "a rate of its own"])
def test_training_equals_torchs_optimizers(training: Training, own: float | None) -> None:
    # members of one rate take the fused kernels where they can, members with their own the formulas written out
    members = [Member(1), Member(2, rate=own)]
    _, stack = train(CONFIG, training, (X, Y), members)
    for index, member in enumerate(members):
        expected = _with_torch(CONFIG, training, member)
        for mine, theirs in zip(to_module(stack, index).parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=2e-6)  # 25 steps of float32 rounding


def test_a_member_does_not_depend_on_the_others() -> None:
    training = Training(steps=12, batch=20, schedule=Schedule(0.1))
    both, _ = train(CONFIG, training, (X, Y), [Member(1, gain=2.0), Member(2, rate=0.01)])
    for index, member in enumerate((Member(1, gain=2.0), Member(2, rate=0.01))):
        (alone,), _ = train(CONFIG, training, (X, Y), [member])
        for a, b in zip(both[index].rows, alone.rows, strict=True):
            assert a["step"] == b["step"]
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_overflow_is_recorded_with_step_and_layer_and_touches_no_other_member() -> None:
    config = StackConfig(6, 3, 6, 12, scheme="he", activation="leaky_relu")
    training = Training(steps=30, batch=20, schedule=Schedule(0.05), report_every=10)
    (sick, well), stack = train(config, training, (X, Y), [Member(0, rate=1e12), Member(1)])
    assert sick.divergence is not None
    assert 0 < sick.divergence.step <= 10
    assert 1 <= sick.divergence.layer <= 7
    (alone,), _ = train(config, training, (X, Y), [Member(1)])
    assert well.divergence is None
    assert [r["loss"] for r in well.rows] == pytest.approx([r["loss"] for r in alone.rows], rel=1e-4)
    assert all(torch.isfinite(w).all() for w in stack.weights)


def test_the_layer_that_overflowed_first_is_named() -> None:
    # variance 1e20 a layer: a float32 forward pass leaves its range (3.4e38) at the fourth layer of relu
    # units
    config = StackConfig(6, 3, 8, 12, scheme="normal(1e10)", bias=False)
    (result,), _ = train(config, Training(steps=3, batch=20), (X, Y), [Member(0)])
    assert result.divergence is not None
    assert (result.divergence.step, result.divergence.layer) == (0, 4)
    assert result.rows == []


@pytest.mark.parametrize("options", [{"momentum": 0.5}, {"method": "adam"}], ids=["momentum", "adam"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "run.pt"
    training = Training(steps=30, batch=20, schedule=Schedule(0.01, "cosine"), report_every=5, **options)
    members = [Member(3), Member(4, rate=1e6)]

    def stop(step: int, steps: int, results: list[Result]) -> None:
        if step == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, training, (X, Y), members, save_to=path, save_every=0.0, on_row=stop)
    assert path.exists()
    seen: list[int] = []
    resumed, stack = train(
        CONFIG, training, (X, Y), members, save_to=path, on_row=lambda step, steps, results: seen.append(step)
    )
    assert seen == [15, 20, 25, 30]  # the row during which it was interrupted is done again
    straight, reference = train(CONFIG, training, (X, Y), members)
    assert resumed == straight
    for mine, theirs in zip(stack.weights, reference.weights, strict=True):
        assert torch.equal(mine, theirs)
    again, _ = train(CONFIG, training, (X, Y), members, save_to=path)
    assert again == straight


@pytest.mark.parametrize("options", [{"momentum": 0.5}, {"method": "adam"}], ids=["momentum", "adam"])
def test_rehearsing_the_passes_before_a_capture_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """What CUDA does before it captures a graph, done here: in a fresh run and in one that is resumed."""
    training = Training(steps=12, batch=20, schedule=Schedule(0.01), report_every=4, **options)
    straight, reference = train(CONFIG, training, (X, Y), [Member(3)])
    calls = [0]

    def rehearsed(work: Any, device: torch.device, keep: Sequence[torch.Tensor] = ()) -> Any:
        calls[0] += 1
        rehearse(work, keep)
        return work

    def stop(step: int, steps: int, results: list[Result]) -> None:
        if step == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "replayable", rehearsed)
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, training, (X, Y), [Member(3)], save_to=path, save_every=0.0, on_row=stop)
    resumed, stack = train(CONFIG, training, (X, Y), [Member(3)], save_to=path)
    assert calls == [4]
    assert resumed == straight
    assert all(torch.equal(a, b) for a, b in zip(stack.weights, reference.weights, strict=True))


def test_a_run_that_is_killed_between_two_rows_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.pt"
    training = Training(steps=20, batch=20, schedule=Schedule(0.1), report_every=10)
    write, writes = checkpoint.save, [0]

    def save(where: Path, state: dict[str, Any]) -> None:
        write(where, state)
        writes[0] += 1
        if writes[0] == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, training, (X, Y), [Member(3)], save_to=path, save_every=0.0)
    assert checkpoint.load(path, torch.load(path, weights_only=True)["key"])["step"] == 7  # type: ignore[index]
    resumed, stack = train(CONFIG, training, (X, Y), [Member(3)], save_to=path)
    straight, reference = train(CONFIG, training, (X, Y), [Member(3)])
    assert resumed == straight
    assert all(torch.equal(a, b) for a, b in zip(stack.weights, reference.weights, strict=True))


def test_checkpoints_of_another_run_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    train(CONFIG, Training(steps=2), (X, Y), save_to=path)
    with pytest.raises(DataError, match="another run"):
        train(CONFIG, Training(steps=3), (X, Y), save_to=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        train(CONFIG, Training(steps=2), (X, Y), save_to=path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    checkpoint.write_whole(path, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        checkpoint.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_run_stops_when_every_member_has_started() -> None:
    training = Training(steps=500, batch=20, schedule=Schedule(0.3), report_every=5, until=0.6)
    results, _ = train(CONFIG, training, (X, Y), [Member(1), Member(2)], test=(X, Y))
    for result in results:
        assert result.started_at is not None
        first = next(r for r in result.rows if r["test_accuracy"] >= 0.6)
        assert first["step"] == result.started_at
    assert results[0].rows[-1]["step"] < 500


def test_mistakes_are_those_of_the_module() -> None:
    training = Training(steps=20, batch=20, schedule=Schedule(0.2), count_mistakes=True, report_every=20)
    (result,), stack = train(CONFIG, training, (X, Y), [Member(1)])
    out = to_module(stack)(torch.from_numpy(X))
    assert result.rows[-1]["mistakes"] == int((out.argmax(1) != torch.from_numpy(Y)).sum())
    loss, _ = evaluate(stack, torch.from_numpy(X), torch.from_numpy(Y), "cross-entropy", batch=7)
    assert float(loss[0]) == pytest.approx(
        float(nn.functional.cross_entropy(out, torch.from_numpy(Y)).detach()), rel=1e-5
    )


def test_autoencoding_lowers_the_error() -> None:
    config = StackConfig(6, 6, 3, 12, scheme="xavier", activation="tanh")
    training = Training(steps=200, batch=20, loss="mse", schedule=Schedule(0.3), report_every=50)
    (result,), _ = train(config, training, (X, X), [Member(1)])
    assert result.rows[-1]["loss"] < 0.6 * result.rows[0]["loss"]


@pytest.mark.parametrize(
    ("x", "y", "loss"),
    [
        (X[:, :5], Y, "cross-entropy"),
        (X, Y[:-1], "cross-entropy"),
        (X, Y + 1, "cross-entropy"),
        (X, Y.astype(np.float32), "cross-entropy"),
        (X * np.nan, Y, "cross-entropy"),
        (X[:0], Y[:0], "cross-entropy"),
        (X, X, "mse"),
        (X, Y.clip(0, 1), "binary"),
    ],
)
def test_data_that_does_not_fit_is_refused(x: np.ndarray, y: np.ndarray, loss: str) -> None:
    with pytest.raises(InputError, match="expected"):
        train(CONFIG, Training(steps=1, loss=loss), (x, y))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": -1},
        {"batch": 0},
        {"momentum": 1.0},
        {"loss": "hinge"},
        {"method": "lion"},
        {"method": "adam", "momentum": 0.9},
    ],
)
def test_bad_training_options_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        Training(**change)


def test_lambda_is_geometric_between_its_ends() -> None:
    layers = layer_factors(Schedule(lambda_in=8.0, lambda_out=0.5), 5)
    np.testing.assert_allclose(layers, [8.0, 4.0, 2.0, 1.0, 0.5])
    assert layer_factors(Schedule(lambda_in=8.0, lambda_out=0.5, reading="ends"), 5) == [8.0, 1.0, 1.0, 1.0, 0.5]
    steps = [step_factor(Schedule(lambda_in=8.0, lambda_out=0.5, reading="steps"), s, 5) for s in range(5)]
    np.testing.assert_allclose(steps, [8.0, 4.0, 2.0, 1.0, 0.5])
    assert layer_factors(Schedule(lambda_in=8.0, lambda_out=0.5, reading="steps"), 5) == [1.0] * 5


def test_the_readouts_gain_is_its_own() -> None:
    plain = StackConfig(6, 3, 4, 12, scheme="orthogonal", activation="tanh", gain=1.5)
    scaled = replace(plain, readout_gain=6.0)
    before, after = module(plain, Member(1)), module(scaled, Member(1))
    for a, b in zip(list(before.layers)[:-1], list(after.layers)[:-1], strict=True):
        assert torch.equal(a.weight, b.weight)
    law = layer_draw(plain, plain.depth)[1]
    torch.testing.assert_close(after.layers[-1].weight, before.layers[-1].weight * (6.0 / law.gain))
    _, stack = train(scaled, Training(steps=0), (X, Y), [Member(1)])
    assert torch.equal(to_module(stack).layers[-1].weight, after.layers[-1].weight)


def test_members_that_differ_by_their_rate_alone_start_from_the_same_weights() -> None:
    config = replace(CONFIG, scheme="lecun(bias_std=0.1)")
    members = [Member(3, rate=0.1), Member(4), Member(3, rate=0.2), Member(3, gain=2.0)]
    _, stack = train(config, Training(steps=0), (X, Y), members)
    _, alone = train(config, Training(steps=0), (X, Y), [Member(3)])
    for layer in range(config.depth + 1):
        for one, other in ((stack.weight(layer), alone.weight(layer)), (stack.bias(layer), alone.bias(layer))):
            assert one is not None
            assert other is not None
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[2], other[0])
        assert not torch.equal(stack.weight(layer)[1], stack.weight(layer)[0])
    assert not torch.equal(stack.weight(0)[3], stack.weight(0)[0])


def test_a_budget_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[StackConfig] = []

    def counted(config: StackConfig) -> int:
        calls.append(config)
        return solve(config)

    solve = models.width_for
    monkeypatch.setattr(models, "width_for", counted)
    config = StackConfig(6, 3, 50, None, 5000)
    train(config, Training(steps=1), (X, Y), [Member()])
    assert len(calls) == 1
