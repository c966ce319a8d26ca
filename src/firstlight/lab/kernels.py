"""φ and φ′ over whole buffers: torch's own functions by the names of `theory.activations`.

A kernel keeps for the backward pass either the output of φ (then φ is applied in place and no pre-activation
is stored) or its input. φ′ is computed for many layers in one call; where torch ships the derivative as an
operator it is that operator, elsewhere autograd on the pointwise function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from firstlight.errors import InputError
from firstlight.theory import activations

_aten = torch.ops.aten


@dataclass(frozen=True)
class Kernel:
    """A pointwise nonlinearity over buffers.

    Attributes:
        name: Name in `theory.activations`.
        f: φ as a torch function.
        derivative: (saved, out) → None: writes φ′ into out; `saved` is φ's output or input, see
            `saves_output`.
        saves_output: Whether φ′ is a function of φ's output; then `inplace` exists.
        inplace: φ in place on a tensor.
        numpy_inplace: The same ufunc on a NumPy view, where that is faster on a CPU.
    """

    name: str
    f: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], object]
    saves_output: bool = False
    inplace: Callable[[Tensor], object] | None = None
    numpy_inplace: np.ufunc | None = None


def _one(like: Tensor) -> Tensor:
    """Ones of the shape of `like`, one element in memory."""
    return like.new_ones(()).expand(like.shape)


def _by_autograd(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], object]:
    def derivative(z: Tensor, out: Tensor) -> None:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(f(leaf).sum(), leaf)
        out.copy_(slope)

    return derivative


def _elu_slope(alpha: float, scale: float) -> Callable[[Tensor, Tensor], object]:
    # elu_backward(grad, alpha, scale, input_scale, is_result, result)
    return lambda h, out: _aten.elu_backward.grad_input(_one(h), alpha, scale, 1.0, True, h, grad_input=out)


def _clip_slope(low: float, high: float) -> Callable[[Tensor, Tensor], object]:
    return lambda h, out: _aten.hardtanh_backward.grad_input(_one(h), h, low, high, grad_input=out)


def _leaky_slope(a: float) -> Callable[[Tensor, Tensor], object]:
    return lambda h, out: _aten.leaky_relu_backward.grad_input(_one(h), h, a, True, grad_input=out)


_SELU = activations.SELU_ALPHA, activations.SELU_SCALE
# Derivatives as functions of the output.
_FROM_OUTPUT: dict[str, Kernel] = {
    k.name: k
    for k in (
        Kernel("linear", lambda z: z, lambda h, out: out.fill_(1.0), True, lambda z: z),
        Kernel("relu", torch.relu, lambda h, out: torch.sign(h, out=out), True, torch.relu_),
        Kernel("leaky_relu", F.leaky_relu, _leaky_slope(0.01), True, lambda z: F.leaky_relu(z, inplace=True)),
        Kernel(
            "prelu",
            lambda z: F.leaky_relu(z, 0.25),
            _leaky_slope(0.25),
            True,
            lambda z: F.leaky_relu_(z, 0.25),
        ),
        Kernel(
            "tanh",
            torch.tanh,
            lambda h, out: _aten.tanh_backward.grad_input(_one(h), h, grad_input=out),
            True,
            torch.tanh_,
            np.tanh,
        ),
        Kernel(
            "sigmoid",
            torch.sigmoid,
            lambda h, out: _aten.sigmoid_backward.grad_input(_one(h), h, grad_input=out),
            True,
            torch.sigmoid_,
        ),
        Kernel("elu", F.elu, _elu_slope(1.0, 1.0), True, lambda z: F.elu(z, inplace=True)),
        Kernel("celu", F.celu, _elu_slope(1.0, 1.0), True, lambda z: F.elu(z, inplace=True)),
        Kernel("selu", torch.selu, _elu_slope(*_SELU), True, torch.selu_),
        Kernel("hardtanh", F.hardtanh, _clip_slope(-1.0, 1.0), True, lambda z: F.hardtanh(z, inplace=True)),
        Kernel("relu6", F.relu6, _clip_slope(0.0, 6.0), True, lambda z: F.hardtanh(z, 0.0, 6.0, inplace=True)),
    )
}
_FROM_INPUT: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], object] | None]] = {
    "gelu": (F.gelu, lambda z, out: _aten.gelu_backward.grad_input(_one(z), z, grad_input=out)),
    "gelu-tanh": (
        lambda z: F.gelu(z, approximate="tanh"),
        lambda z, out: _aten.gelu_backward.grad_input(_one(z), z, approximate="tanh", grad_input=out),
    ),
    "silu": (F.silu, lambda z, out: _aten.silu_backward.grad_input(_one(z), z, grad_input=out)),
    "softplus": (F.softplus, lambda z, out: torch.sigmoid(z, out=out)),
    "hardsigmoid": (
        F.hardsigmoid,
        lambda z, out: _aten.hardsigmoid_backward.grad_input(_one(z), z, grad_input=out),
    ),
    "hardswish": (F.hardswish, lambda z, out: _aten.hardswish_backward.out(_one(z), z, out=out)),
    "mish": (F.mish, None),
    "softsign": (F.softsign, None),
    "sin": (torch.sin, lambda z, out: torch.cos(z, out=out)),
    "erf": (torch.erf, None),
    "abs": (torch.abs, lambda z, out: torch.sign(z, out=out)),
    "relu²": (lambda z: torch.relu(z).square(), None),
    "logsigmoid": (F.logsigmoid, None),
    "tanhshrink": (F.tanhshrink, None),
}


def kernel(name: str) -> Kernel:
    """The kernel of a registered activation (aliases too).

    Raises:
        RegistryError: Unknown activation.
        InputError: An activation that theory knows and the trainer does not.
    """
    key = activations.get(name).name
    if key in _FROM_OUTPUT:
        return _FROM_OUTPUT[key]
    if key not in _FROM_INPUT:
        known = ", ".join((*_FROM_OUTPUT, *_FROM_INPUT))
        raise InputError("trainer, activation", got=repr(name), expected=f"one of {known}")
    f, derivative = _FROM_INPUT[key]
    return Kernel(key, f, derivative or _by_autograd(f))
