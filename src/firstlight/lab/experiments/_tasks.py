"""The learning tasks of the experiments: arrays fit for the trainer, loaded once per process."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.errors import InputError
from firstlight.lab.data import load
from firstlight.lab.data.places import cache_dir
from firstlight.lab.evaluate import Data
from firstlight.lab.experiment import near
from firstlight.lab.losses import Loss

# "speech" stands in for TIMIT, which is not free; "timit" is the user's own copy of it
_SETS = {"mnist": "mnist", "speech": "spoken-digits", "timit": "timit"}
TASKS = tuple(name + kind for name in _SETS for kind in ("", "-autoencoder"))


@functools.lru_cache(maxsize=2)
def _arrays(name: str) -> tuple[Data, Data, int, str]:
    splits = load(name).standardized()
    train, test = ((np.ascontiguousarray(part.flat()), part.y) for part in splits)
    return train, test, len(splits.train.classes), splits.train.source


def task_data(task: str, samples: int = 0) -> tuple[Data, Data, int, Loss]:
    """Training and test arrays, number of outputs and loss of a task.

    Inputs are standardized by the training set's two numbers. An autoencoder's target is its input.

    Args:
        task: One of `TASKS`.
        samples: Take the first that many training samples; 0 for all.

    Raises:
        InputError: Unknown task.
        DataError: The data set is on no disk and cannot be fetched.
    """
    if task not in TASKS:
        raise InputError("task", got=repr(task), expected=" or ".join(map(repr, TASKS)), action=near(task, TASKS))
    train, test, classes, _ = _arrays(_SETS[task.removesuffix("-autoencoder")])
    if samples:
        train = train[0][:samples], train[1][:samples]
    if task.endswith("autoencoder"):
        return (train[0], train[0]), (test[0], test[0]), train[0].shape[1], "mse"
    return train, test, classes, "cross-entropy"


def checkpoint_file(config: Any, seeds: Sequence[int]) -> Path:
    """Where a long run keeps the state that it resumes from: in the cache, by what is run."""
    text = f"{config!r} {tuple(seeds)}"
    return cache_dir() / "checkpoints" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.pt"
