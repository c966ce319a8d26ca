"""Entries that a mask has put out of reach of a softmax: logits at or below -`FILLER`, be it -inf or the least float.

So has a table of zeros and one negative number, the -100 of shifted windows, where logits are small beside it.
They stand in the fields (mean and mean square) alone: a masked tensor's cube is that of its visible entries. Entries
that are hidden by chance (a router's, whichever were not chosen) would have no visible statistics left in the mean over
both: as many as are hidden on average are at fixed places instead, spread over the last axis (`settled`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from firstlight.graph.signal import FILLER, Array, Signal, next_id, replace
from firstlight.rules.state import course

HIDDEN = -FILLER  # logits at or below are masked
Seen = npt.NDArray[np.bool_]
_FAR, _DEVIATIONS = 40.0, 8.0  # e^-40 is no weight, and eight standard deviations of the logits do not make it one
_SURE = 1e-6  # of a probability: as good as never, or always
_ONE = 1e-6  # variance, over the mean square, up to which an entry is one number: a signal as large is none


def hides(fill: float) -> bool:
    """Whether a number hides logits from a softmax."""
    return fill <= HIDDEN


def hidden_in(x: Signal, spread: float = 0.0) -> Seen:
    """Where a tensor holds a number that hides, and no signal as large; a field.

    Args:
        x: Logits, or a mask that is to be added to some.
        spread: Standard deviation of those.
    """
    mean, q = np.broadcast_arrays(x.mean, x.q)
    variance = q - np.square(mean)
    known = variance <= _ONE * q
    closed = known & (mean <= HIDDEN)
    top = float(mean.max())
    if float(mean.min()) > top - _FAR:
        return closed
    spread += float(np.sqrt(max(variance[~known].max(initial=0.0), 0.0)))
    far = known & (mean <= top - _FAR - _DEVIATIONS * spread)
    others = known & ~far & ~closed
    # a table with more levels than two is a bias, whose largest entries may not be in every row
    two = bool((mean[others] == top).all()) and bool((mean[far] == mean.min()).all())
    return closed | far if two or not known.all() else closed


def seen_of(x: Signal, other: Signal | None = None) -> Seen | None:
    """Where a tensor is visible, as a field; None where it is everywhere (or nowhere).

    Args:
        x: Logits or a mask.
        other: What is to be added to it.
    """
    if x.mean.size == 1 or float(x.mean.min()) > float(x.mean.max()) - _FAR:
        return None
    spread = 0.0 if other is None else float(np.sqrt(np.maximum(other.q - np.square(other.mean), 0.0).max()))
    seen = ~hidden_in(x, spread)
    return seen if bool(seen.any()) and not bool(seen.all()) else None


def visible(x: Signal, seen: Seen) -> Signal:
    """The same tensor as if the visible entries were everywhere: hidden ones get their mean statistics."""
    if bool(seen.all()):
        return x
    mean, q, there = np.broadcast_arrays(x.mean, x.q, seen)
    return replace(
        x, mean=np.where(there, mean, mean[there].mean()), q=np.where(there, q, q[there].mean()), value=None,
        source=None, values=None, courses=course.kept(x, ident := next_id()), ident=ident,
    )  # fmt: skip


def hide(x: Signal, seen: Seen, behind: Array) -> Signal:
    """Hidden entries hold numbers that are known, their means."""
    return replace(
        x, mean=np.where(seen, x.mean, behind), q=np.where(seen, x.q, np.square(behind)), value=None, source=None,
        values=None, courses=course.kept(x, ident := next_id()), ident=ident,
    )  # fmt: skip


def settled(mask: Signal, n: int) -> Signal:
    """A mask of which each entry hides with a probability, as one that hides as many of each row, at fixed places.

    Args:
        mask: 1 where it hides, with the atoms of what it hides.
        n: Entries of the last atom.
    """
    share = mask.mean
    if not share.ndim or not bool(((share > _SURE) & (share < 1.0 - _SURE)).any()):
        return mask
    wide = np.broadcast_to(share, (*share.shape[:-1], n))
    total = np.floor(np.cumsum(wide, axis=-1) + _SURE)
    hides = np.diff(total, axis=-1, prepend=0.0)
    none = hides.all(axis=-1) & (wide < 1.0 - _SURE).any(axis=-1)  # of what may be visible one is left
    hides[none, np.argmin(wide[none], axis=-1)] = 0.0
    return replace(mask, mean=hides, q=hides, source=None, values=None, value=None, ident=next_id())


def count_of(seen: Seen, sizes: tuple[int, ...], atoms: list[int]) -> float:
    """Mean number of visible entries over some atoms, where there are any."""
    full = 1.0
    for a in atoms:
        full *= 1.0 if seen.shape[a] > 1 else sizes[a]
    counts = seen.sum(axis=tuple(atoms)) * full
    return float(np.maximum(counts, 1.0).mean())
