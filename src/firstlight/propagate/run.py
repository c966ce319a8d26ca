"""What the forward and the adjoint pass know of a network, and how the arguments of an operation are found in it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from firstlight.errors import ModelError
from firstlight.graph.ir import Arg, ConstantRef, Graph, ParameterRef, Ref
from firstlight.graph.signal import Array, Signal, replace, smallest
from firstlight.graph.signs import UNSAID, Signs
from firstlight.rules.attention.hiding import HIDDEN
from firstlight.rules.state.empirical import constant, uniform

_SMALL = 64  # entries up to which a field is left as it is
_EVEN = 1e-6  # what a field may vary by, relative to its largest entry, and still be one number: tables are in float32
LARGEST = 1e280  # mean squares beyond are kept here, with a caveat: doubles end at 1e308
_WRITES = frozenset({"setitem", "copy", "view_write", "index_put", "index_copy", "index_fill", "fill", "zero"})


@dataclass(slots=True)
class Run:
    """Everything that the two passes know.

    Attributes:
        graph: The network.
        signals: Output signals of each node.
        parameters: Signals of parameters, buffers and constants by name.
        caveats: Per node.
        gradients: The gradient of each node's first output, once the adjoint pass has run.
        parameter_gradients: The gradient of each parameter, likewise.
        strict: Whether an error inside a rule is raised instead of noted (tests).
        signs: What the graph says of its tensors' entries.
        shared: How often operations apply weights that are used more than once.
        kept: Per node, what its forward rule left for its adjoint.
    """

    graph: Graph
    signals: dict[str, tuple[Signal, ...]] = field(default_factory=dict[str, tuple[Signal, ...]])
    parameters: dict[str, Signal] = field(default_factory=dict[str, Signal])
    caveats: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    gradients: dict[str, Signal] = field(default_factory=dict[str, Signal])
    parameter_gradients: dict[str, Signal] = field(default_factory=dict[str, Signal])
    strict: bool = False
    signs: Signs = UNSAID
    shared: Mapping[Hashable, int] = field(default_factory=dict[Hashable, int])
    kept: dict[str, Any] = field(default_factory=dict[str, Any])


def resolve(run: Run, arg: Arg) -> Any:
    """A reference as its signal; other values as they are."""
    if isinstance(arg, Ref):
        outputs = run.signals.get(arg.node)
        if outputs is None:
            raise ModelError(arg.node, got="a reference to a later node", expected="nodes in execution order")
        return outputs[min(arg.index, len(outputs) - 1)]
    if isinstance(arg, ParameterRef):
        return run.parameters[_owner(run.graph, arg.name)]
    if isinstance(arg, ConstantRef):
        known = run.parameters.get(arg.name)
        if known is None:
            item = run.graph.constants[arg.name]
            integer = item.spec.dtype.startswith(("int", "uint", "bool"))
            if item.value is not None:
                known = constant(item.value, batch_axis=_samples(run, item.spec.shape, item.value))
            elif integer:  # made from indices of which only the shape is known
                known = uniform(item.spec.shape, 0.0, 1.0, integer=True, batch_axis=_samples(run, item.spec.shape))
            elif item.name in uninitialised(run.graph):
                known = uniform(item.spec.shape, 0.0, 1.0)
            else:  # a mask of them, which hides nothing: 1 changes neither what it multiplies nor a softmax's logits
                known = uniform(item.spec.shape, 1.0, 1.0)
            run.parameters[arg.name] = known
        return known
    if isinstance(arg, tuple):
        return tuple(resolve(run, a) for a in arg)
    return arg


def uninitialised(graph: Graph) -> frozenset[str]:
    """Constants without entries that the network writes into before it reads them: ``torch.empty``."""
    first: dict[str, bool] = {}
    for node in graph.nodes:
        for i, arg in enumerate(node.args):
            if isinstance(arg, ConstantRef):
                first.setdefault(arg.name, i == 0 and node.op in _WRITES)
    return frozenset(name for name, written in first.items() if written and graph.constants[name].value is None)


def _samples(run: Run, shape: tuple[int, ...], value: npt.NDArray[Any] | None = None) -> int | None:
    """The axis of the samples in indices made from an integer input: the first, or the second of [time, batch]."""
    first = next((n for n in run.graph.nodes if n.op == "input"), None)
    if first is None or len(shape) < 2 or not first.outputs or not first.outputs[0].shape or run.graph.batch_dim != 0:
        return None
    if shape[0] == first.outputs[0].shape[0]:
        return 0
    if value is None:
        return None
    given = run.graph.constants.get(first.name)
    turned = given is not None and given.value is not None and np.array_equal(np.swapaxes(value, 0, 1), given.value)
    return 1 if turned else None


def _owner(graph: Graph, name: str) -> str:
    if name in graph.parameters:
        return name
    return next(p.name for p in graph.parameters.values() if name in p.aliases)


def settled(x: Signal, top: float) -> Signal:
    """Without the axes along which its fields vary by rounding alone: cos² + sin² is 1 at every position.

    What varies nowhere has to be kept, and multiplied, nowhere.

    Args:
        x: Any signal.
        top: Its largest mean square.
    """
    if x.q.size <= _SMALL and x.mean.size <= _SMALL:
        return x
    if smallest(x.mean) <= HIDDEN:  # beside what hides keys from a softmax all biases are small
        size, seen = np.broadcast_arrays(x.q, x.mean > HIDDEN)
        top = float(size[seen].max(initial=0.0))
    q, mean = _flattened(x.q, _EVEN * top), _flattened(x.mean, _EVEN * top**0.5)
    return x if q is x.q and mean is x.mean else replace(x, q=q, mean=mean)


def _flattened(field: Array, tolerance: float) -> Array:
    for axis, size in enumerate(field.shape):
        if size <= 1:
            continue
        line = field[(*(0,) * axis, slice(None), *(0,) * (field.ndim - axis - 1))]
        ends = abs(line.item(0) - line.item(-1))  # one line that varies, or its ends, say it without the others
        if ends > tolerance or float(line.max() - line.min()) > tolerance:
            continue
        if float((field.max(axis=axis) - field.min(axis=axis)).max()) <= tolerance:
            field = field.mean(axis=axis, keepdims=True)
    return field
