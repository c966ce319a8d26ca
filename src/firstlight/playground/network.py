"""The networks of the playground: a plain `nn.Sequential` that anybody could have written, built from a `RunConfig`.

Parameter names count: draws depend on them, and the exported script builds the same names from the same parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.errors import InputError
from firstlight.playground.config import RunConfig

# activation -> the module, as it is written after "torch.nn."
MODULES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "linear": ("Identity", ()),
    "relu": ("ReLU", ()),
    "leaky_relu": ("LeakyReLU", ()),
    "prelu": ("PReLU", ()),
    "elu": ("ELU", ()),
    "celu": ("CELU", ()),
    "selu": ("SELU", ()),
    "gelu": ("GELU", ()),
    "gelu-tanh": ("GELU", ("tanh",)),
    "silu": ("SiLU", ()),
    "mish": ("Mish", ()),
    "softplus": ("Softplus", ()),
    "tanh": ("Tanh", ()),
    "sigmoid": ("Sigmoid", ()),
    "hardtanh": ("Hardtanh", ()),
    "hardsigmoid": ("Hardsigmoid", ()),
    "hardswish": ("Hardswish", ()),
    "relu6": ("ReLU6", ()),
    "softsign": ("Softsign", ()),
    "logsigmoid": ("LogSigmoid", ()),
    "tanhshrink": ("Tanhshrink", ()),
}
# activations that torch has as functions only: how they are written, and the function
FUNCTIONS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "sin": ("torch.sin(x)", torch.sin),
    "erf": ("torch.erf(x)", torch.erf),
    "abs": ("torch.abs(x)", torch.abs),
    "relu²": ("torch.relu(x).square()", lambda x: torch.relu(x).square()),
}
ACTIVATIONS = (*MODULES, *FUNCTIONS)
NORMS = {"batch": "BatchNorm1d", "layer": "LayerNorm", "rms": "RMSNorm"}


class Function(nn.Module):
    """An activation that torch has as a function only."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Entry by entry."""
        return FUNCTIONS[self.name][1](x)


class Branch(nn.Sequential):
    """x + η f(x): a residual block whose branch f is the sequence of its parts."""

    def __init__(self, eta: float, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.eta = eta

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(batch, width) ↦ (batch, width)."""
        return x + self.eta * super().forward(x)


def stack(inputs: int, outputs: int, config: RunConfig) -> nn.Sequential:
    """Hidden layers linear → norm → activation and a linear readout; branches where widths agree and η is set.

    Args:
        inputs: Features of a sample.
        outputs: Numbers that the readout gives.
        config: Widths, activation, branches, normalization.
    """
    sizes = (inputs, *config.hidden)
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layer: list[nn.Module] = [nn.Linear(a, b, bias=config.bias)]
        if config.normalization in NORMS:
            layer.append(getattr(nn, NORMS[config.normalization])(b))
        layer.append(activation(config.activation))
        parts += [Branch(config.residual, *layer)] if config.residual and a == b else layer
    return nn.Sequential(*parts, nn.Linear(sizes[-1], outputs, bias=config.bias))


def activation(name: str) -> nn.Module:
    """The torch module of an activation that the theory knows by `name`.

    Raises:
        InputError: The playground has no module for it.
    """
    if name in FUNCTIONS:
        return Function(name)
    if name not in MODULES:
        raise InputError("config.activation", got=repr(name), expected="one of " + ", ".join(ACTIVATIONS))
    kind, arguments = MODULES[name]
    return getattr(nn, kind)(*arguments)
