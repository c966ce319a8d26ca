"""The demonstration: a deep network that cannot start is diagnosed, initialized and trained on images."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from firstlight import api
from firstlight.errors import InputError
from firstlight.graph.results import Report
from firstlight.lab.data.catalogue import load_or_digits
from firstlight.lab.data.dataset import Dataset
from firstlight.lab.trials import BATCH, DEFAULT, Net, Outcome, Trial, activation, as_tensors, build, team
from firstlight.schemes import resolve

if TYPE_CHECKING:
    from rich.console import Console

SCHEMES = ("xavier", "he", "random-walk", "orthogonal")
IMAGES = ("mnist", "fashion-mnist", "digits")
RATES = (1e-4, 3e-4, 1e-3)
_PILOT_SEED = 1_000_003  # apart from the seeds of the table, so that no seed is trained on twice


@dataclass(frozen=True, slots=True)
class Settings:
    """What is shown.

    Attributes:
        depth: Number of linear layers.
        width: Units of each hidden layer.
        activation: Between the layers.
        schemes: Starts beside torch's own.
        seeds: One training of each start for each.
        steps: Steps of each training.
        pilot_steps: Steps of each training that chooses a learning rate.
        rates: The learning rates to choose from, the same for every start.
        dataset: Image set.
        workers: Worker processes; None for one per core.
    """

    depth: int = 100
    width: int = 64
    activation: str = "relu"
    schemes: tuple[str, ...] = SCHEMES
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 700
    pilot_steps: int = 150
    rates: tuple[float, ...] = RATES
    dataset: str = "mnist"
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in self.schemes:
            resolve(name)
        activation(self.activation)  # unknown names are refused before any work
        if self.dataset not in IMAGES:
            raise InputError("data set", got=repr(self.dataset), expected=", ".join(IMAGES))
        if self.depth < 2 or self.width < 1:
            raise InputError(
                "demo",
                got=f"depth {self.depth} and width {self.width}",
                expected="at least 2 layers of at least 1 unit",
            )

    @property
    def starts(self) -> tuple[str, ...]:
        """Torch's default, then the schemes, each once."""
        return tuple(dict.fromkeys((DEFAULT, *self.schemes)))

    def quick(self) -> Settings:
        """One seed, fewer steps, two schemes unless others were asked for."""
        schemes = ("he", "random-walk") if self.schemes == SCHEMES else self.schemes
        return replace(self, schemes=schemes, seeds=self.seeds[:1], steps=300, pilot_steps=60)


@dataclass(frozen=True, slots=True)
class Story:
    """What came out.

    Attributes:
        settings: What was asked for.
        source: Where the images came from.
        samples: Training images.
        chance_loss: Cross-entropy of guessing by the classes' frequencies.
        chance: Share of right answers of always naming the commonest class.
        reports: Diagnosis of each start, for the first seed.
        pilots: Final losses by start and learning rate.
        rates: Learning rate chosen for each start.
        outcomes: Trainings of each start, one per seed.
        seconds: Wall-clock time of everything.
    """

    settings: Settings
    source: str
    samples: int
    chance_loss: float
    chance: float
    reports: Mapping[str, Report]
    pilots: Mapping[str, Mapping[float, float]]
    rates: Mapping[str, float]
    outcomes: Mapping[str, Sequence[Outcome]]
    seconds: float

    def accuracy(self, start: str) -> float:
        """Median over the seeds of the share of right answers on all test images."""
        return median(outcome.accuracy[-1] for outcome in self.outcomes[start])

    def started(self, start: str) -> int:
        """Number of seeds that started."""
        return sum(outcome.started(self.chance_loss) for outcome in self.outcomes[start])

    @property
    def best(self) -> str:
        """The scheme with the highest median accuracy; torch's default where no scheme was tried."""
        tried = self.settings.starts[1:] or self.settings.starts
        return max(tried, key=self.accuracy)


def run(settings: Settings, data: str | Path | None = None, console: Console | None = None) -> Story:
    """Diagnose every start, choose a learning rate for each by the same rule, train, and tell what happens.

    The rule: each start is trained for `pilot_steps` with each learning rate on a seed that the table does
    not use; the rate with the lowest loss at the end is taken.

    Args:
        settings: What to show.
        data: Folder with the image set.
        console: Where the story is told while it happens; by default nowhere.

    Raises:
        DataError: If `data` does not hold the images, or they are damaged.
        InputError: If the activation is unknown.
        RegistryError: If a scheme is unknown.
    """
    from firstlight.lab.telling import Teller

    began = time.monotonic()
    splits = load_or_digits(settings.dataset, data)
    classes, features = len(splits.train.classes), splits.train.features
    net = Net(settings.depth, settings.width, settings.activation, features, classes)
    tell = Teller(console, settings)
    tell.opening(splits.train.source, net)
    x, y, _, _ = as_tensors(splits)
    reports: dict[str, Report] = {}
    with _one_thread():
        for start in settings.starts:
            reports[start] = _diagnose(net, start, settings.seeds[0], x[:BATCH], y[:BATCH])
            if start == DEFAULT:
                tell.diagnosis(reports[start])
    pilot = [
        Trial(net, start, rate, _PILOT_SEED, settings.pilot_steps)
        for start in settings.starts
        for rate in settings.rates
    ]
    steps = len(pilot) * settings.pilot_steps + len(settings.starts) * len(settings.seeds) * settings.steps
    with team(settings.dataset, data, settings.workers) as workers, tell.progress(steps) as progress:
        tried = workers.run(pilot, progress)
        losses = {
            start: {outcome.trial.rate: outcome.final_loss for outcome in tried if outcome.trial.start == start}
            for start in settings.starts
        }
        rates = {start: min(of, key=lambda rate, of=of: _or_inf(of[rate])) for start, of in losses.items()}
        trained = workers.run(
            [
                Trial(net, start, rates[start], seed, settings.steps)
                for start in settings.starts
                for seed in settings.seeds
            ],
            progress,
        )
    outcomes = {
        start: tuple(outcome for outcome in trained if outcome.trial.start == start) for start in settings.starts
    }
    story = Story(
        settings,
        splits.train.source,
        len(splits.train),
        _guess_loss(splits.train),
        float(np.bincount(splits.test.y).max() / len(splits.test)),
        reports,
        losses,
        rates,
        outcomes,
        time.monotonic() - began,
    )
    tell.ending(story)
    return story


def _diagnose(net: Net, start: str, seed: int, x: torch.Tensor, y: torch.Tensor) -> Report:
    def cross_entropy(output: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(output, y)

    return api.diagnose(build(net, start, seed), x, loss=cross_entropy)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Layers as small as these gain nothing from several threads, which wait for each other actively."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _guess_loss(train: Dataset) -> float:
    """Entropy of the classes' frequencies, in nats: the loss of the best answer that ignores the image."""
    share = np.bincount(train.y, minlength=len(train.classes)) / len(train)
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())


def _or_inf(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
