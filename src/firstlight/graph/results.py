"""What the verbs return: measurements, findings, reports. Frozen, torch-free, JSON round-trip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Severity = Literal["info", "warning", "error"]
Verdict = Literal["starts", "at risk", "mis-scaled", "will not start"]


@dataclass(frozen=True, slots=True)
class TensorStats:
    """Statistics of one tensor (an activation, a gradient).

    Attributes:
        shape: Sizes.
        dtype: "float32", ...
        mean: Mean entry m.
        q: Mean square of the entries (Poole et al.: length).
        abs_max: Largest absolute entry.
        zero_fraction: Share of entries that are exactly zero.
        units: Number of units: channels of a conv map, features otherwise.
        dead_units: Units that are exactly zero for every sample and position of the batch.
        saturated_fraction: Share of entries on a flat piece of a bounded non-linearity; None where it has none.
        cosine: Mean cosine between the tensors of different samples; None with fewer than two samples.
        nan_count: Entries that are NaN.
        inf_count: Entries that are infinite.
        sampled: True where shares and cosine come from a sample of the entries, not all of them.
    """

    shape: tuple[int, ...]
    dtype: str
    mean: float
    q: float
    abs_max: float
    zero_fraction: float
    units: int
    dead_units: int
    saturated_fraction: float | None
    cosine: float | None
    nan_count: int
    inf_count: int
    sampled: bool = False

    @property
    def finite(self) -> bool:
        """Whether every entry is finite."""
        return self.nan_count == 0 and self.inf_count == 0


@dataclass(frozen=True, slots=True)
class NodeStats:
    """One operation of the forward pass: what came out of it, and the gradient that came back to that output.

    Attributes:
        name: The node's name, the same as in the `Graph`.
        op: Canonical operation.
        module: Path of the innermost module; "" for the root.
        module_type: Its class name.
        source: "file.py:12".
        output: Statistics of the (first floating-point) output.
        grad: Statistics of ∂loss/∂output; None where no gradient arrived.
        inputs: Names of the nodes whose outputs it read.
        parameters: Qualified names of the parameters it read directly.
    """

    name: str
    op: str
    module: str
    module_type: str
    source: str
    output: TensorStats
    grad: TensorStats | None
    inputs: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParameterStats:
    """One parameter: its entries and its gradient.

    Attributes:
        name: Qualified name.
        shape: Sizes.
        dtype: "float32", ...
        module_type: Class of the owning module.
        requires_grad: Whether it is trained.
        mean: Mean entry.
        q: Mean square of the entries.
        kurtosis: E w⁴/(E w²)² of the centred entries; None for constant or single-entry tensors.
        zero_fraction: Share of exact zeros.
        nan_count: Entries that are NaN.
        inf_count: Entries that are infinite.
        duplicate_rows: Rows (first axis) that equal an earlier row bit for bit: identical units.
        aliases: Further names of the same tensor.
        uses: How many operations read it in the forward pass.
        grad_q: Mean square of its gradient; None where no gradient arrived.
        grad_abs_max: Largest absolute gradient entry; None likewise.
        grad_zero_fraction: Share of gradient entries that are exactly zero; None likewise.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    module_type: str
    requires_grad: bool
    mean: float
    q: float
    kurtosis: float | None
    zero_fraction: float
    nan_count: int
    inf_count: int
    duplicate_rows: int
    aliases: tuple[str, ...] = ()
    uses: int = 1
    grad_q: float | None = None
    grad_abs_max: float | None = None
    grad_zero_fraction: float | None = None

    @property
    def received_grad(self) -> bool:
        """Whether any gradient, even a zero one, arrived."""
        return self.grad_q is not None

    @property
    def grad_ratio(self) -> float | None:
        """sqrt(grad_q / q): how far one step of size 1 would move it, relative to itself."""
        if self.grad_q is None or self.q <= 0.0:
            return None
        return (self.grad_q / self.q) ** 0.5


@dataclass(frozen=True, slots=True)
class Measurement:
    """One forward and one backward pass of a real module on a real batch.

    Attributes:
        model: Class name of the root module.
        nodes: In execution order; inputs first (op "input").
        parameters: In the order of ``named_parameters()``.
        loss: Value of the loss that was differentiated.
        loss_kind: "random cotangent", or the name of the callable.
        training: Mode in which the pass ran.
        batch_size: Number of samples.
        device: Where it ran.
        notes: What was done or could not be seen, in plain words.
    """

    model: str
    nodes: tuple[NodeStats, ...]
    parameters: tuple[ParameterStats, ...]
    loss: float
    loss_kind: str
    training: bool
    batch_size: int
    device: str = "cpu"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or could be, with the evidence for it.

    Attributes:
        code: Stable identifier, "FWD001".
        severity: "error" stops training, "warning" endangers it, "info" is worth knowing.
        where: Node, parameter or module path; "" for the network as a whole.
        measured: The evidence, as a short text with its number and unit.
        threshold: The number it was held against and where that number comes from.
        meaning: What it means, in plain words.
        remedy: One line of code that mends it; "" where there is none.
        effect: What the remedy is predicted to change, in words with numbers; "" where not predicted.
        evidence: The numbers behind `measured`, for machines.
    """

    code: str
    severity: Severity
    where: str
    measured: str
    threshold: str
    meaning: str
    remedy: str = ""
    effect: str = ""
    evidence: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on one network as it is initialized now.

    Attributes:
        verdict: "starts", "at risk", "mis-scaled" or "will not start".
        p_start: Probability that the law from which the weights were drawn gives a network that can start.
        findings: Worst first; the cause before its consequences.
        measurement: The evidence.
        headline: The verdict in one sentence.
    """

    verdict: Verdict
    p_start: float
    findings: tuple[Finding, ...]
    measurement: Measurement
    headline: str = ""
