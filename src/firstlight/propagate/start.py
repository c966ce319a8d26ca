"""P(start): the probability over draws of the weights that nothing stands in the way of a start (docs/signal.md §6)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from firstlight.graph.ir import Arg, ParameterRef, Ref
from firstlight.graph.prediction import NodePrediction, ParameterPrediction, Start, normal_cdf
from firstlight.graph.signal import Signal
from firstlight.propagate.forward import Run
from firstlight.rules.windows import pair_average

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


# Fitted by hand to the trained networks that docs/signal.md §6 names; those of the last test are not among them.
LARGEST_SIGNAL = Edge(12.0, 3.0)  # against the input's mean square
LARGEST_GRADIENT = Edge(6.5, 1.5)  # against that of the outputs' gradient
FAINTEST_CONTRAST = Edge(-22.0, 7.0)  # δ²·(h - h')²/2 at the best weight matrix, for outputs' gradients of size 1
SMALLEST_SHARE = Edge(-9.0, 4.0)  # (h - h')²/2 against h² at the last weight matrix
ROUNDING = 1e-16  # the least share that double precision can tell
RESOLVED = 1e-13  # differences 1 - c below are rounding errors of the double-precision prediction
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


@dataclass(frozen=True, slots=True)
class Contrast:
    """How far the gradient of one weight matrix tells samples apart.

    Attributes:
        node: The operation that holds the matrix.
        log_mean: Mean over draws of ln(E δ²·E (h - h')²/2): gradient at its output times difference of its inputs;
            -inf where the difference is below `RESOLVED`.
        log_sd: Standard deviation over draws.
        share: E (h - h')²/2 against E h²: 1 - c.
    """

    node: str
    log_mean: float
    log_sd: float
    share: float = 1.0


def contrasts(run: Run) -> tuple[Contrast, ...]:
    """The contrast of every weight matrix that gets a gradient, in execution order."""
    found: list[Contrast] = []
    for node in run.graph.nodes:
        g = run.gradients.get(node.name)
        if g is None or not g.mean_q > 0.0:
            continue
        held, read = False, None
        for arg in _leaves((node.args, tuple(node.options.values()))):
            if isinstance(arg, ParameterRef):
                known = run.graph.parameters.get(arg.name)
                held = held or (known is not None and len(known.spec.shape) >= 2)
            elif read is None and run.signals.get(arg.node):
                read = run.signals[arg.node][min(arg.index, len(run.signals[arg.node]) - 1)]
        if not held or read is None:
            continue
        share = _share(read)
        size = 1.0 if read.integer else read.mean_q  # an index that is looked up is a unit vector
        log_mean = -math.inf
        if share >= RESOLVED and size > 0.0:
            log_mean = math.log(share * size) + read.noise.drift + math.log(g.mean_q) + g.noise.drift
        log_sd = math.sqrt(max(read.noise.variance + g.noise.variance, 0.0))
        found.append(Contrast(node.name, log_mean, log_sd, share))
    return tuple(found)


def _leaves(arg: Arg | tuple[Arg, ...]) -> Iterator[ParameterRef | Ref]:
    if isinstance(arg, tuple):
        for a in arg:
            yield from _leaves(a)
    elif isinstance(arg, ParameterRef | Ref):
        yield arg


def _share(x: Signal) -> float:
    """1 - c between two samples; 1 with a single one."""
    batch = [i for i, b in enumerate(x.batch) if b]
    return max(1.0 - pair_average(x, batch), 0.0) if batch else 1.0


def probability(
    nodes: Sequence[NodePrediction],
    outputs: Sequence[str],
    dtype: str,
    parameters: Sequence[ParameterPrediction] = (),
    seen: Sequence[Contrast] | None = None,
) -> Start:
    """P(start) with what limits it: each condition at its worst node, all conditions together as if independent.

    1. forward: no tensor's mean square beyond `LARGEST_SIGNAL` times the input's;
    2. backward: no gradient's beyond `LARGEST_GRADIENT` times the outputs', but for networks with batch statistics,
       whose updates do not depend on the gradient's size (Arora, Li and Lyu 1812.03981);
    3. alive: no layer all of whose units are zero, and some weight matrix with a gradient;
    4. distinguishable: some weight matrix whose gradient tells samples apart by more than `FAINTEST_CONTRAST`, and
       samples that differ at the last one by more than `SMALLEST_SHARE` of their size;
    5. range: no entry beyond the largest number of the compute type, and the gradient of (4) above its smallest.

    Args:
        nodes: All operations.
        outputs: Names of the nodes that the model returns.
        dtype: Compute type.
        parameters: For (3).
        seen: For (4) and (5); None leaves them out (a forward pass alone).
    """
    parts: dict[str, tuple[float, str]] = dict.fromkeys(
        ("forward", "backward", "alive", "distinguishable", "range"), (1.0, "")
    )
    top, tiny = RANGES.get(dtype, RANGES["float32"])
    over = Edge(2.0 * math.log10(top / SIGMAS), 0.0)
    rescaled = any(n.op.startswith("batch_norm") for n in nodes)
    alive, worst_dead = 1.0, ("", 0.0)
    for n in nodes:
        if n.op == "input" or _constant(n):
            continue
        for key, t, edge in (("forward", n.output, LARGEST_SIGNAL), ("backward", n.grad, LARGEST_GRADIENT)):
            if t is None or t.q <= 0.0:
                continue
            if key == "forward" or not rescaled:
                _worse(parts, key, edge.below(t.log_mean - t.reference, t.log_sd), n.name)
            _worse(parts, "range", over.below(t.log_mean, max(t.log_sd, 1e-9)), n.name)
        if n.output.p_dead > 0.0:
            alive *= 1.0 - n.output.p_dead
            if n.output.p_dead > worst_dead[1]:
                worst_dead = (n.name, n.output.p_dead)
    matrices = [p for p in parameters if len(p.shape) >= 2]
    if matrices and not any(p.grad_q for p in matrices):
        alive, worst_dead = 0.0, (outputs[0] if outputs else "", 1.0)
    parts["alive"] = (alive, worst_dead[0])
    if seen is not None and matrices:
        best = max(seen, key=lambda s: FAINTEST_CONTRAST.above(s.log_mean, s.log_sd), default=None)
        if best is None or not math.isfinite(best.log_mean):
            parts["distinguishable"] = (0.0, outputs[0] if outputs else "")
        else:
            share = SMALLEST_SHARE.above(math.log(max(seen[-1].share, ROUNDING)), 0.0)
            sees = FAINTEST_CONTRAST.above(best.log_mean, best.log_sd)
            parts["distinguishable"] = (share * sees, seen[-1].node if share < sees else best.node)
            under = Edge(2.0 * math.log10(tiny), 0.0)
            _worse(parts, "range", under.above(best.log_mean, max(best.log_sd, 1e-9)), best.node)
    p = math.prod(v for v, _ in parts.values())
    values = MappingProxyType({k: v for k, (v, _) in parts.items()})
    key = min(parts, key=lambda k: parts[k][0])
    if parts[key][0] > 0.99:
        return Start(p, "nothing stands in the way", "", values)
    where = parts[key][1]
    return Start(p, _reason(key, next((n for n in nodes if n.name == where), None), seen or ()), where, values)


def _worse(parts: dict[str, tuple[float, str]], key: str, p: float, name: str) -> None:
    if p < parts[key][0]:
        parts[key] = (p, name)


def _constant(n: NodePrediction) -> bool:
    return n.output.c_batch is not None and n.output.c_batch >= 1.0 and n.grad is None


def _reason(key: str, n: NodePrediction | None, seen: Sequence[Contrast]) -> str:
    if key in ("forward", "backward") and n is not None:
        t = n.output if key == "forward" else n.grad
        assert t is not None
        what = "the signal" if key == "forward" else "the gradient"
        decades = (t.log_mean - t.reference) / _DECADE
        return f"{what} is typically 10^{decades:.1f} times larger than at its origin, ± 10^{t.log_sd / _DECADE:.1f}"
    if key == "distinguishable" and n is not None:
        at = next((s for s in seen if s.node == n.name), None)
        if at is not None and SMALLEST_SHARE.above(math.log(max(at.share, ROUNDING)), 0.0) < FAINTEST_CONTRAST.above(
            at.log_mean, at.log_sd
        ):
            return f"samples differ by 10^{math.log10(max(at.share, ROUNDING)) / 2.0:.1f} of their size only"
        if at is not None and math.isfinite(at.log_mean):
            return (
                f"the gradients that tell samples apart have the size 10^{at.log_mean / _DECADE / 2.0:.1f} at most, "
                f"± 10^{at.log_sd / _DECADE / 2.0:.1f}"
            )
    return {
        "alive": "a layer can be dead: all of its units zero",
        "distinguishable": "inputs are no longer told apart",
        "range": "beyond the range of the compute type",
    }.get(key, key)
