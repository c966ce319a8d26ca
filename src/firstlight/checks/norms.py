"""Normalisations, also those that are written out: x/√(mean x² + ε), (x - x̄)/√(var x + ε), x·rsqrt(…)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from firstlight.checks.evidence import Evidence
from firstlight.graph.results import NodeStats

_SPREADS = frozenset({"var", "std", "norm", "linalg_vector_norm", "var_mean", "std_mean"})  # of x itself
_AVERAGES = frozenset({"mean", "sum"})  # of a square of x
_SQUARES = frozenset({"pow", "square", "mul", "abs"})
_BETWEEN = frozenset(
    {
        "add",
        "clamp",
        "maximum",
        "sqrt",
        "rsqrt",
        "reciprocal",
        "pow",
        "div",
        "to",
        "unsqueeze",
        "view",
        "getitem",
        "expand",
    }
)
_STEPS = 8  # operations between a statistic and what is divided by it


@lru_cache(maxsize=4)
def norms(evidence: Evidence) -> frozenset[str]:
    """Names of the operations behind which lengths no longer depend on those before."""
    nodes = {n.name: n for n in evidence.nodes}
    return frozenset(n.name for n in evidence.nodes if "norm" in n.op or _is_written(n, nodes))


def _is_written(n: NodeStats, nodes: Mapping[str, NodeStats]) -> bool:
    """Whether one factor of a product or quotient is a statistic of the other: fewer entries, made of its squares."""
    if n.op not in ("mul", "div") or len(n.inputs) != 2:
        return False
    for name, other in (n.inputs, n.inputs[::-1]):
        x, scale = nodes.get(name), nodes.get(other)
        if x is None or scale is None or _entries(scale) >= _entries(x):
            continue
        if _is_statistic(scale, x, nodes):
            return True
    return False


def _is_statistic(scale: NodeStats, x: NodeStats, nodes: Mapping[str, NodeStats]) -> bool:
    own = {x.name, *x.inputs}  # x - x̄ is divided by the spread of x
    step: NodeStats | None = scale
    for _ in range(_STEPS):
        if step is None or len(step.inputs) != 1:
            return False
        if step.op in _SPREADS:
            return not own.isdisjoint(step.inputs)
        before = nodes.get(step.inputs[0])
        if step.op in _AVERAGES:
            if before is None or before.op not in _SQUARES:
                return False
            read = {*before.inputs, *(i for name in before.inputs if name in nodes for i in nodes[name].inputs)}
            return not own.isdisjoint(read)  # (x - x̄)² may have been computed beside x - x̄
        if step.op not in _BETWEEN:
            return False
        step = before
    return False


def _entries(n: NodeStats) -> int:
    count = 1
    for size in n.output.shape:
        count *= size
    return count
