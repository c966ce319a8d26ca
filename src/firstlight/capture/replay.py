"""A call of torch, or of a user's own function, kept so that it can be run again on other tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from firstlight.graph.ir import Arg

_T = TypeVar("_T")
# Say where to put the result, not what to compute.
_PLACES = frozenset({"out", "device", "generator", "pin_memory", "memory_format", "non_blocking"})


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands in a kept argument for the tensor that the graph calls `arg`."""

    arg: Arg


@dataclass(frozen=True, slots=True)
class Replay:
    """One call: its function, and its arguments with slots in the place of tensors.

    Attributes:
        func: What torch was asked for; of a custom ``torch.autograd.Function`` its ``apply``.
        args: Positional arguments.
        kwargs: Keyword arguments, without those that say where.
        function: The custom function; None for any other call.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    function: type[torch.autograd.Function] | None = None

    @classmethod
    def of(
        cls,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        reference: Callable[[Tensor], Arg],
        function: type[torch.autograd.Function] | None = None,
    ) -> Replay:
        """Keep a call; no tensor is held."""
        named = {k: _filled(v, lambda t: Slot(reference(t))) for k, v in kwargs.items() if k not in _PLACES}
        return cls(func, tuple(_filled(a, lambda t: Slot(reference(t))) for a in args), named, function)

    @property
    def sources(self) -> tuple[Arg, ...]:
        """What the slots stand for, each once, in the order of the arguments."""
        return tuple(dict.fromkeys(slot.arg for slot in _leaves((self.args, tuple(self.kwargs.values())), Slot)))

    def __call__(self, tensors: Mapping[Arg, Any]) -> tuple[Tensor, ...]:
        """The tensors that the call returns on others."""
        return self._run(self.func, tensors)

    def opened(self, tensors: Mapping[Arg, Any]) -> tuple[Tensor, ...]:
        """The same of a custom function's forward pass alone, which autograd then follows by itself."""
        assert self.function is not None
        forward = self.function.forward
        if self.function.setup_context is torch.autograd.Function.setup_context:
            return self._run(lambda *args, **kwargs: forward(_Context(), *args, **kwargs), tensors)
        return self._run(forward, tensors)

    def _run(self, func: Callable[..., Any], tensors: Mapping[Arg, Any]) -> tuple[Tensor, ...]:
        args = (_emptied(a, tensors) for a in self.args)
        result = func(*args, **{k: _emptied(v, tensors) for k, v in self.kwargs.items()})
        return tuple(_leaves(result, Tensor))


class _Context:
    """What a custom function's forward pass may tell its context; autograd's own derivative needs none of it."""

    needs_input_grad: tuple[bool, ...] = (True,) * 64

    def _ignored(self, *args: Any) -> None:
        del args

    save_for_backward = save_for_forward = mark_dirty = mark_non_differentiable = set_materialize_grads = _ignored


def _filled(value: Any, change: Callable[[Tensor], Slot]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, torch.device):
        return torch.device("cpu")
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_filled(item, change) for item in value)
    return value


def _emptied(value: Any, tensors: Mapping[Arg, Any]) -> Any:
    if isinstance(value, Slot):
        return tensors[value.arg]
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_emptied(item, tensors) for item in value)
    return value


def _leaves(value: Any, kind: type[_T]) -> Iterator[_T]:
    """Everything of one type in nested lists and tuples."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, kind)
