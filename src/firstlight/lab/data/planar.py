"""Two-dimensional sets with two classes: four of the initialization article, and a spiral.

The formulas (U uniform, N(mean, sd) normal, i = 0 … n-1 the number of the point within its class):

========  ==========================================================================================
circle    radius 4 + U(-1, 1) against 1 + U(-1, 1), angle U(0, 2π)
moon      radius 4i/n + N(1, .25) at angle πi/n, and the same at angle πi/n + π; x shifted by +.5 and -.5
square    p · U(.5, 5) entry by entry, p = (1, 1) or (-1, -1) against p = (1, -1) or (-1, 1)
gaussian  N(0, 1) in both entries around (2, 2) against (-2, -2)
spiral    radius 5(i+1)/n at angle 3.5π(i+1)/n + N(0, .1), and the same turned by π
========  ==========================================================================================

The article draws 50 points a class. It writes N(1, .25) without saying whether .25 is the deviation or the
variance; here it is the deviation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from firstlight.errors import InputError
from firstlight.lab.data.dataset import Dataset, Splits

_Points = npt.NDArray[np.float64]


def _polar(radius: _Points, angle: _Points) -> _Points:
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)


def _circle(rng: np.random.Generator, n: int) -> tuple[_Points, _Points]:
    outer, inner = (
        _polar(radius + rng.uniform(-1.0, 1.0, n), rng.uniform(0.0, 2.0 * np.pi, n)) for radius in (4.0, 1.0)
    )
    return outer, inner


def _moon(rng: np.random.Generator, n: int) -> tuple[_Points, _Points]:
    i = np.arange(n) / n
    upper, lower = (
        _polar(4.0 * i + rng.normal(1.0, 0.25, n), np.pi * (i + turn)) + np.array([shift, 0.0])
        for turn, shift in ((0.0, 0.5), (1.0, -0.5))
    )
    return upper, lower


def _square(rng: np.random.Generator, n: int) -> tuple[_Points, _Points]:
    same, opposite = (
        rng.choice([-1.0, 1.0], size=(n, 1)) * np.array(corner) * rng.uniform(0.5, 5.0, (n, 2))
        for corner in ((1.0, 1.0), (1.0, -1.0))
    )
    return same, opposite


def _gaussian(rng: np.random.Generator, n: int) -> tuple[_Points, _Points]:
    right, left = (centre + rng.standard_normal((n, 2)) for centre in (2.0, -2.0))
    return right, left


def _spiral(rng: np.random.Generator, n: int) -> tuple[_Points, _Points]:
    t = (np.arange(n) + 1.0) / n
    first, second = (_polar(5.0 * t, 3.5 * np.pi * t + turn + rng.normal(0.0, 0.1, n)) for turn in (0.0, np.pi))
    return first, second


_SETS: dict[str, Callable[[np.random.Generator, int], tuple[_Points, _Points]]] = {
    "circle": _circle,
    "moon": _moon,
    "square": _square,
    "gaussian": _gaussian,
    "spiral": _spiral,
}
PLANAR = tuple(_SETS)


def planar(name: str, n: int = 100, seed: int = 0) -> Splits:
    """Draw a set of `n` training points, n/2 of each class, and as many test points.

    Args:
        name: "circle", "moon", "square", "gaussian" or "spiral".
        n: Points of each part; even.
        seed: Of the draw; training and test points come from separate streams of it.

    Returns:
        Both parts, x of shape (n, 2), neither shifted nor scaled.
    """
    if name not in _SETS:
        raise InputError("data set", got=repr(name), expected="one of " + ", ".join(PLANAR))
    if n < 2 or n % 2:
        raise InputError("n", got=str(n), expected="an even number of points, at least 2")
    streams = np.random.default_rng(seed).spawn(2)
    return Splits(*(_draw(name, split, n, rng) for split, rng in zip(("train", "test"), streams, strict=True)))


def _draw(name: str, split: str, n: int, rng: np.random.Generator) -> Dataset:
    x = np.concatenate(_SETS[name](rng, n // 2)).astype(np.float32)
    y = np.repeat(np.array([0, 1], dtype=np.int64), n // 2)
    return Dataset(name, split, x, y, ("0", "1"), f"{name}, {n} points drawn by its formula")
