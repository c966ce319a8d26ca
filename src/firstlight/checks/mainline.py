"""The operations that every path from the input to the output goes through, and the signal that is left at each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from firstlight.checks.evidence import Evidence
from firstlight.graph.results import Measurement, NodeStats

# Operations that only rearrange entries: nothing can be lost there.
REARRANGE = frozenset(
    [
        "input",
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "permute",
        "transpose",
        "contiguous",
        "getitem",
        "chunk",
        "split",
        "expand",
        "clone",
        "to",
        "detach",
        "movedim",
    ]
)
NONLINEAR = frozenset(
    [
        "relu",
        "leaky_relu",
        "prelu",
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "tanh",
        "sigmoid",
        "hardtanh",
        "hardsigmoid",
        "hardswish",
        "relu6",
        "softsign",
        "sin",
        "erf",
        "abs",
        "square",
        "logsigmoid",
        "tanhshrink",
        "clamp",
        "rrelu",
        "threshold",
        "hardshrink",
        "softshrink",
        "softmax",
    ]
)
RECURRENT = frozenset(["lstm", "gru", "rnn_tanh", "rnn_relu"])
SATURATING = frozenset(["tanh", "sigmoid", "hardtanh", "hardsigmoid", "relu6", "softsign", "erf"])


@dataclass(frozen=True, slots=True)
class Station:
    """One operation of the main line.

    Attributes:
        node: Its statistics.
        sensitivity: √(variance between samples / mean square) of its output: the share of its size that depends on
            the input.
    """

    node: NodeStats
    sensitivity: float


def main_line(m: Measurement) -> tuple[NodeStats, ...]:
    """Operations without which no output could be reached from an input, in execution order.

    An operation is one if no edge of the part between inputs and outputs jumps over it (execution order is a
    topological order, so a path that avoids it must contain such an edge).
    """
    place = {n.name: i for i, n in enumerate(m.nodes)}
    last = [place[name] for name in m.outputs if name in place]
    if not m.nodes:
        return ()
    if not last:
        last = [len(m.nodes) - 1]
    needed = _ancestors(m, place, max(last))
    reached = _descendants(m, place)
    part = needed & reached
    sources = [i for i in part if m.nodes[i].op == "input"]
    jumps = [0] * (len(m.nodes) + 1)
    for i in part:
        for name in m.nodes[i].inputs:
            j = place.get(name)
            if j is not None and j in part and i - j > 1:
                jumps[j + 1] += 1
                jumps[i] -= 1
    if len(sources) > 1:  # a virtual common source before all inputs
        jumps[0] += 1
        jumps[max(sources)] -= 1
    line: list[NodeStats] = []
    level = 0
    for i, node in enumerate(m.nodes):
        level += jumps[i]
        if i in part and level == 0:
            line.append(node)
    return tuple(line)


def _ancestors(m: Measurement, place: dict[str, int], end: int) -> set[int]:
    found, todo = {end}, [end]
    while todo:
        for name in m.nodes[todo.pop()].inputs:
            j = place.get(name)
            if j is not None and j not in found:
                found.add(j)
                todo.append(j)
    return found


def _descendants(m: Measurement, place: dict[str, int]) -> set[int]:
    """What depends on an input; labels, positions and masks beside real inputs count as none."""
    inputs = {n.name for n in m.nodes if n.op == "input"}
    real = {n.name for n in m.nodes if n.op == "input" and n.output.dtype.startswith(("float", "bfloat", "uint8"))}
    sources = real or inputs
    found: set[int] = set()
    for i, node in enumerate(m.nodes):
        if node.name in sources or any(place.get(name) in found for name in node.inputs):
            found.add(i)
    return found


@lru_cache(maxsize=4)
def stations(evidence: Evidence) -> tuple[Station, ...]:
    """The main line with the sensitivity left at each operation; where it cannot be told, the operation is skipped."""
    out: list[Station] = []
    for node in main_line(evidence.measurement):
        s = sensitivity(node)
        if s is not None:
            out.append(Station(node, s))
    return tuple(out)


def sensitivity(node: NodeStats) -> float | None:
    """√(variance between samples / mean square); 0 for an output that is zero; None where it was not measured."""
    x = node.output
    if x.sample_variance is None or not math.isfinite(x.q) or not math.isfinite(x.sample_variance):
        return None
    if x.q <= 0.0:
        return 0.0
    return math.sqrt(max(0.0, x.sample_variance) / x.q)
