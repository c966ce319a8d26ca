"""What the checks look at: one frozen record of numbers, made once, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from firstlight.graph.prediction import Comparison
from firstlight.graph.results import Measurement, NodeStats, ParameterStats

# Unit roundoff of the floating-point formats, and their largest and smallest normal numbers.
EPS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
LARGEST = {"float64": 1.8e308, "float32": 3.4e38, "float16": 65504.0, "bfloat16": 3.39e38}
# The steps in which numbers end at zero (subnormal): what is smaller than some of them is rounding error, of any size.
STEP = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}


# Passes with different dropout masks that `Probe.repeat` compares: the second number where the first is not enough.
REPEATS = (8, 32)


def repeat_error(entries: int, repeats: int = REPEATS[1]) -> float:
    """Standard error of the mean correlation between all pairs of `repeats` passes over `entries` outputs."""
    return 1.0 / math.sqrt(max(1, entries) * repeats * (repeats - 1) / 2)


# Operations that compute nothing: they look at a part of a tensor.
PARTS = frozenset(["getitem", "narrow", "select", "split", "chunk", "unbind", "diagonal", "as_strided"])


@dataclass(frozen=True, slots=True)
class InputFacts:
    """One input tensor of the batch.

    Attributes:
        name: Position or keyword under which the model gets it.
        shape: Sizes, batch first.
        dtype: "float32", "int64", ...
        mean: Mean entry.
        sd: Standard deviation of all entries.
        low: Smallest entry.
        high: Largest entry.
        non_finite: Entries that are NaN or infinite.
        spread: Root mean square of the entries' deviation from the batch mean (what differs between samples).
        feature_scale_ratio: Largest over median of the features' root mean squares; 1 where there is one feature.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float
    sd: float
    low: float
    high: float
    non_finite: int
    spread: float
    feature_scale_ratio: float = 1.0

    @property
    def floating(self) -> bool:
        """Whether it holds real numbers (not tokens, not a mask)."""
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def rms(self) -> float:
        """Root mean square of the entries."""
        return math.hypot(self.mean, self.sd)


@dataclass(frozen=True, slots=True)
class Softmax:
    """One softmax or log-softmax of the pass.

    Attributes:
        name: Its node.
        axis: The axis along which its exponentials add up to one, counted from the front.
        shape: Of its output.
        summed: Whether a product sums over an axis of its weights.
        matched: Whether one of these axes is `axis`.
        where: The first such product.
    """

    name: str
    axis: int
    shape: tuple[int, ...]
    summed: bool = False
    matched: bool = False
    where: str = ""


@dataclass(frozen=True, slots=True)
class Mixing:
    """What exchanging one sample does to the outputs of the others.

    Attributes:
        change: |difference|/|outputs| of the samples that stayed.
        time_first: The first module with `batch_first=False` that takes the batch's axis for time; "" without one.
        flat: Whether there is one row of outputs a sample, no sequence.
    """

    change: float
    time_first: str
    flat: bool


@dataclass(frozen=True, slots=True)
class Expected:
    """What the loss takes the outputs for, read off its gradient r = ∂L/∂f, and what they are.

    Attributes:
        classes: The axis along which it compares answers: the only one along which each line of r adds up to zero
            (cross entropy, r = p - y), or has one entry that is not zero (negative log-likelihood).
        logs: Whether it is the latter: f are taken for log-probabilities.
        ones: The axis along which the outputs, or their exponentials, add up to one; None where there is none.
        are: "probabilities", "log-probabilities" or "" for neither.
        closed: Share of |r|² at outputs that are exactly 0.
        shut: Classes whose output is exactly 0 for every sample.
        count: Number of classes.
    """

    classes: int
    logs: bool
    ones: int | None
    are: str
    closed: float
    shut: int
    count: int

    @property
    def as_expected(self) -> bool:
        """Whether the outputs add up to one along no axis but the classes', and are logarithms where these are due."""
        return self.ones in (None, self.classes) and (not self.logs or self.are == "log-probabilities")


@dataclass(frozen=True, slots=True)
class Pull:
    """How strongly the loss pulls on one parameter.

    With f the outputs, J their Jacobian, r = ∂L/∂f split into its mean over the samples and the rest r_c:

    Attributes:
        signal: |Jᵀ r_c|, the gradient by which the network would tell samples apart.
        constant: |Jᵀ u| for a cotangent u of the same norm that is the same for every sample: the gradient by which
            it would only shift its answer.
        entries: Number of entries.
        reach: Σ|g|·|g|/(|g|+1e-8) with g = Jᵀ r_c: loss decrease per unit learning rate of Adam's first step.
    """

    signal: float
    constant: float
    entries: int
    reach: float = 0.0


