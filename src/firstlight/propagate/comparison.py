"""A prediction and a measurement of the same network, joined by node."""

from __future__ import annotations

import math

from firstlight.errors import InputError
from firstlight.graph.measurement import Distribution, Measurement, TensorStats
from firstlight.graph.prediction import ComparedNode, Comparison, NodePrediction, Prediction, TensorPrediction

RESOLUTION = 0.02  # relative error of a mean square that the rules themselves may have


def join(prediction: Prediction, measurement: Measurement) -> Comparison:
    """See `firstlight.compare`."""
    for where, given, kind in (("prediction", prediction, Prediction), ("measurement", measurement, Measurement)):
        if not isinstance(given, kind):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                where, got=type(given).__name__, expected=f"a {kind.__name__}",
                action="compare(predict(model, batch), measure(model, batch))",
            )  # fmt: skip
    measured = {n.name: n for n in measurement.nodes}
    rows: list[ComparedNode] = []
    for n in prediction.nodes:
        other = measured.get(n.name)
        if other is None:
            continue
        q, q_z = _one(n.output, other.output, other.log_q)
        grad_q, grad_z = (None, None)
        if n.grad is not None and other.grad is not None:
            grad_q, grad_z = _one(n.grad, other.grad, other.log_grad_q)
        rows.append(
            ComparedNode(
                n.name,
                n.module,
                n.op,
                n.output.q,
                q,
                q_z,
                n.output.c_batch,
                other.output.cosine if other.cosines is None else other.cosines.mean,
                None if n.grad is None else n.grad.q,
                grad_q,
                grad_z,
                _caveats(n),
            )
        )
    known = {n.name for n in prediction.nodes}
    return Comparison(
        tuple(rows),
        tuple(n.name for n in prediction.nodes if n.name not in measured),
        tuple(n.name for n in measurement.nodes if n.name not in known),
        measurement.draws,
    )


def _caveats(n: NodePrediction) -> tuple[str, ...]:
    return n.caveats


def _one(p: TensorPrediction, m: TensorStats, draws: Distribution | None) -> tuple[float, float]:
    """(measured mean square, z)."""
    count = len(draws.values) if draws is not None else 1
    if draws is not None and count > 1 and math.isfinite(draws.mean):
        level = draws.mean
        finite = [math.exp(min(v, 700.0)) for v in draws.values if math.isfinite(v)]
        q = sum(finite) / count
        spread = draws.sd
    else:
        q = m.q
        level = math.log(q) if q > 0.0 else -math.inf
        spread = p.log_sd
    if not (math.isfinite(level) and math.isfinite(p.log_mean)):
        return q, 0.0 if level == p.log_mean else math.copysign(math.inf, level if math.isfinite(p.log_mean) else 1.0)
    entries = 2.0 / max(math.prod(m.shape), 1)
    s = math.sqrt((max(spread, p.log_sd) ** 2 + entries) / count + RESOLUTION**2)
    return q, (level - p.log_mean) / s
