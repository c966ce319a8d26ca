"""What a run learns: data as tensors, the network that fits it, the loss, and the weights at the start."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from firstlight.errors import InputError
from firstlight.lab.data import Dataset, load
from firstlight.lab.data.catalogue import load_or_digits
from firstlight.playground.config import RunConfig
from firstlight.playground.network import stack
from firstlight.playground.points import Points
from firstlight.playground.starts import initialize as initialize

LEARNED = 0.1
MAX_SAMPLES = 2_000  # of MNIST: enough to learn from, small enough to step 60 times a second


@dataclass(frozen=True, slots=True)
class OwnModel:
    """The user's own module with one batch.

    Attributes:
        model: The module; each run trains a deep copy of it.
        args: Positional arguments of its forward.
        kwargs: Keyword arguments of its forward.
        loss: Called with the output, gives a scalar.
        title: What the page calls it.
        loss_title: What the page calls the loss.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    loss: Callable[[Any], Tensor]
    title: str
    loss_title: str


@dataclass(slots=True)
class Problem:
    """A module and its data.

    Attributes:
        model: The network of this run.
        x: Training inputs, (samples, features); None for an own model.
        y: Training targets.
        x_test: Held-back inputs; empty where nothing is held back.
        y_test: Held-back targets.
        classes: Names of the classes.
        source: Where the data came from, in words.
        loss_name: "logistic", "cross_entropy" or "mse".
        own: The user's model, where the run trains a copy of it.
        points: The person's points, where the run trains on them.
        scheme: What `firstlight.initialize` was given; None for weights that were left as they came.
        facts: What the page and the exported script are told.
        varies: Whether the network computes something else when it is trained than when it is used.
    """

    model: nn.Module
    x: Tensor | None = None
    y: Tensor | None = None
    x_test: Tensor | None = None
    y_test: Tensor | None = None
    classes: tuple[str, ...] = ()
    source: str = ""
    loss_name: str = ""
    own: OwnModel | None = None
    points: Points | None = None
    scheme: Any = None
    facts: dict[str, Any] = field(default_factory=dict)
    varies: bool = True

    @property
    def batched(self) -> bool:
        """Whether rows can be picked from the data."""
        return self.x is not None

    @property
    def train_count(self) -> int:
        """Training samples."""
        return 0 if self.x is None else len(self.x)

    @property
    def count(self) -> int:
        """All samples."""
        return self.train_count + (0 if self.x_test is None else len(self.x_test))

    @property
    def planar(self) -> bool:
        """Whether the inputs are points of a plane, so that a decision boundary can be drawn."""
        return self.x is not None and self.x.ndim == 2 and self.x.shape[1] == 2

    @property
    def guess_cost(self) -> float | None:
        """What an even guess costs: ln k for k classes, by squares what their mean leaves; None for an own model."""
        if self.own is not None:
            return None
        classes = len(self.classes)
        if self.loss_name == "mse":
            return 0.25 if classes == 2 else (classes - 1) / classes**2
        return math.log(classes)

    @property
    def learned_cost(self) -> float | None:
        """Cost below which a task counts as learned: a tenth of an even guess; None for an own model."""
        guess = self.guess_cost
        return None if guess is None else LEARNED * guess

    def inputs(self, rows: Tensor | slice | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the model's forward for some training rows."""
        if self.own is not None:
            return self.own.args, self.own.kwargs
        assert self.x is not None
        return (self.x if rows is None else self.x[rows],), {}

    def loss(self, model: nn.Module, rows: Tensor | None = None) -> Tensor:
        """The cost on some training rows, or on all of them."""
        args, kwargs = self.inputs(rows)
        output = model(*args, **kwargs)
        if self.own is not None:
            return self.own.loss(output)
        assert self.y is not None
        return self.cost(output, self.y if rows is None else self.y[rows])

    def cost(self, output: Tensor, y: Tensor) -> Tensor:
        """The cost of given outputs."""
        if self.loss_name == "logistic":
            return F.binary_cross_entropy_with_logits(output[:, 0], y.to(output.dtype))
        if self.loss_name == "mse":
            target = y[:, None] if output.shape[1] == 1 else F.one_hot(y, output.shape[1])
            return F.mse_loss(output, target.to(output.dtype))
        return F.cross_entropy(output, y)

    def predicted(self, output: Tensor) -> Tensor:
        """Class numbers of given outputs."""
        if output.shape[1] == 1:
            return (output[:, 0] > (0.5 if self.loss_name == "mse" else 0.0)).long()
        return output.argmax(dim=1)

    @torch.no_grad()
    def evaluated(self, model: nn.Module, x: Tensor) -> Tensor:
        """What a network of the playground gives when it is used, not trained: batch norms take their averages."""
        if self.varies:
            model.eval()
        try:
            return model(x)
        finally:
            if self.varies:
                model.train()

    def scores(self, model: nn.Module, output: Tensor | None = None) -> dict[str, float]:
        """Accuracy on both parts and the cost on the held-back one; empty for an own model.

        Args:
            model: The network.
            output: What it gave for the probe, if that is known.
        """
        if self.x is None or self.y is None:
            return {}
        if output is None or self.varies or len(output) != len(self.x):
            output = self.evaluated(model, self.x)
        result = {"accuracy": float((self.predicted(output.detach()) == self.y).float().mean())}
        if self.x_test is not None and self.y_test is not None and len(self.x_test):
            output = self.evaluated(model, self.x_test)
            result["test_accuracy"] = float((self.predicted(output) == self.y_test).float().mean())
            result["test_cost"] = float(self.cost(output, self.y_test))
        return result


def probe(problem: Problem, samples: int = 256) -> tuple[tuple[Any, ...], dict[str, Any], Callable[[Any], Tensor]]:
    """Arguments and cost of a pass for looking at the layers: at most `samples` training rows, evenly spread."""
    if problem.own is not None:
        return problem.own.args, problem.own.kwargs, problem.own.loss
    assert problem.y is not None
    rows = slice(None, None, max(1, problem.train_count // samples))
    args, kwargs = problem.inputs(rows)
    y = problem.y[rows]
    return args, kwargs, lambda output: problem.cost(output, y)


def build(config: RunConfig, *, own: OwnModel | None, points: Points | None) -> Problem:
    """Make the data and the network of a run and draw its first weights.

    Raises:
        InputError: The data that the config asks for is not there.
    """
    problem = _own(own) if config.data == "own" else _data(config, points)
    if config.data != "own":
        assert problem.x is not None
        binary = len(problem.classes) == 2
        problem.model = stack(problem.x.shape[1], 1 if binary else len(problem.classes), config)
        problem.varies = config.normalization == "batch"
        problem.loss_name = "mse" if config.loss == "mse" else "logistic" if binary else "cross_entropy"
        problem.facts = {
            "features": problem.x.shape[1],
            "samples": problem.count,
            "classes": list(problem.classes),
            "source": problem.source,
            "loss": problem.loss_name,
            "outputs": 1 if binary else len(problem.classes),
        }
    initialize(problem.model, config, problem)
    return problem


def _own(own: OwnModel | None) -> Problem:
    if own is None:
        raise InputError(
            "config.data",
            got="'own'",
            expected="a playground that was opened on a model",
            action="Start it with `firstlight playground MODULE:FACTORY --input …`.",
        )
    facts = {"title": own.title, "loss": own.loss_title, "source": own.title, "classes": []}
    return Problem(copy.deepcopy(own.model), own=own, facts=facts)


def _data(config: RunConfig, points: Points | None) -> Problem:
    if config.data == "custom":
        if points is None:
            raise InputError(
                "config.data", got="'custom'", expected="points", action="Draw some or upload a CSV file first."
            )
        x, y, classes, source = points.x, points.y, points.labels, f"{len(points.x):,} points of your own"
    else:
        data = _loaded(config.data, config.count, config.data_seed)
        x, y, classes, source = data.x.reshape(len(data), -1), data.y, data.classes, data.source
    rng = np.random.default_rng((config.data_seed, 1))
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    if config.noise:
        x = x + config.noise * rng.standard_normal(x.shape).astype(np.float32)
    held = int(len(x) * config.split)
    inputs, targets = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y)
    return Problem(
        nn.Identity(),
        x=inputs[held:],
        y=targets[held:],
        x_test=inputs[:held],
        y_test=targets[:held],
        classes=classes,
        source=source,
        points=points,
    )


@functools.lru_cache(maxsize=16)
def _loaded(name: str, count: int, seed: int) -> Dataset:
    if name in ("mnist", "digits"):
        train = (load_or_digits(name) if name == "mnist" else load(name)).standardized().train
        return train.take(min(count, len(train), MAX_SAMPLES), seed=seed)
    return load(name, n=count + count % 2, seed=seed).train
