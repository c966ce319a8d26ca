"""How alike the positions of a sequence are, pair by pair: behind a causal mask the first ones see the same keys."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_SINGLE, _GROWTH = 6, 1.4  # positions at each end that have a bin of their own; growth of the bins behind them


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Positions in bins that are narrow at both ends of a sequence.

    Attributes:
        start: First position of each bin.
        width: Positions in each.
        seen: Number of positions up to the bin's (geometric) middle, itself included.
        first: First position of each bin, as an index.
        pairs: Ordered pairs of different positions in each pair of bins.
    """

    start: Array
    width: Array
    seen: Array
    first: npt.NDArray[np.intp]
    pairs: Array

    def means(self, line: Array) -> Array:
        """Mean over each bin of what is known at every position."""
        return np.add.reduceat(line, self.first) / self.width

    def line(self, values: Array) -> Array:
        """What is known of bins, at every position: between the middles linear in ln n."""
        n: Array = np.arange(float(self.width.sum())) + 1.0
        return np.asarray(np.interp(np.log(n), np.log(self.seen), values), dtype=np.float64)


@functools.lru_cache(maxsize=64)
def bins(size: int) -> Bins:
    """The bins of a sequence of so many positions."""
    half = (size + 1) // 2
    edges, width = [0], 1.0
    while edges[-1] < half:
        width = width * _GROWTH if edges[-1] >= _SINGLE else 1.0
        edges.append(min(edges[-1] + int(width), half))
    every = sorted({*edges, *(size - e for e in edges)})
    start, end = np.array(every[:-1], dtype=np.float64), np.array(every[1:], dtype=np.float64)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, size + 1.0)))])
    first, last = start.astype(np.intp), end.astype(np.intp)
    lengths = end - start
    return Bins(
        start,
        lengths,
        np.exp((logs[last] - logs[first]) / lengths),
        first,
        np.outer(lengths, lengths) - np.diag(lengths),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of a causal softmax, of which row t sees the first t + 1 keys.

    Attributes:
        bins: Of rows and of keys.
        share: E Σ p² of a row of each bin.
        met: E Σ p_t p_s of two different rows, for each kind of pairs (`Course.pairs`).
        coherent: `Keyed.coherent` of each, of unlike keys.
        lone: `Keyed.lone` of each.
        wander: E c² of two unlike keys.
    """

    bins: Bins
    share: Array
    met: Array
    coherent: Array
    lone: Array
    wander: float

    @property
    def fewer(self) -> Array:
        """Keys that both of two rows see."""
        return np.minimum.outer(self.bins.seen, self.bins.seen)

    @property
    def seen(self) -> Array:
        """Keys of each bin that a row of each bin sees, shape (rows, keys)."""
        b, size = self.bins, len(self.share)
        return np.tril(np.broadcast_to(b.width, (size, size)), -1) + np.diag(b.seen - b.start)

    @property
    def seeing(self) -> Array:
        """Rows of each bin that see a key of each bin, shape (rows, keys)."""
        b, size = self.bins, len(self.share)
        return np.tril(np.broadcast_to(b.width[:, None], (size, size)), -1) + np.diag(0.5 * (b.width + 1.0))


@dataclass(slots=True, eq=False)
class Course:
    """Correlations of pairs of positions that differ in nothing else.

    Attributes:
        atom: The atom that counts positions.
        size: Number of positions.
        pairs: Mean correlations of each pair of bins, over pairs of different positions of one sample; where they are
            known, behind these over those of two samples, and over pairs of two samples at one position (diagonal).
    """

    atom: int
    size: int
    pairs: Array

    def moved(self, on_field: Callable[[Array], Array], rank: int) -> Course | None:
        """The same behind a change of layout; None where positions are cut, reordered or merged with others."""
        order = _in_order(self.size)
        try:
            found = on_field(order.reshape([-1 if i == self.atom else 1 for i in range(rank)]))
        except (ValueError, IndexError):
            return None
        if found.size != self.size or not np.array_equal(found.ravel(), order):
            return None
        return Course(int(np.argmax(found.shape)), self.size, self.pairs)


@functools.lru_cache(maxsize=64)
def _in_order(size: int) -> Array:
    out = np.arange(size, dtype=np.float64)
    out.setflags(write=False)
    return out


def moved_courses(courses: tuple[Course, ...], on_field: Callable[[Array], Array], rank: int) -> tuple[Course, ...]:
    """Those that are left behind a change of layout."""
    return tuple([c for old in courses if (c := old.moved(on_field, rank)) is not None])
