"""Forward: one signal per tensor, by the rule of each operation in execution order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from firstlight.errors import FirstlightError, MissingRuleError, ModelError
from firstlight.graph.ir import Arg, ConstantRef, Graph, Law, Node, ParameterRef, Ref, TensorSpec
from firstlight.graph.signal import Array, Signal, largest, replace, smallest
from firstlight.graph.signs import UNSAID, Signs, signs
from firstlight.rules import Call, Rule, find
from firstlight.rules.attention.hiding import HIDDEN
from firstlight.rules.linear import cartesian
from firstlight.rules.moves.structural import like_shape
from firstlight.rules.registry import Sampler, measured_operations, several
from firstlight.rules.state.empirical import constant, from_parameter, uniform

_SMALL = 64  # entries up to which a field is left as it is
_EVEN = 1e-6  # what a field may vary by, relative to its largest entry, and still be one number: tables are in float32
LARGEST = 1e280  # mean squares beyond are kept here, with a caveat: doubles end at 1e308
_WRITES = frozenset({"setitem", "copy", "view_write", "index_put", "index_copy", "index_fill", "fill", "zero"})

OnMissing = Literal["raise", "measure"]


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
    """

    graph: Graph
    signals: dict[str, tuple[Signal, ...]] = field(default_factory=dict[str, tuple[Signal, ...]])
    parameters: dict[str, Signal] = field(default_factory=dict[str, Signal])
    caveats: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    gradients: dict[str, Signal] = field(default_factory=dict[str, Signal])
    parameter_gradients: dict[str, Signal] = field(default_factory=dict[str, Signal])
    strict: bool = False
    signs: Signs = UNSAID


def missing(graph: Graph) -> tuple[Node, ...]:
    """Nodes whose operation has no rule."""
    known = measured_operations()
    return tuple(n for n in graph.nodes if n.op != "input" and find(n.op) is None and n.op not in known)


def require_rules(graph: Graph) -> None:
    """Raise one error that names every operation without a rule.

    Raises:
        MissingRuleError: With count, module path and line of each.
    """
    nodes = missing(graph)
    if not nodes:
        return
    counts = Counter(n.op for n in nodes)
    lines: list[str] = []
    for op, count in counts.most_common():
        first = next(n for n in nodes if n.op == op)
        where = first.module or "the root module"
        lines.append(f"{op} (×{count}, first in {where} at {first.source or 'an unknown line'})")
    raise MissingRuleError(
        graph.model or "the graph",
        got=f"{len(counts)} operation{'s' if len(counts) > 1 else ''} without a rule: " + "; ".join(lines),
        expected="operations of the rule table",
        action='Register a rule (see firstlight.rules.registry), or leave on_missing="measure", which samples them.',
    )


def forward(
    graph: Graph,
    inputs: Mapping[str, Signal],
    laws: Mapping[str, Law],
    *,
    sampler: Sampler | None = None,
    strict: bool = False,
) -> Run:
    """Signals of every tensor.

    Args:
        graph: The network.
        inputs: Signal of each node with op "input".
        laws: Law of each parameter and buffer by name.
        sampler: Measures operations without a rule, and custom functions; None refuses operations without a rule.
        strict: Let errors inside rules escape.

    Raises:
        MissingRuleError: Operations without a rule and no sampler.
    """
    if sampler is None:
        require_rules(graph)
    run = Run(graph, strict=strict, signs=signs(graph))
    for name, parameter in graph.parameters.items():
        law = laws.get(name) or parameter.law or Law(0.0, 1.0, structure="constant", source="unknown")
        run.parameters[name] = from_parameter(parameter, law)
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        for node in graph.nodes:
            run.signals[node.name] = _outputs(run, node, inputs, sampler)
    return run


