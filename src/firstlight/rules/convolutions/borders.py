"""Norms behind a convolution: zeros around the image make windows at the border differ from those inside.

All windows of a batch see what the input has in common; those at the border see less of it. So centring leaves more of
the border than of the rest, and the variances of the channels scatter more than the mean correlations say: for
y = Σ_t w_t x_t with independent weights, v = mean (y - ȳ)² of a channel is a quadratic form in them, and its relative
variance 2·mean_ss' κ(s, s')²/(mean κ(s, s))² with κ the centred pair moments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstlight.graph.border import Border
from firstlight.graph.signal import Array, Signal
from firstlight.rules.convolutions.taps import Taps, inputs
from firstlight.rules.state.layout import axis_atoms, state_weights
from firstlight.rules.state.noise import sample_correlation


def border(x: Signal, channel: int, maps: Mapping[int, Taps], level: float) -> Border:
    """The border of a convolution's output.

    Args:
        x: Its input, with one atom along channels and each axis.
        channel: Atom of the channels.
        maps: Windows of each axis.
        level: Mean square of the output for windows that lie inside.
    """
    q = x.q / max(x.mean_q, 1e-300)
    rows: dict[int, Array] = {}
    squares: dict[int, Array] = {}
    windows: dict[int, Array] = {}
    for axis, taps in maps.items():
        at = axis_atoms(x, axis)[0]
        profile = np.ones(taps.size)
        if q.shape[at] > 1:
            profile = np.sqrt(q.mean(axis=tuple(i for i in range(q.ndim) if i != at)))
        read = inputs(taps)
        windows[at] = np.where(read >= 0, profile[np.maximum(read, 0)], 0.0)
        rows[at], squares[at] = _shared(taps, read, windows[at], x.corr.shape[at])
    return Border(np.take(x.corr, [0], axis=channel), rows, squares, windows, level)


def _shared(taps: Taps, read: npt.NDArray[np.intp], w: Array, states: int) -> tuple[Array, Array]:
    """Means of K[d](s, s') over s', and of its square over both, of windows w that read the inputs `read`."""
    n = taps.out
    lines = np.zeros((taps.size + 2, taps.kernel))  # what each tap reads, by input, with a zero at either end
    s, t = np.nonzero(read >= 0)
    lines[read[s, t] + 1, t] = w[s, t]
    at = np.where(read >= 0, read + 1, 0)
    columns = np.arange(taps.kernel)[None, :]
    own = np.square(w).sum(axis=1)
    every = w @ w.sum(axis=0)
    near = (w * (lines[np.maximum(at - 1, 0), columns] + lines[np.minimum(at + 1, taps.size + 1), columns])).sum(axis=1)
    step = taps.stride if taps.transposed else 1
    beside = np.zeros(n)
    if states == 3 and (taps.transposed or taps.stride == 1) and n > step:
        beside = 2.0 * np.square((w[step:] * w[:-step]).sum(axis=1))
    else:
        near = np.zeros(n)
    mine, all_, next_ = float(np.square(own).sum()), float(np.square(w.T @ w).sum()), float(beside.sum())
    rows = np.stack([own, every - own - near, near])[:states] / n
    return rows, np.array([mine, all_ - mine - next_, next_])[:states] / (n * n)


def known(x: Signal) -> Border | None:
    """The border of a signal, if it comes out of a convolution."""
    return x.border[1] if x.border is not None and x.border[0] == x.ident else None


@dataclass(frozen=True, slots=True)
class Centred:
    """What centring leaves behind a convolution.

    Attributes:
        q: E (y_s - ȳ)², a field.
        spread: Relative variance of its mean over the group.
        taken: What centring takes from the pairs at each index of the cube, E y_s ȳ + E y_s' ȳ - E ȳ², over E ȳ².
        alike: Correlation of y_s - ȳ of two samples at each place, if the group has all samples.
    """

    q: Array
    spread: float
    taken: Array
    alike: Array | None


def centred(x: Signal, atoms: Sequence[int], common: float) -> Centred | None:
    """What centring leaves behind a convolution.

    Args:
        x: The convolution's output y.
        atoms: Those of the group: positions of one channel, and maybe samples.
        common: E ȳ².
    """
    b = known(x)
    places = {a for a in atoms if not x.batch[a]}
    if b is None or not set(b.rows) <= set(atoms) or not places <= set(b.rows):
        return None
    cube, square = b.corr, np.square(b.corr)
    for i, states in enumerate(b.corr.shape):
        if i not in b.rows:
            w = state_weights(x.atoms[i], states) / x.atoms[i] if i in atoms else np.eye(1, states)[0]
            w = w.reshape((1,) * i + (-1,) + (1,) * (cube.ndim - i - 1))
            cube, square = (cube * w).sum(axis=i, keepdims=True), (square * w).sum(axis=i, keepdims=True)
    order = sorted(b.rows)
    cube, square = (c.reshape([c.shape[i] for i in order]) for c in (cube, square))
    row, own = cube, np.ones(())
    for i in order:  # each axis of states becomes one of outputs, the last of the array
        row = np.tensordot(row, b.rows[i], axes=([0], [0]))
        square = np.tensordot(square, b.squares[i], axes=([0], [0]))
        own = np.multiply.outer(own, b.rows[i][0] * x.atoms[i])
    row, own = row * b.level, own * b.level
    mean = float(row.mean())
    scattered = float(square) * b.level**2 - 2.0 * float(np.square(row).mean()) + mean**2
    if mean + b.offset <= 0.0 or common <= 0.0 or not own.all():
        return None
    shape = [1] * x.q.ndim
    for k, i in enumerate(order):
        shape[i] = row.shape[k]
    # the share of its own size that a place has in common with the mean; sizes are not products over the axes
    together = np.reshape((row + b.offset) / np.sqrt(own + b.offset), shape) * np.sqrt(x.q)
    together = together * (common / float(together.mean()))
    q = np.maximum(x.q - 2.0 * together + common, 0.0)
    v = float(q.mean())
    if v <= 0.0:
        return None
    samples = [i for i, batch in enumerate(x.batch) if batch]
    alike = None
    if samples and set(samples) <= set(atoms):
        alike = (sample_correlation(x) * x.q - 2.0 * together + common) / np.maximum(q, 1e-3 * v)
    q = q * ((float(x.q.mean()) - common) / v)
    taken = 2.0 * (_over_pairs(row, order, x) + b.offset) / (mean + b.offset) - 1.0
    return Centred(q, 2.0 * max(scattered, 0.0) / v**2, taken, alike)


def met_by_pairs(root: Array, x: Signal) -> Array:
    """Mean of √q over the pairs at each index of the cube, over that of all places.

    Args:
        root: √q, a field.
        x: The signal.
    """
    order = [i for i, n in enumerate(root.shape) if n > 1]
    if not order:
        return np.ones((1,) * root.ndim)
    return _over_pairs(root.reshape([root.shape[i] for i in order]), order, x) / float(root.mean())


def _over_pairs(row: Array, order: Sequence[int], x: Signal) -> Array:
    """Mean of a field of places over the pairs at each index of the cube: those of neighbours lie further inside."""
    for i in order:
        n, states = x.atoms[i], x.corr.shape[i]
        beside = np.full(n, 2.0)
        beside[[0, -1]] -= 1.0
        if states == 2:
            beside[:] = 0.0
        far = n - 1.0 - beside
        same = np.full(n, 1.0 / n)
        weights = np.stack([same, far / far.sum() if far.any() else same, beside / max(beside.sum(), 1.0)][:states])
        row = np.tensordot(row, weights, axes=([0], [1]))
    shape = [1] * x.corr.ndim
    for k, i in enumerate(order):
        shape[i] = row.shape[k]
    return row.reshape(shape)
