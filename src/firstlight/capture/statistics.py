"""Tensor -> `TensorStats`, in few passes over memory and without keeping the tensor.

`capture.moments` reads the whole tensor for its range, mean and mean square. One more look is for dead units, where
the first rows or positions do not show that all units live. Everything else (shares, cosine, variance between samples)
comes from at most 16 samples × 256 entries; smaller tensors are copied whole. What was kept of tensors of one form
waits, and is worked off together (`capture.stacks`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from firstlight.capture import moments as reductions
from firstlight.capture.dead import dead_units
from firstlight.capture.moments import Moments
from firstlight.capture.sampling import sample, seen_alive
from firstlight.capture.stacks import LISTED, Form, Numbers, Scratch, finish, form_of
from firstlight.capture.tensors import dense
from firstlight.graph.measurement import TensorStats

_ROOM = 1 << 17  # entries that are worked off together: they stay in the cache
_GROUP = 16, 256  # least and largest number of readings that are finished together


class Reading(NamedTuple):
    """What was read from one tensor; small, so that many can wait to be finished together."""

    form: Form
    kept: Tensor  # the whole tensor, or [samples, entries] of it
    numbers: Numbers | None  # None: not yet, `kept` is whole


def tensor_stats(x: Tensor, *, op: str = "", axis: int = -1, batch_size: int | None = None) -> TensorStats:
    """Statistics of one tensor.

    Args:
        x: Any tensor; integers and booleans are read as numbers, complex entries as pairs.
        op: Canonical operation that made it, which decides what "saturated" means.
        axis: Axis of the units.
        batch_size: Number of samples; by default the size of the first axis.
    """
    return _finish([read(x, op=op, axis=axis, batch_size=batch_size)], Scratch())[0]


def read(
    x: Tensor,
    *,
    op: str = "",
    axis: int = -1,
    batch_size: int | None = None,
    moments: Moments | None = None,
    bounds: tuple[float, float] | None = None,
) -> Reading:
    """Read one tensor; see the module's docstring for the passes.

    Args:
        x: Any tensor.
        op: Canonical operation that made it.
        axis: Axis of the units.
        batch_size: Number of samples; by default the size of the first axis.
        moments: Of its entries, where they are known.
        bounds: Its smallest and largest entry, where they are known.
    """
    shape, dtype = x.shape, x.dtype
    x = x.detach()
    if dtype is not torch.float32 or x.layout is not torch.strided or x.is_neg():
        x = _plain(x)
    form = form_of(shape, x.shape, dtype, op, axis, batch_size)
    if x.dim() < 2:
        x = x.reshape(form.kept)
    if form.whole:
        return Reading(form, x.clone(), None)
    known = moments or reductions.moments(x, bounds=bounds)
    kept = sample(x, form.samples, form.size)
    alive = None  # in maps, where looking at each unit costs a miss of the caches
    if form.axis == 1 < x.dim() - 1 and not form.samples and x.dtype is not torch.bfloat16:
        alive = seen_alive(kept, form.kept, form.axis, form.size)
    return Reading(form, kept, numbers_of(x, form.axis, known, alive))


class Collector:
    """Readings by name; those of equal form are finished together.

    Args:
        scratch: Memory for it, which several collectors may share.
    """

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._waiting: dict[object, list[tuple[str, Reading]]] = defaultdict(list)
        self._newest: dict[str, Reading] = {}  # of each name that waits
        self._done: dict[str, TensorStats] = {}
        self._aliases: dict[str, tuple[str, dict[str, Any]]] = {}

    def alias(
        self, name: str, of: str, shape: Sequence[int] = (), axis: int = 0, numbers: Numbers | None = None
    ) -> None:
        """Take for `name` what was read for `of`, the same entries; with `numbers`, in another form.

        Args:
            name: What has the same entries.
            of: What was read.
            shape: Its own shape, where it is another one,
            axis: the axis of its units,
            numbers: and its dead units.
        """
        changes: dict[str, Any] = {"saturated_fraction": None}
        if numbers is not None:
            changes |= {"shape": tuple(shape), "units": shape[axis], "unit_axis": axis}
            changes |= {"dead_units": numbers.dead, "dead_index": numbers.dead_index}
        self._aliases[name] = of, changes

    def add(self, name: str, reading: Reading) -> None:
        """Take one reading; a later one of the same name replaces it."""
        form, kept, numbers = reading
        self._aliases.pop(name, None)
        self._newest[name] = reading
        # Whole tensors have their form in common, samples of large ones the form of the sample.
        alike = form if numbers is None else (form.op, kept.shape, kept.dtype)
        group = self._waiting[alike, kept.device]
        group.append((name, reading))
        if len(group) >= min(max(_ROOM // max(kept.numel(), 1), _GROUP[0]), _GROUP[1]):
            self._flush(group)

    def add_alike(self, names: Sequence[str], tensors: Sequence[Tensor], form: Form) -> None:
        """Take many small tensors of one form at once; dense, real, floating-point."""
        self._done.update(zip(names, finish(tensors, [form] * len(names), None, self._scratch), strict=True))
        for name in names:
            self._newest.pop(name, None)
            self._aliases.pop(name, None)

    def finish(self) -> dict[str, TensorStats]:
        """All statistics by name."""
        for group in self._waiting.values():
            if group:
                self._flush(group)
        for name, (of, changes) in self._aliases.items():
            self._done[name] = replace(self._done[of], **changes)
        return self._done

    def _flush(self, group: list[tuple[str, Reading]]) -> None:
        for (name, reading), stats in zip(group, _finish([r for _, r in group], self._scratch), strict=True):
            if self._newest.get(name) is reading:
                del self._newest[name]
                self._done[name] = stats
        group.clear()


def _finish(readings: Sequence[Reading], scratch: Scratch) -> list[TensorStats]:
    """Statistics of readings that can be stacked."""
    numbers = [r.numbers for r in readings if r.numbers is not None]
    return finish([r.kept for r in readings], [r.form for r in readings], numbers or None, scratch)


def numbers_of(x: Tensor, axis: int, m: Moments, alive: np.ndarray | None = None) -> Numbers:
    """What needs every entry of one large tensor whose moments are known; `alive` as in `dead_units`."""
    if m.nan_count == 0 and m.low <= 0.0 <= m.high:
        dead = dead_units(x, axis, alive)
        return Numbers(m, len(dead), dead[:LISTED])
    return Numbers(m, 0, ())


def _plain(x: Tensor) -> Tensor:
    """A dense real floating-point tensor of the same entries."""
    x = dense(x).resolve_neg()
    if x.is_complex():
        x = x.resolve_conj()
        return torch.view_as_real(x).flatten(-2) if x.dim() else torch.view_as_real(x)
    return x if x.is_floating_point() else x.double()
