"""Spellings of moves that torch took over from NumPy, as those of other rules."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from firstlight.graph.signal import Signal
from firstlight.rules.composed.composed import composed
from firstlight.rules.composed.tape import Tape
from firstlight.rules.registry import several
from firstlight.rules.state.empirical import constant

_LARGEST = 1 << 20  # entries of the matrix that says which entry lies where


@composed("fliplr", "flipud", example="torch.fliplr(x)")
def fliplr(tape: Tape, input: Signal) -> Signal:
    """The second (the first) axis the other way round."""
    return tape("flip", input, (1 if tape.call.node.op == "fliplr" else 0,))


@composed("hsplit", "vsplit", "dsplit", example="x.hsplit(4)[1]")
def hsplit(tape: Tape, input: Signal, indices_or_sections: Any = None, index: Any = None, sections: Any = None) -> Any:
    """Pieces along the second, the first or the third axis: as many as given, or cut at indices."""
    given = next(v for v in (indices_or_sections, index, sections) if v is not None)
    axis = {"h": min(1, input.ndim - 1), "v": 0, "d": 2}[tape.call.node.op[0]]
    n = input.shape[axis]
    cuts = [int(i) for i in given] if several(given) else [n // int(given) * i for i in range(1, int(given))]
    ends = [min(max(c + n if c < 0 else c, 0), n) for c in (0, *cuts)] + [n]
    return tuple(tape("narrow", input, axis, a, b - a) for a, b in pairwise(ends))


@composed("dstack", "column_stack", example="torch.column_stack((x, x.roll(1, 1)))", variadic=True)
def column_stack(tape: Tape, tensors: Any) -> Signal:
    """Side by side along the last of three axes, or of two."""
    axes = 3 if tape.call.node.op == "dstack" else 2
    return tape("cat", tuple(_at_least(tape, x, axes, row=axes == 3) for x in tensors), axes - 1)


@composed("atleast_1d", "atleast_2d", "atleast_3d", example="torch.atleast_3d(x)")
def atleast(tape: Tape, input: Signal) -> Signal:
    """Axes of size 1 added: in front of a vector, and behind a matrix that is to have three."""
    return _at_least(tape, input, int(tape.call.node.op[-2]), row=True)


def _at_least(tape: Tape, x: Signal, axes: int, *, row: bool) -> Signal:
    """A vector becomes a row of two axes or the middle one of three (`row`), or a column."""
    if x.ndim >= axes:
        return x
    if x.ndim == 2:
        return tape("view", x, (*x.shape, 1))
    if x.ndim == 1 and row:
        return tape("view", x, (1, *x.shape, 1)[:axes])
    return tape("view", x, (*x.shape, *(1,) * (axes - x.ndim)))


@composed("diagflat", example="x[:8, :2].diagflat()")
def diagflat(tape: Tape, input: Signal, offset: int = 0) -> Signal:
    """All entries on a diagonal of zeros."""
    return tape("diag", tape("view", input, (input.numel,)), offset)


@composed("diag_embed", example="x.diag_embed()[:, :8]")
def diag_embed(tape: Tape, input: Signal, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Signal:
    """Entries on a diagonal of zeros, of two new axes."""
    n = input.shape[-1]
    out = tape("mul", tape("view", input, (*input.shape, 1)), constant(np.eye(n)))
    if offset:
        before, after = max(-offset, 0), max(offset, 0)
        out = tape("pad", out, (after, before, before, after))
    rows, columns = (d % out.ndim for d in (dim1, dim2))
    order = list(range(out.ndim - 2))
    for place, axis in sorted(((rows, out.ndim - 2), (columns, out.ndim - 1))):
        order.insert(place, axis)
    return out if order == list(range(out.ndim)) else tape("permute", out, tuple(order))


@composed("repeat_interleave", example="x.repeat_interleave(2, dim=1)")
def repeat_interleave(tape: Tape, input: Signal, repeats: Any, dim: int | None = None) -> Signal:
    """Each entry of an axis again and again, all as often or each as often as a tensor says."""
    x = tape("view", input, (input.numel,)) if dim is None else input
    axis = (dim or 0) % x.ndim
    before, n, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    counts = _counts(tape, repeats, n, axis)
    if len(set(counts)) == 1:
        wide = tape("expand", tape("view", x, (*before, n, 1, *after)), (*before, n, counts[0], *after))
        return tape("view", wide, (*before, n * counts[0], *after))
    index = np.repeat(np.arange(n), counts)
    if n * len(index) > _LARGEST:
        return tape("index_select", x, axis, constant(index))
    last = axis == x.ndim - 1
    chosen = constant((np.arange(n)[:, None] == index[None, :]) * 1.0)
    out = tape("matmul", x if last else tape("movedim", x, axis, -1), chosen)
    return out if last else tape("movedim", out, -1, axis)


def _counts(tape: Tape, repeats: Any, n: int, axis: int) -> list[int]:
    """How often each entry comes; as evenly as can be where that is not known."""
    if not isinstance(repeats, Signal):
        return [int(k) for k in repeats] if several(repeats) else [int(repeats)] * n
    if repeats.value is not None:
        given = [int(k) for k in np.asarray(repeats.value).ravel()]
        return given * n if len(given) == 1 else given
    total = tape.call.node.outputs[0].shape[axis]
    return [int(k) for k in np.diff(np.arange(n + 1) * total // n)]
