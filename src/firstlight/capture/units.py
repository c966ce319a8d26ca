"""Along which axis the units of an operation's output lie: channels of maps, features of everything else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from torch import Tensor

from firstlight.capture.event import Event

# Units lie along axis 1 after these (channels first), ...
_CHANNELS_FIRST = (
    "conv",
    "batch_norm",
    "instance_norm",
    "group_norm",
    "_pool",
    "pixel_",
    "interpolate",
    "upsample",
)
# ... along the last axis after these, and elsewhere as in the first tensor that the operation reads.
_LAST_AXIS = frozenset(
    [
        "permute",
        "transpose",
        "movedim",
        "t",
        "reshape",
        "view",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "linear",
        "matmul",
        "bmm",
        "einsum",
        "layer_norm",
        "rms_norm",
        "embedding",
        "scaled_dot_product_attention",
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "unfold",
        "fold",
        "mean",
        "sum",
        "stack",
    ]
)


def unit_axis(event: Event, x: Tensor, axes: Mapping[str, int]) -> int:
    """The axis of `x`, the output of `event`, along which its units lie.

    Args:
        event: The operation.
        x: Its output.
        axes: The axes of the operations before it, by name.
    """
    if x.dim() < 3:
        return -1
    if event.op == "input":
        return 1 if x.dim() >= 4 else -1
    fixed = _fixed_axis(event.op)
    if fixed is not None:
        return fixed
    for name in event.inputs:
        if axes.get(name) == 1:
            return 1
    return -1


@cache
def _fixed_axis(op: str) -> int | None:
    if any(part in op for part in _CHANNELS_FIRST):
        return 1
    return -1 if op in _LAST_AXIS else None
