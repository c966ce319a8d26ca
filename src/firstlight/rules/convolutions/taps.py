"""Which input each tap of a convolution's window reads, forward and transposed, and what pairs of windows share.

With independent weights E y_s y_s' = Σ_t E x_{i(s,t)} x_{i(s',t)} over the taps t that both windows have inside the
image: taps meet themselves alone. A transposed convolution of stride 2 has two kinds of windows that share no tap.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.signal import Array

_ALIKE = 0.01  # share of the taps up to which next windows have as much in common as those further apart


@dataclass(frozen=True, slots=True)
class Taps:
    """The windows of one axis.

    Attributes:
        size: Inputs.
        out: Outputs.
        kernel: Taps of a window.
        stride: Inputs by which windows are apart.
        padding: Zeros in front of the first input.
        dilation: Inputs by which taps are apart.
        transposed: Read backward: outputs are what the windows read, inputs are the windows.
    """

    size: int
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False


def turned(taps: Taps) -> Taps:
    """The same windows read the other way."""
    return dataclasses.replace(taps, size=taps.out, out=taps.size, transposed=not taps.transposed)


@functools.lru_cache(maxsize=1024)
def inputs(taps: Taps) -> NDArray[np.intp]:
    """The input that each tap of each output reads, -1 outside of the image, shape (out, kernel)."""
    s, t = np.arange(taps.out)[:, None], np.arange(taps.kernel)[None, :]
    if taps.transposed:
        i, rest = np.divmod(s + taps.padding - t * taps.dilation, taps.stride)
        i = np.where(rest == 0, i, -1)
    else:
        i = s * taps.stride - taps.padding + t * taps.dilation
    out = np.where((i >= 0) & (i < taps.size), i, -1)
    out.setflags(write=False)
    return out


@functools.lru_cache(maxsize=1024)
def matrix(taps: Taps) -> Array:
    """A_si = number of taps of output s that read input i."""
    read = inputs(taps)
    a = np.zeros((taps.out, taps.size))
    s, t = np.nonzero(read >= 0)
    np.add.at(a, (s, read[s, t]), 1.0)
    a.setflags(write=False)
    return a


@functools.lru_cache(maxsize=1024)
def shared(taps: Taps, states: int) -> Array:
    """Taps that two outputs of a state (same, far, next) read from inputs of a state, mean over pairs, shape (3, 3).

    Args:
        taps: The windows.
        states: Of the input's cube; with two, inputs that differ are all alike.
    """
    read = inputs(taps)
    n = taps.out
    inside = (read >= 0).astype(float)
    own = float(inside.sum())
    near = inside[1:] * inside[:-1]
    step = np.abs(read[1:] - read[:-1])
    beside = float(near.sum())  # pairs of next outputs
    both = float((near * (step == 1)).sum()) if states == 3 else 0.0
    everything = float(np.square(inside.sum(axis=0)).sum())
    adjoining = 0.0  # pairs of outputs, one way, whose inputs at a tap are neighbours
    if states == 3:
        for t in range(taps.kernel):
            line = np.zeros(taps.size + 1)
            line[read[:, t]] = inside[:, t]  # -1, the last one, stands for outside
            adjoining += float(line[1:-1] @ line[:-2])
    out = np.zeros((3, 3))
    out[0, 0] = own / n
    if n > 1:
        out[2] = np.array([0.0, beside - both, both]) / (n - 1.0)
    far = (n - 1.0) * (n - 2.0)
    rest = np.array([0.0, everything - own - 2.0 * beside - 2.0 * (adjoining - both), 2.0 * (adjoining - both)])
    out[1] = rest / far if far > 0.0 else out[2]
    out.setflags(write=False)
    return out


def carried(cube: Array, at: int, taps: Taps) -> Array:
    """Pair moments behind the windows of one axis, from those in front.

    Next neighbours are told from others where they were, or where the windows make a difference: zeros around a
    small image, and two kinds of windows.
    """
    table = shared(taps, cube.shape[at])
    moved = np.moveaxis(cube, at, -1)
    if moved.shape[-1] == 2:
        moved = moved[..., [0, 1, 1]]
    out = moved @ table.T
    if (cube.shape[at] == 2 or taps.stride > 1) and abs(table[2].sum() - table[1].sum()) <= _ALIKE * table[0, 0]:
        near = 2.0 / max(taps.out, 2)
        out = np.stack([out[..., 0], near * out[..., 2] + (1.0 - near) * out[..., 1]], axis=-1)
    return np.moveaxis(out, -1, at)
