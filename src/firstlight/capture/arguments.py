"""The arguments of a torch call as plain values: positions and names as the canonical operation has them.

Python functions tell their signature, so their arguments get names here; for built-ins the torch-free table
in `graph.signatures` does it. Spellings of one operation are brought to one form: reversed operators are
turned round, ``x.view(2, 3)`` becomes ``x.view((2, 3))``, every cast becomes ``to(x, dtype)``.
"""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

from firstlight.graph.ir import Arg
from firstlight.graph.operations import REVERSED
from firstlight.graph.signatures import signature

# Built-ins whose order is not that of the function in torch.nn.functional; the first argument is left out.
_NORM = ("weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
_OTHER_ORDER: dict[Any, tuple[str, ...]] = {
    torch.batch_norm: _NORM,
    torch.instance_norm: (*_NORM[:4], "use_input_stats", "momentum", "eps"),
    torch.embedding: ("input", "padding_idx", "scale_grad_by_freq", "sparse"),
}

# NumPy's names of arguments, which torch takes as well.
_NUMPY = {"axis": "dim", "axis0": "dim0", "axis1": "dim1", "keepdims": "keepdim"}

Convert = Callable[[torch.Tensor], Arg]

# Methods that take sizes or axes either as one sequence or as several integers.
_SPREAD = frozenset({"view", "reshape", "permute", "expand", "repeat", "tile", "flip"})
# Arguments that say how, not what, to compute.
_IDLE = frozenset({"_stacklevel", "inplace", "out", "memory_format", "non_blocking", "generator", "pin_memory"})


def plain_arguments(
    op: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], convert: Convert
) -> tuple[tuple[Arg, ...], dict[str, Arg]]:
    """(positional, named) arguments of a call of `func`, canonically `op`, as values of the graph.

    Args:
        op: Canonical operation.
        func: What torch was asked for.
        args: Positional arguments.
        kwargs: Keyword arguments.
        convert: Turns a tensor into its reference in the graph.
    """
    named = {_NUMPY.get(key, key): value for key, value in kwargs.items() if key not in _IDLE}
    positional = list(args)
    name = getattr(func, "__name__", "")
    if func in _OTHER_ORDER:
        named |= dict(zip(_OTHER_ORDER[func], positional[1:], strict=False))
        positional = positional[:1]
        if op == "embedding":
            positional = [named.pop("input"), *positional]
    elif (name in REVERSED or func is torch.Tensor.where) and len(positional) >= 2:  # x.where(condition, y)
        positional[:2] = positional[1::-1]
    elif isinstance(func, types.FunctionType) and op != "einsum":
        positional, named = _bound(func, positional, named)
    elif op not in ("to", "einsum"):
        positional = _in_order(op, positional, named)
    if op == "to":
        positional, named = positional[:1], {}
    elif op == "einsum":
        operands = positional[1] if len(positional) == 2 and _is_sequence(positional[1]) else positional[1:]
        positional, named = [positional[0], *operands], {}
    elif name in ("mT", "mH", "adjoint"):
        positional = [positional[0], -2, -1]
    elif name in ("view_as", "reshape_as", "expand_as"):
        positional[1] = tuple(positional[1].shape)
    elif op in _SPREAD and len(positional) > 1 and isinstance(positional[1], int):
        positional[1:] = [tuple(positional[1:])]
    return (
        tuple(plain(value, convert) for value in positional),
        {key: plain(value, convert) for key, value in named.items()},
    )


def plain(value: Any, convert: Convert) -> Arg:
    """One argument as a value of the graph.

    A slice becomes ``("slice", start, stop, step)``, an ellipsis ``"..."``, a type or device its short name;
    what has no counterpart becomes its text.
    """
    if value is None or isinstance(value, bool | int | float | complex | str):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, torch.Tensor):
        return convert(value)
    if isinstance(value, list | tuple):
        return tuple(plain(item, convert) for item in value)
    if isinstance(value, slice):
        return ("slice", *(plain(part, convert) for part in (value.start, value.stop, value.step)))
    if value is Ellipsis:
        return "..."
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if isinstance(value, dict):
        return tuple((str(key), plain(item, convert)) for key, item in value.items())
    if hasattr(value, "item") and callable(value.item):  # a NumPy scalar
        return plain(value.item(), convert)
    return str(value)


def dtype_name(dtype: torch.dtype) -> str:
    """Short name: "float32" for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def _bound(func: types.FunctionType, positional: list[Any], named: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    names = _parameter_names(func)
    if names is None or len(positional) > len(names):
        return positional, named
    named = {**named, **dict(zip(names[1:], positional[1:], strict=False))}
    return positional[:1], {key: value for key, value in named.items() if key not in _IDLE}


def _in_order(op: str, positional: list[Any], named: dict[str, Any]) -> list[Any]:
    """Required arguments of a built-in that were given by name (``b.baddbmm(batch1=x, batch2=y)``) in their places."""
    known = signature(op)
    if known is None or not positional:
        return positional
    for name in known[0][len(positional) :]:
        if name not in named:
            break
        positional.append(named.pop(name))
    return positional


@lru_cache(maxsize=1024)
def _parameter_names(func: types.FunctionType) -> tuple[str, ...] | None:
    """Names of the positional parameters; None where the function takes any number of them."""
    parameters = inspect.signature(func, follow_wrapped=False).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple)
