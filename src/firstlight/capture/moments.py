"""Mean, mean square, range and counts of NaN and Inf of a tensor, in one read from memory where that can be.

Three reductions read every entry: the range (largest entry; NaN and Inf show in it), the product with itself (q), and
the sum (mean). They follow one another on pieces that fit the cache, so that memory is read once; nothing of the
tensor's size is allocated. Entries are read in the order in which they lie in memory, whatever the tensor's strides.
Only a tensor with NaN or Inf is read again, in float64 and piece by piece.

q: sums of squares of pieces are taken in the tensor's own precision (half precision: float32; float64 where squares
would leave float32's range) and added in float64. Relative error about 1e-6 for float32; pieces of equal entries, whose
rounding errors would all go one way, are not added up.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

_PIECE = 1 << 20  # entries per piece of the slow path
_ROW = 4096  # length of the rows whose norms and sums are taken in float32
_CHUNK = 1 << 17  # entries that stay in the cache; per scalar product a relative error below 1e-6 in float32
_SAFE = (1e-15, 1e15)  # squares of entries between these, and sums of 1e7 of them, stay well inside float32

_SMALLEST, _LARGEST = 2.0**-125, 2.0**126  # their reciprocals are float32 numbers too


Piece: TypeAlias = np.ndarray | Tensor  # contiguous entries: NumPy's view of them on the CPU


class Moments(NamedTuple):
    """Numbers over the finite entries of a tensor."""

    mean: float
    q: float
    abs_max: float
    nan_count: int = 0
    inf_count: int = 0
    low: float = math.nan  # smallest and largest entry, nan and inf among them
    high: float = math.nan


def moments(x: Tensor, *, with_mean: bool = True, bounds: tuple[float, float] | None = None) -> Moments:
    """Mean, mean square, largest entry, counts of NaN and Inf of a floating-point tensor.

    Args:
        x: Any dense floating-point tensor.
        with_mean: Whether the mean is wanted; it is nan otherwise, unless it comes at no cost.
        bounds: The smallest and largest entry, where the caller knows them; saves one of three passes.
    """
    if x.numel() == 0:
        return Moments(math.nan, math.nan, 0.0)
    if x.dtype in _OWN_SUMS:
        x = in_memory_order(x.resolve_neg())
        if x.is_contiguous():
            flat = x.view(-1)
            found = _chunked(_pieces(flat), len(flat), with_mean, bounds)
            if found is None and bounds is not None:
                found = _chunked(_pieces(flat), len(flat), with_mean)
        else:
            found = _chunked(_copies(x), x.numel(), with_mean)
        if found is not None:
            return found
    low, high = (float(v) for v in torch.aminmax(x))
    if in_range(high, low):
        dtype = accumulator(x)
    elif max(high, -low) < 1e150 and max(high, -low) > 1e-150 and low == low:
        dtype = torch.float64
    else:
        return _careful(x)._replace(low=low, high=high)
    n = x.numel()
    return Moments(float(x.sum(dtype=dtype)) / n, sum_of_squares(x, dtype) / n, max(high, -low), low=low, high=high)


_OWN_SUMS = (torch.float32, torch.float64)


def in_memory_order(x: Tensor) -> Tensor:
    """The same entries with axes sorted by stride and joined where they can be; one axis where they lie densely."""
    if x.is_contiguous():
        return x
    form = runs(x.shape, x.stride())
    return x.as_strided([size for size, _ in form], [stride for _, stride in form], x.storage_offset())


def runs(shape: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(size, stride) of the runs in memory that a tensor consists of, from the widest stride to the narrowest.

    Two tensors that start at one address with the same runs hold the same entries, each in its own order.
    """
    found: list[tuple[int, int]] = []
    for stride, size in sorted(zip(strides, shape, strict=True), reverse=True):
        if size == 1:
            continue
        if found and found[-1][1] == stride * size:
            found[-1] = found[-1][0] * size, stride
        else:
            found.append((size, stride))
    return tuple(found) or ((1, 1),)


