"""Build a network without memory for its weights, but with the entries of its small constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors  # pyright: ignore[reportPrivateUsage]

LARGEST = 2**22  # entries of a constant; a table of 4,096 positions of 1,024 units has as many
_CPU, _META = torch.device("cpu"), torch.device("meta")
#: Memory that layers take for their weights and draw into: never made.
_UNWRITTEN = frozenset({torch.empty, torch.empty_strided, torch.empty_permuted})


class _Weightless(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": _META if func in _UNWRITTEN or _too_large(func, args, kwargs) else _CPU}
        return func(*args, **kwargs)


_MAKERS = frozenset(_device_constructors())


@contextmanager
def weightless() -> Iterator[None]:
    """Modules built inside have weights on the meta device and small constants with their entries.

    Plain ``torch.device("meta")`` loses the entries of buffers too: scales, tables of positions, masks. Here
    ``torch.empty``, of which layers make their weights, is on the meta device and so is everything of more than 4
    million entries; all else is made for real, on the CPU.
    """
    with _Weightless():
        yield


def _too_large(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    if func in (torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor):
        return False  # the entries are there already
    try:
        with torch._C.DisableTorchFunction():
            return func(*args, **{**kwargs, "device": _META}).numel() > LARGEST
    except (RuntimeError, TypeError, NotImplementedError):
        return False  # let the real call say what is wrong


def rebuilt(model: nn.Module, missing: set[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(buffer on the meta device, its value) for those of ids `missing` that follow from a part's configuration.

    Hugging Face models are built from nothing but their ``config``: the outermost part that has one is built again.
    """
    left = set(missing)
    for module in model.modules():
        buffers = dict(module.named_buffers())
        if getattr(module, "config", None) is None or not any(id(b) in left for b in buffers.values()):
            continue
        try:
            with weightless():
                made = dict(type(module)(module.config).named_buffers())  # pyright: ignore[reportCallIssue]
        except Exception:  # noqa: BLE001 - not built in this way; its buffers stay unknown
            continue
        for name, buffer in buffers.items():
            value = made.get(name)
            if id(buffer) in left and value is not None and value.shape == buffer.shape and not value.is_meta:
                left.discard(id(buffer))
                yield buffer, value
