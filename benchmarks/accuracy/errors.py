"""Predictions against kept draws: the error of every operation, beyond what the number of draws can tell.

``python -m benchmarks.accuracy.errors NAME DEPTH SCHEME`` prints the operations of one case, worst first.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.accuracy import store
from firstlight.capture import predict as capture
from firstlight.capture.trace import trace
from firstlight.graph.ir import Node
from firstlight.graph.prediction import NodePrediction, Prediction
from firstlight.propagate.fluctuation import unit_axis
from firstlight.schemes.plan import plan

ZERO = 1e-60  # mean squares below are nothing: they are rounding
MINUS_INFINITY = 1e55  # mean squares above are masks: minus infinity, or the lowest number of a type, squared


@dataclass(frozen=True)
class NodeError:
    """One operation.

    Attributes:
        node: Name.
        op: Operation.
        q: |predicted/drawn - 1| of the mean square, less two standard errors of the drawn mean.
        grad_q: The same of the gradient; NaN where there is none.
        c: |predicted - drawn| correlation between samples, less two standard errors; NaN where the first axis is not
            that of samples.
        place: The same between positions; NaN also where a position is a single entry.
        cosine: As `c`, of the mean cosine of a draw.
        place_cosine: As `place`, likewise.
        values: (predicted q, drawn q, its error), the same for grad q, (predicted c, drawn c), likewise of positions.
        caveats: What the prediction says of the operation.
    """

    node: str
    op: str
    q: float
    grad_q: float
    c: float
    place: float
    cosine: float
    place_cosine: float
    values: tuple[float, ...]
    caveats: tuple[str, ...]


def beyond(predicted: float, mean: float, error: float) -> float:
    """|predicted/mean - 1| less two standard errors; infinite where one of the two is zero and the other is not.

    0 behind a mask of infinities: the draws have counted them, the prediction leaves them out.
    """
    if math.isnan(mean):
        return math.nan
    if mean > MINUS_INFINITY:
        return 0.0
    if not math.isfinite(mean) or not math.isfinite(predicted):
        return math.inf
    if mean <= ZERO or predicted <= ZERO:
        return 0.0 if mean <= ZERO and predicted <= ZERO else math.inf
    return max(abs(predicted / mean - 1.0) - 2.0 * error / mean, 0.0)


def prediction(case: store.Case) -> tuple[Prediction, float]:
    """The prediction of a case and the CPU-seconds that it took after capture."""
    from tests.models import ZOO

    model, args, kwargs = ZOO[case.name].make(depth=case.depth)
    graph = trace(model, args, kwargs)
    laws = plan(model, case.scheme, graph=graph, frozen=True).laws()
    start = time.process_time()
    found = capture.predict(model, args, kwargs, laws=laws, scheme=case.scheme, graph=graph, on_missing="measure")
    return found, time.process_time() - start


def errors(found: Prediction, drawn: dict[str, store.Drawn]) -> list[NodeError]:
    """Errors of every operation that the draws have seen."""
    out: list[NodeError] = []
    batch = next((n.shape[0] for n in found.nodes if n.op == "input" and n.shape), 0)
    for node in found.nodes:
        d = drawn.get(node.name)
        if node.op == "input" or d is None:
            continue
        g = node.grad.q if node.grad is not None else 0.0
        c, place = node.output.c_batch, node.output.c_position
        # correlations are ratios: without a denominator that differs from zero no interval holds one (Fieller 1954)
        sampled = bool(node.shape) and node.shape[0] == batch and d.q[0] > max(ZERO, 2.0 * d.q[1])
        # a tensor that depends on no sample (biases by position) may have as many heads in front
        placed = sampled and units(node) > 1 and (c is not None or batch < 2)
        out.append(
            NodeError(
                node.name,
                node.op,
                beyond(node.output.q, *d.q),
                beyond(g, *d.grad_q),
                apart(c, d.c) if sampled else math.nan,
                apart(place, d.place) if placed else math.nan,
                apart(c, d.cosine) if sampled else math.nan,
                apart(place, d.place_cosine) if placed else math.nan,
                (node.output.q, *d.q, g, *d.grad_q, _number(c), d.c[0], _number(place), d.place[0]),
                node.caveats,
            )
        )
    return out


def units(node: NodePrediction) -> int:
    """Units of a tensor with positions: what two positions of one unit have in common is one number a draw."""
    return node.shape[unit_axis(Node(node.name, node.op), len(node.shape))] if len(node.shape) > 2 else 1


def apart(predicted: float | None, drawn: tuple[float, float]) -> float:
    """|predicted - drawn| of a correlation less two standard errors; NaN where one is not there."""
    if predicted is None or math.isnan(drawn[0]):
        return math.nan
    return max(abs(predicted - drawn[0]) - 2.0 * drawn[1], 0.0)


def _number(x: float | None) -> float:
    return math.nan if x is None else x


def part(values: list[float], p: float) -> float:
    """A quantile of the values that are there, in per cent of them; 0 where there are none."""
    kept = np.sort([v for v in values if not math.isnan(v)])
    return float(kept[min(math.ceil(p * len(kept)), len(kept)) - 1 if p > 0 else 0]) if len(kept) else 0.0


def _against(predicted: float, mean: float, error: float) -> str:
    level = max(mean, 1e-300)
    off, noise = 100.0 * (predicted / level - 1.0), 100.0 * error / level
    return f"{predicted:9.3g} {mean:9.3g} {off:+6.0f}% ±{noise:3.0f}"


def main(arguments: list[str]) -> int:
    """Print the operations of one case."""
    name, depth, scheme = arguments[:3]
    torch.set_num_threads(1)
    case = store.Case(name, int(depth), scheme)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, seconds = prediction(case)
    print(f"{seconds:.2f} CPU-seconds")
    for e in errors(found, store.read(case)):
        q, dq, eq, g, dg, eg, c, dc, p, dp = e.values
        flag = "*" if max(e.q, 0 if math.isnan(e.grad_q) else e.grad_q) > 0.1 else " "
        text = f"{flag} {e.node:48.48} q {_against(q, dq, eq)} | g {_against(g, dg, eg)}"
        print(f"{text} | c {c:6.3f} {dc:6.3f} {p:6.3f} {dp:6.3f} {'; '.join(e.caveats)[:60]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
