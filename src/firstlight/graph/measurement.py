"""What `measure` returns: statistics of every tensor of one pass. Frozen, torch-free, JSON round-trip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from firstlight.graph.records import Written

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

# Largest finite value and smallest positive (subnormal) value of the half-precision formats.
FP16_MAX, FP16_TINY = 65504.0, 2.0**-24
BF16_MAX, BF16_TINY = 3.3895313892515355e38, 2.0**-133


@dataclass(frozen=True, slots=True)
class TensorStats:
    """Statistics of one tensor (an activation, a gradient).

    `mean`, `q` and `abs_max` are taken over the finite entries (nan where there is none); NaN and Inf are counted.
    The shares, `cosine` and `sample_variance` come from at most 16 samples × 256 entries where `sampled` is True:
    then a share p has the standard error √(p(1-p)/4096) (entries of one unit are correlated, so it can be larger),
    and a cosine c about (1-c²)/√256.

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
        sample_variance: Variance of the same entry between samples (unbiased, mean over entries): the part of q that
            depends on the input; None with fewer than two samples.
        flushed_fp16: Share of the non-zero entries that half precision would round to zero.
        dead_index: The first (at most 16) dead units.
        unit_axis: Axis along which the units lie.
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
    sample_variance: float | None = None
    flushed_fp16: float = 0.0
    dead_index: tuple[int, ...] = ()
    unit_axis: int = -1

    @property
    def finite(self) -> bool:
        """Whether every entry is finite."""
        return self.nan_count == 0 and self.inf_count == 0

    @property
    def rms(self) -> float:
        """√q, the typical size of an entry."""
        return math.sqrt(self.q) if self.q >= 0.0 else math.nan

    @property
    def fp16_overflow(self) -> float:
        """Decades between the largest entry and fp16's largest value; negative where it would overflow."""
        return _decades(FP16_MAX, self.abs_max)

    @property
    def bf16_overflow(self) -> float:
        """Decades between the largest entry and bf16's largest value; negative where it would overflow."""
        return _decades(BF16_MAX, self.abs_max)

    @property
    def fp16_underflow(self) -> float:
        """Decades between the typical entry and fp16's smallest positive value; negative where it would vanish."""
        return _decades(self.rms, FP16_TINY)

    @property
    def bf16_underflow(self) -> float:
        """Decades between the typical entry and bf16's smallest positive value; negative where it would vanish."""
        return _decades(self.rms, BF16_TINY)


def _decades(above: float, below: float) -> float:
    """log10(above / below), without overflow: inf where below is 0, -inf where above is 0, nan passed on."""
    if math.isnan(above) or math.isnan(below):
        return math.nan
    if below == 0.0 or above == math.inf:
        return math.inf
    if above == 0.0 or below == math.inf:
        return -math.inf
    return math.log10(above) - math.log10(below)


@dataclass(frozen=True, slots=True)
class Distribution:
    """A quantity over the K draws of the weights.

    Attributes:
        values: One per draw, in the order of the draws; -inf for the logarithm of zero, nan where nothing arrived.
        reference: The value of the same quantity at the signal's origin in each draw (ln q of the first input going
            forward, of the gradient at the outputs going backward); empty where there is none.
    """

    values: tuple[float, ...]
    reference: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over the draws with a finite value; nan without any."""
        finite = self._finite()
        return sum(finite) / len(finite) if finite else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation (n-1) over the draws with a finite value; nan with fewer than two."""
        finite = self._finite()
        if len(finite) < 2:
            return math.nan
        m = sum(finite) / len(finite)
        return math.sqrt(sum((v - m) ** 2 for v in finite) / (len(finite) - 1))

    @property
    def standard_error(self) -> float:
        """Standard error of `mean`."""
        n = len(self._finite())
        return self.sd / math.sqrt(n) if n else math.nan

    def quantile(self, p: float) -> float:
        """Empirical quantile by linear interpolation; draws at -inf (dead) count as the smallest, nan is left out."""
        ordered = sorted(v for v in self.values if not math.isnan(v))
        if not ordered:
            return math.nan
        position = p * (len(ordered) - 1)
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        if ordered[low] == ordered[high] or position == low:
            return ordered[low]
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])

    def p_off(self, factor: float = 10.0) -> float:
        """Share of the draws in which exp(value) is off from its reference by more than `factor` either way.

        Dead, overflowed and missing draws are off. Standard error √(p(1-p)/K). Without a reference it is 0 (ln 1).
        """
        if not self.values:
            return math.nan
        reference = self.reference or (0.0,) * len(self.values)
        limit = math.log(factor)
        within = sum(abs(v - r) <= limit for v, r in zip(self.values, reference, strict=True))
        return 1.0 - within / len(self.values)

    def _finite(self) -> list[float]:
        return [v for v in self.values if math.isfinite(v)]


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
        log_q: ln q of the output over the draws; None unless ``draws > 1``.
        log_grad_q: ln q of the gradient over the draws; None unless ``draws > 1``.
        cosines: Mean cosine between samples of the output over the draws; None unless ``draws > 1``.
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
    log_q: Distribution | None = None
    log_grad_q: Distribution | None = None
    cosines: Distribution | None = None


