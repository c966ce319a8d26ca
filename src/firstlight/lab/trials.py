"""Short trainings of one plain network from several starts, side by side in worker processes.

Every trial is an ordinary PyTorch training loop with Adam. A trial's result depends on its own fields alone:
not on the number of workers, nor on which other trials run beside it.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from firstlight import api
from firstlight.errors import InputError
from firstlight.lab.data.catalogue import load_or_digits
from firstlight.lab.data.dataset import Splits

DEFAULT = "torch-default"
BATCH = 128
_TICK = 10  # steps between two signs of life, and between two points of the loss curve
_EVALUATE_EVERY = 50
_QUICK_TEST = 1000  # test images for the curve; the last value takes all

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hardtanh": nn.Hardtanh,
    "softsign": nn.Softsign,
    "linear": nn.Identity,
}


@dataclass(frozen=True, slots=True)
class Net:
    """A plain stack of fully connected layers.

    Attributes:
        depth: Number of linear layers, the readout among them.
        width: Units of each hidden layer.
        activation: A key of `ACTIVATIONS`.
        inputs: Entries of a sample.
        outputs: Number of classes.
    """

    depth: int
    width: int
    activation: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One training.

    Attributes:
        net: The architecture.
        start: "torch-default" for the weights that torch draws, else a scheme of `initialize`.
        rate: Adam's learning rate.
        seed: Of the weights and of the order of the batches.
        steps: Number of steps, each on 128 samples.
    """

    net: Net
    start: str
    rate: float
    seed: int
    steps: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial.

    Attributes:
        trial: The trial.
        loss_steps: Steps at which the loss curve has points.
        loss: Mean training loss since the point before; nan from the step on at which it was no longer
            finite.
        accuracy_steps: Steps at which the accuracy curve has points.
        accuracy: Share of correct answers on the test set: 1,000 samples, all of it at the end.
        final_loss: Mean training loss of the last tenth of the steps; nan after a divergence.
        diverged_at: Step whose loss was not finite; None where all were.
        seconds: CPU time of the training.
    """

    trial: Trial
    loss_steps: tuple[int, ...]
    loss: tuple[float, ...]
    accuracy_steps: tuple[int, ...]
    accuracy: tuple[float, ...]
    final_loss: float
    diverged_at: int | None
    seconds: float

    def started(self, chance_loss: float) -> bool:
        """Whether the training loss fell below 0.9 of what guessing by the classes' frequencies costs."""
        return self.final_loss < 0.9 * chance_loss


def activation(name: str) -> Callable[[], nn.Module]:
    """The activation's module class.

    Raises:
        InputError: If the name is unknown; the nearest one is offered.
    """
    if name not in ACTIVATIONS:
        near = get_close_matches(name, ACTIVATIONS, n=1)
        raise InputError(
            "activation",
            got=repr(name),
            expected="one of " + ", ".join(ACTIVATIONS),
            action=f"Did you mean {near[0]!r}?" if near else "",
        )
    return ACTIVATIONS[name]


