"""What the verbs return: measurements, findings, reports. Frozen, torch-free, JSON round-trip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from firstlight.graph.measurement import Distribution as Distribution
from firstlight.graph.measurement import Measurement as Measurement
from firstlight.graph.measurement import NodeStats as NodeStats
from firstlight.graph.measurement import ParameterStats as ParameterStats
from firstlight.graph.measurement import TensorStats as TensorStats
from firstlight.graph.records import Written

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

Severity = Literal["info", "warning", "error"]
Verdict = Literal["starts", "at risk", "mis-scaled", "will not start"]


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
class Report(Written):
    """The verdict on one network as it is initialized now.

    Attributes:
        verdict: "starts", "at risk", "mis-scaled" or "will not start".
        p_start: Probability that the law from which the weights were drawn gives a network that can start.
        p_start_from: What it was worked out from, and how to get the other definition.
        findings: Worst first; the cause before its consequences.
        measurement: The evidence.
        headline: The verdict in one sentence.
    """

    verdict: Verdict
    p_start: float
    findings: tuple[Finding, ...]
    measurement: Measurement
    headline: str = ""
    p_start_from: str = ""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop training."""
        return tuple(f for f in self.findings if f.severity == "error")

    def to_frame(self) -> pd.DataFrame:
        """As a pandas DataFrame with one row per finding."""
        from firstlight.graph.report_view import report_frame

        return report_frame(self)

    def __rich__(self) -> RenderableType:
        """What rich prints: the verdict, why, and what to do."""
        from firstlight.graph.report_view import report_view

        return report_view(self)

    def __str__(self) -> str:
        """The same as plain text, 100 columns wide."""
        from firstlight.graph.report_view import plain_text

        return plain_text(self)
