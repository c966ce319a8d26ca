"""Reports made by hand, without torch: a deep ReLU chain of a given gain per layer."""

from __future__ import annotations

import math

from firstlight.graph.prediction import NodePrediction, Prediction, Start, TensorPrediction
from firstlight.graph.results import Finding, Measurement, NodeStats, ParameterStats, Report, TensorStats


def stats(q: float, shape: tuple[int, ...] = (128, 64), **changes: object) -> TensorStats:
    values: dict[str, object] = {
        **{"shape": shape, "dtype": "float32", "mean": 0.0, "q": q, "abs_max": 4 * math.sqrt(max(q, 0.0))},
        **{
            "zero_fraction": 0.0,
            "units": shape[-1] if shape else 1,
            "dead_units": 0,
            "saturated_fraction": None,
        },
        **{"cosine": 0.3, "nan_count": 0, "inf_count": 0, "sample_variance": 0.7 * max(q, 0.0)},
    }
    return TensorStats(**{**values, **changes})  # type: ignore[arg-type]


def chain(depth: int = 100, factor: float = 1 / 6, *, path: str = "layers.{}") -> Measurement:
    """Linear, ReLU, linear, ReLU …: q falls by `factor` per pair, the gradient's q too on its way back."""
    nodes = [NodeStats("x:input", "input", "", "", "", stats(1.0), None)]
    parameters = []
    for layer in range(depth):
        wobble = math.exp(0.3 * math.sin(7.0 * layer))
        q = 2 * factor ** (layer + 1) * wobble
        grad_q = 1e-4 * factor ** (depth - layer - 1) / wobble
        name = path.format(layer)
        before = nodes[-1].name
        nodes.append(
            NodeStats(
                f"{name}:linear",
                "linear",
                name,
                "Linear",
                "net.py:12",
                stats(q),
                stats(grad_q),
                (before,),
                (f"{name}.weight",),
            )
        )
        if layer < depth - 1:
            nodes.append(
                NodeStats(
                    f"{name}:relu",
                    "relu",
                    name,
                    "ReLU",
                    "net.py:13",
                    stats(q / 2, zero_fraction=0.5),
                    stats(grad_q * 2),
                    (f"{name}:linear",),
                )
            )
        for part, shape in (("weight", (64, 64)), ("bias", (64,))):
            parameters.append(
                ParameterStats(
                    f"{name}.{part}",
                    shape,
                    "float32",
                    "Linear",
                    True,
                    0.0,
                    1 / 192,
                    1.8,
                    0.0,
                    0,
                    0,
                    0,
                    grad_q=grad_q,
                )
            )
    return Measurement(
        "Classifier",
        tuple(nodes),
        tuple(parameters),
        2.3026,
        "cross_entropy",
        True,
        128,
        outputs=(nodes[-1].name,),
    )


def report(measurement: Measurement | None = None, verdict: str = "will not start", **changes: object) -> Report:
    measurement = measurement or chain()
    last = measurement.nodes[-1].name if measurement.nodes else ""
    findings = (
        Finding(
            "FWD001",
            "error",
            last,
            "the mean square of the signal is multiplied by 0.167 per layer: 10⁻⁷⁸ over 100 layers",
            "a factor of 0.1 to 10 over the whole depth (mean field, Schoenholz et al. 2017)",
            "Each layer hands on less than it gets. At the output nothing is left that depends on the input, "
            "so the network answers the same for every image.",
            'firstlight.initialize(model, "he")',
            "the factor per layer becomes 1.00",
        ),
        Finding(
            "BWD001",
            "error",
            "layers.0:linear",
            "gradient 10⁻³⁹ of the output's",
            "10⁻³",
            "The first layers get no gradient.",
            'firstlight.initialize(model, "he")',
        ),
        Finding(
            "LOS001",
            "info",
            "",
            "loss 2.3026",
            "ln 10 = 2.3026",
            "The loss starts at that of a uniform guess.",
        ),
    )
    values: dict[str, object] = {
        "verdict": verdict,
        "p_start": 0.0003,
        "findings": findings,
        "measurement": measurement,
    }
    return Report(**{**values, **changes})  # type: ignore[arg-type]


def prediction(depth: int = 100, factor: float = 1 / 6, log_sd: float = 0.2) -> Prediction:
    """What theory says of `chain`, with one deviation at all operations."""
    nodes = []
    for node in chain(depth, factor).nodes:
        layer = int(node.module.rpartition(".")[2]) if node.module else -1
        forward, backward = (layer + 1) * math.log(factor), (depth - layer - 1) * math.log(factor)
        output, grad = (
            TensorPrediction(0.0, 1.0, None, None, None, value, log_sd, 0.0) for value in (forward, backward)
        )
        nodes.append(
            NodePrediction(node.name, node.op, node.module, node.module_type, "", node.output.shape, output, grad)
        )
    return Prediction("Classifier", "live weights", tuple(nodes), (), Start(0.0, "forward"))