def _pieces(flat: Tensor) -> Iterator[Piece]:
    """Pieces that fit the cache, from the end, which was written last."""
    n = len(flat)
    entries = flat.numpy() if flat.is_cpu else flat
    for start in range((n - 1) // _CHUNK * _CHUNK, -1, -_CHUNK):
        yield entries[start : start + _CHUNK]


def _copies(x: Tensor) -> Iterator[Piece]:
    """Such pieces of a tensor with gaps, as contiguous copies: three passes over them cost less than over x."""
    inner = x.numel() // len(x)
    if inner > _CHUNK:
        for part in x:
            yield from _pieces(part) if part.is_contiguous() else _copies(part)
        return
    for part in reversed(x.split(max(1, _CHUNK // inner))):
        yield from _pieces(part.reshape(-1))


def _range(piece: Piece) -> tuple[float, float]:
    """Smallest and largest entry; nan where one is nan."""
    if isinstance(piece, np.ndarray):
        return float(np.minimum.reduce(piece)), float(np.maximum.reduce(piece))
    low, high = torch.aminmax(piece)
    return low.item(), high.item()


def _squares(piece: Piece) -> float:
    """Σ x². NumPy's BLAS takes half of the time of torch's own reductions."""
    return float(piece.dot(piece) if isinstance(piece, np.ndarray) else torch.dot(piece, piece))


def _sum(piece: Piece) -> float:
    """Σ x: a product with a vector of ones that stays in the innermost cache."""
    if not isinstance(piece, np.ndarray):
        return piece.sum().item()
    ones = _ones(piece.dtype.char)
    cut = len(piece) // _ROW * _ROW
    return float(piece[:cut].reshape(-1, _ROW).dot(ones).sum() + piece[cut:].dot(ones[: len(piece) - cut]))


@cache
def _ones(dtype: str) -> np.ndarray:
    return np.ones(_ROW, dtype)


def _chunked(
    pieces: Iterator[Piece], n: int, with_mean: bool, bounds: tuple[float, float] | None = None
) -> Moments | None:
    """The same of a tensor of n entries that comes in contiguous pieces; None with NaN or Inf.

    A piece whose squares would leave float32's range is first multiplied by a power of two, which is exact.
    """
    low, high = bounds or (math.inf, -math.inf)
    least, largest = low, high
    total = squares = 0.0
    for piece in pieces:
        if bounds is None:
            least, largest = _range(piece)
            low, high = min(low, least), max(high, largest)
        if least == largest:
            total += len(piece) * least
            squares += len(piece) * least * least
            continue
        top = max(largest, -least)
        unit = 1.0
        if not _SAFE[0] < top < _SAFE[1]:
            if not _SMALLEST < top < _LARGEST:  # nan among them
                return None
            unit = 2.0 ** math.frexp(top)[1]
            piece = _scaled(piece, 1.0 / unit)
        squares += _squares(piece) * unit * unit
        if with_mean:
            total += _sum(piece) * unit
    if not math.isfinite(squares):
        return None
    return Moments(total / n if with_mean else math.nan, squares / n, max(high, -low), low=low, high=high)


_KEPT = threading.local()


def _scaled(piece: Piece, factor: float) -> Piece:
    """A multiple of a piece, in room that each thread keeps: fresh pages cost more than the work on what fills them."""
    if not isinstance(piece, np.ndarray):
        return piece * factor
    held = vars(_KEPT).get(piece.dtype.char)
    if held is None:
        held = vars(_KEPT)[piece.dtype.char] = np.empty(_CHUNK, piece.dtype)
    return np.multiply(piece, piece.dtype.type(factor), out=held[: len(piece)])


def stacked_moments(x: Tensor) -> list[Moments]:
    """`moments` of each row of a matrix."""
    x = x.to(accumulator(x))
    tops, bottoms = as_numbers(x.amax(1)), as_numbers(x.amin(1))
    units = units_of(tops, bottoms)
    near, u = (x, 1.0) if units is None else (x / _beside(x, units), units)
    n = x.shape[1]
    means, norms = as_numbers(near.sum(1)) / n * u, as_numbers(torch.linalg.vector_norm(near, dim=1)) * u
    with np.errstate(over="ignore"):
        q = norms * norms / n
    rows = zip(means.tolist(), q.tolist(), bottoms.tolist(), tops.tolist(), strict=True)
    return [
        Moments(mean, q, max(high, -low), 0, 0, low, high)
        if math.isfinite(high) and math.isfinite(low)
        else moments(x[i])
        for i, (mean, q, low, high) in enumerate(rows)
    ]


def as_numbers(x: Tensor) -> np.ndarray:
    """A few numbers in float64: NumPy works on them several times faster than torch."""
    return x.cpu().numpy().astype(np.float64)


def units_of(tops: np.ndarray, bottoms: np.ndarray) -> np.ndarray | None:
    """By what to divide tensors, so that squares stay inside float32; None where nothing has to be done.

    A unit is a power of two, by which dividing is exact: 1 where nothing has to be done, and with NaN or Inf.

    Args:
        tops: Largest entry of each tensor,
        bottoms: and smallest.
    """
    sizes = np.maximum(tops, -bottoms)
    near = (sizes == 0.0) | ((sizes > _SAFE[0]) & (sizes < _SAFE[1]))
    if near.all():
        return None
    return np.where(near | ~np.isfinite(sizes), 1.0, np.ldexp(1.0, np.frexp(sizes)[1] - 1))


def divide_each(s: Tensor, units: np.ndarray) -> None:
    """Divide each of a stack of float32 or float64 tensors [N, ...] by its unit, in place."""
    s /= _beside(s, units)


def _beside(s: Tensor, units: np.ndarray) -> Tensor:
    return torch.from_numpy(units).to(dtype=s.dtype, device=s.device).view(-1, *[1] * (s.dim() - 1))


def in_range(top: float, bottom: float) -> bool:
    """Whether squares and sums stay inside float32; False for nan."""
    a = top if top > -bottom else -bottom
    return a == 0.0 or (_SAFE[0] < a < _SAFE[1] and top == top)


def accumulator(x: Tensor) -> torch.dtype:
    """The type in which sums of pieces are taken."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def sum_of_squares(x: Tensor, dtype: torch.dtype) -> float:
    """Sums of squares of pieces in `dtype`, added in float64.

    Long sums of squares lose digits in float32: the norm of a whole tensor is off by 1e-4 at 3e6 entries.
    """
    rest = 0.0
    if x.is_contiguous():
        x = x.view(-1)
        cut = len(x) // _ROW * _ROW
        if cut != len(x):
            rest = float(torch.linalg.vector_norm(x[cut:], dtype=dtype)) ** 2
        x = x[:cut].view(-1, _ROW)
    norms = torch.linalg.vector_norm(x, dim=-1, dtype=dtype).double().view(-1)
    return float(torch.dot(norms, norms)) + rest


def _careful(x: Tensor) -> Moments:
    flat = x.reshape(-1)
    nans = infs = 0
    top = 0.0
    for piece in flat.split(_PIECE):
        nans += int(piece.isnan().sum())
        infs += int(piece.isinf().sum())
        top = max(top, float(_finite(piece).abs().max()))
    count = flat.numel() - nans - infs
    if count == 0:
        return Moments(math.nan, math.nan, math.nan, nans, infs)
    if top == 0.0:
        return Moments(0.0, 0.0, 0.0, nans, infs)
    total = squares = 0.0
    for piece in flat.split(_PIECE):
        scaled = _finite(piece) / top
        total += float(scaled.sum())
        squares += float(torch.dot(scaled, scaled))
    return Moments(total / count * top, squares / count * top * top, top, nans, infs)


def _finite(x: Tensor) -> Tensor:
    x = x.double()
    return x.where(x.isfinite(), 0.0)
