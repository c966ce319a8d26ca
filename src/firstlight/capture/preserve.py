"""Leave a module exactly as it was found, whatever happens in between.

What may change in a forward and backward pass is put back bit for bit: every attribute of every submodule (training
flag, hooks, parameters and buffers by identity, plain Python containers by content), buffers by value, gradients,
``requires_grad`` flags, and the process' random number generators, gradient mode, autocast and default dtype.

Parameters are not copied beforehand (they may fill the memory): a torch-function mode watches for in-place calls that
write to a parameter's storage, and copies that one parameter just before. Writes that pass torch by (through a NumPy
view, a custom kernel that does not say so) are found by comparing version counters where they are counted, and cannot
be undone; then `ModelError` names the parameter.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from firstlight.capture.census import Census, census
from firstlight.capture.tensors import is_sparse, stored
from firstlight.errors import ModelError

T = TypeVar("T")

# Containers whose content is put back; exact types, since a subclass may hold more than its items.
_CONTAINERS = frozenset((list, dict, set, deque, OrderedDict))


@contextmanager
def preserved(model: nn.Module, *, weights: bool = False, watch: bool = True) -> Iterator[WriteGuard]:
    """Restore `model` and the process' global numeric state on leaving the block, also after an exception.

    Args:
        model: Any module.
        weights: Copy every parameter beforehand; for blocks that overwrite them on purpose.
        watch: Whether the guard sees every torch call of the block. False where the block sees to that itself, by
            entering the guard or by handing it to a recorder.

    Yields:
        The guard that copies a parameter just before it is written to.

    Raises:
        ModelError: On leaving, if a parameter was changed in a way that could not be undone.
    """
    parts = census(model)
    saved = _Saved(parts, weights)
    state = _ProcessState(parts)
    try:
        saved.set_gradients_aside()
        guard = WriteGuard(saved.owned, saved.copies)
        with guard if watch else nullcontext():
            yield guard
    finally:
        lost = _insist(saved.restore)
        _insist(state.restore)
    if lost:
        raise ModelError(
            f"parameter {lost[0]!r}",
            got=f"a change of {len(lost)} parameter(s) during the pass, made past torch's own functions",
            expected="a model whose forward pass leaves its parameters alone",
            action="Pass copy.deepcopy(model) instead.",
        )


def _insist(restore: Callable[[], T]) -> T:
    """Call `restore`; a Ctrl-C that falls into it has to wait until it is done."""
    try:
        return restore()
    except KeyboardInterrupt:
        restore()
        raise


class _Copy(NamedTuple):
    tensor: Tensor
    data: Tensor  # an alias of the same storage with the same shape
    value: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> _Copy:
        return cls(tensor, tensor.data, tensor.detach().clone())

    def restore(self) -> None:
        if self.tensor.data_ptr() != self.data.data_ptr() or self.tensor.shape != self.data.shape:
            self.tensor.data = self.data  # it was made to point elsewhere
        self.tensor.data.copy_(self.value)  # through .data: the version counter is for autograd, not for us


class _Saved:
    """The module's state as it was found."""

    def __init__(self, parts: Census, weights: bool) -> None:
        modules = [module for _, module in parts.modules]
        self.attributes = [(m, dict(vars(m))) for m in modules]
        self.contents = [
            (v, v.copy() if v else ()) for _, a in self.attributes for v in a.values() if type(v) in _CONTAINERS
        ]  # most of a module's tables are empty
        named = parts.parameters.items()
        self.grads = [(p, p.grad) for _, p in named]
        self.owned = list(owned_tensors(modules))
        self.flags = [(t, t.requires_grad) for t in self.owned]
        self.versions = [(n, p, _version(p), p.data) for n, p in named]
        # of a sparse buffer what holds its entries
        self.copies = {id(t): _Copy.of(t) for b in parts.buffers.values() for t in (stored(b) if is_sparse(b) else [b])}
        if weights:
            self.copies |= {id(p): _Copy.of(p) for _, p in named}

    def set_gradients_aside(self) -> None:
        """Whatever accumulates during the block goes into fresh tensors."""
        for p, grad in self.grads:
            if grad is not None:
                p.grad = None

    def restore(self) -> list[str]:
        """Put everything back; returns the names of the parameters that were changed unseen."""
        for module, attributes in self.attributes:
            now = vars(module)
            for key in now.keys() - attributes.keys():
                del now[key]
            for key, value in attributes.items():
                if now.get(key) is not value:
                    now[key] = value
        for live, content in self.contents:
            if not live and not content:
                continue
            if isinstance(live, list):
                live[:] = content
            elif isinstance(live, deque):
                live.clear()
                live.extend(content)
            else:
                live.clear()
                live.update(content)
        changed: list[str] = []
        for name, p, version, data in self.versions:
            if id(p) in self.copies:
                continue
            if p.data_ptr() != data.data_ptr() or p.shape != data.shape:
                p.data = data  # it was made to point elsewhere; what it pointed to is still there
            elif _version(p) != version:
                changed.append(name)
        for copy in self.copies.values():
            copy.restore()
        for tensor, flag in self.flags:
            if tensor.requires_grad != flag:
                if tensor.grad_fn is None:
                    tensor.requires_grad_(flag)
                else:  # an in-place update drew a buffer into the autograd graph
                    tensor.detach_()
        for p, grad in self.grads:
            if p.grad is not grad:
                p.grad = grad
        return changed


