"""The data sets of the labelled networks: small, built in or synthetic, and the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

SAMPLES = 512
BATCH = 64


@dataclass(frozen=True)
class Task:
    """Inputs and targets of one problem.

    `shape` is that of one sample; `outputs` the size of the head; `loss` one of cross_entropy, bce, mse.
    """

    name: str
    x: torch.Tensor
    y: torch.Tensor
    outputs: int
    loss: str
    kind: str  # "table", "image", "sequence"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    def chance(self, first: int | None = None) -> float:
        """Loss of the best answer that does not look at the input, over all samples or the `first` ones."""
        y = self.y[:first]
        if self.loss == "cross_entropy":
            share = torch.bincount(y).double() / len(y)
            share = share[share > 0]
            return float(-(share * share.log()).sum())
        if self.loss == "bce":
            share = y.double().mean()
            return float(-(share * share.log() + (1 - share) * (1 - share).log()))
        return float(y.double().var(unbiased=False))


def loss_of(name: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss function; a head that already gives probabilities uses the ``prob_`` forms."""
    return {
        "cross_entropy": F.cross_entropy,
        "bce": lambda out, y: F.binary_cross_entropy_with_logits(out.flatten(), y),
        "mse": lambda out, y: F.mse_loss(out.flatten(), y),
        "prob_cross_entropy": lambda out, y: F.nll_loss((out + 1e-7).log(), y),
        "prob_bce": lambda out, y: F.binary_cross_entropy(out.flatten().clamp(0, 1), y),
    }[name]


def _standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / (x.std(0) + 1e-8)


def _table(bunch: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples and targets of one of scikit-learn's sets, in a random order."""
    x, y = np.asarray(bunch.data), np.asarray(bunch.target)
    order = rng.permutation(len(x))[:SAMPLES]
    return x[order], y[order]


@cache
def task(name: str) -> Task:
    """Build the named data set."""
    from sklearn import datasets

    rng = np.random.default_rng(sum(map(ord, name)))
    if name in {"digits", "digits_image"}:
        x, y = _table(datasets.load_digits(), rng)
        x = (x - x.mean()) / x.std()
        if name == "digits_image":
            return _task(name, x.reshape(-1, 1, 8, 8), y, 10, "cross_entropy", "image")
        return _task(name, x, y, 10, "cross_entropy", "table")
    if name == "digits_flat_binary":
        x, y = _table(datasets.load_digits(), rng)
        return _task(name, (x - x.mean()) / x.std(), (y >= 5).astype(float), 1, "bce", "table")
    if name in {"cancer", "cancer_raw"}:
        x, y = _table(datasets.load_breast_cancer(), rng)
        return _task(name, x if name.endswith("raw") else _standard(x), y.astype(float), 1, "bce", "table")
    if name in {"wine", "wine_raw"}:
        x, y = _table(datasets.load_wine(), rng)
        return _task(name, x if name.endswith("raw") else _standard(x), y, 3, "cross_entropy", "table")
    if name in {"diabetes", "diabetes_raw"}:
        x, y = _table(datasets.load_diabetes(), rng)
        y = y if name.endswith("raw") else (y - y.mean()) / y.std()
        return _task(name, _standard(x), y, 1, "mse", "table")
    if name in {"circles", "moons"}:
        if name == "circles":
            x, y = datasets.make_circles(SAMPLES, noise=0.1, random_state=0, factor=0.5)
        else:
            x, y = datasets.make_moons(SAMPLES, noise=0.1, random_state=0)
        return _task(name, _standard(np.asarray(x)), np.asarray(y), 2, "cross_entropy", "table")
    if name == "blobs":
        x, y, *_ = datasets.make_blobs(SAMPLES, n_features=20, centers=5, cluster_std=3.0, random_state=0)
        return _task(name, _standard(np.asarray(x)), np.asarray(y), 5, "cross_entropy", "table")
    if name == "teacher":
        x = rng.standard_normal((SAMPLES, 10))
        y = np.tanh(x @ rng.standard_normal((10, 8)) / 10**0.5) @ rng.standard_normal(8)
        return _task(name, x, (y - y.mean()) / y.std(), 1, "mse", "table")
    if name in {"majority", "waves"}:
        return _sequence(name, rng)
    raise KeyError(name)


def _sequence(name: str, rng: np.random.Generator) -> Task:
    if name == "waves":  # which of four frequencies, 16 noisy steps of 3 channels
        y = rng.integers(0, 4, SAMPLES)
        t = np.arange(16)
        phase = rng.uniform(0, 2 * np.pi, (SAMPLES, 1, 3))
        x = np.sin((0.3 + 0.4 * y)[:, None, None] * t[None, :, None] + phase)
        return _task(name, x + 0.3 * rng.standard_normal(x.shape), y, 4, "cross_entropy", "sequence")
    y = rng.integers(0, 4, SAMPLES)  # the most frequent of four token groups, 12 tokens of 16
    tokens = rng.integers(0, 16, (SAMPLES, 12))
    likely = rng.random((SAMPLES, 12)) < 0.5
    tokens = np.where(likely, 4 * y[:, None] + tokens % 4, tokens)
    return Task(name, torch.from_numpy(tokens), torch.from_numpy(y), 4, "cross_entropy", "tokens")


def _task(name: str, x: np.ndarray, y: np.ndarray, outputs: int, loss: str, kind: str) -> Task:
    labels = torch.from_numpy(y.astype(np.int64 if loss == "cross_entropy" else np.float32))
    return Task(name, torch.from_numpy(np.ascontiguousarray(x, np.float32)), labels, outputs, loss, kind)
