"""What torch was asked for: the canonical operation behind a function, and the functions that are opened."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from torch.nn import functional as F

from firstlight.graph.operations import METADATA, TENSOR_PROPERTIES, canonical


def operation_of(func: Any) -> str | None:
    """The canonical operation behind what torch calls `func`; None for metadata and property access.

    `func` is a built-in, a Python function, a method descriptor or the getter of a property.
    """
    name = getattr(func, "__name__", type(func).__name__)
    if name in ("__get__", "__set__", "__delete__"):
        name = getattr(func.__self__, "__name__", "")
        if name not in TENSOR_PROPERTIES:
            return None
        return "set_data" if func.__name__ == "__set__" else canonical(name)
    if name in METADATA or (name.startswith(("is_", "_is_")) and name != "is_nonzero"):
        return None
    if func is F.multi_head_attention_forward or func is F.gumbel_softmax:
        return name
    return canonical(name)


def writes_in_place(func: Any) -> bool:
    """Whether the name of `func` says that it changes its first argument."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__index__", "__invert__", "__int__"))
    return name.endswith("_")


def may_write(func: Any) -> bool:
    """Whether a call of `func` with positional arguments alone might change one of them.

    Built-in functions say so in their name, except that batch and instance norm update running statistics,
    which carry no signal. A Python function or a custom operator may do anything.
    """
    return writes_in_place(func) or not isinstance(func, _BUILT_IN) or getattr(func, "__name__", "") == "__set__"


_BUILT_IN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
)


def _opened(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a Python function of torch that does not hand itself to the recorder but runs its body."""
    assert isinstance(function, types.FunctionType)
    deaf = dict.fromkeys(
        ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), lambda *_: False
    )
    copy = types.FunctionType(
        function.__code__,
        function.__globals__ | deaf,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


OPENED: dict[str, Callable[..., Any]] = {
    "multi_head_attention_forward": _opened(F.multi_head_attention_forward),
    "gumbel_softmax": _opened(F.gumbel_softmax),
}
