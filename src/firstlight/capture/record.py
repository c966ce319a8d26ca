"""The recorder: every torch-level call of a forward pass, with its module, source line and dataflow.

`trace` (on tensors without storage) and `measure` (on real ones) run a model under the same `Recorder`, so
that an operation has the same name in both. How to use it::

    def sink(event: Event) -> None:     # called once per operation, right after it ran, recording off
        stats[event.name] = summarise(event.outputs[0])

    with recording(model, sink) as recorder:
        recorder.start(args, kwargs)    # emits one event with op "input" per input tensor
        output = model(*args, **kwargs)

What is an event: a call that returns or changes a tensor and depends on a floating-point input, on a
parameter or on a random draw. What is none: shapes and other metadata; calls that return their own argument
unchanged (`dropout` in evaluation mode, `x.to` of the same type) or a copy of it in another memory layout
(`contiguous`); what is computed from constants, integer inputs and masks alone (positions, counters). uint8
inputs count as signal: they are images; a floating-point input of zeros and minus infinities is a mask.

Operations are kept as the user's code calls them: `F.gelu`, `F.scaled_dot_product_attention`, `torch.lstm`
are one event each, and nothing inside them is seen. Only `F.multi_head_attention_forward` and
`F.gumbel_softmax` are opened. A custom ``torch.autograd.Function`` is opened too, and closed by an event
"autograd_function" (`capture.custom`). Calls inside scripted modules and operators written in C++ are not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from firstlight.capture.calls import OPENED, may_write, operation_of, writes_in_place
from firstlight.capture.custom import OPERATION, watched_functions
from firstlight.capture.event import Event, Origin, Sink, Sources
from firstlight.capture.preserve import WriteGuard, name_writes, told_to_write
from firstlight.capture.scope import Scope, as_written, source_line, unwrapped
from firstlight.capture.tensors import is_mask, is_sparse, named_tensors
from firstlight.graph.operations import LAYOUT, RANDOM, SHAPE_ONLY


class Recorder(TorchFunctionMode):
    """Sees the torch-level calls of one forward pass and hands each operation to `sink`.

    Args:
        sink: Called with each event.
        scope: The model's modules.
    """

    prepares = False
    guard: WriteGuard | None = None  # told of every call that may write, where no mode of its own watches
    before_write: Callable[[], None] | None = None  # called before whatever may write to a tensor of the pass

    def __init__(self, sink: Sink, scope: Scope) -> None:
        super().__init__()
        self.sink = sink
        self.scope = scope
        self.parameters: dict[int, str] = {id(p): name for name, p in scope.parts.parameters.items()}
        self._copies_of_parameters: list[torch.Tensor] = []  # kept, since they are known by their id
        self._origins: dict[int, Origin] = {}
        self._views: dict[int, list[weakref.ref[torch.Tensor]]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        """Tell the recorder the model's arguments: each tensor in them becomes an event with op "input"."""
        seen: set[int] = set()
        for path, tensor in named_tensors((args, dict(kwargs or {}))):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                with torch._C.DisableTorchFunction():
                    self._enter_input(path.partition(".")[2], tensor)

    def _enter_input(self, path: str, tensor: torch.Tensor) -> None:
        name = self.next_name("", "input")
        live = is_signal(tensor)
        self.bind(tensor, name, 0, live, True)
        model = type(self.scope.model).__name__
        self.sink(Event(name, "input", None, (), {"path": path}, tensor, [tensor], "", model, "", (), (), True))

    def next_name(self, path: str, op: str) -> str:
        """The name of the next operation `op` in the module at `path`."""
        count = self._counts.get((path, op), 0)
        self._counts[(path, op)] = count + 1
        return f"{path}:{op}#{count}" if count else f"{path}:{op}"

    def origin(self, tensor: torch.Tensor) -> Origin | None:
        """Where `tensor` came from, if this recorder has seen it."""
        found = self._origins.get(id(tensor))
        return found if found is not None and found.ref() is tensor else None

    def bind(self, tensor: torch.Tensor, name: str | None, index: int, live: bool, signal: bool) -> None:
        """Remember where `tensor` comes from."""
        self._origins[id(tensor)] = Origin(tensor, name, index, live, signal)

    def prepare(
        self, op: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], live: bool
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """What to run in place of an operation's call; called only if `prepares`."""
        del op, live
        return func, args, kwargs

    def finished(self, op: str, args: tuple[Any, ...], result: Any) -> Any:
        """What to return in place of an operation's result; called only if `prepares`."""
        del op, args
        return result

    def enclose(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[torch.Tensor]
    ) -> None:
        """Write down the arguments of a custom function that has returned `outputs`; called only if `prepares`."""
        del function, args, kwargs, outputs

    def applied(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """A custom ``autograd.Function`` has run: report it as what hands its results on."""
        outputs = [t for t in _tensors_of((result,), {}) if t.is_floating_point() or t.is_complex()]
        with torch._C.DisableTorchFunction():
            sources = self._sources(OPERATION, [*outputs, *_tensors_of(args, kwargs)])
            if not outputs or not sources[0]:
                return
            if self.prepares:
                self.enclose(function, args, kwargs, outputs)
            self._finish(OPERATION, function.apply, args, kwargs, result, outputs, [], sources)

    def owner(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor of the model's code behind `tensor`, where a recorder runs calls on stand-ins."""
        return tensor

    def inspect(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a call about a tensor that is no operation."""
        return func(*args, **kwargs)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one call and, if it is an operation, report it."""
        if kwargs is None:
            kwargs = {}
        known = _OPERATIONS.get(func)
        if known is None:
            name = getattr(func, "__name__", "")
            known = _OPERATIONS[func] = operation_of(func), may_write(func), name_writes(name), name
        op, writes, told, name = known
        told = told or (bool(kwargs) and told_to_write(name, kwargs))
        if told and self.guard is not None:
            self.guard.look(args, kwargs)
        if self.before_write is not None and (told or (writes and not _only_reads(func, op, args))):
            self.before_write()
        if op is None:
            if name == "__set__" and args[1:] == (True,) and _asks_for_gradient(func, args[0]):
                return None
            return self.inspect(func, args, kwargs)
        if op in OPENED:
            with self:
                return OPENED[op](*args, **kwargs)
        writes = writes or bool(kwargs)  # any function may be told to write, by "out" or "inplace"
        if not types and not torch._C._len_torch_function_stack():
            call, args, kwargs, read, versions, sources = self._before(op, func, args, kwargs, writes)
            result = call(*args, **kwargs)
            return self._after(op, func, args, kwargs, result, read, versions, sources)
        # Other modes and types see the call itself, and nothing of what happens here around it.
        with torch._C.DisableTorchFunction():
            call, args, kwargs, read, versions, sources = self._before(op, func, args, kwargs, writes)
        result = call(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            return self._after(op, func, args, kwargs, result, read, versions, sources)

    def _before(
        self, op: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], writes: bool
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any], list[torch.Tensor], list[int] | None, Sources]:
        """(call, args, kwargs) to run, the tensors it reads, their versions if it may write, where they are from."""
        read = _tensors_of(args, kwargs)
        sources = self._sources(op, read)
        call = func
        if self.prepares:
            call, args, kwargs = self.prepare(op, func, args, kwargs, sources[0])
            read = _tensors_of(args, kwargs)
        versions: list[int] | None = None
        if writes:  # inference tensors do not count their changes; the name has to tell
            versions = [] if torch.is_inference_mode_enabled() else [tensor._version for tensor in read]
        return call, args, kwargs, read, versions, sources

    def _after(
        self,
        op: str,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        read: list[torch.Tensor],
        versions: list[int] | None,
        sources: Sources,
    ) -> Any:
        """Find what the call made or changed, and report it; returns what the model is to get."""
        if self.prepares:
            result = self.finished(op, args, result)
        changed: list[torch.Tensor] = []
        if versions:
            changed = [read[i] for i, version in enumerate(versions) if read[i]._version != version]
        elif versions is not None and read and writes_in_place(func):
            changed = read[:1]
        if isinstance(result, torch.Tensor):
            if not changed:
                for tensor in read:
                    if tensor is result:
                        return self.owner(result)
                if op in LAYOUT:
                    self._pass_on(read[0], result)
                    return result
            outputs = [result]
        else:
            outputs = []
            if isinstance(result, _SEQUENCES):
                _collect(result, outputs)
            if not outputs:
                outputs = [args[0]] if op == "set_data" else changed[:1]
                if not outputs:
                    return result
        self._finish(op, func, args, kwargs, result, outputs, changed, sources)
        return result

    def _sources(self, op: str, read: list[torch.Tensor]) -> Sources:
        """(live, signal, names of the events read, names of the parameters read) of a call's tensors."""
        live = signal = op in RANDOM
        inputs: dict[str, None] = {}
        parameters: dict[str, None] = {}
        origins, known = self._origins, self.parameters
        for tensor in read[1:] if op in SHAPE_ONLY else read:
            key = id(tensor)
            origin = origins.get(key)
            if origin is not None and origin.ref() is tensor:
                live = live or origin.live
                signal = signal or origin.signal
                if origin.name is not None:
                    inputs[origin.name] = None
            elif key in known:
                live = True
                parameters[known[key]] = None
            elif tensor.requires_grad:
                live = True
        return live, signal, tuple(inputs), tuple(parameters)

    def _finish(
        self,
        op: str,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        outputs: list[torch.Tensor],
        changed: list[torch.Tensor],
        sources: Sources,
    ) -> None:
        live, signal, inputs, parameters = sources
        scope = self.scope
        name = self.next_name(scope.path, op) if live else None
        for index, tensor in enumerate(outputs):
            self.bind(tensor, name, index, live, signal)
            if tensor._is_view():
                self._views.setdefault(id(tensor._base), []).append(weakref.ref(tensor))
        if name is not None:
            path, kind = scope.path, scope.module_type
            line = source_line()
            self.sink(
                Event(name, op, func, args, kwargs, result, outputs, path, kind, line, inputs, parameters, signal)
            )
        if changed and op not in _STATISTICS:
            for tensor in changed:
                if id(tensor) not in self.parameters:
                    self.overwrite(tensor, name, live, signal)

    def _pass_on(self, source: torch.Tensor, copy: torch.Tensor) -> None:
        """`copy` holds what `source` holds: who reads it reads the same event."""
        source = self.owner(source)
        origin = self.origin(source)
        if origin is not None:
            self.bind(copy, origin.name, origin.index, origin.live, origin.signal)
        elif id(source) in self.parameters:
            self.parameters[id(copy)] = self.parameters[id(source)]
            self._copies_of_parameters.append(copy)

    def overwrite(self, tensor: torch.Tensor, name: str | None, live: bool, signal: bool) -> None:
        """`tensor` was changed in place by event `name`: so were all that share its memory."""
        base = tensor._base if tensor._is_view() else tensor
        if base is None:
            base = tensor
        self._rewrite(base, name, live, signal)
        for ref in self._views.get(id(base), ()):
            view = ref()
            if view is not None:
                self._rewrite(view, name, live, signal)
        self._rewrite(tensor, name, live, signal)

    def _rewrite(self, tensor: torch.Tensor, name: str | None, live: bool, signal: bool) -> None:
        old = self.origin(tensor)
        if old is None:
            if id(tensor) not in self.parameters:
                self.bind(tensor, name, 0, live, signal)
        elif name is not None and old.name != name:
            old.name, old.index = name, 0
            old.live, old.signal = old.live or live, old.signal or signal


@contextmanager
def recording(
    model: nn.Module,
    sink: Sink,
    recorder_type: Callable[[Sink, Scope], Recorder] = Recorder,
    *,
    guard: WriteGuard | None = None,
) -> Iterator[Recorder]:
    """Record what runs inside the ``with`` block; hooks and mode are gone afterwards, also on exceptions.

    Args:
        model: The module whose paths name the operations. Its hook tables are as before on the way out.
        sink: Called with each event.
        recorder_type: Makes the recorder.
        guard: Of the `preserved` block around this one, if it does not watch by itself: one mode costs less than two.

    Yields:
        The recorder, already active; call its `start` with the model's arguments first.
    """
    model = unwrapped(model)
    scope = Scope(model)
    recorder = recorder_type(sink, scope)
    recorder.guard = guard
    with ExitStack() as stack:
        stack.enter_context(scope.installed())
        stack.enter_context(as_written(scope.parts))
        stack.enter_context(watched_functions(recorder.applied))
        stack.enter_context(recorder)
        yield recorder


def is_signal(tensor: torch.Tensor) -> bool:
    """Whether an input carries signal: real or complex numbers, or the uint8 of an image.

    A floating-point input of zeros and minus infinities is no signal but a mask, a sparse one a graph.
    """
    if tensor.dtype == torch.uint8:
        return True
    if is_sparse(tensor):
        return False
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return not is_mask(tensor)


# These update running statistics in place; the tensors they change carry no signal onwards in this pass.
_STATISTICS = frozenset({"batch_norm", "instance_norm"})
# Filled as functions are met: function -> (canonical operation or None, whether it may write into an argument,
# whether its name says so, its name).
_OPERATIONS: dict[Any, tuple[str | None, bool, bool, str]] = {}


def _asks_for_gradient(func: Any, tensor: torch.Tensor) -> bool:
    """Whether a model sets ``requires_grad`` of what has it: an input, say, which is no leaf while it is measured."""
    return getattr(func.__self__, "__name__", "") == "requires_grad" and tensor.requires_grad


def _only_reads(func: Any, op: str | None, args: tuple[Any, ...]) -> bool:
    """Whether a Python function of torch leaves its arguments alone: it is not told by position to work in place."""
    if op in _STATISTICS:
        return True
    return getattr(func, "__module__", "") == "torch.nn.functional" and not any(a is True for a in args)


_SEQUENCES = (list, tuple)  # not "list | tuple", which is made anew on every call


def _tensors_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for value in args:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, _SEQUENCES):
            _collect(value, found)
    if kwargs:
        _collect(kwargs.values(), found)
    return found


def _collect(values: Any, into: list[torch.Tensor]) -> None:
    for value in values:
        if isinstance(value, torch.Tensor):
            into.append(value)
        elif isinstance(value, _SEQUENCES):
            _collect(value, into)
