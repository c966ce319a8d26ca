"""Results that have the shape of an argument, without torch's own shape functions.

On the meta device torch runs Python code to find the shape of a result: 0.2 ms for a product, 0.4 for a ReLU, 1 to 2
for a norm (torch 2.13), half of a capture's time. A copy of an argument without entries takes 2 µs, and has its shape,
type, strides and need of a gradient. Whatever is not plainly valid is left to torch, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.capture.calls import writes_in_place

_POINTWISE = frozenset({
    "relu", "relu6", "gelu", "mish", "leaky_relu", "elu", "celu", "selu", "softplus", "softsign", "hardswish",
    "hardsigmoid", "hardtanh", "logsigmoid", "tanh", "exp", "sqrt", "rsqrt", "square", "neg", "abs", "sin", "cos",
    "erf", "reciprocal",
})  # fmt: skip
_BINARY = frozenset({"add", "sub", "mul", "div", "pow"})
_OF_ROWS = frozenset({"layer_norm", "rms_norm"})
_TYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
_PLAIN = (Tensor, nn.Parameter)


def argument_like(op: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The argument that has all that the result has but its entries; None where that is not sure.

    Args:
        op: Canonical operation.
        func: What is called.
        args: Its arguments, tensors on the meta device.
        kwargs: Likewise.
    """
    if not args or writes_in_place(func) or "out" in kwargs:
        return None
    x, more = args[0], (*args[1:], *kwargs.values())
    if op in _BINARY:
        return _wider(x, more[0]) if len(args) == 2 and not kwargs else None
    if op == "scaled_dot_product_attention":
        named = _named(args, kwargs, 0, "query", "key", "value", "attn_mask")
        plain = len(args) <= 4 and not kwargs.get("enable_gqa") and not kwargs.get("dropout_p")
        return named[0] if plain and _attends(named, kwargs) else None
    if not _is_plain(x):
        return None
    if op in _POINTWISE:
        told = any(a is True or isinstance(a, Tensor) for a in more)  # to work in place, perhaps
        return None if told else x
    if op in ("layer_norm", "rms_norm", "group_norm") and not x.is_contiguous():
        return None  # its result may be
    if op in _OF_ROWS:
        shape, *held = _named(args, kwargs, 1, "normalized_shape", "weight", "bias")
        sizes = tuple(shape) if isinstance(shape, tuple | list) else ()
        return x if sizes and x.shape[-len(sizes) :] == sizes and _fit(x, sizes, held) else None
    if op == "group_norm" and x.dim() > 1:
        groups, *held = _named(args, kwargs, 1, "num_groups", "weight", "bias")
        fits = isinstance(groups, int) and groups > 0 and x.shape[1] % groups == 0 and x.numel() > groups
        return x if fits and _fit(x, x.shape[1:2], held) else None
    if op == "batch_norm" and x.dim() > 1:
        *held, training = _named(args, kwargs, 1, "running_mean", "running_var", "weight", "bias", "training")
        known = x.numel() > x.shape[1] if training else all(v is not None for v in held[:2])
        return x if known and _fit(x, x.shape[1:2], held) else None
    return None


def _is_real(x: Any) -> bool:
    return type(x) in _PLAIN and x.layout is torch.strided and x.dtype in _TYPES


def _is_plain(x: Any) -> bool:
    """Whether it lies in memory without gaps, in the order of its axes or with heads behind positions."""
    return _is_real(x) and (x.is_contiguous() or (x.dim() == 4 and x.transpose(1, 2).is_contiguous()))


def _attends(named: list[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether queries look at as many keys as there are values, head by head, all of one size and type."""
    (q, k, v), mask = named[:3], named[3]
    if not all(_is_real(t) and t.dim() == 4 for t in (q, k, v)):
        return False
    if mask is not None:
        fits = isinstance(mask, Tensor) and mask.dtype in (torch.bool, q.dtype) and mask.dim() > 1
        if not fits or kwargs.get("is_causal") or not _is_repeated(mask.shape, (*q.shape[:3], k.shape[2])):
            return False
    same = k.shape == v.shape == (*q.shape[:2], k.shape[2], q.shape[3]) and k.dtype == v.dtype == q.dtype
    return same and _is_plain(q) and (q.requires_grad or not (k.requires_grad or v.requires_grad))


def _wider(x: Any, y: Any) -> Tensor | None:
    """Of two tensors of one type the one to whose shape the other is repeated; of a tensor and a number the tensor."""
    if isinstance(y, int | float):
        return x if _is_plain(x) else None
    if isinstance(x, int | float):
        return y if _is_plain(y) else None
    if not (_is_real(x) and _is_real(y)) or x.dtype != y.dtype:
        return None
    for wide, other in ((x, y), (y, x)):
        laid_out = _is_plain(x) if wide is x else x.is_contiguous() and y.is_contiguous()  # as the first one is
        if laid_out and _is_repeated(other.shape, wide.shape) and (wide.requires_grad or not other.requires_grad):
            return wide
    return None


def _is_repeated(less: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a shape is broadcast to another one, which stays as it is."""
    start = len(size) - len(less)
    return start >= 0 and all(n in (1, m) for n, m in zip(less, size[start:], strict=True))


def _named(args: tuple[Any, ...], kwargs: Mapping[str, Any], start: int, *names: str) -> list[Any]:
    """Arguments that may be given by position or by name."""
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names, start)]


def _fit(x: Tensor, sizes: tuple[int, ...], held: list[Any]) -> bool:
    """Whether weights, where they are given, have the shape and the type that x asks for, and no gradient alone."""
    given = [w for w in held if w is not None]
    if not all(isinstance(w, Tensor) and w.shape == sizes and w.dtype == x.dtype for w in given):
        return False
    return x.requires_grad or not any(w.requires_grad for w in given)
