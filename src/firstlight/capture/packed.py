"""Shapes of packed sequences: how many steps there are follows from lengths, which are known, not from the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _pack(data: Tensor, lengths: Tensor, batch_first: bool = False) -> tuple[Tensor, Tensor]:
    del batch_first
    steps = torch.arange(int(lengths.max()))
    return data.new_empty(int(lengths.sum()), *data.shape[2:]), (lengths[None, :] > steps[:, None]).sum(1)


def _pad(
    data: Tensor, sizes: Tensor, batch_first: bool = False, value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    del value
    steps, samples = max(len(sizes), total_length or 0), int(sizes[0])
    shape = (samples, steps) if batch_first else (steps, samples)
    lengths = (sizes[None, :] > torch.arange(samples)[:, None]).sum(1)
    return data.new_empty(*shape, *data.shape[1:]), lengths


def _recurrent(data: Tensor, sizes: Tensor, hx: Any, params: Sequence[Tensor], *rest: Any) -> tuple[Tensor, ...]:
    """Outputs of every step, then the states, whose shape is that of the first ones."""
    del sizes, params
    both = 2 if rest[-1] else 1
    states = tuple(hx) if isinstance(hx, list | tuple) else (hx,)
    return (data.new_empty(len(data), both * states[0].shape[-1]), *(torch.empty_like(h) for h in states))


PADDING = frozenset({"_pack_padded_sequence", "_pad_packed_sequence"})
# What to run on tensors without entries, by operation; where the second argument holds lengths or batch sizes.
PACKED: dict[str, Callable[..., Any]] = {
    "_pack_padded_sequence": _pack,
    "_pad_packed_sequence": _pad,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}
