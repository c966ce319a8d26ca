"""Tensor -> `TensorStats`, in few passes over memory and without keeping the tensor.

Four reductions read the whole tensor: the row norms (q, NaN, Inf), the largest and the smallest entry of each unit
(largest entry, dead units), and the sum (mean). They allocate nothing of the tensor's size. Everything else (shares,
cosine, variance between samples) is computed from at most 16 samples × 512 entries; smaller tensors are used whole.
Only a tensor with NaN, Inf or squares outside the range of its format is read again, in float64 and piece by piece.

q: row norms in the tensor's own precision (half precision: float32), squared and added in float64; relative error
about 1e-6 for float32.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from firstlight.graph.measurement import FP16_TINY, TensorStats

SAMPLES, ENTRIES = 16, 512
WHOLE = SAMPLES * ENTRIES  # tensors up to this size are not sampled
LISTED = 16  # dead units named one by one
_PIECE = 1 << 20  # entries per piece of the slow path
_GROUP = 16  # samples finished in one batch
_SAFE = (
    1e-15,
    1e15,
)  # squares of entries between these stay inside float32, with room for sums of 1e7 of them

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


class Reading(NamedTuple):
    """What was read from one tensor; small, so that hundreds of them can wait for a `Collector`."""

    shape: tuple[int, ...]
    dtype: str
    op: str
    axis: int
    units: int
    mean: float
    q: float
    abs_max: float
    nan_count: int
    inf_count: int
    dead: int
    dead_index: tuple[int, ...]
    sample: Tensor
    by_sample: bool
    sampled: bool


def tensor_stats(x: Tensor, *, op: str = "", axis: int = -1, batch_size: int | None = None) -> TensorStats:
    """Statistics of one tensor.

    Args:
        x: Any tensor; integers and booleans are read as numbers, complex entries as pairs.
        op: Canonical operation that made it, which decides what "saturated" means.
        axis: Axis of the units.
        batch_size: Number of samples; by default the size of the first axis.
    """
    return _finish_group([read(x, op=op, axis=axis, batch_size=batch_size)])[0]


def read(x: Tensor, *, op: str = "", axis: int = -1, batch_size: int | None = None) -> Reading:
    """Read one tensor; see the module's docstring for the passes."""
    shape, dtype = tuple(x.shape), str(x.dtype).removeprefix("torch.")
    x = _as_real(x.detach())
    if x.dim() == 0:
        x, axis = x.reshape(1, 1), 1
    elif x.dim() == 1:  # one number per sample, or one sample's features
        x = x.unsqueeze(1) if batch_size in (None, len(x)) else x.unsqueeze(0)
        axis = 1
    axis %= x.dim()
    units = x.shape[axis]
    if x.numel() == 0:
        return Reading(
            shape,
            dtype,
            op,
            axis,
            units,
            math.nan,
            math.nan,
            0.0,
            0,
            0,
            0,
            (),
            x.new_zeros(0, 0),
            False,
            False,
        )
    high, low = _unit_range(x, axis)
    m = moments(x, float(high.max()), float(low.min()))
    silent = (high == 0) & (low == 0)
    dead = int(silent.sum())
    sample, by_sample, sampled = _sample(x, batch_size)
    return Reading(
        shape=shape,
        dtype=dtype,
        op=op,
        axis=axis,
        units=units,
        mean=m.mean,
        q=m.q,
        abs_max=m.abs_max,
        nan_count=m.nan_count,
        inf_count=m.inf_count,
        dead=dead,
        dead_index=tuple(silent.nonzero()[:LISTED, 0].tolist()) if dead else (),
        sample=sample,
        by_sample=by_sample,
        sampled=sampled,
    )


class Moments(NamedTuple):
    """Numbers over all finite entries of a tensor."""

    mean: float
    q: float
    abs_max: float
    nan_count: int = 0
    inf_count: int = 0
    low: float = 0.0
    high: float = 0.0


