"""The graph of a module: one forward pass on shapes, without allocating a weight or an activation."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from firstlight.capture.inputs import check_model
from firstlight.capture.nodes import NodeRecorder
from firstlight.capture.observe import observe
from firstlight.capture.preserve import preserved
from firstlight.capture.record import recording
from firstlight.capture.scope import place_of
from firstlight.capture.shapes import ShapeRecorder
from firstlight.capture.tensors import map_tensors, named_tensors
from firstlight.errors import CaptureError, InputError, ModelError
from firstlight.graph.ir import Graph, Ref, TensorSpec
from firstlight.graph.uncollected import uncollected


def shape(*sizes: int, dtype: str = "float32") -> TensorSpec:
    """Describe an input of which only shape and type are known.

    Args:
        sizes: Axis sizes, batch first.
        dtype: "float32", "int64", ...; integers are then of unknown value.
    """
    return TensorSpec(sizes, dtype)


@uncollected()
def trace(
    model: nn.Module,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    training: bool | None = None,
    batch_dim: int | None = 0,
) -> Graph:
    """Run the model's forward pass once on shapes and return what it did.

    Parameters may be real, on an accelerator or on the meta device. Nothing is allocated, no random number
    is drawn, and the model, the inputs and the process' state are the same bit for bit afterwards, also when
    the model raises. Where control flow depends on the entries of tensors, the pass is run on the real inputs
    instead, and a note says so.

    Args:
        model: Any module.
        args: Positional arguments: a tuple, or one tensor or shape. Each tensor may be real, on the meta
            device, or given by its shape alone: `shape(...)`, ``torch.Size``, or a bare tuple of integers as
            the only argument. Real integer inputs are used with their values.
        kwargs: Keyword arguments, likewise.
        training: Mode of the pass; None keeps the model's own.
        batch_dim: Position of the batch axis in the inputs, noted in the graph.

    Returns:
        The graph, every recorded operation in execution order, also those that no output depends on.

    Raises:
        InputError: For what is no module, or inputs that are complex or have an axis of size zero.
        ModelError: If the model itself raises; says in which module and line.
        CaptureError: If control flow depends on entries that do not exist (weights or inputs without
            storage).
    """
    model = check_model(model, materialised=False)
    positional, named = _arguments(args, kwargs)
    for path, tensor in named_tensors((positional, named)):
        _check_input(path.partition(".")[2] or path, tensor)
    with preserved(model):
        if training is not None:
            model.train(training)
        try:
            return _on_shapes(model, positional, named, batch_dim)
        except Exception as error:  # noqa: BLE001 - whatever the model raises is explained to the user
            return _otherwise(model, positional, named, batch_dim, error)


def _on_shapes(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch_dim: int | None) -> Graph:
    recorder: ShapeRecorder | None = None

    def make(_sink: Any, scope: Any) -> ShapeRecorder:
        nonlocal recorder
        recorder = ShapeRecorder(scope)
        return recorder

    with recording(model, _ignore, make):
        assert recorder is not None
        with torch._C.DisableTorchFunction():
            args, kwargs = map_tensors((args, kwargs), recorder.input_for)
        recorder.start(args, kwargs)
        output = model(*args, **kwargs)
    return graph_of(model, recorder, output, batch_dim)


def _otherwise(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch_dim: int | None, error: Exception
) -> Graph:
    """The graph from a real run; or an error that says why there is none."""
    path, line = place_of(error, model)
    where = f"{type(model).__name__}{f', module {path!r}' if path else ''}{f', {line}' if line else ''}"
    reason = f"{type(error).__name__}: {_first_line(error)}"
    if isinstance(error, RecursionError):
        raise _raised(where, reason) from error
    if _lacks_entries(model, args, kwargs):
        if not _asks_for_entries(error):
            if isinstance(error, ModelError):
                raise error  # it says itself what to do
            raise _raised(where, reason) from error
        raise CaptureError(
            where,
            got=f"code that needs the entries of a tensor ({reason})",
            expected="a forward pass that shapes alone determine, or weights and inputs that hold numbers",
            action="Pass real inputs: the entries of integers and truth values (a mask) are then known, also beside "
            "weights on the meta device. Where those of weights are asked for, give the model real ones; it is then "
            "recorded on a real run.",
        ) from error
    try:
        recorder, output = observe(model, args, kwargs)
    except ModelError:
        raise
    except Exception as again:
        path, line = place_of(again, model)
        where = f"{type(model).__name__}{f', module {path!r}' if path else ''}{f', {line}' if line else ''}"
        raise _raised(where, f"{type(again).__name__}: {_first_line(again)}") from again
    recorder.notes[
        "Recorded on a real run with the inputs given, since the forward pass depends on entries "
        f"at {where} ({reason})."
    ] = None
    return graph_of(model, recorder, output, batch_dim)


def _raised(where: str, reason: str) -> ModelError:
    return ModelError(
        where,
        got=f"an error in the model's own forward pass: {reason}",
        expected="a model that runs on inputs of these shapes",
        action="Check the shapes and types of the inputs by calling the model on them.",
    )


def graph_of(model: nn.Module, recorder: NodeRecorder, output: Any, batch_dim: int | None) -> Graph:
    """The graph that a recorder wrote down, ending in the tensors of the model's output."""
    outputs: list[Ref] = []
    with torch._C.DisableTorchFunction():
        for _, tensor in named_tensors(output):
            ref = recorder.output(tensor)
            if ref is not None and ref not in outputs:
                outputs.append(ref)
    if not outputs:
        recorder.notes["The model returned no tensor that depends on its inputs or weights."] = None
    return Graph(
        nodes=tuple(recorder.nodes),
        outputs=tuple(outputs),
        parameters=MappingProxyType(recorder.weights),
        constants=MappingProxyType(recorder.constants),
        model=type(model).__name__,
        training=model.training,
        batch_dim=batch_dim,
        notes=tuple(recorder.notes),
        calls=MappingProxyType(recorder.calls),
    )


