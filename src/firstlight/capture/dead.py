"""Units that are exactly zero for every sample and position: found with few reads where all live."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_FIRST = 32  # positions (or rows) among which most live units show that they live
_FEW = 8  # units are looked at one by one where this times their number is at most that of all
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # of the same width


def dead_units(x: Tensor, axis: int, alive: np.ndarray | None = None) -> tuple[int, ...]:
    """Units along `axis` of a real tensor that are zero everywhere.

    Most live units show it in one place, or in a few; only where some do not, more is read.

    Args:
        x: The tensor.
        axis: Of the units.
        alive: Whether each is known to live, where entries were looked at.
    """
    axis %= x.dim()
    if alive is not None:
        unseen = np.flatnonzero(~alive)
        if not len(unseen):
            return ()
        if _FEW * len(unseen) <= len(alive):
            units = torch.from_numpy(unseen).to(x.device)
            return tuple(units[list(_silent(x.index_select(axis, units), axis))].tolist())
    last = axis == x.dim() - 1 and x.is_contiguous()
    place = (0,) * axis + (slice(None),) + (0,) * (x.dim() - 1 - axis)
    if x.is_cpu and x.dtype != torch.bfloat16:
        entries = x.numpy()
        if entries[place].all():  # one entry of each
            return ()
        if last:
            return _dead_columns(entries.reshape(-1, x.shape[-1]))
    elif bool(x[place].all()):
        return ()
    if last:
        x, axis = x.view(-1, x.shape[-1]), 1
        first = x[:_FIRST].abs().amax(0)
    elif axis == 1 and x.dim() > 2 and x.is_contiguous():
        x = x.flatten(2)
        middle = max(0, (x.shape[2] - _FIRST) // 2)
        first = x[:2, :, middle : middle + _FIRST].abs().amax(2).amax(0)
    else:
        return _silent(x, axis)
    if float(first.min()) > 0.0:
        return ()
    if last:
        return _silent(x, 1)
    units = (first == 0).nonzero()[:, 0]
    if 4 * len(units) > x.shape[1]:
        return _silent(x, 1)
    return tuple(units[list(_silent(x.index_select(1, units), 1))].tolist())


def _dead_columns(rows: np.ndarray) -> tuple[int, ...]:
    bits = rows.view(f"i{rows.itemsize}")
    for some in (bits[:_FIRST], bits):
        alive = np.bitwise_or.reduce(some, 0) << 1
        if alive.all():
            return ()
    return tuple((alive == 0).nonzero()[0].tolist())


def _silent(x: Tensor, axis: int) -> tuple[int, ...]:
    """Units whose entries are all zero: all bits but the sign's, or-ed together, are 0.

    NumPy makes one vectorised pass over the integers that share the tensor's memory, where the largest and the
    smallest entry of each unit would take two slower ones.
    """
    others = tuple(d for d in range(x.dim()) if d != axis)
    if x.is_cpu:
        bits = x.view(_INTEGERS[x.element_size()]).numpy()
        return tuple(np.flatnonzero(np.bitwise_or.reduce(bits, others) << 1 == 0).tolist())
    return indices((x.amax(others) == 0) & (x.amin(others) == 0))


def indices(mask: Tensor) -> tuple[int, ...]:
    """Where a vector of booleans is True."""
    return tuple(mask.nonzero()[:, 0].tolist())


def dead_of_each(high: np.ndarray, low: np.ndarray) -> list[tuple[int, ...]]:
    """Units that are zero everywhere, of each of N tensors, from each unit's largest and smallest entry [N, units]."""
    found: list[tuple[int, ...]] = [()] * len(high)
    if (alive := (high != 0.0) | (low != 0.0)).all():
        return found
    for i in np.flatnonzero(~alive.all(1)).tolist():
        found[i] = tuple(np.flatnonzero(~alive[i]).tolist())
    return found
