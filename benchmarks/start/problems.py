"""The data of the start benchmark: small real images, flat, as images, or as rows of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

SAMPLES = 2048
DATA = ("digits", "mnist", "fashion-mnist")


@dataclass(frozen=True)
class Problem:
    """Training samples of one data set.

    Attributes:
        name: One of `DATA`.
        x: Images, shape (samples, 1, side, side), entries between 0 and 1. MNIST and Fashion-MNIST are averaged
            over 2 × 2 pixels (side 14), digits have side 8.
        y: Classes, shape (samples,).
        chance: Cross entropy in nats of the best answer that does not look at the input: the entropy of the classes.
    """

    name: str
    x: torch.Tensor
    y: torch.Tensor
    chance: float

    @property
    def side(self) -> int:
        """Rows (= columns) of an image."""
        return self.x.shape[-1]


@cache
def problem(name: str) -> Problem:
    """Read a set; the first `SAMPLES` of a fixed permutation of its training part.

    Raises:
        DataError: MNIST or Fashion-MNIST is on no disk (set FIRSTLIGHT_DATA to the folder that holds mnist/).
    """
    if name == "digits":
        from sklearn import datasets

        bunch: Any = datasets.load_digits()
        images, labels = bunch.images / 16.0, bunch.target
    else:
        from firstlight.lab.data.catalogue import load

        train, _ = load(name)
        images, labels = train.x, train.y
    pick = np.random.default_rng(0).permutation(len(labels))[:SAMPLES]
    z = torch.from_numpy(np.ascontiguousarray(images[pick], np.float32)).reshape(len(pick), 1, *_square(images))
    if z.shape[-1] == 28:
        z = F.avg_pool2d(z, 2)
    t = torch.from_numpy(np.ascontiguousarray(labels[pick], np.int64))
    share = torch.bincount(t).double() / len(t)
    share = share[share > 0]
    return Problem(name, z, t, float(-(share * share.log()).sum()))


def _square(images: np.ndarray) -> tuple[int, int]:
    side = round(float(np.prod(images.shape[1:])) ** 0.5)
    return side, side