@dataclass(frozen=True, slots=True)
class Probe:
    """Extra passes at the drawn weights on a part of the batch; no optimizer step.

    Attributes:
        samples: Samples used.
        output_rms: Root mean square of the outputs f.
        output_spread: Root mean square of f minus its mean over the samples.
        outputs: Entries of f per sample.
        loss: The loss; None without one.
        loss_silent: Loss of the answer 0 for everything (a uniform guess for logits); None where not finite.
        loss_constant: Loss of the best answer that is the same for every sample; None where not found.
        loss_readout: Least loss of a linear read-out of the features as they are, with weights that the budget's steps
            can reach; None where more than it can move.
        loss_free: Least loss of any answers that the last operation can give; None below a tenth of the best constant
            answer's, and where the outputs' range is the line and answers better than the constant one were found.
        loss_linear: Least loss of any linear function of the inputs; None where the network is not linear.
        expected: What the loss takes the outputs for; None where that is no choice among classes.
        residual: |r_c|, the part of ∂L/∂f that differs between samples.
        residual_mean: |r - r_c|.
        pulls: By parameter name.
        trainable: Number of parameters that are to be trained.
        connected: Whether the loss has any gradient path to a trainable parameter.
        finite: Whether outputs, loss and all gradients are finite.
        usable: Whether there were outputs to differentiate; without them the measurement alone decides.
        repeat: Mean correlation over the samples between the outputs of passes with different dropout masks; None
            without dropout.
        agreement: Mean correlation between the gradients Jᵀ r_c of passes with different dropout masks; asked for only
            where their outputs have no more in common than chance, else None.
        moved: The same at a random nearby point that training can reach; None where not needed. It tells a saddle,
            which the first step leaves, from a network whose gradient is zero everywhere it can go.
        notes: What could not be done.
    """

    samples: int = 0
    output_rms: float = math.nan
    output_spread: float = math.nan
    outputs: int = 0
    loss: float | None = None
    loss_silent: float | None = None
    loss_constant: float | None = None
    loss_readout: float | None = None
    loss_free: float | None = None
    loss_linear: float | None = None
    expected: Expected | None = None
    residual: float = math.nan
    residual_mean: float = math.nan
    pulls: Mapping[str, Pull] = field(default_factory=lambda: MappingProxyType({}))
    trainable: int = 0
    connected: bool = True
    finite: bool = True
    usable: bool = True
    repeat: float | None = None
    agreement: float | None = None
    moved: Probe | None = None
    notes: tuple[str, ...] = ()

    @property
    def repeats(self) -> bool:
        """Whether passes with different dropout masks agree on the samples by more than three standard errors."""
        return self.repeat is None or self.repeat >= 3.0 * repeat_error(self.samples * self.outputs)

    @property
    def signal(self) -> float:
        """|Jᵀ r_c| over all parameters."""
        return math.hypot(*(p.signal for p in self.pulls.values())) if self.pulls else 0.0

    @property
    def constant(self) -> float:
        """|Jᵀ u| over all parameters."""
        return math.hypot(*(p.constant for p in self.pulls.values())) if self.pulls else 0.0

    @property
    def contrast(self) -> float:
        """|Jᵀ r_c| / |Jᵀ u|: square root of the tangent kernel's ratio between telling apart and shifting."""
        return self.signal / self.constant if self.constant > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class OptimizerFacts:
    """What the optimizer would do.

    Attributes:
        name: Class name.
        lr: Largest learning rate of its groups.
        held: Qualified names of the parameters that it holds.
        momentum: Largest momentum of its groups; 0 where it has none.
    """

    name: str
    lr: float
    held: frozenset[str]
    momentum: float = 0.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that the checks may look at.

    Attributes:
        measurement: One forward and backward pass on the real batch.
        inputs: Facts on the batch.
        probe: Extra passes at the drawn weights.
        optimizer: Facts on the optimizer, where one was given.
        comparison: Predicted beside measured, where theory was asked.
        law_p_start: P(start) of the law by `predict`, likewise.
        targets: Facts on the targets, where they were given beside the loss.
        unregistered: Attributes that hold modules in a plain list or dict: torch does not find their parameters.
        softmaxes: Each softmax of the pass, in execution order.
        mixing: Whether one sample's outputs depend on the others; None where that was not asked.
        time_first: Whether a recurrent or attention module of the model takes sequences with time along the first axis.
    """

    measurement: Measurement
    inputs: tuple[InputFacts, ...] = ()
    probe: Probe = field(default_factory=Probe)
    optimizer: OptimizerFacts | None = None
    comparison: Comparison | None = None
    law_p_start: float | None = None
    targets: InputFacts | None = None
    unregistered: tuple[str, ...] = ()
    softmaxes: tuple[Softmax, ...] = ()
    mixing: Mixing | None = None
    time_first: bool = False

    @property
    def nodes(self) -> tuple[NodeStats, ...]:
        """Operations in execution order."""
        return self.measurement.nodes

    @property
    def unwritten(self) -> frozenset[str]:
        """Parts, taken of tensors without NaN, that hold NaN: memory of `torch.empty` that is yet to be written to."""
        bad = {n.name for n in self.nodes if n.output.nan_count}
        return frozenset(
            n.name
            for n in self.nodes
            if n.name in bad and n.op in PARTS and not n.parameters and not any(name in bad for name in n.inputs)
        )

    @property
    def parameters(self) -> tuple[ParameterStats, ...]:
        """Parameters in the module's order."""
        return self.measurement.parameters

    @property
    def dtype(self) -> str:
        """The coarsest floating-point format of the activations."""
        seen = {n.output.dtype for n in self.nodes if n.output.dtype in EPS and n.op != "input"}
        return max(seen, key=lambda d: EPS[d]) if seen else "float32"

    @property
    def eps(self) -> float:
        """Unit roundoff of `dtype`."""
        return EPS[self.dtype]
