"""Tensor -> `TensorStats`, in few passes over memory and without keeping the tensor.

`capture.moments` reads the whole tensor for its range, mean and mean square. One more look is for dead units, where
the first rows or positions do not show that all units live. Everything else (shares, cosine, variance between samples)
comes from at most 16 samples × 256 entries; smaller tensors are copied whole. What was kept of tensors of one form
waits, and is worked off together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from firstlight.capture import moments as reductions
from firstlight.capture.dead import dead_units, indices
from firstlight.capture.moments import Moments, in_range, rows_within
from firstlight.capture.sampling import WHOLE, between_samples, sample, sample_axis
from firstlight.graph.measurement import FP16_TINY, TensorStats

LISTED = 16  # dead units named one by one
_ROOM = 1 << 17  # entries that are worked off together: they stay in the cache
_GROUP = 16, 256  # least and largest number of readings that are finished together

# Flat pieces of the bounded non-linearities, as a condition on the output y: where the slope is below 1 % of the
# steepest (or exactly zero for the piecewise linear ones). relu6's lower piece is counted by `zero_fraction`.
_FLAT: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda y: y * y > 0.99,  # 1 - y² < 0.01
    "sigmoid": lambda y: y * (1.0 - y) < 0.0025,
    "hardtanh": lambda y: y.abs() == 1.0,
    "relu6": lambda y: y == 6.0,
    "hardsigmoid": lambda y: (y == 0.0) | (y == 1.0),
    "softsign": lambda y: y.abs() > 0.9,  # (1 - |y|)² < 0.01
    "erf": lambda y: y.abs() > 0.99757,  # exp(-x²) < 0.01
}


class Numbers(NamedTuple):
    """What needs every entry."""

    moments: Moments
    dead: int
    dead_index: tuple[int, ...]


class Reading(NamedTuple):
    """What was read from one tensor; small, so that many can wait to be finished together."""

    shape: tuple[int, ...]
    dtype: str
    op: str
    axis: int  # of the units, in `kept` where that is whole
    samples: int | None  # axis of the samples, likewise
    size: int  # number of samples
    units: int
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
    return _finish([read(x, op=op, axis=axis, batch_size=batch_size)])[0]


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
    shape, dtype = tuple(x.shape), str(x.dtype)[6:]
    x = x.detach()
    if x.dtype is not torch.float32 or x.layout is not torch.strided or x.is_neg():
        x = _plain(x)
    if x.dim() < 2:
        axis = 1
        per_sample = x.dim() == 1 and batch_size in (None, len(x))  # else: features of one sample
        x = x.unsqueeze(1) if per_sample else x.reshape(1, -1)
    axis %= x.dim()
    samples = sample_axis(x.shape, batch_size)
    count = 1 if samples is None else (batch_size or x.shape[0])
    units = x.shape[axis]
    if x.numel() <= WHOLE:
        return Reading(shape, dtype, op, axis, samples, count, units, x.clone(), None)
    numbers = numbers_of(x, axis, moments or reductions.moments(x, bounds=bounds))
    return Reading(shape, dtype, op, axis, samples, count, units, sample(x, samples, count), numbers)


class Collector:
    """Readings by name; those of equal form are finished together."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[object, ...], list[tuple[str, Reading]]] = defaultdict(list)
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
        r = reading
        self._aliases.pop(name, None)
        whole = (r.axis, r.samples, r.size) if r.numbers is None else ()
        group = self._waiting[(r.kept.shape, r.kept.dtype, r.kept.device, r.op if r.op in _FLAT else "", whole)]
        group.append((name, r))
        if len(group) >= min(max(_ROOM // max(r.kept.numel(), 1), _GROUP[0]), _GROUP[1]):
            self._flush(group)

    def finish(self) -> dict[str, TensorStats]:
        """All statistics by name."""
        for group in self._waiting.values():
            if group:
                self._flush(group)
        for name, (of, changes) in self._aliases.items():
            self._done[name] = replace(self._done[of], **changes)
        return self._done

    def _flush(self, group: list[tuple[str, Reading]]) -> None:
        self._done.update(zip([name for name, _ in group], _finish([r for _, r in group]), strict=True))
        group.clear()


def _finish(readings: list[Reading]) -> list[TensorStats]:
    """Statistics of readings whose kept tensors have one shape, type, operation and layout."""
    first = readings[0]
    s = torch.stack([r.kept for r in readings])
    if s[0].numel() == 0:
        return [_empty(r) for r in readings]
    numbers = [r.numbers for r in readings]
    if first.numbers is None:
        numbers = _small(s, first.axis)
        if first.samples:
            s = s.movedim(first.samples + 1, 1)
        s = s.reshape(len(s), first.size, -1)
    if s.dtype in (torch.float16, torch.bfloat16):
        s = s.float()
    flat = s.flatten(1)
    size = flat.shape[1]
    zeros, flushed = _zeros_and_flushed(flat)
    saturated = _FLAT[first.op](flat).sum(1, dtype=torch.int32).tolist() if first.op in _FLAT else None
    safe = all(n is not None and in_range(n.moments.high, n.moments.low) for n in numbers)
    between = between_samples(s, safe=safe) if first.size > 1 else None
    stats: list[TensorStats] = []
    for i, (r, n) in enumerate(zip(readings, numbers, strict=True)):
        assert n is not None
        m = n.moments
        finite = not (m.nan_count or m.inf_count)
        cosine = between[0][i] if between and finite else math.nan
        stats.append(
            TensorStats(
                shape=r.shape,
                dtype=r.dtype,
                mean=m.mean,
                q=m.q,
                abs_max=m.abs_max,
                zero_fraction=_zero_fraction(zeros[i], size, m.abs_max, r.numbers is not None),
                units=r.units,
                dead_units=n.dead,
                saturated_fraction=None if saturated is None else saturated[i] / size,
                cosine=cosine if math.isfinite(cosine) else None,
                nan_count=m.nan_count,
                inf_count=m.inf_count,
                sampled=r.numbers is not None,
                sample_variance=between[1][i] if between and finite else None,
                flushed_fp16=flushed[i] / (size - zeros[i]) if size > zeros[i] else 0.0,
                dead_index=n.dead_index,
                unit_axis=r.axis,
            )
        )
    return stats


def _zeros_and_flushed(flat: Tensor) -> tuple[list[int], list[int]]:
    """Per row, how many entries are zero, and how many others half precision would round to zero.

    Ties round to even, here to zero. NaN counts as neither. Counts up to 2²⁴ are exact in float32.
    """
    sizes = flat.abs()
    if all(least > FP16_TINY / 2 for least in sizes.amin(1).tolist()):
        return [0] * len(flat), [0] * len(flat)
    kept = torch.le(sizes, FP16_TINY / 2, out=torch.empty_like(sizes)).sum(1).tolist()
    zeros = torch.eq(flat, 0.0, out=sizes).sum(1).tolist()  # as numbers: several times faster than count_nonzero
    return [int(z) for z in zeros], [int(k - z) for k, z in zip(kept, zeros, strict=True)]


def _zero_fraction(zeros: int, size: int, abs_max: float, sampled: bool) -> float:
    if sampled and zeros == size and abs_max != 0.0:  # the sample met zeros only, but there is more
        zeros -= 1
    return zeros / size


def _empty(r: Reading) -> TensorStats:
    nan = math.nan
    return TensorStats(r.shape, r.dtype, nan, nan, 0.0, 0.0, r.units, 0, None, None, 0, 0, unit_axis=r.axis)


def numbers_of(x: Tensor, axis: int, m: Moments) -> Numbers:
    """What needs every entry of one large tensor whose moments are known."""
    if m.nan_count == 0 and m.low <= 0.0 <= m.high:
        dead = dead_units(x, axis)
        return Numbers(m, len(dead), dead[:LISTED])
    return Numbers(m, 0, ())


def _small(x: Tensor, axis: int) -> list[Numbers]:
    """The same for each of a stack of small tensors [N, ...]; `axis` is that of the units, without N."""
    others = [d for d in range(1, x.dim()) if d != axis + 1]
    high, low = x.amax(others), x.amin(others)
    tops, bottoms = high.amax(1).tolist(), low.amin(1).tolist()
    found = rows_within(x.flatten(1), tops, bottoms)
    silent = torch.maximum(high, -low) == 0
    if not bool(silent.any()):
        return [Numbers(m, 0, ()) for m in found]
    dead = [indices(row) for row in silent]
    return [Numbers(m, len(d), d[:LISTED]) for m, d in zip(found, dead, strict=True)]


def _plain(x: Tensor) -> Tensor:
    """A dense real floating-point tensor of the same entries."""
    if x.layout != torch.strided:
        x = x.to_dense()
    x = x.resolve_neg()
    if x.is_complex():
        x = x.resolve_conj()
        return torch.view_as_real(x).flatten(-2) if x.dim() else torch.view_as_real(x)
    return x if x.is_floating_point() else x.double()
