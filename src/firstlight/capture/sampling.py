"""A few samples and entries that stand for a large tensor, and what can be said between samples."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SAMPLES, ENTRIES = 16, 256
WHOLE = SAMPLES * ENTRIES  # tensors up to this size are taken whole


def sample_axis(shape: torch.Size | tuple[int, ...], batch_size: int | None) -> int | None:
    """Axis along which the samples lie; None where there is none.

    The first axis if it is the batch or a multiple of it (samples × heads, samples × windows), else the first inner
    axis of that size (time-major sequences).
    """
    if not shape:
        return None
    if batch_size is None or shape[0] == batch_size:
        return 0
    for axis, size in enumerate(shape[1:-1], 1):
        if size == batch_size > 1:
            return axis
    return 0 if batch_size and shape[0] and shape[0] % batch_size == 0 else None


def sample(x: Tensor, axis: int | None, count: int) -> Tensor:
    """[≤ 16 samples, ≤ 256 entries] of `x` (more entries where there are fewer samples)."""
    if axis:
        x = x.movedim(axis, 0)
    index = _index(count, x.numel() // count).to(x.device)
    if x.is_contiguous():
        return x.view(-1).index_select(0, index.view(-1)).view(index.shape)
    return torch.take(x, index)


_INDEX: dict[tuple[int, int], Tensor] = {}


def _index(samples: int, entries: int) -> Tensor:
    """Flat indices of evenly spread samples × the same entries, drawn once and sorted for locality."""
    key = (samples, entries)
    if key not in _INDEX:
        if len(_INDEX) > 256:
            _INDEX.clear()
        rows = min(samples, SAMPLES)
        columns = min(entries, WHOLE // rows)
        generator = torch.Generator().manual_seed(entries)
        which = torch.randint(entries, (columns,), generator=generator).sort().values
        chosen = torch.arange(rows) * samples // rows
        _INDEX[key] = chosen[:, None] * entries + which[None, :]
    return _INDEX[key]


def seen_alive(kept: Tensor, shape: tuple[int, ...], axis: int, samples: int) -> np.ndarray:
    """Whether each unit shows an entry other than zero in the `sample` of a tensor whose samples lie along axis 0."""
    units = _units(tuple(shape), axis, samples)
    alive = np.zeros(shape[axis], bool)
    alive[units[kept.flatten().cpu().numpy() != 0]] = True
    return alive


@lru_cache(maxsize=256)
def _units(shape: tuple[int, ...], axis: int, samples: int) -> np.ndarray:
    """The unit to which each entry of the `sample` belongs."""
    index = _index(samples, math.prod(shape) // samples).flatten().numpy()
    return index // math.prod(shape[axis + 1 :]) % shape[axis]


class Between(NamedTuple):
    """Numbers of each of a stack of tensors, between samples and over all entries."""

    cosines: np.ndarray
    variances: np.ndarray
    sums: tuple[np.ndarray, np.ndarray]  # Σx, Σx²


@np.errstate(over="ignore", invalid="ignore")  # lengths below 1e-38 have no reciprocal, infinite ones no mean
def between_samples(s: Tensor, spare: Tensor) -> Between:
    """Mean cosine over the pairs of samples, and the unbiased variance of an entry between samples.

    With u_a = s_a/|s_a|: Σ_{a≠b} u_a·u_b = |Σ u_a|² - Σ|u_a|². Samples that are all zero have no direction and are
    left out; with fewer than two others the cosine is nan. The sums of all entries and of their squares fall out.

    Args:
        s: [N, samples, entries], squares inside the format's range; each of the N is a tensor of its own.
        spare: [N, samples · entries], overwritten.
    """
    count, size = s.shape[1:]
    norms = torch.linalg.vector_norm(s, dim=2).cpu().numpy()
    live = norms > 0
    alive = live.sum(1)
    # One product gives both sums over the samples, Σ s_a/|s_a| and Σ s_a/n, without a copy of s.
    weights = np.zeros((len(s), 2, count), norms.dtype)
    np.divide(1.0, norms, out=weights[:, 0], where=live)
    weights[:, 1] = 1.0 / count
    kind = s.device.type  # the caller's autocast would take the product in half precision
    with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
        sums = torch.bmm(torch.from_numpy(weights).to(s.device), s)
    products = sums.cpu().numpy().astype(np.float64)
    total, mean = products[:, 0], products[:, 1]
    cosines = np.full(len(s), np.nan)
    pairs = alive * (alive - 1)
    np.divide(np.square(total).sum(1) - alive, pairs, out=cosines, where=pairs > 0)
    squares = np.square(norms, dtype=np.float64).sum(1)
    spread = squares - count * np.square(mean).sum(1)
    if not (spread > _CANCELS * squares).all():  # the difference would lose digits: take it entry by entry
        torch.sub(s, sums[:, 1:], out=spare.view(s.shape))
        spread = np.square(torch.linalg.vector_norm(spare, dim=1).cpu().numpy(), dtype=np.float64)
    variances = spread / (size * (count - 1))
    return Between(np.clip(cosines, -1.0, 1.0), variances, (mean.sum(1) * count, squares))


_CANCELS = 0.1  # share of Σx² below which the variance between samples is not taken as a difference of float32 sums
