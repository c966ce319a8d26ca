"""What a report shows, worked out from the records once, for the terminal and for HTML alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile

from firstlight.checks.arithmetic import masked
from firstlight.checks.mainline import main_line
from firstlight.graph.prediction import Prediction
from firstlight.graph.results import Finding, Measurement, NodeStats, Report, TensorStats
from firstlight.report.numbers import factor, number, ratio

# Symbols beside the colours, so that nobody has to see the colours.
VERDICT_SIGN = {"starts": "✓", "at risk": "!", "mis-scaled": "≠", "will not start": "✕"}
SEVERITY_SIGN = {"error": "✕", "warning": "!", "info": "i"}
VERDICT_TEXT = {
    "starts": "The signal gets through this network and back. Training can start from these weights.",
    "at risk": "These weights may start, but not safely.",
    "mis-scaled": "Training starts from these weights, but slower than it needs to.",
    "will not start": "Training cannot start from these weights.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One operation.

    Attributes:
        number: Position in execution order, from 1.
        stats: Its measurement.
        forward: log10 of its output's typical entry relative to the input's; -inf for zero, nan where not
            finite, None where nothing was measured.
        contrast: log10 of what differs between samples (its root mean square), relative to the input's; None
            where nothing was measured or there is one sample only.
        backward: As `forward`, for the gradient, relative to the gradient at the output.
        findings: Codes of the findings that point here, worst first.
        severity: Of the worst of them; "" without any.
        spine: Whether the walk's line goes through it.
    """

    number: int
    stats: NodeStats
    forward: float | None
    contrast: float | None
    backward: float | None
    findings: tuple[str, ...]
    severity: str
    spine: bool

    @property
    def label(self) -> str:
        """The operation's name without the colon of the root module."""
        return self.stats.name.removeprefix(":")


@dataclass(frozen=True, slots=True)
class Band:
    """What theory predicts for a walk at some of its rows, in decades relative to the walk's start.

    Attributes:
        rows: Row numbers, ascending.
        median: log10 of the predicted typical entry.
        sd: Standard deviation of that logarithm over draws of the weights.
        source: What predicted it, in words.
    """

    rows: tuple[int, ...]
    median: tuple[float, ...]
    sd: tuple[float, ...]
    source: str


def band(prediction: Prediction, rows: Sequence[Row], start: str, *, backward: bool = False) -> Band | None:
    """The prediction at the rows of the walk's line; None where nothing was predicted there.

    `predict` gives ln of the mean square; half of it is ln of the typical entry.

    Args:
        prediction: For the same model.
        rows: The operations.
        start: Name of the operation where the walk starts: its own prediction is the origin.
        backward: Whether it is the gradient's walk.
    """
    numbers = {row.stats.name: row.number for row in rows if row.spine}
    points: list[tuple[int, float, float]] = []
    first = next((node.grad if backward else node.output for node in prediction.nodes if node.name == start), None)
    origin = first.log_mean if first is not None and math.isfinite(first.log_mean) else None
    for node in prediction.nodes:
        tensor = node.grad if backward else node.output
        if (
            node.name in numbers
            and tensor is not None
            and math.isfinite(tensor.log_mean)
            and math.isfinite(tensor.log_sd)
        ):
            scale = 0.5 / math.log(10.0)
            away = tensor.log_mean - (tensor.reference if origin is None else origin)
            points.append((numbers[node.name], scale * away, scale * tensor.log_sd))
    if len(points) < 2:
        return None
    numbers_, medians, sds = zip(*sorted(points), strict=True)
    return Band(numbers_, medians, sds, f"law of the {prediction.scheme}")


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown.

    Attributes:
        report: The report itself.
        rows: The operations, inputs left out.
        forward_text: What the forward walk says, in one sentence.
        contrast_text: What becomes of the differences between inputs, in one sentence; "" where not measured.
        backward_text: What the backward walk says.
        forward_band: Prediction for the forward walk, if there is one.
        backward_band: Prediction for the backward walk, if there is one.
    """

    report: Report
    rows: tuple[Row, ...]
    forward_text: str
    contrast_text: str
    backward_text: str
    forward_band: Band | None = None
    backward_band: Band | None = None

    @property
    def measurement(self) -> Measurement:
        """The evidence."""
        return self.report.measurement

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        return self.report.headline or VERDICT_TEXT[self.report.verdict]

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What was looked at, as pairs of name and value."""
        measured = self.measurement
        entries = sum(math.prod(parameter.shape) for parameter in measured.parameters)
        trained = sum(math.prod(parameter.shape) for parameter in measured.parameters if parameter.requires_grad)
        loss = number(measured.loss) if math.isfinite(measured.loss) else "not finite"
        return (
            ("model", measured.model or "unnamed"),
            ("operations", f"{len(self.rows):,}"),
            ("parameters", f"{entries:,}" + (f" ({trained:,} trained)" if trained < entries else "")),
            ("batch", f"{measured.batch_size:,} samples"),
            ("mode", "training" if measured.training else "evaluation"),
            ("loss", f"{loss} ({measured.loss_kind})"),
            ("device", measured.device),
            *([("P(start)", self.report.p_start_from)] if self.report.p_start_from else []),
        )


