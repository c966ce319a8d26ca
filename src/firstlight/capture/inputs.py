"""The forms in which a batch is given, checked once for all verbs.

A batch is a tensor, a tuple of positional arguments, a mapping of keyword arguments, or ``(args, kwargs)``.
Anything else (a data loader's ``[images, labels]``, a custom object) goes through `get_inputs`, a callable that turns
it into one of those forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from firstlight.capture.census import census
from firstlight.capture.scope import unwrapped
from firstlight.capture.tensors import is_mask, stored
from firstlight.errors import InputError, without_shape

GetInputs = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Arguments of one call of the model.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        batch_size: Number of samples: the first axis of the first tensor; 1 where it has none.
        device: Device of the tensors.
        notes: What was done to the batch.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    batch_size: int
    device: torch.device
    notes: tuple[str, ...] = ()


def check_model(model: object, *, materialised: bool = True) -> nn.Module:
    """`model` itself, without the wrapper of ``torch.compile``, if it is a module whose parameters exist.

    Args:
        model: What the user gave.
        materialised: Whether the entries of the weights are needed (False: shapes suffice, as on the meta device).

    Raises:
        InputError: If it is no module, a class instead of an instance, lazy and not yet called, or on the meta device.
    """
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InputError(
            "model",
            got=f"the class {model.__name__}",
            expected="an instance of torch.nn.Module",
            action=f"Pass {model.__name__}(...) instead.",
        )
    if not isinstance(model, nn.Module):
        raise InputError("model", got=described(model), expected="a torch.nn.Module")
    model = unwrapped(model)
    parts = census(model)
    tensors = (*parts.parameters.items(), *parts.buffers.items())
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise without_shape(lazy)
    for name, tensor in tensors:
        if materialised and tensor.device.type == "meta":
            raise InputError(
                f"model, parameter {name!r}",
                got="a tensor on the meta device, which has no entries",
                expected="weights that hold numbers",
                action="Call model.to_empty(device=...) and initialize it first, or use firstlight.predict.",
            )
    return model


def check_batch(batch: Any, model: nn.Module, *, get_inputs: GetInputs | None = None, values: bool = True) -> Inputs:
    """The batch as the arguments of one call, validated against the model.

    Args:
        batch: A tensor, tuple, mapping or ``(args, kwargs)``; anything at all with `get_inputs`.
        model: The module that will be called.
        get_inputs: Turns `batch` into one of those forms.
        values: Whether the entries are looked at (NaN, Inf) and must be on the model's device.

    Raises:
        InputError: If the form is unknown, the batch empty, on another device, or holds NaN or Inf (a mask of 0 and
            minus infinity may).
    """
    where = "batch"
    if get_inputs is not None:
        batch, where = get_inputs(batch), "get_inputs(batch)"
    args, kwargs = _form(batch, where)
    named = list(_tensors(args, kwargs, where))
    if not named:
        raise InputError(where, got=described(batch), expected="at least one torch.Tensor among the arguments")
    for name, x in named:
        if x.numel() == 0:
            raise InputError(name, got=f"an empty tensor of shape {tuple(x.shape)}", expected="at least one sample")
    if values:
        _check_devices(named, model)
        for name, x in named:
            _check_finite(name, x)
    first = named[0][1]
    return Inputs(args, kwargs, len(first) if first.dim() else 1, first.device)


def _form(batch: Any, where: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping):
        return (), _keywords(batch, where)
    if isinstance(batch, tuple):
        if len(batch) == 2 and isinstance(batch[0], tuple | list) and isinstance(batch[1], Mapping):
            return tuple(batch[0]), _keywords(batch[1], where)
        return tuple(batch), {}
    action = "Pass a tensor, a tuple of positional arguments, a dict of keyword arguments, or (args, kwargs)."
    if isinstance(batch, np.ndarray):
        action = "Pass torch.as_tensor(array)."
    elif isinstance(batch, list):
        action = "Pass tuple(batch) for positional arguments, or get_inputs=lambda b: b[0] for [images, labels]."
    raise InputError(where, got=described(batch), expected="a tensor, tuple, dict or (args, kwargs)", action=action)


def _keywords(mapping: Mapping[Any, Any], where: str) -> dict[str, Any]:
    for key in mapping:
        if not isinstance(key, str):
            raise InputError(where, got=f"the key {key!r}", expected="argument names as keys")
    return dict(mapping)


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any], where: str) -> Iterator[tuple[str, Tensor]]:
    for i, value in enumerate(args):
        yield from _nested(value, where if len(args) == 1 and not kwargs else f"{where}[{i}]")
    for key, value in kwargs.items():
        yield from _nested(value, f"{where}[{key!r}]")


def _nested(value: Any, where: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _nested(item, f"{where}[{key!r}]")
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from _nested(item, f"{where}[{i}]")


def _check_devices(named: list[tuple[str, Tensor]], model: nn.Module) -> None:
    parts = census(model)
    devices = {str(d) for d in {t.device for held in (parts.parameters, parts.buffers) for t in held.values()}}
    if not devices:
        return
    for name, x in named:
        if str(x.device) not in devices and not (x.device.type == "cpu" and x.dim() == 0):
            home = " and ".join(sorted(devices))
            raise InputError(
                name,
                got=f"a tensor on {x.device}",
                expected=f"the model's device, {home}",
                action=f"Move it: batch.to({sorted(devices)[0]!r}).",
            )


def _check_finite(name: str, x: Tensor) -> None:
    x = stored(x)[-1]
    if not x.is_floating_point() or bool(torch.isfinite(x.sum(dtype=torch.float64))):
        return
    if is_mask(x):
        return
    nan, inf = int(x.isnan().sum()), int(x.isinf().sum())
    if nan or inf:
        first = (~x.isfinite()).nonzero()[0].tolist()
        raise InputError(
            name,
            got=f"{nan} NaN and {inf} infinite entries of {x.numel()}, the first at {first}",
            expected="finite numbers",
            action="Clean the data, or look at the sample named here.",
        )


def described(value: Any) -> str:
    """What came, in a few words: "a list of 3 int", "a str 'abc'"."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape}, {value.dtype}"
    if value is None:
        return "None"
    if isinstance(value, list | tuple | set):
        kinds = sorted({type(item).__name__ for item in value})
        return f"a {type(value).__name__} of {len(value)} {'/'.join(kinds) if kinds else 'items'}"
    text = repr(value)
    return f"a {type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
