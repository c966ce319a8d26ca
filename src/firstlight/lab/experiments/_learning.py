"""One deep stack learns a task at several rates: the part that the training experiments share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from firstlight.lab.draws import Member, check_stack
from firstlight.lab.experiment import Row
from firstlight.lab.experiments._tasks import checkpoint_file, task_data
from firstlight.lab.losses import Loss
from firstlight.lab.models import StackConfig
from firstlight.lab.optimizer import Method
from firstlight.lab.schedules import Reading, Schedule, Shape
from firstlight.lab.trainer import Training, train

LEAST = {
    "depth": 1, "width": 0, "parameters": 0, "rates": 0, "pilot": 0, "warmup": 0, "batch": 1, "steps": 1, "samples": 0,
    "reports": 1,
}  # fmt: skip
LONG = 5000  # steps from which a run keeps a checkpoint to resume from


@dataclass(frozen=True)
class Learning:
    """Training of one deep stack, each seed once per rate.

    Attributes:
        task: "mnist", "speech" (spoken digits) or "timit" (the user's own copy), each also with "-autoencoder".
        depth: Hidden layers.
        width: Units of each; 0 where `parameters` says.
        parameters: Budget of all weights and biases; 0 where `width` says.
        activation: φ.
        scheme: Law of the weights.
        gain: g in place of the scheme's own, or None.
        readout_gain: The same of the readout.
        rates: Learning rates, all tried.
        pilot: Steps of a short training at every rate, after which the best alone trains for `steps` from the start;
            0 to train all of them for `steps`.
        shape: Of the schedule.
        warmup: Steps of linear warm-up.
        lambda_in: First relative rate of the paper.
        lambda_out: Last relative rate of the paper.
        reading: Over layers, over steps, or of the first layer and the readout alone.
        method: "sgd" or "adam".
        momentum: Of SGD.
        batch: Samples of a step.
        steps: Optimizer steps.
        samples: Training samples; 0 for all.
        reports: Rows of the history.
        count_mistakes: Whether rows hold the mistakes on the whole training set.
    """

    task: str = "mnist"
    depth: int = 16
    width: int = 0
    parameters: int = 0
    activation: str = "relu"
    scheme: str = "random-walk"
    gain: float | None = None
    readout_gain: float | None = None
    rates: tuple[float, ...] = (0.01,)
    pilot: int = 0
    shape: Shape = "constant"
    warmup: int = 0
    lambda_in: float = 1.0
    lambda_out: float = 1.0
    reading: Reading = "layers"
    method: Method = "sgd"
    momentum: float = 0.0
    batch: int = 100
    steps: int = 600
    samples: int = 0
    reports: int = 4
    count_mistakes: bool = False


def learning(config: Learning, seeds: Sequence[int]) -> list[list[Row]]:
    """Histories; every row with its rate, and where it overflowed if it did.

    With a pilot each seed also has one row per rate with its `pilot_loss`, that of the pilot's last quarter.
    """
    data, test, outputs, loss = task_data(config.task, config.samples)
    stack = _stack(config, data[0].shape[1], outputs)
    members = [Member(seed, rate=rate) for seed in seeds for rate in config.rates]
    rows: dict[int, list[Row]] = {seed: [] for seed in seeds}
    if config.pilot:
        best: dict[int, tuple[float, Member]] = {}
        for result in train(stack, _training(config, loss, config.pilot), data, members)[0]:
            # infinite after an overflow
            end = result.rows[-1]["loss"] if result.rows and not result.divergence else math.inf
            member = result.member
            rows[member.seed].append({"rate": member.rate, "hidden": stack.hidden[0], "pilot_loss": end})
            if member.seed not in best or end < best[member.seed][0]:
                best[member.seed] = (end, member)
        members = [best[seed][1] for seed in seeds]
    kept = checkpoint_file(config, seeds) if config.steps >= LONG else None
    results, _ = train(stack, _training(config, loss, config.steps), data, members, test=test, save_to=kept)
    if kept is not None:
        kept.unlink(missing_ok=True)
    for result in results:
        where = result.divergence
        fate: Row = {
            "rate": result.member.rate,
            "hidden": stack.hidden[0],
            "overflow_step": where.step if where else None,
            "overflow_layer": where.layer if where else None,
        }
        rows[result.member.seed] += [fate | row for row in result.rows] or [fate]
    return [rows[seed] for seed in seeds]


def _stack(config: Learning, inputs: int, outputs: int) -> StackConfig:
    stack = StackConfig(
        inputs,
        outputs,
        config.depth,
        config.width or None,
        config.parameters or None,
        config.activation,
        config.scheme,
        config.gain,
        readout_gain=config.readout_gain,
    )
    if config.scheme == "looks-linear" and stack.hidden[0] % 2:
        # mirrored blocks need an even width; an odd one would silently be drawn plainly orthogonal
        stack = replace(stack, width=stack.hidden[0] - 1, parameters=None)
    return stack


def _training(config: Learning, loss: Loss, steps: int) -> Training:
    return Training(
        steps=steps,
        batch=config.batch,
        schedule=Schedule(
            config.rates[0], config.shape, config.warmup, config.lambda_in, config.lambda_out, config.reading
        ),
        method=config.method,
        momentum=config.momentum,
        loss=loss,
        report_every=max(1, steps // config.reports),
        count_mistakes=config.count_mistakes,
    )


def check_learning(config: Learning) -> None:
    """Raise what keeps a run from being started: unknown names, numbers that do not fit, data that is missing."""
    data, _, outputs, loss = task_data(config.task, config.samples)
    check_stack(_stack(config, data[0].shape[1], outputs))
    _training(config, loss, config.steps)
