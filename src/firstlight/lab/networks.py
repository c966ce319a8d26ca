"""The trainable networks of a configuration: one face, two programs."""

from __future__ import annotations

from firstlight.lab.conv import ConvStack
from firstlight.lab.models import StackConfig
from firstlight.lab.stack import Stack

Network = Stack | ConvStack


def network(
    config: StackConfig, members: int, batch: int, size: tuple[int, ...] = (), *, device: str = "cpu"
) -> Network:
    """An ensemble of networks with zero weights.

    Args:
        config: Its shape; the kind decides which program runs it.
        members: Number of networks.
        batch: Samples of a step.
        size: H and W of the images of a conv stack.
        device: Of all buffers.
    """
    if config.kind == "conv":
        height, width = size
        return ConvStack(config, members, batch, (height, width), device=device)
    return Stack(config, members, batch, device=device)
