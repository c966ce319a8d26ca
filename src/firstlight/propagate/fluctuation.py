"""From signals to statements over draws: log-norms, quantiles' parameters, and the probability of a start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from firstlight.graph.ir import Node
from firstlight.graph.prediction import (
    NodePrediction,
    ParameterPrediction,
    Prediction,
    Start,
    TensorPrediction,
    normal_cdf,
)
from firstlight.graph.signal import Signal
from firstlight.propagate.forward import Run
from firstlight.rules.noise import gaussian_energy
from firstlight.rules.windows import pair_average

# Mean squares, as factors of the origin's: lengths |x| up to 10³ times larger, down to 10⁸ times smaller. Too long a
# signal is beyond every learning rate; too short a one starts late but starts, until an optimizer's own guard against
# division by zero (10⁻⁸ in Adam) is reached. Trained networks: docs/signal.md §6.
LARGER, SMALLER = 1e6, 1e16
BLIND = 4.0  # rounding errors by which two inputs must differ at the output
EPSILON: Mapping[str, float] = MappingProxyType(
    {"float32": 1.2e-7, "bfloat16": 7.8e-3, "float16": 9.8e-4, "float64": 2.2e-16}
)
# dtype -> (largest finite value, smallest positive value)
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "float32": (3.4e38, 1.4e-45),
        "bfloat16": (3.39e38, 9.2e-41),
        "float16": (65504.0, 6e-8),
        "float64": (1.8e308, 5e-324),
    }
)
_POSITIVE_AXIS = ("conv", "max_pool", "avg_pool", "adaptive", "batch_norm", "group_norm", "instance_norm")


def unit_axis(node: Node, rank: int) -> int:
    """The axis of the units: the second one of image-like tensors, the last one otherwise."""
    if rank < 2:
        return 0
    if rank >= 4 or (rank == 3 and node.op.startswith(_POSITIVE_AXIS)):
        return 1
    return rank - 1


def tensor(node: Node, x: Signal, reference: float) -> TensorPrediction:
    """One tensor's numbers."""
    from firstlight.rules.layout import axis_atoms

    unit = axis_atoms(x, unit_axis(node, x.ndim)) if x.ndim else ()
    batch = [i for i, b in enumerate(x.batch) if b]
    units = [i for i in unit if i not in batch]
    places = [i for i in range(len(x.atoms)) if i not in batch and i not in units]

    def pair(atoms: Sequence[int]) -> float | None:
        return pair_average(x, atoms) if atoms else None

    q = x.mean_q
    log_q = math.log(q) if q > 0.0 else -math.inf
    return TensorPrediction(
        x.mean_mean, q, pair(batch), pair(places), pair(units), log_q + x.noise.drift,
        math.sqrt(max(x.noise.variance, 0.0)), reference, dead(x),
    )  # fmt: skip


def dead(x: Signal) -> float:
    """Probability that a pointwise output is zero everywhere: (share of exact zeros)^(independent entries)."""
    if x.source is None or x.values is None or x.q.size != 1:
        return 0.0
    zero = float((x.values[0] == 0.0) @ x.source.grid.weights)
    if zero <= 0.0 or zero >= 1.0:
        return float(zero >= 1.0)
    count = 2.0 / max(gaussian_energy(_with(x)), 1e-12)
    return zero ** max(count, 1.0)


def _with(x: Signal) -> Signal:
    """The signal with its source's correlations."""
    assert x.source is not None
    return Signal(x.groups, np.zeros(x.mean.shape), x.q, x.source.corr, x.batch)


def summarise(run: Run, scheme: str, laws: Mapping[str, str], dtype: str, notes: Sequence[str]) -> Prediction:
    """The prediction of a finished run."""
    graph = run.graph
    inputs = [run.signals[n.name][0] for n in graph.nodes if n.op == "input"]
    origin = _log_level([x for x in inputs if not x.integer and x.value is None])  # a known value is a mask
    seeds = [run.gradients[r.node] for r in graph.outputs if r.node in run.gradients]
    end = _log_level(seeds)
    nodes: list[NodePrediction] = []
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
                tensor(node, out[0], origin),
                None if g is None else tensor(node, g, end),
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
    # x² and its mean inside a norm written by hand are no lengths of a signal: their size is a fourth moment
    inside = {n.name for n in graph.nodes if run.signals[n.name] and _inside_norm(run.signals[n.name][0])}
    start = probability([n for n in nodes if n.name not in inside], outputs, dtype, parameters)
    return Prediction(
        graph.model, scheme, tuple(nodes), parameters, start, graph.training, dtype, outputs, (*graph.notes, *notes)
    )


