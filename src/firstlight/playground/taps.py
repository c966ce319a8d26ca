"""A cheap look into the playground's own networks: hooks on the modules that a recorded pass has found.

A recording (`layers.record`) watches every operation of any module and puts everything back; that costs more than a
small network's training step. Networks of `network.stack` are plain enough to know from one recording which module
gives each layer's z and h, so that the pictures that follow need hooks on those modules and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.playground.layers import Layer, differentiate

_NORMS = (nn.BatchNorm1d, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True, slots=True)
class Tap:
    """Where one layer is read.

    Attributes:
        name: Path of the module that gives z.
        node: Name of its operation, as in graphs and predictions.
        phi: Name of the nonlinearity; "" where there is none.
        activation: Path of the module that gives h; "" where h is z.
    """

    name: str
    node: str
    phi: str
    activation: str


def plan(
    found: Sequence[Layer],
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    cost: Callable[[Any], Tensor] | None,
) -> tuple[Tap, ...] | None:
    """The taps that read the same layers as a recording did; None where hooks cannot.

    Args:
        found: Layers of a recorded pass.
        model: The module that was recorded.
        args: The arguments that it was recorded with.
        kwargs: Keyword arguments likewise.
        cost: The cost that gradients were taken of.
    """
    leaves = [(name, module) for name, module in model.named_modules() if next(module.children(), None) is None]
    linear = [i for i, (_, module) in enumerate(leaves) if isinstance(module, nn.Linear)]
    if [leaves[i][0] for i in linear] != [layer.name for layer in found]:
        return None
    taps: list[Tap] = []
    for layer, start, end in zip(found, linear, [*linear[1:], len(leaves)], strict=True):
        after = [name for name, module in leaves[start + 1 : end] if not isinstance(module, _NORMS)]
        if layer.phi and len(after) != 1:
            return None
        taps.append(Tap(layer.name, layer.node, layer.phi, after[0] if layer.phi else ""))
    again, _ = tapped(model, taps, args, kwargs, cost)
    same = all(_equal(a.z, b.z) and _equal(a.h, b.h) for a, b in zip(found, again, strict=True))
    return tuple(taps) if same else None


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree entry by entry, NaN with NaN."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def tapped(
    model: nn.Module,
    taps: Sequence[Tap],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    cost: Callable[[Any], Tensor] | None,
) -> tuple[list[Layer], Any]:
    """Run the module forward, and backward from `cost`; its running statistics and gradients are left as they were.

    Returns:
        The layers, and what the module gave.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs[name] = output

        return hook

    modules = dict(model.named_modules())
    buffers = [(b, b.clone()) for module in modules.values() if module._buffers for b in module.buffers(recurse=False)]
    wanted = [name for tap in taps for name in (tap.name, tap.activation) if name]
    handles = [modules[name].register_forward_hook(keep(name)) for name in wanted]
    try:
        with torch.enable_grad():
            result = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for buffer, value in buffers:
            buffer.data.copy_(value)  # past the version counter: the backward pass may still need the buffer
    found = [Layer(tap.name, tap.node, outputs[tap.name], outputs[tap.activation or tap.name], tap.phi) for tap in taps]
    if cost is not None:
        differentiate(found, cost(result))
    return found, result