def _version(t: Tensor) -> int:
    return -1 if t.is_inference() else t._version


def owned_tensors(modules: list[nn.Module]) -> Iterator[Tensor]:
    """Parameters, buffers and plain tensor attributes of the modules, each object once."""
    seen: set[int] = set()
    for module in modules:
        for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(value, Tensor) and id(value) not in seen:
                seen.add(id(value))
                yield value


class WriteGuard(TorchFunctionMode):
    """Copies a tensor of the module just before a torch function writes to its storage."""

    def __init__(self, owned: list[Tensor], copies: dict[int, _Copy]) -> None:
        super().__init__()
        self._copies = copies
        self._owned: dict[int, list[Tensor]] = {}
        for t in owned:
            if _has_storage(t):
                self._owned.setdefault(t.untyped_storage().data_ptr(), []).append(t)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Let every call through; look first at those that may write."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name_writes(name) or (kwargs and told_to_write(name, kwargs)):
            self.look(args, kwargs)
        return func(*args, **kwargs)

    def look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Copy what a call with these arguments may write to."""
        for arg in (*args, *kwargs.values()):
            self._before_write(arg)

    def _before_write(self, target: Any) -> None:
        if isinstance(target, list | tuple):
            for item in target:
                self._before_write(item)
        elif isinstance(target, Tensor) and _has_storage(target):
            for t in self._owned.get(target.untyped_storage().data_ptr(), ()):
                if id(t) not in self._copies:
                    self._copies[id(t)] = _Copy.of(t)


def name_writes(name: str) -> bool:
    """Whether a torch function of this name writes to one of its arguments."""
    if name.endswith("__"):  # x += y, x[i] = y, x.data = y; not x[i], x + y
        return name in ("__setitem__", "__set__") or (name.startswith("__i") and name not in _READERS)
    return name.endswith("_")


def told_to_write(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether its keyword arguments tell a torch function to write to one of its arguments."""
    if kwargs.get("inplace") or kwargs.get("max_norm") is not None or kwargs.get("out") is not None:
        return True
    if name in ("batch_norm", "instance_norm"):
        return bool(kwargs.get("training") or kwargs.get("use_input_stats"))
    return False


_READERS = ("__int__", "__index__", "__invert__")


def _has_storage(t: Tensor) -> bool:
    return t.layout == torch.strided and t.device.type != "meta" and t.numel() > 0


class _ProcessState:
    """Random number generators, gradient mode, autocast and default dtype of this process."""

    def __init__(self, parts: Census) -> None:
        self.python = random.getstate()
        self.numpy = np.random.get_state()  # noqa: NPY002 - the global generator is what the user's model may draw from
        self.cpu = torch.get_rng_state()
        used = torch.cuda.is_available() and torch.cuda.is_initialized()
        self.cuda = torch.cuda.get_rng_state_all() if used else []
        self.grad = torch.is_grad_enabled()
        self.dtype = torch.get_default_dtype()
        devices = {"cpu", *(p.device.type for p in parts.parameters.values())} & {"cpu", "cuda", "mps", "xpu"}
        self.autocast = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in sorted(devices)]
        self.deterministic = torch.are_deterministic_algorithms_enabled()
        self.warn_only = torch.is_deterministic_algorithms_warn_only_enabled()

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        torch.set_grad_enabled(self.grad)
        torch.set_default_dtype(self.dtype)
        for device, enabled, dtype in self.autocast:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        torch.clear_autocast_cache()  # weights cast during the pass hang on a graph that is gone
        if torch.are_deterministic_algorithms_enabled() != self.deterministic:
            torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