def _inside_norm(x: Signal) -> bool:
    return x.tag is not None and x.tag[0] != "softmax"


def _log_level(signals: Sequence[Signal]) -> float:
    sizes = [s.mean_q for s in signals if s.mean_q > 0.0]
    return math.log(sum(sizes) / len(sizes)) if sizes else 0.0


def probability(
    nodes: Sequence[NodePrediction], outputs: Sequence[str], dtype: str, parameters: Sequence[ParameterPrediction] = ()
) -> Start:
    """P(start) with what limits it: each condition at its worst node, all conditions together as if independent.

    Forward and backward lengths in the band of the origin's (`LARGER`, `SMALLER`), no dead layer, inputs that differ
    at the output by more than `BLIND` rounding errors, nothing beyond the range of the compute type. Where no weight
    matrix at all gets a gradient (all of them zero), nothing lives.
    """
    parts: dict[str, tuple[float, str]] = dict.fromkeys(
        ("forward", "backward", "alive", "distinguishable", "range"), (1.0, "")
    )
    alive = 1.0
    worst_dead = ("", 0.0)
    top, tiny = RANGES.get(dtype, RANGES["float32"])
    signal = [n for n in nodes if n.op != "input" and not _constant(n)]
    for n in signal:
        for key, t in (("forward", n.output), ("backward", n.grad)):
            if t is None or t.q <= 0.0:
                continue
            p = 1.0 - t.p_off(LARGER, below=SMALLER)
            if p < parts[key][0]:
                parts[key] = (p, n.name)
            over, under = 2.0 * math.log(top / 6.0), 2.0 * math.log(tiny)
            sd = max(t.log_sd, 1e-9)
            inside = normal_cdf((over - t.log_mean) / sd) - normal_cdf((under - t.log_mean) / sd)
            if inside < parts["range"][0]:
                parts["range"] = (inside, n.name)
        if n.output.p_dead > 0.0:
            alive *= 1.0 - n.output.p_dead
            if n.output.p_dead > worst_dead[1]:
                worst_dead = (n.name, n.output.p_dead)
    matrices = [p for p in parameters if len(p.shape) >= 2]
    if matrices and not any(p.grad_q for p in matrices):
        alive, worst_dead = 0.0, (outputs[0] if outputs else "", 1.0)
    parts["alive"] = (alive, worst_dead[0])
    known = {n.name: n for n in nodes}
    for name in outputs[:1]:
        end = known[name].output if name in known else None
        if end is None or end.c_batch is None or not end.q > 0.0:
            continue
        if 1.0 - end.c_batch < (BLIND * EPSILON.get(dtype, EPSILON["float32"])) ** 2:  # |y - y'|²/2|y|² = 1 - c
            parts["distinguishable"] = (0.0, name)
    p = math.prod(v for v, _ in parts.values())
    key = min(parts, key=lambda k: parts[k][0])
    if parts[key][0] > 0.999:
        return Start(p, "nothing leaves the band", "", MappingProxyType({k: v for k, (v, _) in parts.items()}))
    where = parts[key][1]
    return Start(p, _reason(key, known.get(where)), where, MappingProxyType({k: v for k, (v, _) in parts.items()}))


def _constant(n: NodePrediction) -> bool:
    return n.output.c_batch is not None and n.output.c_batch >= 1.0 and n.grad is None


def _reason(key: str, n: NodePrediction | None) -> str:
    if key in ("forward", "backward") and n is not None:
        t = n.output if key == "forward" else n.grad
        assert t is not None
        way = "larger" if t.log_mean > t.reference else "smaller"
        decades = abs(t.log_mean - t.reference) / math.log(10.0)
        what = "the signal" if key == "forward" else "the gradient"
        return (
            f"{what} is typically 10^{decades:.1f} times {way} than at its origin, ± 10^{t.log_sd / math.log(10.0):.1f}"
        )
    return {
        "alive": "a layer can be dead: all of its units zero",
        "distinguishable": "inputs are no longer told apart",
        "range": "beyond the range of the compute type",
    }.get(key, key)
