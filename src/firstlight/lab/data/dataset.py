"""The one form that every data set of the lab takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from firstlight.errors import DataError, InputError

Task = Literal["classification", "autoencoding"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples and their classes, as NumPy arrays in main memory.

    Attributes:
        name: The set's name, "mnist".
        split: "train" or "test".
        x: Samples, float32, shape (n, *sample): images (n, H, W) with entries in [0, 1], features (n, d).
        y: Class of each sample, int64, shape (n,), entries in 0 … len(classes) - 1.
        classes: Names of the classes.
        source: Where it came from, in words fit for a figure's caption.

    Raises:
        DataError: If the arrays do not fit together, a label is out of range or an entry is not finite.
    """

    name: str
    split: str
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        where = f"{self.name} ({self.split})"
        if self.x.dtype != np.float32 or self.y.dtype != np.int64 or self.y.ndim != 1 or self.x.ndim < 2:
            raise DataError(
                where,
                got=f"x {self.x.dtype} {self.x.shape} and y {self.y.dtype} {self.y.shape}",
                expected="x float32 of shape (n, *sample) and y int64 of shape (n,)",
            )
        if len(self.x) != len(self.y):
            raise DataError(
                where,
                got=f"{len(self.x):,} samples and {len(self.y):,} labels",
                expected="one label per sample",
                action="Check that both files belong to the same split of the same set.",
            )
        if len(self.y) == 0:
            raise DataError(where, got="no samples", expected="at least one sample")
        low, high = int(self.y.min()), int(self.y.max())
        if low < 0 or high >= len(self.classes):
            raise DataError(
                where,
                got=f"labels from {low} to {high}",
                expected=f"labels from 0 to {len(self.classes) - 1} ({len(self.classes)} classes)",
                action="Check that the label file belongs to this set.",
            )
        bad = len(self.x) - int(np.isfinite(self.x.reshape(len(self.x), -1)).all(axis=1).sum())
        if bad:
            raise DataError(
                where,
                got=f"NaN or Inf in {bad:,} of {len(self.x):,} samples",
                expected="finite entries",
                action="Remove these samples or mend the source file.",
            )

    def __len__(self) -> int:
        return len(self.y)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x.shape[1:]

    @property
    def features(self) -> int:
        """Entries of one sample: the input width of a fully connected network."""
        return int(np.prod(self.sample_shape))

    def flat(self) -> npt.NDArray[np.float32]:
        """The samples as rows, shape (n, features); a view where NumPy can give one."""
        return self.x.reshape(len(self), -1)

    def target(self, task: Task = "classification") -> npt.NDArray[Any]:
        """What a network is to answer: the classes, or for autoencoding the samples themselves as rows."""
        if task == "classification":
            return self.y
        if task == "autoencoding":
            return self.flat()
        raise InputError("task", got=repr(task), expected='"classification" or "autoencoding"')

    def take(self, n: int, seed: int | None = None) -> Dataset:
        """The first `n` samples, or `n` samples drawn without replacement where a seed is given."""
        if not 1 <= n <= len(self):
            raise InputError("n", got=str(n), expected=f"1 to {len(self):,} samples of {self.name} ({self.split})")
        rows = slice(n) if seed is None else np.random.default_rng(seed).permutation(len(self))[:n]
        return replace(self, x=self.x[rows], y=self.y[rows])


class Splits(NamedTuple):
    """The training and the test part of one set."""

    train: Dataset
    test: Dataset

    def standardized(self) -> Splits:
        """Shift and scale both parts by two numbers of the training part: its mean entry and its deviation.

        One number each, not one per pixel: pixels that never vary would be divided by zero.
        """
        mean, sd = float(self.train.x.mean(dtype=np.float64)), float(self.train.x.std(dtype=np.float64))
        if sd == 0.0:
            raise DataError(
                f"{self.train.name} (train)",
                got="constant entries",
                expected="entries that differ",
                action="",
            )
        return Splits(*(replace(part, x=((part.x - mean) / sd).astype(np.float32)) for part in self))
