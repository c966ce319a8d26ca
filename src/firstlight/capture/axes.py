"""Along which axis each softmax adds up to one, and along which axis its weights are summed: one watched pass.

The axis is followed from the softmax on through what keeps it (dropout, masks, casts, transposes, reshapes) to the
first product that sums over an axis of it. A division ends that: weights that are divided once more, as those of slot
attention, add up to one along another axis by then. So does a sum with another tensor.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.capture.arguments import plain_arguments
from firstlight.capture.event import Event
from firstlight.capture.inputs import Inputs
from firstlight.capture.preserve import preserved
from firstlight.capture.record import recording
from firstlight.capture.tensors import map_tensors, separate
from firstlight.checks.evidence import Softmax
from firstlight.graph.measurement import Measurement

SOFTMAXES = frozenset({"softmax", "log_softmax"})
_KEEPS = frozenset({"dropout", "masked_fill", "to", "clone", "contiguous", "mul", "nan_to_num", "where", "detach"})
_RESHAPES = frozenset({"view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten", "expand"})
_PRODUCTS = frozenset({"matmul", "bmm", "mm", "einsum"})


def softmaxes(model: nn.Module, inputs: Inputs, measured: Measurement) -> tuple[Softmax, ...]:
    """What the pass does with each softmax; no pass where the measurement has none.

    Args:
        model: Comes back bit for bit.
        inputs: Of the pass.
        measured: Tells whether there is a softmax at all.
    """
    if not any(n.op in SOFTMAXES for n in measured.nodes):
        return ()
    watch = AxisWatch()
    args, kwargs = map_tensors((tuple(inputs.args), dict(inputs.kwargs)), lambda t: separate(t).clone())
    graded = torch.inference_mode(False), torch.enable_grad()  # the model may differentiate by itself
    with preserved(model), graded[0], graded[1], recording(model, watch.sink) as recorder:
        with torch._C.DisableTorchFunction():
            recorder.start(args, kwargs)
        model(*args, **kwargs)
    return tuple(watch.found)


class AxisWatch:
    """Filled by the recorder's events."""

    def __init__(self) -> None:
        self.found: list[Softmax] = []
        self._followed: dict[int, tuple[weakref.ref[Tensor], int, int]] = {}  # id -> (tensor, which softmax, axis)

    def sink(self, event: Event) -> None:
        """Take up a softmax, or follow its weights one operation on."""
        if event.op in SOFTMAXES:
            x = event.outputs[0]
            axis = _softmax_axis(event, x.dim())
            if axis is not None:
                self.found.append(Softmax(event.name, axis, tuple(x.shape)))
                self._follow(x, len(self.found) - 1, axis)
            return
        if not self._followed:
            return
        operands = [t for t in _tensors(event.args) + _tensors(tuple(event.kwargs.values())) if self._known(t)]
        for t in operands:
            _, which, axis = self._followed[id(t)]
            if event.op in _PRODUCTS:
                self._used(which, axis, _summed(event, t), event.name)
            elif len(operands) == 1:
                kept = _kept_axis(event, t, axis)
                if kept is not None:
                    self._follow(event.outputs[0], which, kept)

    def _known(self, t: Tensor) -> bool:
        entry = self._followed.get(id(t))
        return entry is not None and entry[0]() is t

    def _follow(self, t: Tensor, which: int, axis: int) -> None:
        self._followed[id(t)] = weakref.ref(t), which, axis

    def _used(self, which: int, axis: int, summed: frozenset[int], where: str) -> None:
        s = self.found[which]
        if summed and not s.summed:
            self.found[which] = replace(s, summed=True, matched=axis in summed, where=where)
        elif summed:
            self.found[which] = replace(s, matched=s.matched or axis in summed)


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    flat: list[Tensor] = []
    for v in values:
        flat += [v] if isinstance(v, Tensor) else _tensors(v) if isinstance(v, list | tuple) else []
    return flat


def _plain(event: Event) -> tuple[list[Any], dict[str, Any]]:
    args, named = plain_arguments(event.op, event.func, event.args, event.kwargs, lambda t: str(id(t)))
    return list(args), dict(named)


def _softmax_axis(event: Event, rank: int) -> int | None:
    """The axis, counted from the front; what torch takes where none is given (0 for ranks 0, 1, 3, else 1)."""
    args, named = _plain(event)
    axis = named.get("dim", named.get("axis", args[1] if len(args) > 1 else None))
    if axis is None:
        axis = 0 if rank in (0, 1, 3) else 1
    return axis % rank if isinstance(axis, int) and rank else None


def _kept_axis(event: Event, t: Tensor, axis: int) -> int | None:
    """The axis of the operation's output along which the weights still add up to one; None where it cannot be told."""
    out, rank = event.outputs[0], t.dim()
    args, _ = _plain(event)
    if event.op in _KEEPS:  # broadcast against the other operand, axes are counted from the back
        back = out.dim() - rank + axis
        return back if 0 <= back < out.dim() and out.shape[back] == t.shape[axis] else None
    if event.op in ("transpose", "t"):
        pair = [a % rank for a in args[1:3]] if event.op == "transpose" and len(args) == 3 else [0, rank - 1]
        return {pair[0]: pair[1], pair[1]: pair[0]}.get(axis, axis)
    if event.op == "permute":
        order = args[1] if len(args) == 2 and isinstance(args[1], tuple) else tuple(args[1:])
        moved = [a % rank for a in order]
        return moved.index(axis) if axis in moved else None
    if event.op in _RESHAPES:  # the axis is told by its size and by how many entries lie within one step along it
        inside = math.prod(t.shape[axis + 1 :])
        same = [i for i, n in enumerate(out.shape) if n == t.shape[axis] and math.prod(out.shape[i + 1 :]) == inside]
        return same[0] if len(same) == 1 else None
    return None


def _summed(event: Event, t: Tensor) -> frozenset[int]:
    """The axes of `t` over which a product sums."""
    args, _ = _plain(event)
    if event.op == "einsum":
        return _summed_letters(event, t)
    if len(args) < 2:
        return frozenset()
    left, right = str(id(t)) == args[0], str(id(t)) == args[1]
    if left == right:
        return frozenset()
    return frozenset({t.dim() - 1 if left else max(t.dim() - 2, 0)})


def _summed_letters(event: Event, t: Tensor) -> frozenset[int]:
    equation, *operands = _plain(event)[0]
    if not isinstance(equation, str) or "->" not in equation:
        return frozenset()
    terms, result = equation.replace(" ", "").split("->")
    for term, operand in zip(terms.split(","), operands, strict=False):
        if operand == str(id(t)):
            before, dots, after = term.partition("...")
            front = frozenset(i for i, letter in enumerate(before) if letter not in result)
            if not dots:
                return front
            first = t.dim() - len(after)
            return front | {first + i for i, letter in enumerate(after) if letter not in result}
    return frozenset()
