"""What Adam finds at each weight matrix: does its gradient tell samples apart, is it awake, what does a step stir?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from firstlight.errors import FirstlightError
from firstlight.graph.ir import Node, ParameterRef
from firstlight.graph.prediction import normal_cdf
from firstlight.graph.signal import Signal, average
from firstlight.propagate.run import Run
from firstlight.rules.state.windows import pair_average
from firstlight.theory import activations

_DECADE = math.log(10.0)
RESOLVED = 1e-13  # differences 1 - c below are rounding errors of the double-precision prediction
ROUNDING = 1e-17  # the least share that stands for anything
# Below Adam's ε = 1e-8 a gradient moves nothing. A gradient entry's square is E δ²·E h² times the residual's, about
# 0.1 for one class of ten, which gives the decade.
ASLEEP, DROWSY = -15.0, 0.7
# Steps that a sleeping layer takes to wake up in units of 1/(fan·rate·φ'(0)), and how many times more where φ is
# bounded: measured for `checks.reach` on stacks of another benchmark (4.25, 10.5), not here.
WAKING, BOUNDED, RATE = 4.25, 10.5 / 4.25, 1e-2


@dataclass(frozen=True, slots=True)
class Contrast:
    """How far the gradient of one weight matrix tells samples apart, and what a step of it does.

    Attributes:
        node: The operation that holds the matrix.
        log_mean: Mean over draws of ln(E δ²·E (h - h')²/2): gradient at its output times difference of its inputs;
            -inf where the difference is below `RESOLVED` or no gradient arrives.
        log_sd: Standard deviation over draws.
        share: E (h - h')²/2 against E h²: 1 - c.
        own: The same against E (h - h')²/2 + (E h)²: against the part that all units have in common as well.
        fan: Entries of its input that are summed up.
        level: ln(fan·|E h|): a step of all weights by one in the same direction moves its output by this much;
            -inf for a mean of 0.
        pull: ln(E δ²·E h²): mean square of an entry of its gradient for outputs' gradients of size 1.
        stir: ln of the mean square by which a step of ±1 of each of its weights, signs at random, moves an output.
        waking: Steps that it takes to wake up after the one above, if it sleeps.
        sums: Whether it adds up what it reads (no table that is added to a tensor, or multiplied with it).
    """

    node: str
    log_mean: float
    log_sd: float
    share: float = 1.0
    own: float = 1.0
    fan: int = 1
    level: float = -math.inf
    pull: float = 0.0
    stir: float = 0.0
    waking: float = 0.0
    sums: bool = True

    @property
    def awake(self) -> float:
        """Probability that Adam moves it: its gradient's entries are more than ε."""
        return 1.0 - normal_cdf((ASLEEP - self.pull / _DECADE) / DROWSY)


def contrasts(run: Run) -> tuple[Contrast, ...]:
    """The contrast of every weight matrix that a gradient can reach, in execution order."""
    consumers = _consumers(run)
    ends = [run.gradients[r.node] for r in run.graph.outputs if r.node in run.gradients]
    outputs = max(sum(e.numel for e in ends), 1)
    found: list[Contrast] = []
    made: dict[str, tuple[int, ...]] = {}
    for node in run.graph.nodes:
        if _is_weight(run, node, made):
            made[node.name] = node.outputs[0].shape
            continue
        g = run.gradients.get(node.name)
        if g is None:
            continue
        shape, read = _operands(run, node, made)
        if shape is not None and read is not None:
            found.append(_contrast(node, g, read, shape, outputs, _following(node, consumers)))
    return tuple(found)


def _contrast(node: Node, g: Signal, read: Signal, shape: tuple[int, ...], outputs: int, following: str) -> Contrast:
    share = _share(read)
    size = 1.0 if read.integer else read.mean_q  # an index that is looked up is a unit vector
    mean_square = 0.0 if read.integer else min(average(np.square(read.mean)), size)
    fan = 1 if read.integer else max(math.prod(shape[1:] if _rows_first(node.op) else shape[:-1]), 1)
    pull = _ln(size) + read.noise.drift + _ln(g.mean_q) + g.noise.drift
    different = share * size
    return Contrast(
        node.name,
        pull + math.log(share) if share >= RESOLVED and size > 0.0 and g.mean_q > 0.0 else -math.inf,
        math.sqrt(max(read.noise.variance + g.noise.variance, 0.0)),
        share,
        different / (different + mean_square) if different > 0.0 else 0.0,
        fan,
        math.log(fan) + 0.5 * (_ln(mean_square) + read.noise.drift) if mean_square > 0.0 else -math.inf,
        pull,
        math.log(fan) + pull + _ln(g.numel / outputs),
        WAKING * _delay(following) / (fan * RATE),
        node.op not in _SINGLE,
    )


_SINGLE = frozenset({"add", "sub", "mul", "div", "where", "lerp", "addcmul", "cat", "stack", "expand", "maximum"})
_CONTRACTIONS = ("linear", "conv", "matmul", "mm", "bmm", "addmm", "einsum", "embedding")


def _is_weight(run: Run, node: Node, made: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether an operation makes a weight from parameters (weight standardization, a scaled or masked matrix).

    What samples look up in a table is none, although the indices of a given batch are no tensor of the network. (A
    single sample is not told from the positions of all samples: with it no look-up makes a weight.)
    """
    read = node.read
    if not read or not all(isinstance(a, ParameterRef) or a.node in made for a in read):
        return False
    if node.op in ("embedding", "embedding_bag") and _one_sample(run):
        return False
    return not (run.signals[node.name] and any(run.signals[node.name][0].batch))


def _one_sample(run: Run) -> bool:
    return not any(any(run.signals[n.name][0].batch) for n in run.graph.nodes if n.op == "input")


def _operands(
    run: Run, node: Node, made: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[int, ...] | None, Signal | None]:
    """Shape of the weight matrix that an operation holds, and the first signal that it reads.

    Args:
        run: Of all passes.
        node: The operation.
        made: Shapes of the weights that were made of parameters.
    """
    shape, read = None, None
    for arg in node.read:
        if isinstance(arg, ParameterRef):
            known = run.graph.parameters.get(arg.name)
            if known is not None and len(known.spec.shape) >= 2:
                shape = shape or known.spec.shape
        elif arg.node in made:
            if node.op.startswith(_CONTRACTIONS) and len(made[arg.node]) >= 2:  # no class token beside a tensor
                shape = shape or made[arg.node]
        elif read is None and run.signals.get(arg.node):
            read = run.signals[arg.node][min(arg.index, len(run.signals[arg.node]) - 1)]
    return shape, read


def _rows_first(op: str) -> bool:
    return op == "linear" or (op.startswith("conv") and "transpose" not in op)


def _ln(x: float) -> float:
    return math.log(max(x, 1e-300))


def _share(x: Signal) -> float:
    """1 - c between two samples; 1 with a single one."""
    batch = [i for i, b in enumerate(x.batch) if b]
    return max(1.0 - pair_average(x, batch), 0.0) if batch else 1.0


def _consumers(run: Run) -> Mapping[str, Node]:
    """The first operation that reads each one's output."""
    out: dict[str, Node] = {}
    for node in run.graph.nodes:
        for ref in node.refs:
            out.setdefault(ref.node, node)
    return out


def _following(node: Node, consumers: Mapping[str, Node]) -> str:
    """The first non-linearity behind an operation, "" where another matrix comes first."""
    at = consumers.get(node.name)
    while at is not None:
        if _known(at.op):
            return at.op
        if any(isinstance(a, ParameterRef) for a in at.read) and "norm" not in at.op:
            return ""
        at = consumers.get(at.name)
    return ""


@cache
def _known(op: str) -> bool:
    try:
        activations.get(op)
    except FirstlightError:
        return False
    return True


@cache
def _delay(op: str) -> float:
    """1/φ'(0), the slope being the mean of both sides at a kink; more where φ is flat at both ends."""
    if not op:
        return 1.0
    slope = activations.get(op).df
    middle = float(np.mean(np.asarray(slope(np.array([-1e-6, 1e-6])))))
    flat = float(np.max(np.abs(np.asarray(slope(np.array([-30.0, 30.0])))))) < 1e-6
    return (BOUNDED if flat else 1.0) / max(middle, 1e-2)
