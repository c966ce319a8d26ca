"""One recorded pass through a module, cut into layers: what each passes on, and the gradient that comes back to it.

A layer begins at an operation that reads a weight matrix or kernel and ends before the next one. Its pre-activation z
is what that operation gives; its activation is the first known nonlinearity after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.capture.preserve import preserved
from firstlight.capture.record import Event, recording
from firstlight.theory import activations


@dataclass(slots=True)
class Layer:
    """One layer during a pass.

    Attributes:
        name: Module path, or the node's name where the root module itself ran it.
        node: Name of the operation that gave z, as in graphs and predictions.
        z: Pre-activation.
        h: Output of the nonlinearity; z itself where there is none.
        phi: Name of the nonlinearity; "" where there is none.
        delta: ∂cost/∂z.
    """

    name: str
    node: str
    z: Tensor
    h: Tensor
    phi: str = ""
    delta: Tensor | None = None


def record(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], cost: Callable[[Any], Tensor] | None
) -> list[Layer]:
    """Run the module forward, and backward from `cost`; it is left as it was found.

    Args:
        model: Any module.
        args: Positional arguments.
        kwargs: Keyword arguments.
        cost: The cost of an output; None leaves the gradients out.
    """
    wide = {name for name, p in model.named_parameters() if p.ndim >= 2}
    found: list[Layer] = []

    def sink(event: Event) -> None:
        out = event.outputs[0]
        if not event.signal or not out.is_floating_point():
            return
        if any(name in wide for name in event.parameters):
            found.append(Layer(event.module or event.name, event.name, out, out))
        elif found and not found[-1].phi and activations.find(event.op) is not None:
            found[-1].h, found[-1].phi = out, event.op

    with preserved(model), torch.enable_grad():
        with recording(model, sink) as recorder:
            recorder.start(args, kwargs)
            output = model(*args, **kwargs)
        if cost is not None:
            differentiate(found, cost(output))
    return found


def differentiate(found: list[Layer], cost: Tensor) -> None:
    """Fill in ∂cost/∂z of every layer that the cost depends on."""
    reached = [layer for layer in found if layer.z.requires_grad]
    if not reached or not cost.requires_grad:
        return
    gradients = torch.autograd.grad(cost, [layer.z for layer in reached], allow_unused=True)
    for layer, gradient in zip(reached, gradients, strict=True):
        layer.delta = gradient


def walks_alone(run: Any) -> bool:
    """Whether walks follow one sample, as the random walk of the theory does, or the whole batch.

    Batch normalization mixes samples, and of an own model nobody knows which axis holds them.
    """
    return run.problem.own is None and run.config.normalization != "batch"
