"""What one pass leaves behind: events, and the statistics of every operation's output and gradient.

Small tensors wait in a queue of half a megabyte and are read together: behind a large product the caches hold none of
the code that reads, and a tensor that is read alone costs several times one among others. The queue is read before any
call that may write to a tensor. Where one was changed behind its back (by a custom backward that overwrites its
gradient, say), its version counter tells; then `rewritten` is set, and the pass has to be run again without a queue.

A tensor that holds the same entries as one before it (a view, a transpose, the gradient that a sum hands to both of its
inputs) is not read again; nor is the range of a rectifier's output, which follows from its input's.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from firstlight.capture.event import Event
from firstlight.capture.moments import Moments, runs
from firstlight.capture.sampling import WHOLE, sample_axis
from firstlight.capture.stacks import FLAT, Numbers, Scratch, form_of
from firstlight.capture.statistics import Collector, numbers_of, read
from firstlight.capture.units import unit_axis

_RECENT = 8  # tensors that are remembered, in case the next operation makes or receives the same entries
_WAITS = 1 << 15  # largest number of entries of a tensor that waits; larger ones are read while the caches hold them
_QUEUE = 1 << 19  # bytes that wait at most
_MANY = 8  # small tensors of one form that are stacked at once
# Operations that put the entries of their first argument into another form, row by row, ...
_RESHAPES = frozenset(["reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "detach"])
_MOVES = _RESHAPES | {"permute", "transpose", "movedim", "t"}  # ... or into another order
_HANDS_ON = _MOVES | {"add", "sub"}  # their inputs receive the entries of the gradient at their output


_T = TypeVar("_T")


class _Entry:
    """A tensor that was read or waits to be, and what is known of it."""

    __slots__ = ("axis", "key", "kin", "numbers", "op", "relation", "stats", "tensor", "version")

    def __init__(self, stats: Collector, key: str, op: str, axis: int, x: Tensor) -> None:
        self.stats, self.key, self.op, self.axis = stats, key, op, axis
        self.tensor: Tensor | None = x  # until it is read
        self.version = -1 if x.is_inference() else x._version
        self.numbers: Numbers | None = None  # of large tensors, once they were read
        self.kin: _Entry | None = None
        # To the kin: "rectified", or of the same entries: in the "same form", sample by sample ("rows"), or "entries".
        self.relation = ""


class _Gradient(NamedTuple):
    """What must agree for another gradient at the same address to hold the same entries."""

    entry: _Entry
    storage: StorageWeakRef
    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype


class Gathering:
    """Filled by the recorder's events and by the gradients that come back.

    Args:
        batch_size: Number of samples.
        queued: Whether small tensors may wait to be read.
    """

    def __init__(self, batch_size: int, *, queued: bool = True) -> None:
        self.batch_size = batch_size
        self.events: list[tuple[str, str, str, str, str, tuple[str, ...], tuple[str, ...]]] = []
        scratch = Scratch()
        self.outputs, self.grads = Collector(scratch), Collector(scratch)
        self.axes: dict[str, int] = {}
        self.loss, self.loss_kind = math.nan, "none"
        self.notes: list[str] = []
        self.returned: tuple[str, ...] = ()
        self.parameter_grads: dict[int, Tensor | None] = {}
        self.last = ""
        self.rewritten = False
        self.listening = False  # A network, or its loss, may differentiate on the way: that is not its backward pass.
        self._queued = queued
        self._queue: list[_Entry] = []
        self._held = 0
        self._made: dict[int, tuple[_Entry, weakref.ref[Tensor]]] = {}  # by the id of the tensor
        self._received: dict[int, _Gradient] = {}  # by the address of the gradient's first entry

    def sink(self, event: Event) -> None:
        """Read the operation's first floating-point output and ask for its gradient."""
        self.last = event.name
        x = next((t for t in event.outputs if t.is_floating_point() or t.is_complex()), None)
        if x is None:
            if event.op != "input":
                return
            x = event.outputs[0]
        axis = self.axes[event.name] = unit_axis(event, x, self.axes)
        key, op = event.name, event.op
        self.events.append((key, op, event.module, event.module_type, event.source, event.inputs, event.parameters))
        with torch._C.DisableTorchFunction():  # the readings are none of the model's operations
            # A view whose base was written to makes its grad_fn anew where it is asked for; register_hook would crash
            # on it. One that was made without autograd has none: a hook on it would keep away those to come.
            if x.requires_grad and (x.grad_fn is not None or not x._is_view()):
                x.register_hook(self._grad_hook(key, op, axis))
            entry = _Entry(self.outputs, key, op, axis, x)
            if x.numel() > WHOLE:
                if op == "relu" or op in _MOVES:
                    self._relate(entry, event.args, x)
                _remember(self._made, id(x), (entry, weakref.ref(x)))
            self._take(entry, x)

    def _relate(self, entry: _Entry, args: tuple[object, ...], x: Tensor) -> None:
        """Find the entry of what a rectifier or a change of form has read."""
        source = args[0] if args else None
        kin, ref = self._made.get(id(source), (None, None))
        if kin is None or ref is None or not isinstance(source, Tensor) or ref() is not source:
            return
        if source.dtype != x.dtype or source.numel() != x.numel() or source.layout is not x.layout:
            return
        if entry.version < 0 or entry.version != kin.version + (source is x):  # a rectifier in place has written once
            return
        entry.kin = kin
        if entry.op == "relu":
            entry.relation = "rectified"
        else:
            ordered = entry.op in _RESHAPES or x.stride()[:1] == source.stride()[:1]
            entry.relation = self._relation(entry, x, source.shape, source.stride(), ordered=ordered)

    def _relation(
        self, entry: _Entry, x: Tensor, shape: Sequence[int], strides: Sequence[int], *, ordered: bool
    ) -> str:
        """How far `x` agrees with its kin of that shape; they hold the same entries, row by row if `ordered`."""
        assert entry.kin is not None
        if x.shape == shape and x.stride() == strides and entry.axis == entry.kin.axis:
            return "same form"
        axes = sample_axis(x.shape, self.batch_size), sample_axis(tuple(shape), self.batch_size)
        return "rows" if axes == (None, None) or (ordered and axes == (0, 0) and x.shape[0] == shape[0]) else "entries"

    def _grad_hook(self, key: str, op: str, axis: int) -> Callable[[Tensor | None], None]:
        def hook(grad: Tensor | None) -> None:
            if grad is not None and self.listening:
                with torch._C.DisableTorchFunction():
                    self._receive(key, op, grad, axis)

        return hook

    def _receive(self, key: str, op: str, grad: Tensor, axis: int) -> None:
        """Read a gradient once where autograd hands the same one to several operations, as behind a sum or a view."""
        entry = _Entry(self.grads, key, "", axis, grad)
        if (self._received or op in _HANDS_ON) and grad.layout is torch.strided and entry.version >= 0:
            address = grad.data_ptr()
            known = self._received.get(address)
            if known is not None and _hold_the_same(entry, grad, known):
                entry.kin = known.entry
                ordered = grad.stride()[:1] == known.strides[:1]
                entry.relation = self._relation(entry, grad, known.shape, known.strides, ordered=ordered)
            if op in _HANDS_ON:
                storage = StorageWeakRef(grad.untyped_storage())
                known = _Gradient(entry, storage, grad.shape, grad.stride(), grad.dtype)
                _remember(self._received, address, known)
        self._take(entry, grad)

    def _take(self, entry: _Entry, x: Tensor) -> None:
        n = x.numel()
        if self._queued and n <= _WAITS and entry.version >= 0:
            self._queue.append(entry)
            self._held += n * x.element_size()
            if self._held > _QUEUE:
                self.read_waiting()
            return
        if entry.kin is not None and entry.kin.tensor is not None:
            self.read_waiting()
        self._read(entry, x)

    def read_waiting(self) -> None:
        """Read all tensors that wait; those of one form together."""
        if not self._queue:
            return
        queue, self._queue, self._held = self._queue, [], 0
        alike: dict[object, list[_Entry]] = {}
        with torch._C.DisableTorchFunction(), torch.no_grad():
            for entry in queue:
                x = entry.tensor
                assert x is not None
                if x._version != entry.version:
                    self.rewritten = True
                if x.dtype is torch.float32 and x.layout is torch.strided and x.numel() <= WHOLE:
                    alike.setdefault((entry.stats, FLAT.get(entry.op), entry.axis, x.shape, x.device), []).append(entry)
                else:
                    self._read(entry, x)
            for group in alike.values():
                self._read_alike(group)

    def _read_alike(self, group: list[_Entry]) -> None:
        """Read small tensors of one form: many as they are, a few after others of their form have come."""
        tensors = [entry.tensor for entry in group if entry.tensor is not None]
        if len(group) < _MANY:
            for entry, x in zip(group, tensors, strict=True):
                self._read(entry, x)
            return
        first, shape = group[0], tensors[0].shape
        form = form_of(shape, shape, torch.float32, first.op, first.axis, self.batch_size)
        first.stats.add_alike([entry.key for entry in group], tensors, form)
        for entry in group:
            entry.tensor = None

    def _read(self, entry: _Entry, x: Tensor) -> None:
        """Read one tensor, as far as what is known of its kin leaves anything to read."""
        kin, entry.kin, entry.tensor = entry.kin, None, None
        moments: Moments | None = None
        bounds: tuple[float, float] | None = None
        if kin is not None and entry.relation == "same form":
            entry.numbers = kin.numbers
            entry.stats.alias(entry.key, kin.key)
            return
        if kin is not None and kin.numbers is not None:
            moments = kin.numbers.moments
            if entry.relation == "rectified":
                bounds = None if moments.nan_count else (max(moments.low, 0.0), max(moments.high, 0.0))
                moments = None
            elif entry.relation == "rows" and x.dim() > 1 and x.is_floating_point():
                entry.numbers = numbers_of(x.detach(), entry.axis, moments)
                entry.stats.alias(entry.key, kin.key, x.shape, entry.axis % x.dim(), entry.numbers)
                return
        reading = read(x, op=entry.op, axis=entry.axis, batch_size=self.batch_size, moments=moments, bounds=bounds)
        entry.numbers = reading.numbers
        entry.stats.add(entry.key, reading)


def _hold_the_same(entry: _Entry, x: Tensor, known: _Gradient) -> bool:
    """Whether two gradients that start at one address hold the same entries."""
    if known.storage.expired() or entry.version != known.entry.version or x.dtype != known.dtype:
        return False
    return runs(x.shape, x.stride()) == runs(known.shape, known.strides)


def _remember(recent: dict[int, _T], key: int, value: _T) -> None:
    recent.pop(key, None)
    recent[key] = value
    if len(recent) > _RECENT:
        del recent[next(iter(recent))]
