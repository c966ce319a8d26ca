"""The data sets' record, scikit-learn's sets, the planar sets, and the real files where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from firstlight.errors import DataError, InputError
from firstlight.lab.data import Dataset, Splits, load
from firstlight.lab.data.planar import PLANAR, planar


def made(x: np.ndarray, y: list[int], classes: int = 2) -> Dataset:
    return Dataset("made", "train", x.astype(np.float32), np.array(y, dtype=np.int64), ("a", "b", "c")[:classes], "")


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (np.ones((3, 2)), [0, 1], "3 samples and 2 labels"),
        (np.ones((2, 2)), [0, 2], "labels from 0 to 2; expected labels from 0 to 1"),
        (np.ones((2, 2)), [-1, 1], "labels from -1 to 1"),
        (np.ones((0, 2)), [], "no samples"),
        (np.array([[1.0, np.nan], [np.inf, 1.0], [0.0, 0.0]]), [0, 1, 0], "NaN or Inf in 2 of 3 samples"),
        (np.ones(2), [0, 1], "x float32 (2,)"),
    ],
)
def test_record_refuses_what_does_not_fit(x: np.ndarray, y: list[int], text: str) -> None:
    with pytest.raises(DataError) as caught:
        made(x, y)
    assert text in str(caught.value)


def test_record_gives_rows_targets_and_parts() -> None:
    data = made(np.arange(24.0).reshape(4, 2, 3), [0, 1, 1, 0])
    assert data.flat().shape == (4, data.features) == (4, 6)
    assert data.target() is data.y
    np.testing.assert_array_equal(data.target("autoencoding"), data.flat())
    assert data.take(2).y.tolist() == [0, 1]
    assert sorted(data.take(4, seed=1).x[:, 0, 0].tolist()) == [0.0, 6.0, 12.0, 18.0]
    with pytest.raises(InputError, match="1 to 4 samples"):
        data.take(5)
    with pytest.raises(InputError, match="autoencoding"):
        data.target("regression")  # type: ignore[arg-type]


def test_standardized_uses_the_training_part_alone() -> None:
    train, test = made(np.array([[0.0, 2.0], [4.0, 6.0]]), [0, 1]), made(np.array([[100.0, 3.0]]), [0])
    scaled = Splits(train, test).standardized()
    np.testing.assert_allclose(scaled.train.x.mean(), 0.0, atol=1e-7)
    np.testing.assert_allclose(scaled.train.x.std(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(scaled.test.x[0, 1], 0.0, atol=1e-7)
    with pytest.raises(DataError, match="constant"):
        Splits(made(np.ones((2, 2)), [0, 1]), test).standardized()


@pytest.mark.parametrize(("name", "rows", "classes"), [("digits", 1797, 10), ("iris", 150, 3), ("wine", 178, 3)])
def test_bundled_sets_are_split_by_class(name: str, rows: int, classes: int) -> None:
    train, test = load(name)
    assert len(train) + len(test) == rows
    assert len(train.classes) == classes
    share = np.bincount(test.y) / (np.bincount(train.y) + np.bincount(test.y))
    assert np.all(np.abs(share - 0.2) < 0.02)
    again = load(name)
    np.testing.assert_array_equal(train.x, again.train.x)


@pytest.mark.parametrize("name", PLANAR)
def test_planar_sets_are_balanced_and_seeded(name: str) -> None:
    train, test = planar(name, 200, seed=3)
    assert np.bincount(train.y).tolist() == [100, 100]
    assert not np.array_equal(train.x, test.x)
    np.testing.assert_array_equal(train.x, planar(name, 200, seed=3).train.x)
    assert not np.array_equal(train.x, planar(name, 200, seed=4).train.x)
    with pytest.raises(InputError, match="even number"):
        planar(name, 7)


def test_planar_formulas() -> None:
    n = 4000
    circle = planar("circle", n).train
    radius = np.linalg.norm(circle.x, axis=1)
    assert radius[circle.y == 0].min() >= 3.0 - 1e-6
    assert radius[circle.y == 0].max() <= 5.0 + 1e-6
    assert radius[circle.y == 1].max() <= 2.0 + 1e-6

    square = planar("square", n).train
    assert np.all((np.sign(square.x).prod(axis=1) < 0) == (square.y == 1))
    assert np.abs(square.x).min() >= 0.5
    assert np.abs(square.x).max() <= 5.0

    gaussian = planar("gaussian", n).train
    # the mean of n/2 unit normals: 5 standard errors
    centres = np.stack([gaussian.x[gaussian.y == label].mean(axis=0) for label in (0, 1)])
    np.testing.assert_allclose(centres, [[2, 2], [-2, -2]], atol=5 / np.sqrt(n / 2))

    moon = planar("moon", n).train
    i = np.arange(n // 2) / (n // 2)
    for label, turn, shift in ((0, 0.0, 0.5), (1, 1.0, -0.5)):
        points = moon.x[moon.y == label] - np.array([shift, 0.0])
        direction = np.stack((np.cos(np.pi * (i + turn)), np.sin(np.pi * (i + turn))), axis=1)
        along = (points * direction).sum(axis=1) - 4.0 * i
        across = points[:, 0] * direction[:, 1] - points[:, 1] * direction[:, 0]
        np.testing.assert_allclose(across, 0.0, atol=1e-5)
        np.testing.assert_allclose(along.mean(), 1.0, atol=5 * 0.25 / np.sqrt(n / 2))
        np.testing.assert_allclose(along.std(), 0.25, atol=5 * 0.25 / np.sqrt(n))


@pytest.mark.skipif(
    not os.environ.get("FIRSTLIGHT_DATA") or not Path(os.environ["FIRSTLIGHT_DATA"], "mnist").is_dir(),
    reason="$FIRSTLIGHT_DATA names no folder with mnist/",
)
def test_the_real_mnist() -> None:
    train, test = load("mnist")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert np.bincount(train.y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    np.testing.assert_allclose(train.x.mean(dtype=np.float64) * 255, 33.3184, atol=5e-5)
    np.testing.assert_allclose(train.x.std(dtype=np.float64) * 255, 78.5675, atol=5e-5)
