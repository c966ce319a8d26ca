"""The tasks of the canonical cases: real data where there is some, each with the loss that people use for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

SAMPLES = 512
CONTEXT = 16

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Problem:
    """Inputs, targets and the loss.

    Attributes:
        name: Of the data.
        x: Inputs, samples first.
        y: Targets.
        loss: On (output, targets).
        kind: "classes", "binary", "numbers" or "text": how the loss of the best constant answer is computed.
        unit: What the loss is multiplied with.
    """

    name: str
    x: torch.Tensor
    y: torch.Tensor
    loss: Loss
    kind: str
    unit: float = 1.0

    def chance(self, first: int) -> float:
        """Loss of the best answer that does not look at the input, over the `first` samples; from the data alone."""
        y = self.y[:first]
        if self.kind == "numbers":
            return self.unit * float(y.double().var(0, unbiased=False).mean())
        share = torch.bincount(y.flatten().long()).double() / y.numel()
        return self.unit * float(-(share[share > 0] * share[share > 0].log()).sum())

    def changed(
        self, x: Callable[[torch.Tensor], torch.Tensor] | None = None, loss: Loss | None = None, unit: float = 1.0
    ) -> Problem:
        """The same with other inputs or another loss."""
        return replace(self, x=self.x if x is None else x(self.x), loss=loss or self.loss, unit=unit)


def cross_entropy(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Over the last axis, samples and positions alike."""
    return F.cross_entropy(out.flatten(0, -2), y.flatten())


def squared(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(out, y)


def binary(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(out.squeeze(-1), y)


def binary_of_probability(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy(out.squeeze(-1), y)


def _standard(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(((x - x.mean(0)) / (x.std(0) + 1e-8)).astype(np.float32))


def _classes(name: str, x: torch.Tensor, y: np.ndarray) -> Problem:
    return Problem(name, x, torch.from_numpy(y.astype(np.int64)), cross_entropy, "classes")


def _table(loaded: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """scikit-learn's inputs and targets, whose types it leaves open."""
    x, y = loaded
    return np.asarray(x), np.asarray(y)


@cache
def digits(flat: bool = True) -> Problem:
    """scikit-learn's 8 x 8 digits, divided by 16."""
    from sklearn.datasets import load_digits

    pixels, y = _table(load_digits(return_X_y=True))
    x = torch.from_numpy(pixels[:SAMPLES].astype(np.float32)) / 16.0
    return _classes("digits", x if flat else x.view(-1, 1, 8, 8), y[:SAMPLES])


@cache
def moons() -> Problem:
    from sklearn.datasets import make_moons

    x, y = _table(make_moons(SAMPLES, noise=0.1, random_state=1))
    return _classes("moons", _standard(x), y)


@cache
def rings() -> Problem:
    """One ring inside another: no linear function separates them."""
    from sklearn.datasets import make_circles

    x, y = _table(make_circles(SAMPLES, noise=0.05, factor=0.5, random_state=1))
    return _classes("rings", _standard(x), y)


@cache
def cancer(raw: bool = False) -> Problem:
    """Thirty measurements of a tumour, from 0.001 to 4000 where raw; benign or not."""
    from sklearn.datasets import load_breast_cancer

    x, y = _table(load_breast_cancer(return_X_y=True))
    order = np.random.default_rng(1).permutation(len(x))[:SAMPLES]
    x, y = x[order], y[order]
    inputs = torch.from_numpy(x.astype(np.float32)) if raw else _standard(x)
    return Problem("cancer", inputs, torch.from_numpy(y.astype(np.float32)), binary, "binary")


@cache
def diabetes(raw: bool = False) -> Problem:
    """Progression of a disease, 25 to 346 where raw, from ten measurements."""
    from sklearn.datasets import load_diabetes

    x, y = _table(load_diabetes(return_X_y=True))
    targets = torch.from_numpy(y.astype(np.float32)) if raw else _standard(y)
    return Problem("diabetes", _standard(x), targets[:, None], squared, "numbers")


@cache
def pixels() -> Problem:
    """An image as a function of the position: brightness of one 8 x 8 digit, interpolated to 22 x 22."""
    image = digits(False).x[:1]
    y = F.interpolate(image, (22, 22), mode="bilinear").flatten()
    side = torch.linspace(-1, 1, 22)
    x = torch.cartesian_prod(side, side)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    return Problem("pixels", x[order], ((y - y.mean()) / y.std())[order, None], squared, "numbers")


@cache
def images(name: str, flat: bool = True, side: int = 28) -> Problem:
    """MNIST or Fashion-MNIST's first pictures, 0 to 1, averaged down to `side` x `side`."""
    from firstlight.lab.data import load

    data = load(name).train
    x = torch.from_numpy(np.asarray(data.x[:SAMPLES], np.float32)).reshape(-1, 1, 28, 28)
    x = (x - x.min()) / (x.max() - x.min())
    x = F.interpolate(x, (side, side), mode="area") if side != 28 else x
    return _classes(name, x.flatten(1) if flat else x, np.asarray(data.y[:SAMPLES]))


@cache
def text() -> Problem:
    """Which character follows: English prose that comes with scikit-learn, 32 symbols."""
    from sklearn import datasets

    prose = " ".join(" ".join(getattr(datasets, f"load_{n}")().DESCR.lower().split()) for n in ("digits", "diabetes",
                     "breast_cancer", "wine", "iris"))  # fmt: skip
    known = "abcdefghijklmnopqrstuvwxyz .,-'"
    ids = torch.tensor([known.find(c) if c in known else len(known) for c in prose])
    rows = ids[: len(ids) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:SAMPLES]]
    return Problem("text", rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), cross_entropy, "text")


@cache
def waves() -> Problem:
    """Which of four frequencies: 24 noisy steps."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, SAMPLES)
    phase = rng.uniform(0, 2 * math.pi, (SAMPLES, 1))
    x = np.sin((0.3 + 0.4 * y)[:, None] * np.arange(24)[None] + phase) + 0.2 * rng.standard_normal((SAMPLES, 24))
    return _classes("waves", torch.from_numpy(x.astype(np.float32))[..., None], y)


@cache
def pictures_again(side: int = 8) -> Problem:
    """The picture itself is the target."""
    x = digits(False).x
    return Problem("autoencoder", x, x - x.mean(), squared, "numbers")
