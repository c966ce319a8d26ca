"""Where the signal about the input is lost, and to what."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import FIRST_STEP, NOISE, decide, faintest_station
from firstlight.checks.mainline import NONLINEAR, REARRANGE, SATURATING, Station, stations
from firstlight.graph.results import NodeStats, ParameterStats

Kind = Literal["", "input", "zero", "tiny", "one unit", "dead", "saturated", "offset", "faded", "gradient"]


@dataclass(frozen=True, slots=True)
class Blame:
    """The place of the loss.

    Attributes:
        kind: What did it; "" where nothing is lost.
        node: The operation after which nothing is left; None for the input or the network as a whole.
        parameter: The parameter at fault, where it is one.
        before: Sensitivity before the operation.
        after: Sensitivity after it.
    """

    kind: Kind = ""
    node: NodeStats | None = None
    parameter: ParameterStats | None = None
    before: float = math.nan
    after: float = math.nan


@lru_cache(maxsize=4)
def blame(evidence: Evidence) -> Blame:
    """Follow the main line to the first operation after which samples no longer differ by more than rounding."""
    reason = decide(evidence).reason
    if reason == "stalled":
        last = stations(evidence)[-1]
        return Blame("faded", last.node, None, stations(evidence)[0].sensitivity, last.sensitivity)
    if reason != "silent":
        return Blame()
    floor = NOISE * evidence.eps
    line = stations(evidence)
    if line and line[0].node.op == "input" and line[0].sensitivity < floor:
        return Blame("input", line[0].node, None, line[0].sensitivity, line[0].sensitivity)
    if not line:
        return Blame("gradient")
    # A read-out that is zero only until the first step, or a saturated one, hides what happened before it.
    for before, here in itertools.pairwise(line):
        if here.sensitivity >= floor or here.node.op in REARRANGE:
            continue
        if _only_read_out(evidence, here, line):
            return Blame("gradient")
        return _why(evidence, before, here, line[0].sensitivity)
    return _absolutely(evidence, line, floor)


def _absolutely(evidence: Evidence, line: tuple[Station, ...], floor: float) -> Blame:
    """Where the difference between samples is alive relative to the signal but the signal itself is too small."""
    faintest = faintest_station(evidence)
    if faintest is None or faintest[1] >= floor * FIRST_STEP:
        return Blame("gradient")
    for before, here in itertools.pairwise(line):
        size = math.sqrt(max(0.0, here.node.output.sample_variance or 0.0))
        if size < floor * FIRST_STEP and here.node.op not in REARRANGE:
            earlier = math.sqrt(max(0.0, before.node.output.sample_variance or 0.0))
            if size > 1e-6 * earlier:
                return Blame("faded", here.node, None, earlier, size)
            return _why(evidence, before, Station(here.node, size), line[0].sensitivity)
    return Blame("gradient")


def _only_read_out(evidence: Evidence, here: Station, line: tuple[Station, ...]) -> bool:
    """Whether everything up to the last matrix is alive and that matrix is zero: no loss by itself."""
    matrices = [s for s in line if s.node.parameters]
    return (
        bool(matrices) and here is matrices[-1] and len(matrices) > 1 and zero_matrix(evidence, here.node) is not None
    )


def _why(evidence: Evidence, before: Station, here: Station, start: float) -> Blame:
    node = here.node
    passed = between(evidence, before.node, node)
    for n in passed:
        p = zero_matrix(evidence, n)
        if p is not None:
            return Blame("zero", n, p, before.sensitivity, here.sensitivity)
    x = node.output
    if node.op in ("softmax", "log_softmax") and x.shape[-1:] == (1,):
        return Blame("one unit", node, None, before.sensitivity, here.sensitivity)
    sudden = before.sensitivity > 1e-3 * max(start, 1e-3) or here.sensitivity < 1e-3 * before.sensitivity
    if x.zero_fraction == 1.0 and node.op in NONLINEAR and before.node.output.q > 0.0:
        return Blame("dead", node, None, before.sensitivity, here.sensitivity)
    saturated = x.saturated_fraction is not None and x.saturated_fraction > 0.9
    if sudden and (saturated or node.op in NONLINEAR):
        kind: Kind = "saturated" if node.op in SATURATING else "dead"
        return Blame(kind, node, None, before.sensitivity, here.sensitivity)
    for n in passed:
        p = tiny_matrix(evidence, n)
        if p is not None:
            return Blame("tiny", n, p, before.sensitivity, here.sensitivity)
    if sudden and node.parameters:
        return Blame("offset", node, None, before.sensitivity, here.sensitivity)
    return Blame("faded", node, None, before.sensitivity, here.sensitivity)


def between(evidence: Evidence, first: NodeStats, last: NodeStats) -> list[NodeStats]:
    """Operations after `first` up to and including `last`."""
    names = [n.name for n in evidence.nodes]
    return list(evidence.nodes[names.index(first.name) + 1 : names.index(last.name) + 1])


def zero_matrix(evidence: Evidence, node: NodeStats) -> ParameterStats | None:
    """A matrix of the operation whose entries are all zero."""
    return next((p for p in _matrices(evidence, node) if p.zero_fraction == 1.0), None)


def tiny_matrix(evidence: Evidence, node: NodeStats) -> ParameterStats | None:
    """A matrix whose scale is over 100 times below the smallest of the named laws, 1/(3 fan_in)."""
    return next((p for p in _matrices(evidence, node) if p.q * fan_in(p) < 1e-4 / 3.0), None)


def _matrices(evidence: Evidence, node: NodeStats) -> list[ParameterStats]:
    names = set(node.parameters)
    return [p for p in evidence.parameters if p.name in names and len(p.shape) > 1]


def fan_in(p: ParameterStats) -> int:
    """Entries that one output sums over: all axes but the first; for transposed convolutions all but the second."""
    if len(p.shape) < 2:
        return 1
    if "Transpose" in p.module_type:
        return max(1, math.prod(p.shape) // p.shape[1])
    return max(1, math.prod(p.shape[1:]))
