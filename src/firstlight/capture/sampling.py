"""A few samples and entries that stand for a large tensor, and what can be said between samples."""

from __future__ import annotations

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


def between_samples(s: Tensor, *, safe: bool = False) -> tuple[list[float], list[float]]:
    """Mean cosine over the pairs of samples, and the unbiased variance of an entry between samples.

    With u_a = s_a/|s_a|: Σ_{a≠b} u_a·u_b = |Σ u_a|² - Σ|u_a|². Samples that are all zero have no direction and are
    left out; with fewer than two others the cosine is nan.

    Args:
        s: [N, samples, entries]; each of the N is a tensor of its own.
        safe: Whether squares of all entries are known to stay inside the format's range.
    """
    scale = None
    if not safe:
        scale = s.abs().amax((1, 2), keepdim=True)
        s = s / scale.where(scale > 0, 1.0)
    norms = torch.linalg.vector_norm(s, dim=2)
    live = norms > 0
    alive = live.sum(1)
    # One product gives both sums over the samples, Σ s_a/|s_a| and Σ s_a/n, without a copy of s.
    weights = torch.full((len(s), 2, s.shape[1]), 1.0 / s.shape[1], dtype=s.dtype, device=s.device)
    torch.div(live, norms.where(live, 1.0), out=weights[:, 0])
    total, mean = torch.bmm(weights, s).unbind(1)
    total = total.double()
    cosine = (torch.linalg.vecdot(total, total) - alive) / (alive * (alive - 1))
    spread = torch.linalg.vector_norm((s - mean.unsqueeze(1)).flatten(1), dim=1).double()
    variance = spread.square() / (s.shape[2] * (s.shape[1] - 1))
    if scale is not None:
        variance = variance * scale.view(-1).double() ** 2
    return cosine.clamp(-1.0, 1.0).tolist(), variance.tolist()
