"""The probability that a tensor is zero everywhere, and whether that stops the network."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace as replace_fields

import numpy as np

from firstlight.graph.ir import Graph, Node, ParameterRef
from firstlight.graph.operations import RANDOM
from firstlight.graph.prediction import NodePrediction, TensorPrediction
from firstlight.graph.signal import Signal, largest
from firstlight.propagate.run import Run
from firstlight.rules.attention.hiding import HIDDEN
from firstlight.rules.state.windows import pair_average
from firstlight.theory import special

_RARE = 0.01  # probability of being zero below which nobody asks what it stops
_APART = 0.1  # correlation from which entries are no units of their own
_PRODUCTS = frozenset({"mul", "matmul", "mm", "bmm", "einsum", "linear"})


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
    if largest(x.source.mean) <= HIDDEN:  # the exponential of what a running maximum starts from
        return 0.0
    zero = float((x.values[0] == 0.0) @ x.source.grid.weights)
    if zero <= 0.0 or zero >= 1.0:
        return float(zero >= 1.0)
    like, atoms = x.source.corr, x.atoms
    if units and pair_average(x, units, like) > _APART:
        units = ()
    sites = tuple([i for i in range(len(atoms)) if i not in units])
    count = math.prod([atoms[i] for i in units])
    c = min(max(pair_average(x, sites, like), 0.0), 1.0) if sites else 0.0
    return all_below(zero, c, math.prod([atoms[i] for i in sites])) ** count


_T = np.linspace(-8.5, 8.5, 401)
_DENSITY = np.exp(-0.5 * _T * _T) * ((_T[1] - _T[0]) / math.sqrt(2.0 * math.pi))


def all_below(p: float, c: float, count: int) -> float:
    """P(count Gaussians of correlation c are all below the quantile of p)."""
    if c >= 1.0 - 1e-9:
        return p
    each = special.ndtr((float(special.ndtri(p)) - c**0.5 * _T) / (1.0 - c) ** 0.5)
    return float(_DENSITY @ each**count)


def closed_once(run: Run, nodes: Sequence[NodePrediction]) -> list[NodePrediction]:
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


def bottlenecks(graph: Graph) -> set[str]:
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


def alive(run: Run, node: Node, bottlenecks: Collection[str], found: TensorPrediction) -> TensorPrediction:
    """A node's output, which is not dead where it stops nothing.

    Nothing is stopped by the logarithm of a scale of one, whose gradient passes, and by a margin that is kept.
    Of the weights in front of a hinge max(0, m - d) all have another way to the loss; those in front of a layer's
    nonlinearity have none. A product with what was zero is no other way.
    """
    if found.p_dead < _RARE:
        return found
    read = [run.gradients[r.node].mean_q for r in node.refs if r.node in run.gradients]
    passes = found.p_dead >= 1.0 and any(read)
    if not passes and (node.name in bottlenecks or _stops(run, node)):
        return found
    return replace_fields(found, p_dead=0.0)


def drawn(graph: Graph) -> frozenset[str]:
    """Nodes made of random numbers and constants alone, as a mask of stochastic depth: the next step draws others."""
    found: set[str] = set()
    for node in graph.nodes:
        refs = [r.node for r in node.refs]
        if (refs and all(r in found for r in refs) and not _has_weights(node)) or (not refs and node.op in RANDOM):
            found.add(node.name)
    return frozenset(found)


def _stops(run: Run, node: Node) -> bool:
    """Whether some operation with weights in front of a node (or all that is there) has no other way to an output."""
    nodes = run.graph.named
    read = [n for n in _before(nodes, [r.node for r in node.refs]) if _has_weights(nodes[n])]
    closed = {node.name}
    for n in run.graph.nodes:  # the tensor, what is made of it alone, and products with that
        from_it = [r.node in closed for r in n.refs]
        if from_it and (all(from_it) or (any(from_it) and n.op in _PRODUCTS)):
            closed.add(n.name)
    around = _before(nodes, [r.node for r in run.graph.outputs], closed)
    return not read or not all(n in around for n in read)


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