@dataclass(frozen=True, slots=True)
class ParameterStats:
    """One parameter: its entries and its gradient.

    `mean`, `q`, `abs_max` and the gradient's numbers are taken over the finite entries.

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
        repeats_apart: How much of the gradient's mean square tells such rows apart: 0 where they stay alike; None
            without repeated rows or without a gradient.
        aliases: Further names of the same tensor.
        uses: How many operations read it in the forward pass.
        grad_q: Mean square of its gradient; None where no gradient arrived.
        grad_abs_max: Largest absolute gradient entry; None likewise.
        grad_zero_fraction: Share of gradient entries that are exactly zero; None likewise.
        abs_max: Largest absolute entry.
        subnormal_fraction: Share of the non-zero entries below the format's smallest normal number: memory garbage.
        distinct_fraction: Distinct values among the entries (of a contiguous block of at most 4096), as a share:
            about 1 for a drawn weight, small for constants and repeated blocks.
        structure: "constant", "orthogonal" (rows or columns orthonormal up to scale), "identical rows" or "iid".
        grad_nan_count: Gradient entries that are NaN.
        grad_inf_count: Gradient entries that are infinite.
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
    abs_max: float = 0.0
    subnormal_fraction: float = 0.0
    distinct_fraction: float = 1.0
    structure: str = "iid"
    grad_nan_count: int = 0
    grad_inf_count: int = 0
    repeats_apart: float | None = None

    @property
    def received_grad(self) -> bool:
        """Whether any gradient, even a zero one, arrived."""
        return self.grad_q is not None

    @property
    def tied(self) -> bool:
        """Whether the same tensor stands under several names."""
        return bool(self.aliases)

    @property
    def grad_ratio(self) -> float | None:
        """sqrt(grad_q / q): how far one step of size 1 would move it, relative to itself."""
        if self.grad_q is None or not self.q > 0.0:
            return None
        return math.sqrt(self.grad_q) / math.sqrt(self.q)


@dataclass(frozen=True, slots=True)
class Measurement(Written):
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
        draws: Number of weight draws behind the distributions; 1 for the live weights alone.
        draw_law: "live weights", "empirical law of each parameter", or a scheme's name.
        outputs: Names of the nodes whose outputs the model returned.
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
    draws: int = 1
    draw_law: str = "live weights"
    outputs: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> NodeStats:
        """Look up an operation by name.

        Raises:
            KeyError: If no operation has that name.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def to_frame(self, table: Literal["nodes", "parameters"] = "nodes") -> pd.DataFrame:
        """As a pandas DataFrame with one row per operation (or per parameter)."""
        from firstlight.graph.tables import measurement_frame

        return measurement_frame(self, table)

    def __rich__(self) -> RenderableType:
        """The table that rich prints."""
        from firstlight.graph.tables import MeasurementView

        return MeasurementView(self)

    def __str__(self) -> str:
        """The same table as plain text, 100 columns wide."""
        from firstlight.graph.tables import plain_text

        return plain_text(self)
