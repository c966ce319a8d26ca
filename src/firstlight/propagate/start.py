"""P(start): the probability over draws of the weights that nothing stands in the way of a start (docs/signal.md §6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from firstlight.graph.prediction import NodePrediction, ParameterPrediction, Start, normal_cdf
from firstlight.propagate.contrast import ROUNDING, Contrast

_DECADE = math.log(10.0)


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a quantity begins to stand in the way, in decades of a mean square.

    Trained networks do not change from starting to not starting at one value: data, optimizer and budget move the
    edge. It is taken as normal, with the spread that tuning networks show.

    Attributes:
        at: Half of the networks that sit here start.
        spread: Standard deviation.
    """

    at: float
    spread: float

    def below(self, log_value: float, log_sd: float) -> float:
        """P(ln value < edge) for a normal ln value."""
        return normal_cdf((self.at * _DECADE - log_value) / math.hypot(self.spread * _DECADE, log_sd))

    def above(self, log_value: float, log_sd: float) -> float:
        """P(ln value > edge)."""
        return normal_cdf((log_value - self.at * _DECADE) / math.hypot(self.spread * _DECADE, log_sd))


# Where theory puts an edge it is named; the fitted ones (docs/signal.md §6) come from networks that were trained.
LARGEST_SIGNAL = Edge(12.0, 3.0)  # against the input's mean square; fitted
LARGEST_OUTPUT = Edge(7.0, 1.3)  # mean square of the outputs: a loss of about 10^3.5 nats; fitted
# A step of the smallest learning rate, 1e-4, moves an output by its own size: 8 decades of mean square. Fitted: 8.4.
LARGEST_STIR = Edge(8.4, 1.7)
# Adam's signal grows as 8·steps·η·fan·share in a batch of 64, which has to reach half a nat in 200 steps of 1e-2:
# fan·share = 10^-1.5. Fitted: -1.8.
SMALLEST_SHARE = Edge(-1.8, 0.7)
COMMON = Edge(0.0, 0.3)  # of fan·|E h|: below one, what units have in common moves nothing; here decades of a size
SHARED_YET_STARTS = 0.06  # networks that start although their samples share more than that
FAINTEST_CONTRAST = Edge(
    -20.0, 6.0
)  # δ²·(h - h')²/2 at the best matrix; soft: what is faint is at the mercy of the rest
STEPS = Edge(math.log10(200.0), 0.25)  # in which sleeping layers have to wake up, one after the other
THINNEST = 2.5, 0.5  # decades by which the best contrast scatters between draws: what is left is one direction; fitted
SEEN, SEEN_SHARE = Edge(-14.0, 0.7), Edge(-6.0, 1.0)  # pull and share of a matrix that needs no other one to wake up
# dtype -> (largest finite value, smallest positive value)
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "float32": (3.4e38, 1.4e-45),
        "bfloat16": (3.39e38, 9.2e-41),
        "float16": (65504.0, 6e-8),
        "float64": (1.8e308, 5e-324),
    }
)
SIGMAS = 6.0  # the largest of many entries, in standard deviations


def probability(
    nodes: Sequence[NodePrediction],
    outputs: Sequence[str],
    dtype: str,
    parameters: Sequence[ParameterPrediction] = (),
    seen: Sequence[Contrast] | None = None,
) -> Start:
    """P(start) with what limits it: each condition at its worst node, all conditions together as if independent.

    1. forward: no tensor's mean square beyond `LARGEST_SIGNAL` times the input's, no output's beyond `LARGEST_OUTPUT`;
    2. backward: no weight matrix of which a smallest step throws the outputs about (`LARGEST_STIR`);
    3. alive: no layer all of whose units are zero, and some weight matrix with a gradient;
    4. distinguishable: layers that a gradient cannot move yet wake up within `STEPS`, some matrix' gradient tells
       samples apart by more than `FAINTEST_CONTRAST`, they differ at the last one by more than `SMALLEST_SHARE`, and
       more than one direction is left (`THINNEST`);
    5. range: no entry beyond the largest number of the compute type, and the gradient of (4) above its smallest.

    Args:
        nodes: All operations.
        outputs: Names of the nodes that the model returns.
        dtype: Compute type.
        parameters: For (3).
        seen: For (2), (4) and (5); None leaves them out (a forward pass alone).
    """
    parts: dict[str, tuple[float, str]] = dict.fromkeys(
        ("forward", "backward", "alive", "distinguishable", "range"), (1.0, "")
    )
    top, tiny = RANGES.get(dtype, RANGES["float32"])
    over = Edge(2.0 * math.log10(top / SIGMAS), 0.0)
    largest, alive, worst_dead = 0.0, 1.0, ("", 0.0)
    for n in nodes:
        if n.op == "input" or _constant(n):
            continue
        for t in (n.output, n.grad):
            if t is not None and t.q > 0.0:
                _worse(parts, "range", over.below(t.log_mean, max(t.log_sd, 1e-9)), n.name)
        if n.output.q > 0.0:
            _worse(
                parts, "forward", LARGEST_SIGNAL.below(n.output.log_mean - n.output.reference, n.output.log_sd), n.name
            )
            if n.name in outputs:
                largest = max(largest, n.output.log_mean)
                _worse(parts, "forward", LARGEST_OUTPUT.below(n.output.log_mean, 0.0), n.name)
        if n.output.p_dead > 0.0 and (n.grad is not None or seen is None):  # a comparison's zeros stop no gradient
            alive *= 1.0 - n.output.p_dead
            if n.output.p_dead > worst_dead[1]:
                worst_dead = (n.name, n.output.p_dead)
    matrices = [p for p in parameters if len(p.shape) >= 2]
    if matrices and not any(p.grad_q for p in matrices):
        alive, worst_dead = 0.0, (outputs[0] if outputs else "", 1.0)
    parts["alive"] = (alive, worst_dead[0])
    reason = ""
    if seen is not None and matrices:
        for s in seen:
            _worse(parts, "backward", LARGEST_STIR.below(s.stir - largest, 0.0), s.node)
        best = max(seen, key=lambda s: s.log_mean, default=None)
        if best is None or not math.isfinite(best.log_mean):
            parts["distinguishable"] = (0.0, outputs[0] if outputs else "")
        else:
            p, where, reason = told_apart(seen, best)
            parts["distinguishable"] = (p, where)
            under = Edge(2.0 * math.log10(tiny), 0.0)
            _worse(parts, "range", under.above(best.log_mean, max(best.log_sd, 1e-9)), best.node)
    p = math.prod(v for v, _ in parts.values())
    values = MappingProxyType({k: v for k, (v, _) in parts.items()})
    key = min(parts, key=lambda k: parts[k][0])
    if parts[key][0] > 0.99:
        return Start(p, "nothing stands in the way", "", values)
    where = parts[key][1]
    if key != "distinguishable" or not reason:
        at = next((s for s in seen or () if s.node == where), None)
        reason = _reason(key, next((n for n in nodes if n.name == where), None), at, largest, where in outputs)
    return Start(p, reason, where, values)