def build_view(report: Report, prediction: Prediction | None = None) -> View:
    """Work out rows, walks and sentences from a report, and bands from a prediction for the same model."""
    nodes = report.measurement.nodes
    (enters, start), (leaves, end) = _start(nodes), _end(report.measurement)
    start_contrast = next((c for node in nodes if (c := _contrast(node.output)) is not None and c > 0.0), 1.0)
    shown = [node for node in nodes if node.op != "input"]
    by_place = _findings_by_place(report.findings)
    spine, hidden = _spine(report.measurement, shown), masked(nodes)
    rows = tuple(
        Row(
            number=number_,
            stats=node,
            forward=_decades(node.output, start, masked=node.name in hidden),
            contrast=None if node.name in hidden else _log_ratio(_contrast(node.output), start_contrast),
            backward=_decades(node.grad, end),
            findings=tuple(dict.fromkeys(finding.code for finding in by_place.get(node.name, []))),
            severity=by_place[node.name][0].severity if node.name in by_place else "",
            spine=node.name in spine,
        )
        for number_, node in enumerate(shown, start=1)
    )
    return View(
        report,
        rows,
        _sentence([row.forward for row in rows if row.spine], "signal", "input"),
        _contrast_sentence([row for row in rows if row.spine]),
        _sentence([row.backward for row in reversed(rows) if row.spine], "gradient", "output"),
        None if prediction is None else band(prediction, rows, enters),
        None if prediction is None else band(prediction, rows, leaves, backward=True),
    )


def _start(nodes: Sequence[NodeStats]) -> tuple[str, float]:
    """Where the signal enters, and its typical entry: the first real-valued input, else the first operation."""
    for node in nodes:
        if node.output.dtype.startswith(("float", "bfloat")) and node.output.q > 0.0:
            return node.name, node.output.rms
    return "", 1.0


def _end(measurement: Measurement) -> tuple[str, float]:
    """Where the gradient enters, and its typical entry: the model's (last) output."""
    by_name = {node.name: node for node in measurement.nodes}
    ends = [by_name[name] for name in measurement.outputs if name in by_name]
    for node in (*reversed(ends), *reversed(measurement.nodes)):
        if node.grad is not None and node.grad.q > 0.0:
            return node.name, node.grad.rms
    return "", 1.0


def _decades(stats: TensorStats | None, reference: float, *, masked: bool = False) -> float | None:
    """Of what a mask leaves, where minus infinity stands for what it hides."""
    if stats is None or not stats.dtype.startswith(("float", "bfloat")):
        return None
    return _log_ratio(stats.rms if stats.finite or masked else math.nan, reference)


def _contrast(stats: TensorStats) -> float | None:
    """Root mean square of what differs between samples; None where it was not measured."""
    if stats.sample_variance is None or not stats.dtype.startswith(("float", "bfloat")):
        return None
    return math.sqrt(stats.sample_variance) if stats.finite and stats.sample_variance >= 0.0 else math.nan


def _log_ratio(value: float | None, reference: float) -> float | None:
    if value is None or math.isnan(value):
        return value
    return math.log10(value) - math.log10(reference) if value > 0.0 else -math.inf


def _spine(measurement: Measurement, nodes: Sequence[NodeStats]) -> set[str]:
    """The operations that the walk's line joins.

    The sums of a residual network that every path goes through (those of attention's logits or of rotated queries are
    none), else all sums, else the operations with weight matrices, else all: a line through every operation would only
    show the saw teeth of linear map and activation.
    """
    sums = [node.name for node in nodes if node.op == "add" and len(set(node.inputs)) > 1]
    passed = {node.name for node in main_line(measurement)}
    weighted = [node.name for node in nodes if node.parameters and node.op not in ("layer_norm", "batch_norm")]
    for chosen in ([name for name in sums if name in passed], sums, weighted):
        if len(chosen) >= 3:
            return {*chosen, nodes[-1].name}
    return {node.name for node in nodes}


def _findings_by_place(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    order = {"error": 0, "warning": 1, "info": 2}
    places: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: order[finding.severity]):
        places.setdefault(finding.where, []).append(finding)
    return places


def _sentence(walk: Sequence[float | None], what: str, origin: str) -> str:
    """What a walk says in plain words, with its numbers."""
    seen = [value for value in walk if value is not None]
    if not seen:
        return f"No {what} was measured."
    sound = sum(1 for _ in dropwhile(lambda value: not value > -math.inf, reversed(seen)))
    if sound < len(seen):  # to the end: a path that starts at zero, such as a state, may join a living one
        broken = sound + 1
        state = "is no longer a finite number" if math.isnan(seen[broken - 1]) else "is exactly zero"
        return f"From step {broken} of {len(seen)} on, counted from the {origin}, the {what} {state}."
    total, steps = seen[-1], len(seen)
    if abs(total) < 0.5:
        return f"The {what} keeps its size: {factor(total)} from the {origin} through {steps} steps."
    change = f"grows to {ratio(total)} times" if total > 0 else f"shrinks to {ratio(total)} of"
    return (
        f"The {what} {change} its size on its way from the {origin} through {steps} "
        f"steps: {factor(total / steps)} per step."
    )


_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def _contrast_sentence(rows: Sequence[Row]) -> str:
    """What becomes of the differences between inputs; "" where they were not measured.

    Differences below 8 units of roundoff of the values that carry them are rounding errors, not signal.
    """
    if all(row.contrast is None for row in rows):
        return ""
    for step, row in enumerate(rows, start=1):
        spread, output = _contrast(row.stats.output), row.stats.output
        if spread is not None and output.q > 0.0 and spread <= 8.0 * _ROUNDOFF.get(output.dtype, 0.0) * output.rms:
            return (
                f"From step {step} of {len(rows)} on, what differs between inputs is smaller than rounding "
                "errors: the network gives the same answer to all of them."
            )
    return _sentence([row.contrast for row in rows], "difference between inputs", "input")
