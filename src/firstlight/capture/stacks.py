"""Tensors of one form, stacked, -> their `TensorStats`: every reduction works on all of them at once.

A small tensor stands here whole, a large one as a sample of its entries beside the numbers for which every entry was
read. In one call the reductions cost what they cost for one tensor, up to the size of the caches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from firstlight.capture.dead import dead_of_each
from firstlight.capture.moments import Moments, as_numbers, divide_each, moments, units_of
from firstlight.capture.sampling import WHOLE, Between, between_samples, sample_axis
from firstlight.graph.measurement import FP16_TINY, TensorStats

LISTED = 16  # dead units named one by one

# Flat pieces of the bounded non-linearities, as a condition on the output y: where the slope is below 1 % of the
# steepest (or exactly zero for the piecewise linear ones). relu6's lower piece is counted by `zero_fraction`.
FLAT: dict[str, Callable[[Tensor], Tensor]] = {
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


class Form(NamedTuple):
    """What tensors have in common that can be worked off together."""

    shape: tuple[int, ...]
    dtype: str
    op: str  # "" unless one of `FLAT`
    kept: tuple[int, ...]  # shape with an axis of units
    axis: int  # of the units, in `kept`
    samples: int | None  # axis of the samples, likewise
    size: int  # number of samples
    units: int
    whole: bool  # small enough to be stacked as it is


@lru_cache(maxsize=4096)
def form_of(
    shape: tuple[int, ...], plain: tuple[int, ...], dtype: torch.dtype, op: str, axis: int, batch_size: int | None
) -> Form:
    """The form of a tensor.

    Args:
        shape: Its shape,
        plain: and that of its entries as real numbers.
        dtype: Its type.
        op: Canonical operation that made it, which decides what "saturated" means.
        axis: Axis of the units.
        batch_size: Number of samples; by default the size of the first axis.
    """
    kept = plain
    if len(plain) < 2:
        axis = 1
        per_sample = len(plain) == 1 and batch_size in (None, plain[0])  # else: features of one sample
        kept = (*plain, 1) if per_sample else (1, math.prod(plain))
    axis %= len(kept)
    samples = sample_axis(kept, batch_size)
    size = 1 if samples is None else (batch_size or kept[0])
    op = op if op in FLAT else ""
    whole = math.prod(kept) <= WHOLE
    return Form(tuple(shape), str(dtype)[6:], op, tuple(kept), axis, samples, size, kept[axis], whole)


class Scratch:
    """Memory for stacks, kept from one to the next: fresh pages cost more than the work on what fills them."""

    def __init__(self) -> None:
        self._held: dict[object, Tensor] = {}

    def room(self, use: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """A tensor of this shape with the type and the device of `like`; it is that of the last call for this use."""
        n, key = math.prod(shape), (use, like.dtype, like.device)
        held = self._held.get(key)
        if held is None or held.numel() < n:
            with torch.inference_mode(False):  # a tensor made in that mode could not be written to outside of it
                held = self._held[key] = torch.empty(n, dtype=like.dtype, device=like.device)
        return held[:n].view(shape)


def finish(
    tensors: Sequence[Tensor], forms: Sequence[Form], numbers: Sequence[Numbers] | None, scratch: Scratch
) -> list[TensorStats]:
    """Statistics of each of many tensors that can be stacked.

    Args:
        tensors: The whole of each as `Form.kept`, or samples of each [samples, entries].
        forms: Of each; they agree in all that matters here.
        numbers: For which every entry was read; None with whole tensors.
        scratch: Is overwritten.
    """
    form, first = forms[0], tensors[0]
    if first.numel() == 0:
        return [_empty(f) for f in forms]
    s = torch.stack(list(tensors), out=scratch.room("stack", (len(tensors), *first.shape), first))
    if s.dtype in (torch.float16, torch.bfloat16):
        s = s.float()
    high = low = np.empty(0)
    if numbers is None:
        s = s.view(len(s), *form.kept)
        others = [d for d in range(1, s.dim()) if d != form.axis + 1]
        high, low = as_numbers(s.amax(others)), as_numbers(s.amin(others))  # of each unit
        if form.samples:
            s = s.movedim(form.samples + 1, 1)
        s = s.reshape(len(s), form.size, -1).contiguous()  # samples that lie behind an axis of length 1 stay a view
        tops, bottoms = high.max(1), low.min(1)
    else:
        tops, bottoms = np.array([(n.moments.high, n.moments.low) for n in numbers]).T
    flat = s.view(len(s), -1)
    size = flat.shape[1]
    spare = scratch.room("spare", flat.shape, flat)
    zeros, flushed = _zeros_and_flushed(flat, spare)
    saturated = (FLAT[form.op](flat).sum(1).double() / size).tolist() if form.op else [None] * len(s)
    units = units_of(tops, bottoms)
    if units is not None:
        divide_each(s, units)
    between = between_samples(s, spare) if form.size > 1 else None
    if numbers is None:
        found = _moments(flat, between.sums if between else None, units, tops, bottoms)
        numbers = [Numbers(m, len(d), d[:LISTED]) for m, d in zip(found, dead_of_each(high, low), strict=True)]
    cosines, variances = _where_finite(between, units, numbers)
    shares = zeros / size
    if not form.whole:  # where the sample met zeros only, but there is more
        shares[(zeros == size) & (np.maximum(tops, -bottoms) != 0.0)] = 1.0 - 1.0 / size
    # fmt: off
    return [
        TensorStats(
            f.shape, f.dtype, m.mean, m.q, m.abs_max, zero, f.units, dead, full, cosine, m.nan_count, m.inf_count,
            not f.whole, variance, small, dead_index, f.axis,
        )
        for f, (m, dead, dead_index), zero, full, cosine, variance, small in zip(
            forms, numbers, shares.tolist(), saturated, cosines, variances,
            (flushed / np.maximum(size - zeros, 1)).tolist(), strict=True,
        )
    ]
    # fmt: on


def _where_finite(
    between: Between | None, units: np.ndarray | None, numbers: Sequence[Numbers]
) -> tuple[list[float | None], list[float | None]]:
    """Cosine and variance between the samples of each tensor; None where it has NaN or Inf, or no two samples."""
    if between is None:
        return [None] * len(numbers), [None] * len(numbers)
    with np.errstate(over="ignore"):
        variances = between.variances if units is None else between.variances * units * units
    finite = [not (m.nan_count or m.inf_count) for m, _, _ in numbers]
    return (
        [c if ok and c == c else None for ok, c in zip(finite, between.cosines.tolist(), strict=True)],
        [v if ok else None for ok, v in zip(finite, variances.tolist(), strict=True)],
    )


def _moments(
    flat: Tensor,
    sums: tuple[np.ndarray, np.ndarray] | None,
    units: np.ndarray | None,
    tops: np.ndarray,
    bottoms: np.ndarray,
) -> list[Moments]:
    """Moments of each row, which was divided by its unit, from Σx and Σx², where they are known."""
    total, squares = sums or (as_numbers(flat.sum(1)), as_numbers(torch.linalg.vector_norm(flat, dim=1)) ** 2)
    u = 1.0 if units is None else units
    with np.errstate(over="ignore"):
        means, q = total / flat.shape[1] * u, squares / flat.shape[1] * u * u
    sizes = np.maximum(tops, -bottoms)
    columns = zip(means.tolist(), q.tolist(), sizes.tolist(), bottoms.tolist(), tops.tolist(), strict=True)
    return [
        Moments(mean, square, top, 0, 0, low, high) if math.isfinite(top) else moments(flat[i])
        for i, (mean, square, top, low, high) in enumerate(columns)
    ]


def _zeros_and_flushed(flat: Tensor, spare: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Per row, how many entries are zero, and how many others half precision would round to zero.

    Ties round to even, here to zero. NaN counts as neither. Counts up to 2²⁴ are exact in float32, and numbers are
    counted several times faster than booleans.
    """
    sizes = torch.abs(flat, out=spare)
    if float(sizes.amin()) > FP16_TINY / 2:
        return np.zeros(len(flat)), np.zeros(len(flat))
    kept = torch.le(sizes, FP16_TINY / 2, out=spare).sum(1)
    zeros = as_numbers(torch.eq(flat, 0.0, out=spare).sum(1))
    return zeros, as_numbers(kept) - zeros


def _empty(f: Form) -> TensorStats:
    nan = math.nan
    return TensorStats(f.shape, f.dtype, nan, nan, 0.0, 0.0, f.units, 0, None, None, 0, 0, unit_axis=f.axis)
