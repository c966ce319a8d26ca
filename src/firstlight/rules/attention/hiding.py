"""Entries that a mask has put out of reach of a softmax: logits at or below -`FILLER`, be it -inf or the least float.

They stand in the fields (mean and mean square) alone: a masked tensor's cube is that of its visible entries.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from firstlight.graph.signal import FILLER, Array, Signal, next_id, replace

HIDDEN = -FILLER  # logits at or below are masked
Seen = npt.NDArray[np.bool_]
_ONE = 1e-6  # variance, over the mean square, up to which an entry is one number: a signal as large is none


def hidden_in(x: Signal) -> Seen:
    """Where a tensor holds a number that hides, and no signal as large; a field."""
    mean, q = np.broadcast_arrays(x.mean, x.q)
    return (mean <= HIDDEN) & (q - np.square(mean) <= _ONE * q)


def seen_of(x: Signal) -> Seen | None:
    """Where a tensor is visible, as a field; None where it is everywhere (or nowhere)."""
    if x.mean.size == 1 or float(x.mean.min()) > HIDDEN:
        return None
    seen = ~hidden_in(x)
    return seen if bool(seen.any()) and not bool(seen.all()) else None


def visible(x: Signal, seen: Seen) -> Signal:
    """The same tensor as if the visible entries were everywhere: hidden ones get their mean statistics."""
    if bool(seen.all()):
        return x
    mean, q, there = np.broadcast_arrays(x.mean, x.q, seen)
    return replace(
        x, mean=np.where(there, mean, mean[there].mean()), q=np.where(there, q, q[there].mean()), value=None,
        source=None, values=None, ident=next_id(),
    )  # fmt: skip


def hide(x: Signal, seen: Seen, behind: Array) -> Signal:
    """Hidden entries hold numbers that are known, their means."""
    return replace(
        x, mean=np.where(seen, x.mean, behind), q=np.where(seen, x.q, np.square(behind)), value=None, source=None,
        values=None, ident=next_id(),
    )  # fmt: skip


def count_of(seen: Seen, sizes: tuple[int, ...], atoms: list[int]) -> float:
    """Mean number of visible entries over some atoms, where there are any."""
    full = 1.0
    for a in atoms:
        full *= 1.0 if seen.shape[a] > 1 else sizes[a]
    counts = seen.sum(axis=tuple(atoms)) * full
    return float(np.maximum(counts, 1.0).mean())
