"""What `predict` returns: statistics of every tensor under the law of its weights, before any weight is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import NormalDist
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from firstlight.errors import InputError
from firstlight.graph.records import Written
from firstlight.graph.sweep import Advice, Sweep, SweepRow, search

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

_NORMAL = NormalDist()


def normal_cdf(x: float) -> float:
    """Φ(x)."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def normal_quantile(p: float) -> float:
    """Φ⁻¹(p) for 0 < p < 1."""
    return _NORMAL.inv_cdf(p)


@dataclass(frozen=True, slots=True)
class TensorPrediction:
    """Statistics of one tensor over draws of the weights.

    Attributes:
        mean: Mean entry.
        q: Mean square of the entries, averaged over draws.
        c_batch: Correlation of the same entry between two samples, E x x'/√(E x² E x'²), of moments over draws: what
            sums need. The mean cosine of one draw, which a measurement has, is another number where lengths scatter.
            None with one sample.
        c_position: The same between two positions of one sample; None where there are none.
        c_feature: The same between two units at one place; None where there is one.
        log_mean: Mean over draws of ln of the mean square.
        log_sd: Standard deviation over draws of it.
        reference: ln of the mean square at the signal's origin: the input's going forward, the outputs' gradient's
            going backward.
        p_dead: Probability that every entry is exactly zero.
    """

    mean: float
    q: float
    c_batch: float | None
    c_position: float | None
    c_feature: float | None
    log_mean: float
    log_sd: float
    reference: float
    p_dead: float = 0.0

    def quantile(self, p: float) -> float:
        """Quantile over draws of ln of the mean square (log-normal law)."""
        if not 0.0 < p < 1.0:
            raise InputError("quantile, p", got=repr(p), expected="a probability between 0 and 1")
        return self.log_mean + self.log_sd * normal_quantile(p)

    def p_off(self, factor: float = 10.0, reference: float | None = None, below: float | None = None) -> float:
        """Probability that the mean square is off from the reference by more than `factor` either way.

        Args:
            factor: > 1.
            reference: ln of a mean square; by default that of the signal's origin.
            below: Factor (> 1) for mean squares below the reference, where it is another one.
        """
        low = factor if below is None else below
        if not min(factor, low) > 1.0:
            raise InputError("p_off, factor", got=repr(min(factor, low)), expected="a number > 1")
        if not math.isfinite(self.log_mean):
            return 1.0
        shift = self.log_mean - (self.reference if reference is None else reference)
        top, bottom = math.log(factor), -math.log(low)
        if self.log_sd <= 0.0:
            return self.p_dead if bottom <= shift <= top else 1.0
        inside = normal_cdf((top - shift) / self.log_sd) - normal_cdf((bottom - shift) / self.log_sd)
        return min(1.0, max(0.0, 1.0 - inside * (1.0 - self.p_dead)))


@dataclass(frozen=True, slots=True)
class NodePrediction:
    """One operation: what comes out of it, and the gradient that comes back to that output.

    Attributes:
        name: The node's name, the same as in the graph and in measurements.
        op: Canonical operation.
        module: Path of the innermost module; "" for the root.
        module_type: Its class name.
        source: "file.py:12".
        shape: Sizes of the first output.
        output: Statistics of the first output.
        grad: Statistics of ∂loss/∂output; None where no gradient arrives.
        caveats: Which assumption of the rule does not hold here.
    """

    name: str
    op: str
    module: str
    module_type: str
    source: str
    shape: tuple[int, ...]
    output: TensorPrediction
    grad: TensorPrediction | None = None
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParameterPrediction:
    """One parameter: the law of its entries and its gradient.

    Attributes:
        name: Qualified name.
        shape: Sizes.
        q: Mean square of the entries.
        grad_q: Mean square of its gradient; None where none arrives.
        law: Where the law comes from.
    """

    name: str
    shape: tuple[int, ...]
    q: float
    grad_q: float | None
    law: str