def _arguments(args: Any, kwargs: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(args, torch.Tensor | TensorSpec | torch.Size) or _is_shape(args):
        args = (args,)
    if isinstance(args, Mapping) and kwargs is None:
        args, kwargs = (), args
    if not isinstance(args, tuple | list):
        raise InputError("args", got=f"a {type(args).__name__}", expected="a tuple of arguments, a tensor or a shape")
    if len(args) == 1 and _is_shape(args[0]):
        args = (torch.Size(args[0]),)
    return tuple(_made(a) for a in args), {key: _made(value) for key, value in (kwargs or {}).items()}


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(type(n) is int for n in value)


def _made(value: Any) -> Any:
    """A meta tensor for an argument that is a shape; any other argument itself."""
    if isinstance(value, torch.Size):
        value = TensorSpec(tuple(value), "float32")
    if isinstance(value, TensorSpec):
        dtype = getattr(torch, value.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise InputError("dtype", got=repr(value.dtype), expected="the name of a torch dtype, such as 'float32'")
        return torch.empty(value.shape, dtype=dtype, device="meta")
    if isinstance(value, tuple) and any(isinstance(item, TensorSpec | torch.Size) for item in value):
        return tuple(_made(item) for item in value)
    return value


def _check_input(path: str, tensor: torch.Tensor) -> None:
    if tensor.is_complex():
        raise InputError(
            f"input {path!r}",
            got=f"a complex tensor ({tensor.dtype})",
            expected="real numbers: signal statistics are defined for real tensors",
            action="Pass torch.view_as_real(x) to a model that takes real and imaginary part as features.",
        )
    if tensor.numel() == 0:
        raise InputError(
            f"input {path!r}",
            got=f"an empty tensor of shape {tuple(tensor.shape)}",
            expected="no axis of size zero",
        )


def _lacks_entries(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    tensors = [t for _, t in named_tensors((args, kwargs))]
    return any(t.device.type == "meta" for t in (*tensors, *model.parameters(), *model.buffers()))


def _asks_for_entries(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, NotImplementedError) or "meta" in text or "data-dependent" in text


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else "no message"
    return text if len(text) <= 200 else text[:197] + "..."


def _ignore(_event: Any) -> None:
    """Events become nodes inside the recorder."""
