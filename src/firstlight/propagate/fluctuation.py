"""From signals to statements over draws: log-norms, quantiles' parameters, and the probability of a start."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace as replace_fields

import numpy as np

from firstlight.graph.ir import Graph, Node, ParameterRef
from firstlight.graph.prediction import (
    NodePrediction,
    ParameterPrediction,
    Prediction,
    TensorPrediction,
)
from firstlight.graph.signal import INFINITY, Groups, Signal, replace
from firstlight.propagate.contrast import contrasts
from firstlight.propagate.forward import Run
from firstlight.propagate.start import probability
from firstlight.rules.attention.hiding import HIDDEN, hidden_in
from firstlight.rules.gradients.rows import ADDED
from firstlight.rules.linear.contraction import INNER
from firstlight.rules.linear.tied import ROW
from firstlight.rules.state.windows import pair_correlation
from firstlight.theory import special

_RARE = 0.01  # probability of being zero below which nobody asks what it stops
_APART = 0.1  # correlation from which entries are no units of their own
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


def dead(x: Signal, units: tuple[int, ...] = ()) -> float:
    """Probability that a pointwise output is zero everywhere.

    A unit's S sites have the correlation c, u = √c·t + √(1 - c)·v: given t they are independent, and all of them are
    zero, as each is with probability p, with E Φ((Φ⁻¹(p) - √c·t)/√(1 - c))^S. Units are independent.

    Args:
        x: The output.
        units: Atoms that count units, unless what they count is alike (the channel may have been picked before).
    """
    if x.source is None or x.values is None or x.q.size != 1:
        return 0.0
    if float(x.source.mean.max()) <= HIDDEN:  # the exponential of what a running maximum starts from
        return 0.0
    zero = float((x.values[0] == 0.0) @ x.source.grid.weights)
    if zero <= 0.0 or zero >= 1.0:
        return float(zero >= 1.0)
    like = Signal(x.groups, np.zeros(x.mean.shape), np.ones(x.q.shape), x.source.corr, x.batch)
    if units and pair_correlation(like, units) > _APART:
        units = ()
    sites = tuple(i for i in range(len(x.atoms)) if i not in units)
    count = math.prod(x.atoms[i] for i in units)
    c = min(max(pair_correlation(like, sites), 0.0), 1.0) if sites else 0.0
    return all_below(zero, c, math.prod(x.atoms[i] for i in sites)) ** count


def all_below(p: float, c: float, count: int) -> float:
    """P(count Gaussians of correlation c are all below the quantile of p)."""
    if c >= 1.0 - 1e-9:
        return p
    t = np.linspace(-8.5, 8.5, 401)
    w = np.exp(-0.5 * t * t)
    each = special.ndtr((float(special.ndtri(p)) - c**0.5 * t) / (1.0 - c) ** 0.5)
    return float(w @ each**count) / float(w.sum())


def summarise(run: Run, scheme: str, laws: Mapping[str, str], dtype: str, notes: Sequence[str]) -> Prediction:
    """The prediction of a finished run."""
    graph = run.graph
    inputs = [run.signals[n.name][0] for n in graph.nodes if n.op == "input"]
    origin = _log_level([x for x in inputs if not x.integer and x.value is None])  # a known value is a mask
    seeds = [run.gradients[r.node] for r in graph.outputs if r.node in run.gradients]
    end = _log_level(seeds)
    nodes: list[NodePrediction] = []
    alone = _alone(graph)
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
                _alive(run, node, alone, tensor(node, out[0], origin, paired=out[0].complex)),
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
    seen = contrasts(run) if run.gradients else None
    kept = [n for n in _closed_once(run, nodes) if n.name not in inside]
    start = probability(kept, outputs, dtype, parameters, seen)
    return Prediction(
        graph.model, scheme, tuple(nodes), parameters, start, graph.training, dtype, outputs, (*graph.notes, *notes)
    )


def _closed_once(run: Run, nodes: Sequence[NodePrediction]) -> list[NodePrediction]:
    """The nodes, where a function (or a part) of what is zero everywhere is not another way of being so.

    P(dead here, but not in front) = (p - p₀)/(1 - p₀) of what is left.
    """
    read = {n.name: [r.node for r in n.refs] for n in run.graph.nodes}
    chance: dict[str, float] = {}
    found: list[NodePrediction] = []
    for n in nodes:
        source = run.signals[n.name][0].source
        before = 0.0
        if source is not None:  # 1 - e^-u is zero where u is, and e^-u is not
            before = max((chance.get(name, 0.0) for name in read[n.name]), default=0.0)
        p = n.output.p_dead
        chance[n.name] = max(p, before)
        if 0.0 < before < 1.0 and p > 0.0:
            n = replace_fields(n, output=replace_fields(n.output, p_dead=max(p - before, 0.0) / (1.0 - before)))
        found.append(n)
    return found


def _alone(graph: Graph) -> set[str]:
    """Nodes whose output is all that the rest of the network is made of: whatever they stop is stopped."""
    last = {r.node: i for i, node in enumerate(graph.nodes) for r in node.refs}
    last |= {r.node: len(graph.nodes) for r in graph.outputs}
    found, waiting = set[str](), set[str]()
    for i, node in enumerate(graph.nodes):
        waiting -= {r.node for r in node.refs if last[r.node] <= i}
        if not waiting:
            found.add(node.name)
        if last.get(node.name, 0) > i:
            waiting.add(node.name)
    return found


def _alive(run: Run, node: Node, alone: Collection[str], found: TensorPrediction) -> TensorPrediction:
    """What stops nothing is not dead: the logarithm of a scale of one, whose gradient passes, or a margin that is kept.

    Of the weights in front of a hinge max(0, m - d) all have another way to the loss; those in front of a layer's
    nonlinearity have none. A product with what was zero is no other way.
    """
    if found.p_dead < _RARE:
        return found
    read = [run.gradients[r.node].mean_q for r in node.refs if r.node in run.gradients]
    passes = found.p_dead >= 1.0 and any(read)
    if not passes and (node.name in alone or _stops(run, node)):
        return found
    return replace_fields(found, p_dead=0.0)


def _stops(run: Run, node: Node) -> bool:
    """Whether some operation with weights in front of a node (or all that is there) has no other way to an output."""
    nodes = {n.name: n for n in run.graph.nodes}
    read = [n for n in _before(nodes, [r.node for r in node.refs]) if _has_weights(nodes[n])]
    closed = {node.name}
    for n in run.graph.nodes:  # the tensor, what is made of it alone, and products with that
        from_it = [r.node in closed for r in n.refs]
        if from_it and (all(from_it) or (any(from_it) and n.op in _PRODUCTS)):
            closed.add(n.name)
    around = _before(nodes, [r.node for r in run.graph.outputs], closed)
    return not read or not all(n in around for n in read)


_PRODUCTS = frozenset({"mul", "matmul", "mm", "bmm", "einsum", "linear"})


def _before(nodes: Mapping[str, Node], ends: Sequence[str], without: Collection[str] = ()) -> set[str]:
    """All that ends are made from, the ends among them, on ways that do not lead through some nodes."""
    found, todo = set[str](), list(ends)
    while todo:
        name = todo.pop()
        if name in nodes and name not in found and name not in without:
            found.add(name)
            todo += [r.node for r in nodes[name].refs]
    return found


def _has_weights(node: Node) -> bool:
    return any(isinstance(a, ParameterRef) for a in node.read)


def _no_lengths(run: Run) -> set[str]:
    """Tensors whose size is no length of a signal.

    Integers count and name things; x² and its mean inside a norm written by hand are fourth moments; what hides
    entries from a softmax is a number, also where it has been laid out anew, so that it is known on average alone.
    """
    found: set[str] = set()
    for node in run.graph.nodes:
        if not run.signals[node.name]:
            continue
        x = run.signals[node.name][0]
        handed_on = x.mean.size > 0 and float(x.mean.min()) <= HIDDEN and any(r.node in found for r in node.refs)
        if handed_on or _no_length(node, x):
            found.add(node.name)
    return found


def _no_length(node: Node, x: Signal) -> bool:
    if x.integer or not node.outputs[0].dtype.startswith(("float", "bfloat", "complex")):
        return True
    if x.tag is not None and x.tag[0] not in ("softmax", "sum", "image", INNER, ADDED, ROW):
        return True
    if not x.mean.size or float(x.mean.min()) > HIDDEN:
        return False
    return node.op in ("masked_fill", "where") or bool(hidden_in(x).any())  # which entries a mask hides may be unknown


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