@dataclass(frozen=True, slots=True)
class Start:
    """The probability over draws of the weights that nothing stands in the way of a start (docs/signal.md §6).

    No tensor's mean square is far larger than the input's and no output is huge; no smallest step of a weight matrix
    throws the outputs about; no layer is dead; the gradients come to tell samples apart; no entry leaves the compute
    type's range.
    The edges are soft: how far beyond one a network still starts depends on data, optimizer and budget.

    Attributes:
        p: The probability.
        limit: What limits it, in a few words.
        where: The node that limits it; "" where nothing does.
        parts: Probability of each condition: "forward", "backward", "alive", "distinguishable", "range".
    """

    p: float
    limit: str
    where: str = ""
    parts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Prediction(Written):
    """Forward and backward statistics of every tensor of a network under a law of its weights.

    Attributes:
        model: Class name of the root module.
        scheme: "live weights", or the scheme's spec.
        nodes: In execution order; inputs first.
        parameters: In the graph's order.
        start: Probability of a start and what limits it.
        training: Mode of the pass.
        dtype: Compute type whose range `start` looks at.
        outputs: Names of the nodes whose outputs the model returns.
        notes: What was assumed, in plain words.
    """

    model: str
    scheme: str
    nodes: tuple[NodePrediction, ...]
    parameters: tuple[ParameterPrediction, ...]
    start: Start
    training: bool = True
    dtype: str = "float32"
    outputs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def p_start(self) -> float:
        """`start.p`."""
        return self.start.p

    def __getitem__(self, name: str) -> NodePrediction:
        """Look up an operation by name.

        Raises:
            KeyError: If no operation has that name.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def p_off(self, factor: float = 10.0) -> float:
        """Probability that the (first) output's mean square is off from the input's by more than `factor`."""
        target = self[self.outputs[0]] if self.outputs else self.nodes[-1]
        return target.output.p_off(factor)

    def _again(self, verb: str) -> Callable[..., Prediction]:
        """The function that predicts once more with other arguments of the factory."""
        again: Callable[..., Prediction] | None = self.__dict__.get("again")
        if again is None:
            raise InputError(
                verb,
                got="a prediction of one module",
                expected="a prediction made from a factory",
                action="Call predict(factory, inputs, ...) with a function that builds the model from such arguments.",
            )
        return again

    def advise(self, *names: str, goal: float = 0.9) -> tuple[Advice, ...]:
        """Which single change of a factory's numeric argument makes a start likely, with its predicted effect.

        Args:
            *names: Arguments to try; by default all that have a number above zero as default.
            goal: P(start) to reach, between 0 and 1.

        Returns:
            One piece of advice per argument, the most helpful first; print them.

        Raises:
            InputError: If the prediction was not made from a factory, or an argument has no such default.
        """
        again = self._again("advise")
        known: Mapping[str, float] = getattr(again, "defaults", {})
        unknown = [n for n in names if n not in known]
        if unknown or not 0.0 < goal <= 1.0:
            raise InputError(
                "advise",
                got=", ".join(unknown) or f"goal={goal}",
                expected=f"arguments with a number as default ({', '.join(known) or 'none'}), a goal in (0, 1]",
            )

        def probe(name: str) -> Callable[[float], float]:
            return lambda value: again(**{name: value}).p_start

        found = [search(n, known[n], self.p_start, probe(n), goal) for n in names or known]
        return tuple(sorted(found, key=lambda a: -a.p_after))

    def sweep(self, **grid: Sequence[Any]) -> Sweep:
        """Predict again for every combination of the factory's arguments (and of `scheme`).

        Args:
            **grid: Values per argument, for example ``depth=(10, 50), width=(64, 256), scheme=("he", "xavier")``.

        Raises:
            InputError: If the prediction was not made from a factory.
        """
        again = self._again("sweep")
        rows: list[SweepRow] = []
        for values in product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            p = again(**chosen)
            first = p[p.outputs[0]] if p.outputs else p.nodes[-1]
            back = next((n.grad for n in p.nodes if n.op != "input" and n.grad is not None), None)
            rows.append(
                SweepRow(
                    {k: v if isinstance(v, int | float | str) else str(v) for k, v in chosen.items()},
                    p.p_start,
                    p.start.limit,
                    first.output.q,
                    first.output.log_sd,
                    back.q if back else math.nan,
                    back.log_sd if back else math.nan,
                )
            )
        return Sweep(tuple(grid), tuple(rows))

    def to_frame(self) -> pd.DataFrame:
        """As a pandas DataFrame with one row per operation."""
        from firstlight.graph.prediction_tables import prediction_frame

        return prediction_frame(self)

    def to_html(self) -> str:
        """As one self-contained HTML page."""
        from firstlight.graph.prediction_tables import prediction_html

        return prediction_html(self)

    def __rich__(self) -> RenderableType:
        """The table that rich prints."""
        from firstlight.graph.prediction_tables import PredictionView

        return PredictionView(self)

    def __str__(self) -> str:
        """The same table as plain text, 100 columns wide."""
        from firstlight.graph.terminal import plain

        return plain(self)


@dataclass(frozen=True, slots=True)
class ComparedNode:
    """One operation, predicted and measured.

    Attributes:
        node: Name.
        module: Path of the innermost module.
        op: Canonical operation.
        q_predicted: Mean square, averaged over draws.
        q_measured: Mean square, averaged over the measured draws.
        q_z: (measured - predicted) of ln q in standard deviations of what sampling explains.
        c_predicted: Cosine between samples.
        c_measured: The same, measured (averaged over the measured draws).
        grad_q_predicted: Mean square of the gradient.
        grad_q_measured: The same, measured.
        grad_q_z: z-score of the gradient's ln q.
        caveats: What the prediction had to assume here.
    """

    node: str
    module: str
    op: str
    q_predicted: float
    q_measured: float
    q_z: float
    c_predicted: float | None
    c_measured: float | None
    grad_q_predicted: float | None
    grad_q_measured: float | None
    grad_q_z: float | None
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Predicted beside measured, operation by operation.

    Attributes:
        nodes: Operations that both know, in execution order.
        only_predicted: Names that the measurement does not have.
        only_measured: Names that the prediction does not have.
        draws: Number of measured draws.
    """

    nodes: tuple[ComparedNode, ...]
    only_predicted: tuple[str, ...] = ()
    only_measured: tuple[str, ...] = ()
    draws: int = 1

    @property
    def worst(self) -> tuple[ComparedNode, ...]:
        """Operations by the larger of both |z|, largest first."""

        def size(n: ComparedNode) -> float:
            scores = [abs(z) for z in (n.q_z, n.grad_q_z) if z is not None and math.isfinite(z)]
            return -max(scores, default=0.0)

        return tuple(sorted(self.nodes, key=size))

    def to_frame(self) -> pd.DataFrame:
        """As a pandas DataFrame with one row per operation."""
        from firstlight.graph.prediction_tables import comparison_frame

        return comparison_frame(self)

    def to_json(self, indent: int | None = None) -> str:
        """As JSON."""
        from firstlight.graph.records import to_json

        return to_json(self, indent)

    def __rich__(self) -> RenderableType:
        """The table that rich prints."""
        from firstlight.graph.prediction_tables import ComparisonView

        return ComparisonView(self)

    def __str__(self) -> str:
        """The same table as plain text, 100 columns wide."""
        from firstlight.graph.terminal import plain

        return plain(self)