def moments(x: Tensor, high: float | None = None, low: float | None = None) -> Moments:
    """Mean, mean square, largest entry and counts of NaN and Inf.

    Args:
        x: A floating-point tensor.
        high: Its largest entry, where that is known; nan if it holds a NaN.
        low: Its smallest entry, likewise.
    """
    if x.numel() == 0:
        return Moments(math.nan, math.nan, 0.0)
    if high is None or low is None:
        low, high = (float(v) for v in torch.aminmax(x))
    abs_max = max(high, -low) if high == high and low == low else math.nan
    if not (abs_max == 0.0 or _SAFE[0] < abs_max < _SAFE[1]):  # also where it is nan
        return Moments(*_careful(x), low, high)
    accumulate = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    norms = torch.linalg.vector_norm(_rows(x), dim=-1, dtype=accumulate).double().reshape(-1)
    q = float(torch.dot(norms, norms)) / x.numel()
    return Moments(float(x.sum(dtype=accumulate)) / x.numel(), q, abs_max, low=low, high=high)


class Collector:
    """Readings by name; groups of samples of equal shape are finished as soon as they are full."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[object, ...], list[tuple[str, Reading]]] = defaultdict(list)
        self._done: dict[str, TensorStats] = {}
        self._squares: dict[str, float] = {}

    def add(self, name: str, reading: Reading) -> None:
        """Take one reading; a later one of the same name replaces it."""
        self._squares[name] = reading.q
        group = self._waiting[_kind(reading)]
        group.append((name, reading))
        if len(group) >= _GROUP:
            self._flush(group)

    def squares(self) -> dict[str, float]:
        """q by name."""
        return dict(self._squares)

    def finish(self) -> dict[str, TensorStats]:
        """All statistics by name."""
        for group in self._waiting.values():
            if group:
                self._flush(group)
        return self._done

    def _flush(self, group: list[tuple[str, Reading]]) -> None:
        stats = _finish_group([r for _, r in group])
        self._done.update((name, s) for (name, _), s in zip(group, stats, strict=True))
        group.clear()


def _kind(r: Reading) -> tuple[object, ...]:
    return r.sample.shape, r.sample.dtype, r.sample.device, r.op if r.op in _FLAT else ""


def _finish_group(readings: list[Reading]) -> list[TensorStats]:
    s = torch.stack([r.sample for r in readings])  # [N, samples, entries]
    n = s[0].numel()
    if s.dtype in (torch.float16, torch.bfloat16):
        s = s.float()
    flat = s.flatten(1)
    zeros = (flat == 0).sum(1).tolist()
    small = flat.abs() <= FP16_TINY / 2  # ties round to even: to zero
    flushed = small.sum(1).tolist()
    op = readings[0].op
    saturated = _FLAT[op](flat).sum(1).tolist() if op in _FLAT else None
    cosines, variances = _between_samples(s) if s.shape[1] > 1 and n else ([], [])
    stats: list[TensorStats] = []
    for i, r in enumerate(readings):
        between = r.by_sample and bool(cosines) and not (r.nan_count or r.inf_count)
        stats.append(
            TensorStats(
                shape=r.shape,
                dtype=r.dtype,
                mean=r.mean,
                q=r.q,
                abs_max=r.abs_max,
                zero_fraction=zeros[i] / n if n else 0.0,
                units=r.units,
                dead_units=r.dead,
                saturated_fraction=None if saturated is None or not n else saturated[i] / n,
                cosine=cosines[i] if between and math.isfinite(cosines[i]) else None,
                nan_count=r.nan_count,
                inf_count=r.inf_count,
                sampled=r.sampled,
                sample_variance=variances[i] if between else None,
                flushed_fp16=(flushed[i] - zeros[i]) / (n - zeros[i]) if n > zeros[i] else 0.0,
                dead_index=r.dead_index,
                unit_axis=r.axis,
            )
        )
    return stats


def _between_samples(s: Tensor) -> tuple[list[float], list[float]]:
    """Mean cosine over the pairs of samples, and the unbiased variance of an entry between samples.

    With u_a = s_a/|s_a|: Σ_{a≠b} u_a·u_b = |Σ u_a|² - Σ|u_a|². Samples that are all zero have no direction and are
    left out; with fewer than two others the cosine is nan.
    """
    scale = s.abs().amax((1, 2), keepdim=True)
    s = s / scale.where(scale > 0, 1.0)
    norms = torch.linalg.vector_norm(s, dim=2, keepdim=True)
    alive = (norms > 0).sum((1, 2))
    total = (s / norms.where(norms > 0, 1.0)).sum(1).double()
    cosine = (total.square().sum(1) - alive) / (alive * (alive - 1))
    spread = torch.linalg.vector_norm((s - s.mean(1, keepdim=True)).flatten(1), dim=1).double()
    variance = spread.square() / (s.shape[2] * (s.shape[1] - 1)) * scale.view(-1).double() ** 2
    return cosine.clamp(-1.0, 1.0).tolist(), variance.tolist()


def _as_real(x: Tensor) -> Tensor:
    if x.is_complex():
        return torch.view_as_real(x).flatten(-2) if x.dim() else torch.view_as_real(x)
    if x.is_sparse or x.layout != torch.strided:
        x = x.to_dense()
    return x if x.is_floating_point() else x.to(torch.float64)


def _unit_range(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Largest and smallest entry of each unit; nan passes through."""
    if axis == 1 and x.dim() > 2 and x.is_contiguous():  # channels first: rows are contiguous
        rows = x.flatten(2)
        return rows.amax(-1).amax(0), rows.amin(-1).amin(0)
    others = [d for d in range(x.dim()) if d != axis]
    return x.amax(others), x.amin(others)


