"""One recorded operation, and where a tensor came from."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch


class Event:
    """One operation that has just run. Valid during the sink's call: keep names and numbers, not tensors.

    Attributes:
        name: "{module path}:{op}", or with "#k" from the second use on; unique within one recording.
        op: Canonical operation ("add" for ``x += y``); "input" for the model's input tensors.
        func: The function that torch was asked for.
        args: Its positional arguments, as they came.
        kwargs: Its keyword arguments. An input has {"path": where it stands in the model's arguments}.
        result: What it returned, as it came.
        outputs: The tensors that carry the result: those in `result`, or the argument changed in place.
        module: Path of the innermost module of the model; "" for the root.
        module_type: Class name of that module.
        source: "file.py:12" of the innermost frame outside torch and the capture; "" where there is none.
        inputs: Names of the events whose outputs it read (each once, in argument order).
        parameters: Qualified names of the parameters that it read directly.
        signal: Whether it depends on an input or on a random draw; False for what is computed from the
            weights alone (``weight.t()``, a parametrization, position embeddings).
    """

    # fmt: off
    __slots__ = (
        "args", "func", "inputs", "kwargs", "module", "module_type", "name", "op", "outputs", "parameters",
        "result", "signal", "source",
    )
    # fmt: on

    def __init__(
        self, name: str, op: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any,
        outputs: list[torch.Tensor], module: str, module_type: str, source: str, inputs: tuple[str, ...],
        parameters: tuple[str, ...], signal: bool,
    ) -> None:  # fmt: skip
        self.name = name
        self.op = op
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.result = result
        self.outputs = outputs
        self.module = module
        self.module_type = module_type
        self.source = source
        self.inputs = inputs
        self.parameters = parameters
        self.signal = signal

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(t.shape)) for t in self.outputs)
        return f"Event({self.name!r} -> {shapes})"


Sink = Callable[[Event], None]
Sources = tuple[bool, bool, tuple[str, ...], tuple[str, ...]]


class Origin:
    """Where a tensor came from: output `index` of event `name` (None: a constant), and what it depends on."""

    __slots__ = ("index", "live", "name", "ref", "signal")

    def __init__(self, tensor: torch.Tensor, name: str | None, index: int, live: bool, signal: bool) -> None:
        self.ref = weakref.ref(tensor)
        self.name = name
        self.index = index
        self.live = live
        self.signal = signal
