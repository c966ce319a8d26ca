"""Build a network without memory for its weights, but with the entries of its small constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors  # pyright: ignore[reportPrivateUsage]

from firstlight.capture.nodes import VALUE_LIMIT

_CPU, _META = torch.device("cpu"), torch.device("meta")
_MAKERS = frozenset(_device_constructors())
#: Memory that layers take for their weights and draw into: never made.
_UNWRITTEN = frozenset({torch.empty, torch.empty_strided, torch.empty_permuted})
SCALES = 2**12  # entries of a parameter that keeps them: layer scales, class tokens
_DRAWN = frozenset({torch.rand, torch.randn})  # by chance: a weight, unless it is as small as a scale


class _Weightless(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": _META if func in _UNWRITTEN or _too_large(func, args, kwargs) else _CPU}
        return func(*args, **kwargs)


@contextmanager
def weightless() -> Iterator[None]:
    """Modules built inside have weights on the meta device and small constants with their entries.

    Plain ``torch.device("meta")`` loses the entries of buffers too: scales, tables of positions, masks. Here
    ``torch.empty``, of which layers make their weights, is on the meta device, and so are random numbers and what a
    module takes for a parameter, unless they are as few as scales are, and everything of more entries than a capture
    keeps of a constant (4 million); all else is made for real, on the CPU.
    """
    hook = register_module_parameter_registration_hook(_without_memory)  # pyright: ignore[reportArgumentType] - it may give one back
    try:
        with _Weightless():
            yield
    finally:
        hook.remove()


def _without_memory(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
    """What a module holds in place of a parameter, the same for one that is tied; None for the parameter itself."""
    if parameter is None or parameter.is_meta or parameter.numel() <= SCALES:
        return None
    held = getattr(parameter, _HELD, None)
    if held is None:
        held = nn.Parameter(parameter.detach().to(_META), parameter.requires_grad)
        setattr(parameter, _HELD, held)
    return held


_HELD = "_firstlight_without_memory"


def _too_large(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    if func in (torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor):
        return False  # the entries are there already
    try:
        with torch._C.DisableTorchFunction():
            entries = func(*args, **{**kwargs, "device": _META}).numel()
            return entries > (SCALES if func in _DRAWN else VALUE_LIMIT)
    except (RuntimeError, TypeError, NotImplementedError):
        return False  # let the real call say what is wrong


def rebuilt(model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """(buffer on the meta device, its value) of parts that follow from their configuration alone.

    Hugging Face models are built from nothing but their ``config``. Parts without weights (rotary tables) come first:
    of most models nothing is left then. Else the outermost part that has a configuration is built again.
    """
    left = {id(b) for b in model.buffers() if b.is_meta}
    parts = [m for m in model.modules() if getattr(m, "config", None) is not None] if left else []
    for part in sorted(parts, key=lambda m: any(True for _ in m.parameters())):
        buffers = dict(part.named_buffers())
        if left.isdisjoint(id(b) for b in buffers.values()):
            continue
        try:
            with weightless():
                made = dict(type(part)(config=part.config).named_buffers())  # pyright: ignore[reportCallIssue]
        except Exception:  # noqa: BLE001 - not built in this way; its buffers stay unknown
            continue
        for name, buffer in buffers.items():
            value = made.get(name)
            if id(buffer) in left and value is not None and value.shape == buffer.shape and not value.is_meta:
                left.discard(id(buffer))
                yield buffer, value
