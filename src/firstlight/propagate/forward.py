"""Forward: one signal per tensor, by the rule of each operation in execution order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np

from firstlight.errors import FirstlightError, MissingRuleError
from firstlight.graph.ir import Graph, Law, Node, ParameterRef, Ref, TensorSpec
from firstlight.graph.signal import Array, Signal, largest, next_id, replace, smallest
from firstlight.graph.signs import signs
from firstlight.propagate import sharing
from firstlight.propagate.adjoint import adjoint
from firstlight.propagate.run import LARGEST, Run, resolve, settled
from firstlight.rules import Call, find
from firstlight.rules.linear import cartesian
from firstlight.rules.moves.structural import like_shape
from firstlight.rules.registry import Sampler, measured_operations, several
from firstlight.rules.state.empirical import from_parameter, uniform

OnMissing = Literal["raise", "measure"]


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
    run = Run(graph, strict=strict, signs=signs(graph), shared=sharing.shared(graph))
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
    back, before = partial(_gradients, run, sampler), next_id()
    bound: dict[str, Any] = {}
    call = Call(node, run.graph.training, sampler=sampler, look=look, signs=run.signs, back=back)
    try:
        if entry is None:
            assert sampler is not None
            formula = "rule" if node.op not in measured_operations() else "formula"
            call.caveat(f"no {formula}: measured on sampled inputs")
            try:
                found = sampler.outputs(node, look)
            except FirstlightError as error:
                call.caveat(f"it cannot be run on sampled inputs ({error.got}): its first input's statistics are kept")
                found = _fallback(run, node)
        else:
            names = entry.bind(node, node.args, node.options)
            bound = {k: resolve(run, a) for k, a in names.items()}
            found = cartesian.followed(call, entry.forward, bound)
    except FirstlightError:
        raise
    except Exception as error:
        if run.strict:
            raise
        call.caveat(f"the rule failed ({type(error).__name__}: {error}): the statistics of its first input are kept")
        found = _fallback(run, node)
    outputs: tuple[Any, ...] = found if several(found) else (found,)
    if len(outputs) < len(node.outputs):
        outputs = (*outputs, *_fallback(run, node)[len(outputs) :])
    fitted = tuple([_fit(call, out, spec) for out, spec in zip(outputs, node.outputs, strict=False)])
    fitted = sharing.forward(run.shared, node, entry, bound, call, fitted, before)
    if call.caveats:
        run.caveats[node.name] = call.caveats
    if call.kept is not None:
        run.kept[node.name] = call.kept
    return fitted


def _gradients(
    run: Run, sampler: Sampler | None, seeds: Mapping[Ref, Signal]
) -> Callable[[Ref | ParameterRef], Signal | None]:
    """The adjoint pass from some tensors back over what has been computed so far."""
    inner = adjoint(
        Run(
            run.graph, run.signals, run.parameters, strict=run.strict, signs=run.signs, shared=run.shared, kept=run.kept
        ),
        seeds,
        sampler=sampler,
    )
    return lambda ref: (
        inner.gradients.get(ref.node) if isinstance(ref, Ref) else inner.parameter_gradients.get(ref.name)
    )


def _fallback(run: Run, node: Node) -> tuple[Signal, ...]:
    first = next((a for a in resolve(run, node.args) if isinstance(a, Signal)), None)
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


def _bounded(a: Array, top: float, signed: bool = False) -> Array:
    clean = np.nan_to_num(a, nan=0.0 if signed else top, posinf=top, neginf=-top)
    return np.clip(clean, -top if signed else 0.0, top)
