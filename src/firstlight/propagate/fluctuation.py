"""From signals to statements over draws: log-norms, quantiles' parameters, and the probability of a start."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from firstlight.graph.ir import Graph, Node, TensorSpec
from firstlight.graph.prediction import (
    NodePrediction,
    ParameterPrediction,
    Prediction,
    TensorPrediction,
)
from firstlight.graph.signal import INFINITY, Groups, Signal, replace, smallest
from firstlight.propagate.closed import alive, bottlenecks, closed_once, dead, drawn
from firstlight.propagate.contrast import contrasts
from firstlight.propagate.run import Run
from firstlight.propagate.start import probability
from firstlight.rules.attention.hiding import HIDDEN, hidden_in
from firstlight.rules.gradients.rows import ADDED
from firstlight.rules.linear.contraction import INNER
from firstlight.rules.linear.tied import ROW
from firstlight.rules.state.windows import pair_correlation

_POSITIVE_AXIS = ("conv", "max_pool", "avg_pool", "adaptive", "batch_norm", "group_norm", "instance_norm")


def unit_axis(node: Node, rank: int) -> int:
    """The axis of the units: the second one of image-like tensors, the last one otherwise."""
    if rank < 2:
        return 0
    if rank >= 4 or (rank == 3 and node.op.startswith(_POSITIVE_AXIS)):
        return 1
    return rank - 1


def tensor(node: Node, x: Signal, reference: float, *, paired: bool = False) -> TensorPrediction:
    """One tensor's numbers; of a complex one they are, as measured, those of its real and imaginary parts."""
    x = _finite(x)
    batch, places, units = _kinds(x.groups, x.batch, unit_axis(node, x.ndim))

    def pair(atoms: tuple[int, ...]) -> float | None:
        return min(max(pair_correlation(x, atoms), -1.0), 1.0) if atoms else None

    q, m = (x.mean_q / 2.0, x.mean_mean / 2.0) if paired else (x.mean_q, x.mean_mean)
    log_q = math.log(q) if q > 0.0 else -math.inf
    return TensorPrediction(
        m, q, pair(batch), pair(places), pair(units), log_q + x.noise.drift,
        math.sqrt(max(x.noise.variance, 0.0)), reference, dead(x, units),
    )  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _kinds(
    groups: Groups, batch: tuple[bool, ...], unit: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Atoms that count samples, positions and units."""
    first = sum(len(g) for g in groups[:unit])
    samples = tuple(i for i, b in enumerate(batch) if b)
    units = tuple(i for i in range(first, first + len(groups[unit])) if i not in samples) if groups else ()
    return samples, tuple(i for i in range(len(batch)) if i not in samples and i not in units), units


def summarise(run: Run, scheme: str, laws: Mapping[str, str], dtype: str, notes: Sequence[str]) -> Prediction:
    """The prediction of a finished run."""
    graph = run.graph
    inputs = [run.signals[n.name][0] for n in graph.nodes if n.op == "input"]
    origin = _log_level([x for x in inputs if not x.integer and x.value is None])  # a known value is a mask
    seeds = [run.gradients[r.node] for r in graph.outputs if r.node in run.gradients]
    end = _log_level(seeds)
    nodes: list[NodePrediction] = []
    narrow = bottlenecks(graph)
    for node in graph.nodes:
        out = run.signals[node.name]
        if not out:
            continue
        g = run.gradients.get(node.name)
        nodes.append(
            NodePrediction(
                node.name,
                node.op,
                node.module,
                node.module_type,
                node.source,
                out[0].shape,
                alive(run, node, narrow, tensor(node, out[0], origin, paired=out[0].complex)),
                None if g is None else tensor(node, g, end, paired=out[0].complex),
                tuple(dict.fromkeys(run.caveats.get(node.name, ()))),
            )
        )
    parameters = tuple(
        ParameterPrediction(
            name,
            p.spec.shape,
            run.parameters[name].mean_q,
            run.parameter_gradients[name].mean_q if name in run.parameter_gradients else None,
            laws.get(name, "unknown"),
        )
        for name, p in graph.parameters.items()
        if p.role == "parameter"
    )
    outputs = tuple(r.node for r in graph.outputs)
    inside = _no_lengths(run)
    # Through a derivative gradients are not followed. Where none has another way P(start) speaks of the forward pass.
    unseen = any(n.op == "grad" for n in graph.nodes) and not run.parameter_gradients
    seen = contrasts(run) if run.gradients and not unseen else None
    inside |= drawn(graph)
    kept = [n for n in closed_once(run, nodes) if n.name not in inside]
    start = probability(kept, outputs, dtype, () if unseen else parameters, seen)
    return Prediction(
        graph.model, scheme, tuple(nodes), parameters, start, graph.training, dtype, outputs, (*graph.notes, *notes)
    )


def _no_lengths(run: Run) -> set[str]:
    """Tensors whose size is no length of a signal.

    Integers count and name things; x² and its mean inside a norm written by hand are fourth moments; what hides
    entries from a softmax is a number, also where it has been laid out anew, so that it is known on average alone.
    What no output is made of is none either: values of a topk whose positions alone are used, scores in a comparison.
    """
    graph = run.graph
    read = _heard(graph)
    found: set[str] = set()
    for node in graph.nodes:
        if not run.signals[node.name]:
            continue
        if (node.name, 0) not in read:
            found.add(node.name)
            continue
        x = run.signals[node.name][0]
        handed_on = x.mean.size > 0 and smallest(x.mean) <= HIDDEN and any(r.node in found for r in node.refs)
        if handed_on or _no_length(node, x):
            found.add(node.name)
    return found


def _heard(graph: Graph) -> set[tuple[str, int]]:
    """(node, output) of the tensors whose values the outputs of the graph are made of, not a truth about them alone."""
    found = {(r.node, r.index) for r in graph.outputs}
    for node in reversed(graph.nodes):
        if any(_real(spec) and (node.name, i) in found for i, spec in enumerate(node.outputs)):
            found.update((r.node, r.index) for r in node.refs)
    return found


def _real(spec: TensorSpec) -> bool:
    return spec.dtype.startswith(("float", "bfloat", "complex"))


def _no_length(node: Node, x: Signal) -> bool:
    if x.integer or not _real(node.outputs[0]):
        return True
    if x.tag is not None and x.tag[0] not in ("softmax", "sum", "image", INNER, ADDED, ROW):
        return True
    if not x.mean.size or smallest(x.mean) > HIDDEN:
        return False
    return node.op in ("masked_fill", "where", "scatter") or bool(
        hidden_in(x).any()
    )  # which entries a mask hides may be unknown


def _finite(x: Signal) -> Signal:
    """The tensor without its infinite entries, as it is measured; unchanged where none or nothing else is known."""
    if x.mean.size == 1 or float(x.mean.min()) > -0.99 * INFINITY:
        return x
    finite = (x.mean > -0.99 * INFINITY) | (x.mean < -1e3 * INFINITY)  # the lowest float32 is finite, and smaller
    if not finite.any():
        return x
    one = (1,) * len(x.atoms)
    q, mean, shown = np.broadcast_arrays(x.q, x.mean, finite)
    return replace(x, q=np.full(one, q[shown].mean()), mean=np.full(one, mean[shown].mean()))


def _log_level(signals: Sequence[Signal]) -> float:
    sizes = [s.mean_q for s in signals if s.mean_q > 0.0]
    return math.log(sum(sizes) / len(sizes)) if sizes else 0.0
