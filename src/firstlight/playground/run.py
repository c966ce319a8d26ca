"""One training run of the page: a module, its data, its optimizer and what happened so far."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.errors import InputError
from firstlight.playground import problems
from firstlight.playground.config import RunConfig
from firstlight.playground.history import History
from firstlight.playground.points import Points
from firstlight.playground.problems import OwnModel
from firstlight.playground.taps import Tap

# Updates of the running cost stop once it is beyond float32; the parameters are then left as they were.
_OPTIMIZERS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
}


class Run:
    """The state of one run; everything in it is made from the config, so that a reset repeats it bit for bit.

    Args:
        config: What to build and how to train it.
        own: The user's model and batch, for ``data="own"``.
        points: The person's points, for ``data="custom"``.

    Raises:
        InputError: The config asks for data that is not there.
    """

    def __init__(self, config: RunConfig, *, own: OwnModel | None = None, points: Points | None = None) -> None:
        self.config = config
        self.problem = problems.build(config, own=own, points=points)
        self.model: nn.Module = self.problem.model.train()
        self.optimizer = _OPTIMIZERS[config.optimizer](self.model.parameters(), config.learning_rate)
        self.history = History()
        self.step_count = 0
        self.failure: str | None = None
        self.rates: list[tuple[int, float]] = [(0, config.learning_rate)]
        self.planned = False  # whether `taps` were looked for
        self.taps: tuple[Tap, ...] | None = None
        self.grid: Tensor | None = None  # points at which the decision boundary is drawn
        self._order = torch.Generator().manual_seed(config.seed)
        self._queue: Tensor = torch.empty(0, dtype=torch.int64)
        self._luck = torch.Generator().manual_seed(config.seed).get_state()

    @property
    def facts(self) -> dict[str, Any]:
        """What the page shows beside the settings."""
        count = sum(p.numel() for p in self.model.parameters())
        return {"parameters": count, **self.problem.facts}

    def advance(self) -> bool:
        """Make one update; False once the run has failed. A cost that is not finite ends it and is kept as a result."""
        if self.failure is not None:
            return False
        rows = self._next_rows()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            with self._own_luck():
                loss = self.problem.loss(self.model, rows)
                cost = float(loss.detach())
                self.history.add(self.step_count, cost)
                if not math.isfinite(cost):
                    self.failure = f"The cost is {cost} at step {self.step_count}."
                    return False
                loss.backward()
        except FloatingPointError as error:
            self.failure = f"{error} at step {self.step_count}."
            return False
        self.optimizer.step()
        self.step_count += 1
        return True

    @contextlib.contextmanager
    def _own_luck(self) -> Iterator[None]:
        """Random numbers of this run's own, for models that draw some in every pass (dropout).

        Without them a reset would be another run. The playground's own networks draw nothing once they are made.
        """
        if self.problem.own is None:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._luck)
            yield
            self._luck = torch.get_rng_state()

    def can_go_on(self, config: RunConfig) -> bool:
        """Whether settings differ in the learning rate alone, which needs no fresh start, and the run is sound."""
        return self.failure is None and replace(config, learning_rate=self.config.learning_rate) == self.config

    def go_on(self, config: RunConfig) -> None:
        """Take over another learning rate; the export tells from which step on."""
        if config.learning_rate == self.config.learning_rate:
            return
        self.config = config
        if self.rates[-1][0] == self.step_count:
            self.rates.pop()
        self.rates.append((self.step_count, config.learning_rate))
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate

    def _next_rows(self) -> Tensor | None:
        """Row numbers of the next batch; None for all rows. Every row is used once an epoch."""
        batch, count = self.config.batch, self.problem.train_count
        if batch == 0 or batch >= count or not self.problem.batched:
            return None
        if len(self._queue) < batch:
            self._queue = torch.randperm(count, generator=self._order)
        rows, self._queue = self._queue[:batch], self._queue[batch:]
        return rows

    def twin(self, **changes: Any) -> Run:
        """A fresh run with some settings changed, on the same data."""
        config = replace(self.config, **changes)
        return Run(config, own=self.problem.own, points=self.problem.points)

    def fresh_model(self, seed: int) -> nn.Module:
        """The same network as drawn with another seed, before any training."""
        model = copy.deepcopy(self.model)
        problems.initialize(model, replace(self.config, seed=seed), self.problem)
        return model

    def fixed(self, code: str) -> RunConfig:
        """The config after the remedy for a finding was applied.

        Raises:
            InputError: There is no remedy that the page's settings can express.
        """
        from firstlight.playground.verdict import remedy

        changes = remedy(code, self.config)
        if not changes:
            raise InputError("fix", got=repr(code)[:40], expected="a finding that a setting can mend")
        return replace(self.config, **changes)

    def exported(self) -> str:
        """A short script that repeats this run with the same seed."""
        from firstlight.playground.export import script

        return script(self.config, self.problem.facts, self.problem.points, self.rates)