def build(net: Net, start: str, seed: int) -> nn.Sequential:
    """The network with its weights drawn.

    Raises:
        InputError: If the activation is unknown.
        RegistryError: If the scheme is unknown.
    """
    make = activation(net.activation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for layer in range(net.depth):
            fan_in = net.inputs if layer == 0 else net.width
            layers.append(nn.Linear(fan_in, net.outputs if layer == net.depth - 1 else net.width))
            if layer < net.depth - 1:
                layers.append(make())
        model = nn.Sequential(*layers)
    if start != DEFAULT:
        api.initialize(model, start, batch=torch.zeros(2, net.inputs), seed=seed)
    return model


def as_tensors(splits: Splits) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training samples as rows, shifted and scaled by two numbers of the training part, labels; then test."""
    train, test = splits.standardized()
    return (
        torch.from_numpy(train.flat()),
        torch.from_numpy(train.y),
        torch.from_numpy(test.flat()),
        torch.from_numpy(test.y),
    )


def train(
    trial: Trial,
    data: tuple[Tensor, Tensor, Tensor, Tensor],
    tick: Callable[[int], object] = lambda steps: None,
) -> Outcome:
    """Train one network.

    Args:
        trial: What to train.
        data: Training samples and labels, test samples and labels.
        tick: Called with the number of steps done since the last call.
    """
    x, y, x_test, y_test = data
    began = time.process_time()
    model = build(trial.net, trial.start, trial.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.rate, fused=True)
    order = torch.Generator().manual_seed(trial.seed)
    loss_steps: list[int] = []
    losses: list[float] = []
    accuracy_steps: list[int] = [0]
    accuracies = [_accuracy(model, x_test[:_QUICK_TEST], y_test[:_QUICK_TEST])]
    recent: list[float] = []
    diverged_at = None
    for step in range(1, trial.steps + 1):
        rows = torch.randint(len(x), (min(BATCH, len(x)),), generator=order)
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        recent.append(loss.item())
        if not math.isfinite(recent[-1]):
            diverged_at = step
            break
        optimizer.step()
        if step % _TICK == 0 or step == trial.steps:
            loss_steps.append(step)
            losses.append(sum(recent) / len(recent))
            tick(len(recent))
            recent = []
        if step % _EVALUATE_EVERY == 0 and step < trial.steps:
            accuracy_steps.append(step)
            accuracies.append(_accuracy(model, x_test[:_QUICK_TEST], y_test[:_QUICK_TEST]))
    accuracy_steps.append(trial.steps)
    accuracies.append(_accuracy(model, x_test, y_test))
    last = losses[-max(1, len(losses) // 10) :]
    return Outcome(
        trial,
        tuple(loss_steps),
        tuple(losses),
        tuple(accuracy_steps),
        tuple(accuracies),
        sum(last) / len(last) if last and diverged_at is None else math.nan,
        diverged_at,
        time.process_time() - began,
    )


@torch.no_grad()
def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((model(x).argmax(dim=1) == y).float().mean())


class Team:
    """Worker processes that have the data in memory and run trials; made by `team`."""

    def __init__(self, executor: ProcessPoolExecutor, done: Any) -> None:
        self._executor = executor
        self._done = done

    def run(self, trials: Sequence[Trial], progress: Callable[[int], object] = lambda done: None) -> list[Outcome]:
        """Run the trials and return their outcomes in the same order.

        Args:
            trials: What to train.
            progress: Called with the number of steps done so far by this team, about five times a second.

        Raises:
            FirstlightError: What a trial raised.
        """
        waiting: set[Future[Outcome]] = set()
        futures = [self._executor.submit(_work, trial) for trial in trials]
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            progress(self._done.value)
            for future in finished:
                if future.exception() is not None:
                    for other in waiting:
                        other.cancel()
                future.result()
        return [future.result() for future in futures]


@contextmanager
def team(name: str, data: str | Path | None, workers: int | None = None) -> Iterator[Team]:
    """Worker processes with an image set loaded; they end with the block, also when it is interrupted.

    Args:
        name: Image set.
        data: Folder in which to look for it.
        workers: Number of processes; by default one per available core, at most eight.
    """
    count = workers or min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    executor = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(name, data, done, stop))
    try:
        with _ignoring_interrupts():  # what the workers inherit: an interruption is the parent's to handle
            for _ in range(count):  # each task starts one, while none is idle yet
                executor.submit(os.getpid)
        yield Team(executor, done)
    except BaseException:
        stop.set()  # whatever the workers are doing, nobody waits for it
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there can signals be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_STATE: dict[str, Any] = {}  # of a worker process: its data and what it shares with the parent


def _begin(name: str, data: str | Path | None, done: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    threading.Thread(target=_follow, args=(stop,), daemon=True).start()
    torch.set_num_threads(1)
    _STATE.update(where=(name, data), done=done)


def _follow_parent() -> None:
    """End this worker when the parent is gone, however it went: no process is left behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _follow(stop: Any) -> None:
    """End this worker when the parent gives up."""
    stop.wait()
    os._exit(1)


def _work(trial: Trial) -> Outcome:
    done = _STATE["done"]
    if "data" not in _STATE:
        _STATE["data"] = as_tensors(load_or_digits(*_STATE["where"]))

    def tick(steps: int) -> None:
        with done.get_lock():
            done.value += steps

    return train(trial, _STATE["data"], tick)