def told_apart(seen: Sequence[Contrast], best: Contrast) -> tuple[float, str, str]:
    """P(the samples come to be told apart), the node that limits it, and why in a few words.

    Args:
        seen: All weight matrices in execution order.
        best: The one with the largest contrast.
    """
    last = next((s for s in reversed(seen) if s.sums), seen[-1])
    steps = sum(s.waking * (1.0 - s.awake) for s in seen if s is not last)
    sights = [SEEN.above(s.pull, 0.0) * SEEN_SHARE.above(_ln(s.share), 0.0) for s in seen]
    wakes = 1.0 - (1.0 - STEPS.below(_ln(steps), 0.0)) * (1.0 - max(sights))
    enough = SMALLEST_SHARE.above(_ln(last.own) + math.log(last.fan), 0.0)
    common = COMMON.above(last.level, 0.0) if last.share > ROUNDING else 1.0
    shares = 1.0 - (1.0 - enough) * common * (1.0 - SHARED_YET_STARTS)
    thick = normal_cdf((THINNEST[0] - best.log_sd / _DECADE) / THINNEST[1])
    sees = FAINTEST_CONTRAST.above(best.log_mean, 0.0)
    size = f"the gradients that tell samples apart have the size {_power(best.log_mean)} at most"
    _, where, why = min(
        (wakes, best.node, f"{size}: layers wake up in turn, in about {steps:.0f} steps"),
        (sees, best.node, size),
        (shares, last.node, f"samples differ by {_power(_ln(last.own))} of what all units have in common"),
        (thick, best.node, f"the draw decides: the contrast of samples scatters by 10^±{best.log_sd / _DECADE:.1f}"),
    )  # fmt: skip
    return wakes * sees * shares * thick, where, why


def _ln(x: float) -> float:
    return math.log(max(x, ROUNDING))


def _power(log_square: float) -> str:
    """A size, given ln of its square."""
    return f"10^{log_square / _DECADE / 2.0:.1f}"


def _worse(parts: dict[str, tuple[float, str]], key: str, p: float, name: str) -> None:
    if p < parts[key][0]:
        parts[key] = (p, name)


def _constant(n: NodePrediction) -> bool:
    return n.output.c_batch is not None and n.output.c_batch >= 1.0 and n.grad is None


def _reason(key: str, n: NodePrediction | None, at: Contrast | None, largest: float, is_output: bool) -> str:
    if key == "forward" and n is not None:
        t = n.output
        if is_output and LARGEST_OUTPUT.below(t.log_mean, 0.0) < LARGEST_SIGNAL.below(
            t.log_mean - t.reference, t.log_sd
        ):
            return f"the outputs have the size {_power(t.log_mean)}"
        decades = (t.log_mean - t.reference) / _DECADE
        return (
            f"the signal is typically 10^{decades:.1f} times larger than at its origin, ± 10^{t.log_sd / _DECADE:.1f}"
        )
    if key == "backward" and at is not None:
        return (
            f"a step of 1e-4 here throws the outputs about by {_power(at.stir - largest - 8.0 * _DECADE)} of their size"
        )
    return {
        "alive": "a layer can be dead: all of its units zero",
        "distinguishable": "inputs are no longer told apart",
        "range": "beyond the range of the compute type",
    }.get(key, key)