def _outputs(run: Run, node: Node, inputs: Mapping[str, Signal], sampler: Sampler | None) -> tuple[Signal, ...]:
    if node.op == "input":
        return (inputs[node.name],)
    if node.outputs and all(0 in spec.shape for spec in node.outputs):
        return tuple(uniform(spec.shape, 0.0, 0.0) for spec in node.outputs)  # no entry, no law
    entry = find(node.op)
    look = partial(resolve, run)
    call = Call(node, run.graph.training, sampler=sampler, look=look, signs=run.signs)
    args, options = tuple(resolve(run, a) for a in node.args), {k: resolve(run, a) for k, a in node.options.items()}
    try:
        if entry is None:
            assert sampler is not None
            formula = "rule" if node.op not in measured_operations() else "formula"
            call.caveat(f"no {formula}: measured on sampled inputs")
            try:
                found = sampler.outputs(node, partial(resolve, run))
            except FirstlightError as error:
                call.caveat(f"it cannot be run on sampled inputs ({error.got}): its first input's statistics are kept")
                found = _fallback(node, args)
        else:
            found = cartesian.followed(call, entry.forward, entry.bind(node, args, options))
    except FirstlightError:
        raise
    except Exception as error:
        if run.strict:
            raise
        call.caveat(f"the rule failed ({type(error).__name__}: {error}): the statistics of its first input are kept")
        found = _fallback(node, args)
    outputs: tuple[Any, ...] = found if several(found) else (found,)
    if len(outputs) < len(node.outputs):
        outputs = (*outputs, *_fallback(node, args)[len(outputs) :])
    fitted = tuple(_fit(call, out, spec) for out, spec in zip(outputs, node.outputs, strict=False))
    if call.caveats:
        run.caveats[node.name] = call.caveats
    return fitted


def _fallback(node: Node, args: tuple[Any, ...]) -> tuple[Signal, ...]:
    first = next((a for a in args if isinstance(a, Signal)), None)
    if first is None:
        return tuple(uniform(o.shape, 0.0, 1.0) for o in node.outputs)
    return tuple(like_shape(first, o.shape) for o in node.outputs)


def _fit(call: Call, out: Any, spec: TensorSpec) -> Signal:
    """The recorded shape and finite statistics, whatever a rule returned."""
    if not isinstance(out, Signal):
        value = float(out) if isinstance(out, int | float) else 0.0
        out = uniform(spec.shape, value, value * value)
    if out.shape != spec.shape:
        call.caveat(f"the rule gave the shape {out.shape} instead of {spec.shape}")
        out = like_shape(out, spec.shape)
    paired = spec.dtype.startswith("complex")
    if out.complex is not paired:
        out = replace(out, complex=paired)
    biggest = largest(out.q) if out.q.size else 0.0
    if out.q.size and smallest(out.q) < 0.0:  # a difference of large numbers
        out = replace(out, q=np.maximum(out.q, 0.0))
    if not math.isfinite(biggest) or biggest > LARGEST:
        if out.value is None:
            call.caveat("the mean square leaves the range of double precision: kept at its end")
        return replace(
            out, q=_bounded(out.q, LARGEST), mean=_bounded(out.mean, LARGEST**0.5, True),
            corr=np.nan_to_num(out.corr, nan=1.0), source=None, values=None,
        )  # fmt: skip
    return settled(out, biggest)


def settled(x: Signal, top: float) -> Signal:
    """Without the axes along which its fields vary by rounding alone: cos² + sin² is 1 at every position.

    What varies nowhere has to be kept, and multiplied, nowhere.

    Args:
        x: Any signal.
        top: Its largest mean square.
    """
    if x.q.size <= _SMALL and x.mean.size <= _SMALL:
        return x
    if float(x.mean.min()) <= HIDDEN:  # beside what hides keys from a softmax all biases are small
        size, seen = np.broadcast_arrays(x.q, x.mean > HIDDEN)
        top = float(size[seen].max(initial=0.0))
    q, mean = _flattened(x.q, _EVEN * top), _flattened(x.mean, _EVEN * top**0.5)
    return x if q is x.q and mean is x.mean else replace(x, q=q, mean=mean)


def _flattened(field: Array, tolerance: float) -> Array:
    for axis, size in enumerate(field.shape):
        if size <= 1:
            continue
        line = field[(*(0,) * axis, slice(None), *(0,) * (field.ndim - axis - 1))]
        if float(line.max() - line.min()) > tolerance:  # one line that varies says it, without looking at the others
            continue
        if float((field.max(axis=axis) - field.min(axis=axis)).max()) <= tolerance:
            field = field.mean(axis=axis, keepdims=True)
    return field


def _bounded(a: Array, top: float, signed: bool = False) -> Array:
    clean = np.nan_to_num(a, nan=0.0 if signed else top, posinf=top, neginf=-top)
    return np.clip(clean, -top if signed else 0.0, top)


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


__all__ = ["Rule", "Run", "forward", "missing", "require_rules"]