def _rows(x: Tensor) -> Tensor:
    """A view whose last axis is long enough for a fast norm, without copying."""
    if x.is_contiguous():
        if x.shape[-1] >= 32:
            return x
        return x.view(len(x), -1) if x.numel() >= 32 * len(x) else x.view(1, -1)
    return x


def _careful(x: Tensor) -> tuple[float, float, float, int, int]:
    """Mean, mean square and largest entry over the finite entries in float64; counts of NaN and Inf."""
    flat = x.reshape(-1)
    nans = infs = 0
    top = 0.0
    for piece in flat.split(_PIECE):
        nans += int(piece.isnan().sum())
        infs += int(piece.isinf().sum())
        top = max(top, float(piece.double().nan_to_num(0.0, 0.0, 0.0).abs().max()))
    count = flat.numel() - nans - infs
    if count == 0:
        return math.nan, math.nan, math.nan, nans, infs
    if top == 0.0:
        return 0.0, 0.0, 0.0, nans, infs
    total = squares = 0.0
    for piece in flat.split(_PIECE):
        scaled = piece.double().nan_to_num(0.0, 0.0, 0.0) / top
        total += float(scaled.sum())
        squares += float(torch.dot(scaled, scaled))
    return total / count * top, squares / count * top * top, top, nans, infs


def sample_axis(shape: torch.Size | tuple[int, ...], batch_size: int | None) -> int | None:
    """Axis along which the samples lie, 0 where the first axis is the batch or a multiple of it, None if unknown."""
    if not shape:
        return None
    if batch_size is None or shape[0] == batch_size:
        return 0
    for axis, size in enumerate(shape[1:-1], 1):  # time-major sequences
        if size == batch_size > 1:
            return axis
    return 0 if batch_size and shape[0] % batch_size == 0 else None


def _sample(x: Tensor, batch_size: int | None) -> tuple[Tensor, bool, bool]:
    """[samples, entries] of `x`, whether the rows are samples of the batch, and whether entries were left out."""
    axis = sample_axis(x.shape, batch_size)
    count = (x.shape[0] if batch_size is None else batch_size) if axis is not None else 1
    if axis:
        x = x.movedim(axis, 0)
    numel = x.numel()
    if numel <= WHOLE:
        rows = x.reshape(count, -1)
        return (rows.clone() if rows.data_ptr() == x.data_ptr() else rows), axis is not None, False
    index = _index(count, numel // count)
    return torch.take(x, index.to(x.device)), axis is not None, True


_INDEX: dict[tuple[int, int], Tensor] = {}


def _index(samples: int, entries: int) -> Tensor:
    """Flat indices of evenly spread samples × the same randomly chosen entries (fixed, sorted for locality)."""
    key = (samples, entries)
    if key not in _INDEX:
        if len(_INDEX) > 256:
            _INDEX.clear()
        rows = min(samples, SAMPLES)
        columns = min(entries, WHOLE // rows)
        generator = torch.Generator().manual_seed(entries)
        which = (
            torch.randint(entries, (columns,), generator=generator)
            if columns < entries
            else torch.arange(entries)
        )
        chosen = torch.arange(rows) * samples // rows
        _INDEX[key] = chosen[:, None] * entries + which.sort().values[None, :]
    return _INDEX[key]
