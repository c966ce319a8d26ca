"""The networks of the playground: stacks of layers whose parts have plain names, built from a `RunConfig`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from firstlight.errors import InputError
from firstlight.playground.config import RunConfig

_FUNCTIONS = {
    "linear": lambda x: x,
    "relu_squared": lambda x: F.relu(x).square(),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "sin": torch.sin,
    "erf": torch.erf,
    "abs": torch.abs,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class Layer(nn.Module):
    """h ↦ φ(norm(W h + b)), or h + η φ(norm(W h + b)) where widths agree and a branch weight η is set.

    Shapes: (batch, inputs) ↦ (batch, outputs).
    """

    def __init__(self, inputs: int, outputs: int, config: RunConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=config.bias)
        self.norm = _norm(config.normalization, outputs)
        self.eta = config.residual if inputs == outputs else 0.0
        self.phi = activation(config.activation)

    def forward(self, h: Tensor) -> Tensor:
        """One layer."""
        z = self.linear(h)
        out = self.phi(z if self.norm is None else self.norm(z))
        return h + self.eta * out if self.eta else out


class Stack(nn.Module):
    """Hidden layers and a linear readout.

    Args:
        inputs: Features of a sample.
        outputs: Numbers that the readout gives.
        config: Widths, activation, branches, normalization.
    """

    def __init__(self, inputs: int, outputs: int, config: RunConfig) -> None:
        super().__init__()
        sizes = (inputs, *config.hidden)
        self.layers = nn.ModuleList(Layer(a, b, config) for a, b in zip(sizes, sizes[1:], strict=False))
        self.readout = nn.Linear(sizes[-1], outputs, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs) ↦ (batch, outputs)."""
        for layer in self.layers:
            x = layer(x)
        return self.readout(x)


def activation(name: str):
    """The torch function of an activation that the theory knows by `name`.

    Raises:
        InputError: torch has no function of that name.
    """
    key = name.replace("-", "_")
    function = _FUNCTIONS.get(key) or getattr(F, key, None)
    if function is None:
        raise InputError("config.activation", got=repr(name), expected="an activation that torch has")
    return function


def _norm(kind: str, width: int) -> nn.Module | None:
    if kind == "batch":
        return nn.BatchNorm1d(width)
    if kind == "layer":
        return nn.LayerNorm(width)
    if kind == "rms":
        return nn.RMSNorm(width)
    return None
