"""Bags of look-ups (`nn.EmbeddingBag`): the sum, the mean or the largest of the rows of each bag."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Signal
from firstlight.rules.composed.composed import composed
from firstlight.rules.composed.tape import Tape
from firstlight.rules.state.empirical import constant

_LARGEST = 1 << 20  # entries of the matrix that says which rows are in which bag


@composed(
    "embedding_bag",
    example="F.embedding_bag(torch.arange(64).expand(len(x), 64), torch.randn(64, 32) / 8, mode='sum', "
    "per_sample_weights=x)",
)
def embedding_bag(
    tape: Tape, input: Signal, weight: Signal, offsets: Any = None, mode: str = "mean",
    per_sample_weights: Signal | None = None, include_last_offset: bool = False, max_norm: float | None = None,
    norm_type: float = 2.0,
) -> Signal:  # fmt: skip
    """Rows of a table, reduced over each bag: an axis of the indices, or what lies between two offsets."""
    x = tape("embedding", input, weight, None, max_norm, norm_type)
    if per_sample_weights is not None:
        x = tape("mul", x, tape("view", per_sample_weights, (*per_sample_weights.shape, 1)))
    if input.ndim == 2:
        return tape("amax" if mode == "max" else mode, x, 1)
    bags = tape.call.node.outputs[0].shape[0]
    starts = _starts(offsets, input.numel, bags, include_last_offset)
    sizes = np.diff(np.append(starts, input.numel))
    if sizes.min() == sizes.max() > 0:
        return tape("amax" if mode == "max" else mode, tape("view", x, (bags, int(sizes[0]), x.shape[-1])), 1)
    if mode == "max" or bags * input.numel > _LARGEST:
        tape.call.caveat("bags of different size are taken to be as large as the average one")
        size = max(round(input.numel / bags), 1)
        x = tape("view", tape("narrow", x, 0, 0, min(bags * size, input.numel // bags * bags)), (bags, -1, x.shape[-1]))
        return tape("amax" if mode == "max" else mode, x, 1)
    member: Array = (
        np.searchsorted(starts, np.arange(input.numel), side="right") - 1 == np.arange(bags)[:, None]
    ) * 1.0
    return tape("matmul", constant(member / (np.maximum(sizes, 1)[:, None] if mode == "mean" else 1.0)), x)


def _starts(offsets: Any, numel: int, bags: int, last: bool) -> Array:
    """Where each bag begins; evenly where that is not known."""
    if isinstance(offsets, Signal) and offsets.value is not None:
        found = np.asarray(offsets.value, dtype=np.float64)
        return found[:-1] if last else found
    return np.floor(np.arange(bags) * (numel / bags))
