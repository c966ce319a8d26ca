"""Train an ensemble of deep stacks: SGD or Adam over the fused passes of `lab.stack`.

The members differ by seed, gain and learning rate; they see the same batches, whose order comes from
`data_seed` and not from the members' seeds, so a member's result does not depend on which others it ran with.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.errors import InputError
from firstlight.lab import checkpoint
from firstlight.lab.draws import Member, draw_stack
from firstlight.lab.evaluate import Data, as_tensors, evaluate
from firstlight.lab.losses import LOSSES, Loss
from firstlight.lab.models import StackConfig
from firstlight.lab.networks import Network, network
from firstlight.lab.optimizer import Method, Optimizer
from firstlight.lab.products import one_thread_setting
from firstlight.lab.progress import tell
from firstlight.lab.replay import replayable
from firstlight.lab.schedules import Schedule, step_factor

Row = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """How a stack is trained.

    Attributes:
        steps: Optimizer steps.
        batch: Samples of a step; None for all of them (full batch).
        schedule: Learning rates.
        method: "sgd" or "adam" (torch's, betas .9 and .999, ε = 1e-8).
        momentum: μ of v ← μv + g, w ← w - λv (torch's SGD); not with Adam.
        loss: "cross-entropy", "mse" or "binary".
        data_seed: Of the order of the batches.
        report_every: Steps between rows of the history; 0 for once an epoch.
        count_mistakes: Whether a row also holds loss and mistakes on the whole training set.
        until: Test accuracy at which a member counts as started; when all have, the run ends.
    """

    steps: int = 1000
    batch: int | None = 100
    schedule: Schedule = field(default_factory=Schedule)
    method: Method = "sgd"
    momentum: float = 0.0
    loss: Loss = "cross-entropy"
    data_seed: int = 0
    report_every: int = 0
    count_mistakes: bool = False
    until: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 0 or (self.batch is not None and self.batch < 1) or self.report_every < 0:
            raise InputError(
                "training",
                got=f"steps={self.steps}, batch={self.batch}, report_every={self.report_every}",
                expected="steps and report_every of 0 or more, a batch of at least 1",
            )
        if not 0 <= self.momentum < 1:
            raise InputError("training, momentum", got=repr(self.momentum), expected="a number in [0, 1)")
        if self.method not in ("sgd", "adam") or (self.method == "adam" and self.momentum):
            raise InputError(
                "training, method",
                got=f"{self.method!r}, momentum={self.momentum!r}",
                expected="'sgd', or 'adam' without a momentum of its own",
            )
        if self.loss not in LOSSES:
            raise InputError("training, loss", got=repr(self.loss), expected=" or ".join(map(repr, LOSSES)))


@dataclass
class Divergence:
    """The first overflow of a member: not an error but a result.

    Attributes:
        step: Step whose forward pass was not finite.
        layer: First hidden layer (from 1; depth + 1 is the readout) with a non-finite output.
    """

    step: int
    layer: int


@dataclass
class Result:
    """What became of one member.

    Attributes:
        member: Seed, gain and rate.
        rows: History: step, epoch, loss (mean since the last row), and with a test set accuracy and mistakes.
        divergence: Where it overflowed, or None.
        started_at: Step of the first evaluation at or above `Training.until`, or None.
    """

    member: Member
    rows: list[Row] = field(default_factory=list)
    divergence: Divergence | None = None
    started_at: int | None = None


class Batches:
    """Batches in an order that depends on (data_seed, epoch) alone: a resumed run sees the same ones."""

    def __init__(self, samples: int, batch: int, seed: int) -> None:
        self.samples, self.batch, self.seed = samples, batch, seed
        self.per_epoch = max(samples // batch, 1)
        self._epoch = -1
        self._order: NDArray[np.int64] = np.arange(samples)

    def __getitem__(self, step: int) -> NDArray[np.int64]:
        epoch, at = divmod(step, self.per_epoch)
        if self.batch >= self.samples:
            return self._order
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self.seed, epoch)).permutation(self.samples)
        return self._order[at * self.batch : (at + 1) * self.batch]


def describe(config: StackConfig, training: Training, members: Sequence[Member]) -> str:
    """A fingerprint of a run, kept in its checkpoint."""
    text = repr((asdict(config), asdict(training), [asdict(m) for m in members]))
    return hashlib.sha256(text.encode()).hexdigest()


def first_overflow(stack: Network, member: int) -> int:
    """First hidden layer (from 1) whose output is not finite in one member; depth + 1 for the readout."""
    for layer, signal in enumerate(stack.signals, start=1):
        if not bool(torch.isfinite(signal[member]).all()):
            return layer
    return stack.config.depth + 1


def train(
    config: StackConfig,
    training: Training,
    data: Data,
    members: Sequence[Member] = (Member(),),
    *,
    test: Data | None = None,
    device: str = "cpu",
    save_to: Path | None = None,
    save_every: float = 60.0,
    on_row: Callable[[int, int, list[Result]], object] | None = None,
) -> tuple[list[Result], Network]:
    """Train all members at once.

    Args:
        config: Shape, activation and scheme.
        training: Steps, batch, rates, loss.
        data: Samples (N, inputs), for conv (N, inputs, H, W), and targets: labels (N,), or (N, outputs) for "mse".
        members: Seed, gain and rate of each network.
        test: Held-out samples and targets.
        device: "cpu" or "cuda"; on CUDA both passes are captured into graphs.
        save_to: Checkpoint file; a run that finds one goes on from it.
        save_every: Least seconds between checkpoints.
        on_row: Called with (step, steps, results) after each row.

    Returns:
        One result per member, and the stack with the trained weights.

    Raises:
        InputError: Data that does not fit the configuration.
        DataError: A checkpoint that cannot be written, or belongs to another run.
    """
    x, y = as_tensors(config, training.loss, data, "training set")
    held = as_tensors(config, training.loss, test, "test set") if test is not None else None
    batch = min(training.batch or len(x), len(x))
    stack = network(config, len(members), batch, tuple(x.shape[2:]), device=device)
    x, y = x.to(stack.device, stack.dtype), y.to(stack.device)
    draw_stack(stack, members)
    rates = [m.rate if m.rate is not None else training.schedule.rate for m in members]
    optimizer = Optimizer(stack, training.schedule, rates, training.method, training.momentum)
    results = [Result(member) for member in members]
    key, begin = describe(config, training, members), 0
    state = checkpoint.load(save_to, key) if save_to is not None else None
    if state is not None:
        begin = _restore(state, stack, optimizer, results)
    batches = Batches(len(x), batch, training.data_seed)
    every = training.report_every or batches.per_epoch
    passes = Passes(stack, optimizer, training.loss, x, y)
    saved, since = time.monotonic(), 0
    if state is not None:
        since = passes.restore(state)
    with one_thread_setting() if stack.library == "numpy" else contextlib.nullcontext():
        for step in range(begin, training.steps):
            optimizer.begin(step, step_factor(training.schedule, step, training.steps))
            passes.forward(batches[step])
            if not passes.finite():
                _silence_overflown(stack, optimizer, passes, step, results)
                if all(result.divergence for result in results):
                    break
                passes.forward(batches[step])
            passes.backward()
            tell(step + 1, training.steps)
            since += 1
            last = step + 1 == training.steps
            if (step + 1) % every and not last:
                if save_to is not None and time.monotonic() - saved >= save_every:
                    checkpoint.save(save_to, _state(key, step + 1, since, passes, stack, optimizer, results))
                    saved = time.monotonic()
                continue
            row = {"step": step + 1, "epoch": (step + 1) / batches.per_epoch}
            _report(row, since, passes, stack, training, results, (x, y), held)
            since = 0
            if on_row is not None:
                on_row(step + 1, training.steps, results)
            done = training.until is not None and all(r.started_at is not None or r.divergence for r in results)
            if save_to is not None and (last or done or time.monotonic() - saved >= save_every):
                checkpoint.save(
                    save_to, _state(key, training.steps if done else step + 1, since, passes, stack, optimizer, results)
                )
                saved = time.monotonic()
            if done:
                break
    return results, stack


class Passes:
    """The two halves of a step, with what a row needs summed on the way."""

    def __init__(self, stack: Network, optimizer: Optimizer, loss: Loss, x: Tensor, y: Tensor) -> None:
        self._stack, self._x, self._y, self._loss = stack, x, y, LOSSES[loss]
        self._index = torch.zeros(stack.batch, dtype=torch.long, device=stack.device)
        self.value = torch.zeros(stack.members, device=stack.device, dtype=stack.dtype)
        self.hits = torch.zeros(stack.members, device=stack.device, dtype=torch.long)
        self.loss_sum = torch.zeros(stack.members, device=stack.device, dtype=torch.float64)
        self.hits_sum = torch.zeros(stack.members, device=stack.device, dtype=torch.long)
        self._whole = stack.batch == len(x)
        self._fill()
        self._run_forward = replayable(self._forward, stack.device)
        changed = [*stack.weights, *optimizer.moments]
        self._run_backward = replayable(lambda: stack.backward(optimizer.apply), stack.device, keep=changed)

    def _fill(self) -> None:
        if self._whole:
            self._stack.load(self._x)
            self._goal = self._y.T if self._y.ndim == 2 else self._y

    def _forward(self) -> None:
        stack = self._stack
        goal = self._goal if self._whole else self._y.index_select(0, self._index)
        if not self._whole:
            stack.load(self._x.index_select(0, self._index))
            goal = goal.T if goal.ndim == 2 else goal
        value, hits = self._loss(stack.forward(), goal, stack.cotangent)
        self.value.copy_(value)
        self.hits.copy_(hits)

    def forward(self, index: NDArray[np.int64]) -> None:
        """Network and loss on the samples `index`."""
        if not self._whole:
            self._index.copy_(torch.from_numpy(index))
        self._run_forward()

    def finite(self) -> bool:
        """Whether every member's loss is finite."""
        return bool(torch.isfinite(self.value).all())

    def backward(self) -> None:
        """Gradients and update; adds this step's loss and hits to the sums."""
        self.loss_sum += self.value
        self.hits_sum += self.hits
        self._run_backward()

    def restore(self, state: dict[str, Any]) -> int:
        """Take the sums from a checkpoint; returns the steps that they are of."""
        for mine, theirs in zip((self.loss_sum, self.hits_sum), state["sums"], strict=True):
            mine.copy_(theirs)
        return int(state["since"])

    def take(self) -> tuple[list[float], list[int]]:
        """The sums since the last call."""
        out = self.loss_sum.tolist(), self.hits_sum.tolist()
        self.loss_sum.zero_()
        self.hits_sum.zero_()
        return out


def _silence_overflown(stack: Network, optimizer: Optimizer, passes: Passes, step: int, results: list[Result]) -> None:
    for member, ok in enumerate(torch.isfinite(passes.value).tolist()):
        if not ok:
            results[member].divergence = Divergence(step, first_overflow(stack, member))
            optimizer.silence(member)
            passes.loss_sum[member] = 0.0


def _report(
    row: Row,
    steps: int,
    passes: Passes,
    stack: Network,
    training: Training,
    results: list[Result],
    data: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor] | None,
) -> None:
    losses, hits = passes.take()
    rows = [{**row, "loss": value / steps} for value in losses]
    if training.loss != "mse":
        for each, hit in zip(rows, hits, strict=True):
            each["accuracy"] = hit / (steps * stack.batch)
    if training.count_mistakes:
        value, right = evaluate(stack, *data, training.loss)
        for member, each in enumerate(rows):
            each |= {"train_loss": float(value[member]), "mistakes": len(data[0]) - int(right[member])}
    if held is not None:
        value, right = evaluate(stack, *held, training.loss)
        for member, each in enumerate(rows):
            each |= {"test_loss": float(value[member]), "test_accuracy": int(right[member]) / len(held[0])}
    for result, each in zip(results, rows, strict=True):
        if result.divergence is not None:
            continue
        result.rows.append(each)
        reached = each.get("test_accuracy", each.get("accuracy", 0.0))
        if training.until is not None and result.started_at is None and reached >= training.until:
            result.started_at = each["step"]


def _state(
    key: str, step: int, since: int, passes: Passes, stack: Network, optimizer: Optimizer, results: list[Result]
) -> dict[str, Any]:
    kept = [
        {
            "rows": r.rows,
            "divergence": asdict(r.divergence) if r.divergence else None,
            "started_at": r.started_at,
        }
        for r in results
    ]
    return {
        "key": key,
        "step": step,
        "since": since,
        "sums": [passes.loss_sum, passes.hits_sum],
        "weights": stack.weights,
        "moments": optimizer.moments,
        "results": kept,
    }


def _restore(state: dict[str, Any], stack: Network, optimizer: Optimizer, results: list[Result]) -> int:
    for mine, theirs in (
        *zip(stack.weights, state["weights"], strict=True),
        *zip(optimizer.moments, state["moments"], strict=True),
    ):
        mine.copy_(theirs)
    for member, (result, kept) in enumerate(zip(results, state["results"], strict=True)):
        result.rows, result.started_at = kept["rows"], kept["started_at"]
        if kept["divergence"]:
            result.divergence = Divergence(**kept["divergence"])
            optimizer.silence(member)
    return int(state["step"])
