"""Record the graph on a real run, for models whose control flow depends on the entries of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from firstlight.capture.nodes import NodeRecorder
from firstlight.capture.record import recording
from firstlight.capture.tensors import map_tensors


def observe(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[NodeRecorder, Any]:
    """Run the model on real inputs and write down what it does.

    Args:
        model: A module with real weights; the caller preserves its state.
        args: Positional arguments, all tensors real; the model gets copies.
        kwargs: Keyword arguments, likewise.

    Returns:
        The recorder with its nodes, and the model's output.
    """
    recorder: NodeRecorder | None = None

    def make(_sink: Any, scope: Any) -> NodeRecorder:
        nonlocal recorder
        recorder = NodeRecorder(scope)
        return recorder

    args, kwargs = map_tensors((args, kwargs), _copy)
    with recording(model, lambda _event: None, make):
        assert recorder is not None
        recorder.start(args, kwargs)
        output = model(*args, **kwargs)
    return recorder, output


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)
