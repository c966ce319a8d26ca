"""The lab's networks as plain `torch.nn.Module`s: for the other verbs, for conv stacks and for comparison."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from firstlight.lab.draws import Member, layer_bias, layer_weight
from firstlight.lab.kernels import kernel
from firstlight.lab.models import StackConfig
from firstlight.lab.networks import Network


class StackModule(nn.Module):
    """The network of a `StackConfig`: `layers` holds the hidden layers and the readout.

    Input (B, inputs), for conv (B, inputs, H, W); output (B, outputs).
    """

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self._f = kernel(config.activation).f
        widths, conv = config.widths, config.kind == "conv"
        self.layers = nn.ModuleList(
            nn.Conv2d(n_in, n_out, config.kernel, padding=config.kernel // 2, bias=config.bias)
            if conv and layer < config.depth
            else nn.Linear(n_in, n_out, bias=config.bias)
            for layer, (n_in, n_out) in enumerate(pairwise(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch."""
        config = self.config
        for layer, module in enumerate(self.layers):
            if layer == config.depth:
                x = x.mean((-2, -1)) if config.kind == "conv" else x
                return module(x)
            branch = self._f(module(x))
            x = x + config.etas[layer - 1] * branch if config.kind == "residual" and layer > 0 else branch
        return x


def module(config: StackConfig, member: Member | None = None) -> StackModule:
    """The network as a module, its weights drawn as `train` draws them; without a member torch's own."""
    net = StackModule(config)
    if member is None:
        return net
    with torch.no_grad():
        for layer, part in enumerate(net.layers):
            part.weight.copy_(layer_weight(config, layer, member))  # type: ignore[operator]
            if config.bias:
                size = part.bias.shape[0]  # type: ignore[index, union-attr]
                drawn = layer_bias(config, layer, member, size)  # type: ignore[arg-type]
                part.bias.zero_() if drawn is None else part.bias.copy_(drawn)  # type: ignore[operator]
    return net


def to_module(stack: Network, member: int = 0) -> StackModule:
    """A module with a copy of one member's current weights."""
    net = StackModule(stack.config).to(stack.device, stack.dtype)
    with torch.no_grad():
        for layer, part in enumerate(net.layers):
            part.weight.copy_(stack.weight(layer)[member].reshape(part.weight.shape))  # type: ignore[operator]
            bias = stack.bias(layer)
            if bias is not None:
                part.bias.copy_(bias[member])  # type: ignore[operator]
    return net
