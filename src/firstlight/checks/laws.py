"""Checks on the laws of the weights: WGT005 to WGT008."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from firstlight.checks.blame import blame, fan_in
from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import decide
from firstlight.checks.mainline import REARRANGE, main_line
from firstlight.checks.phrases import factor, listed, number, severity
from firstlight.checks.registry import check
from firstlight.checks.zeros import matrices
from firstlight.graph.results import Finding, NodeStats, ParameterStats
from firstlight.theory import weights

_NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm")
_LAYERS = ("Linear", "Conv", "RNN", "LSTM", "GRU", "MultiheadAttention", "NonDynamicallyQuantizableLinear")


def gain_squared(p: ParameterStats) -> float:
    """g² = fan_in · (mean square of the entries): 1/3 for torch's default, 1 LeCun, 2 He."""
    return p.q * fan_in(p)


def layers(e: Evidence) -> list[ParameterStats]:
    """Matrices of linear, convolutional and recurrent layers that hold something (garbage is WGT002's)."""
    return [
        p
        for p in matrices(e)
        if p.q > 1e-60 and math.isfinite(p.q) and p.abs_max < 1e10 and any(k in p.module_type for k in _LAYERS)
    ]


@check("WGT005", stage=14)
def overwritten(e: Evidence) -> Iterator[Finding]:
    """The scale of one layer's weights fits no law, or not its siblings.

    What it measures:
        g² = fan_in·E w² of each matrix, against the named laws (1/3 torch's default, 1 LeCun, 2 He) and against the
        median of the network's layers.
    Why it matters:
        A layer multiplies the signal's mean square by about g²/2 (ReLU): a weight left at 1e-8 or overwritten by a
        checkpoint of another scale breaks the chain at one place, however good the others are.
    When it is harmless:
        In front of a normalisation, which takes the scale out again; in the last layer, where a small one is a choice;
        beside the main line (a residual branch, a gate with a bias of one), where a small one lets the signal by.
    Remedy:
        Draw it again: `firstlight.initialize(model, "he")`.
    Source:
        Length map of Poole et al. 1606.05340; the laws' variances: LeCun 1998, Glorot 2010, He 2015. The factor 100 in
        g² is ten in length, the failure of Hanin & Rolnick (1803.01719), against the nearest law.
    """
    fate, cause = decide(e), blame(e)
    ps = layers(e)
    if not ps:
        return
    logs = [math.log(gain_squared(p)) for p in ps]
    middle = statistics.median(logs)
    fatal_kind = cause.kind in ("tiny", "faded", "saturated", "dead", "offset") or fate.reason in (
        "exploded",
        "half",
    )
    for p, log in zip(ps, logs, strict=True):
        off_law = max(math.log(1.0 / 3.0) - log, log - math.log(2.0), 0.0)
        off_siblings = abs(log - middle)
        alone = len(ps) > 1 and off_siblings > math.log(100.0) and off_law > 0.5 * math.log(100.0)
        if not alone:
            continue
        last = p is ps[-1] and log < middle
        harmless = last or (log < middle and fate.starts and _passed_by(e, p))
        fatal = fatal_kind and not last and not fate.starts
        yield Finding(
            "WGT005", severity(fatal, "info" if harmless else "warning"), p.name,
            f"fan_in·E w² = {number(math.exp(log))}, {factor(math.exp(log - middle))} than in the layers beside it "
            f"({number(math.exp(middle))})",
            "within a factor of 100 of its siblings and of 1/3 to 2 (torch default to He)",
            "This layer was overwritten, loaded from elsewhere or never scaled as its module type implies.",
            'firstlight.initialize(model, "he")', f"puts its gain back from {number(math.exp(log))} to 2",
            {"gain_squared": math.exp(log), "median": math.exp(middle)},
        )  # fmt: skip


def _passed_by(e: Evidence, p: ParameterStats) -> bool:
    """Whether the signal is as large behind a layer as before it (a factor of 100 in its mean square) without its help.

    Before and behind are the stations of the main line around it; nothing passes by a layer that is a station itself.
    """
    line = {n.name for n in main_line(e.measurement)}
    users = [i for i, n in enumerate(e.nodes) if p.name in n.parameters]
    if not users or any(e.nodes[i].name in line for i in users):
        return False
    before = next((n for n in reversed(e.nodes[: users[0]]) if n.name in line), None)
    behind = next((n for n in e.nodes[users[-1] :] if n.name in line), None)
    return before is not None and behind is not None and behind.output.q > 0.01 * before.output.q


@check("WGT006", stage=15)
def biased_weights(e: Evidence) -> Iterator[Finding]:
    """Weights do not have mean zero.

    What it measures:
        fan_in·(mean entry)²/(variance): the share of the common part in what a layer sums up.
    Why it matters:
        All units then see the same sum over the inputs: outputs of all units agree, and a positive signal (after ReLU)
        grows by fan_in·mean per layer instead of √(fan_in·variance).
    When it is harmless:
        In tables, gains and attention masks; below 1 the random part dominates.
    Remedy:
        Draw with mean zero: `firstlight.initialize(model, "he")`.
    Source:
        The affine rule for weights of mean μ: q' = fan(s²+μ²)q + fan(fan-1)μ² r (mean field, e.g. 1606.05340 with
        μ ≠ 0). The threshold is where both terms are equal, and ten standard errors of the mean of a centred law.
    """
    fate, cause = decide(e), blame(e)
    hit: list[tuple[float, ParameterStats]] = []
    for p in layers(e):
        n = math.prod(p.shape)
        variance = max(p.q - p.mean**2, 0.0)
        share = fan_in(p) * p.mean**2 / max(variance, 1e-300)
        if share > 1.0 and n >= 16 and p.mean**2 > 100.0 * variance / n:
            hit.append((share, p))
    if not hit or len(hit) < 0.5 * len(layers(e)):
        return
    share, p = max(hit, key=lambda pair: pair[0])
    if p.structure == "constant":
        return  # identical units say it already
    fatal = not fate.starts and (
        fate.reason in ("exploded", "half", "slow") or cause.kind in ("faded", "saturated", "dead")
    )
    yield Finding(
        "WGT006", severity(fatal), p.name,
        f"mean entry {number(p.mean)} against a standard deviation of {number(math.sqrt(max(p.q - p.mean**2, 0.0)))}; "
        f"so in {len(hit)} matrices",
        "fan_in·mean² below the variance (affine rule of mean field)",
        "The weights share one sign: all units compute nearly the same sum, which grows from layer to layer.",
        'firstlight.initialize(model, "he")', "centres the weights at zero", {"share": share},
    )  # fmt: skip


@check("WGT007", stage=16)
def truncated(e: Evidence) -> Iterator[Finding]:
    """A truncated normal law without the correction of its variance.

    What it measures:
        Kurtosis near that of a normal cut at two standard deviations, and a variance 0.774 times a named law's.
    Why it matters:
        Each layer then loses 22.6 % of the signal's mean square: 20 layers keep 0.6 % of it.
    When it is harmless:
        In shallow networks, and with normalisation.
    Remedy:
        `firstlight.initialize(model, "he(distribution='truncated')")`, whose standard deviation is corrected.
    Source:
        Variance of N(0,1) cut to [-2, 2]: 0.7737413 (theory.weights); Hanin & Rolnick 1803.01719, figure 1.
    """
    kurtosis, variance = weights.truncated_normal_kurtosis(2.0), weights.truncated_normal_variance(2.0)
    hit: list[ParameterStats] = []
    for p in layers(e):
        n = math.prod(p.shape)
        if n < 256 or p.kurtosis is None:
            continue
        error = math.sqrt(24.0 / n)  # standard error of a kurtosis; 5 of them still tell it from a normal's 3
        ratio = gain_squared(p) / variance
        law = min((1.0, 2.0), key=lambda g: abs(math.log(ratio / g)))
        if abs(p.kurtosis - kurtosis) < min(5.0 * error, 0.3) and abs(ratio / law - 1.0) < 5.0 * math.sqrt(2.0 / n):
            hit.append(p)
    if len(hit) < 2:
        return
    left = variance ** len(hit)
    if left > 0.1:
        return
    yield Finding(
        "WGT007", severity(blame(e).kind == "faded"), hit[0].name,
        f"{len(hit)} matrices are cut at two standard deviations and not rescaled: {listed([p.name for p in hit])}",
        f"variance of the cut law {number(variance)}, kurtosis {number(kurtosis)} (theory.weights)",
        f"The signal's mean square is multiplied by {number(variance)} per layer, {number(left)} over all of them.",
        "firstlight.initialize(model, \"he(distribution='truncated')\")", f"lengths {number(1.0 / left)} times larger",
        {"left": left},
    )  # fmt: skip


def _sets_gate(e: Evidence, p: ParameterStats) -> bool:
    """Whether the units of a bias go through a sigmoid or softplus and then multiply others, as gates and steps do."""
    gates = _readers(e, [n for n in e.nodes if p.name in n.parameters], "add")
    if not gates or any(n.op not in ("sigmoid", "softplus") for n in gates):
        return False
    return all(n.op in _FACTORS and not n.parameters for n in _readers(e, gates))


_FACTORS = ("mul", "sub", "lerp", "exp")


def _readers(e: Evidence, front: list[NodeStats], *through: str) -> list[NodeStats]:
    """Who reads operations, behind what only rearranges entries and `through` some others."""
    found: list[NodeStats] = []
    names = {n.name for n in front}
    for n in e.nodes:  # in execution order: whoever passes a name on stands before those that read it
        if names.isdisjoint(n.inputs):
            continue
        if n.op in REARRANGE or n.op in through:
            names.add(n.name)
        else:
            found.append(n)
    return found


@check("WGT008", stage=17)
def vectors_off(e: Evidence) -> Iterator[Finding]:
    """Biases or normalisation gains are not of the law that their module type implies.

    What it measures:
        Root mean square of biases (0, or at most 1/√fan_in by torch's default) and of normalisation gains (1, or 0 on
        purpose).
    Why it matters:
        A bias far beyond the signal's size decides the unit alone: ReLU is dead or linear, tanh saturates, and the
        differences between samples drown.
    When it is harmless:
        In an output layer (class prior, mean of the targets), in gates (LSTM's forget bias 1, the step of a state
        space: what goes through sigmoid or softplus and then multiplies is not asked), after normalisation.
    Remedy:
        Biases back to 0, gains to 1: the line names them. `firstlight.initialize` does so too, and draws the weights.
    Source:
        Module documentation of torch.nn (Linear: U(±1/√fan_in)); the dying-ReLU condition of Lu et al. 1903.06733.
    """
    fate, cause = decide(e), blame(e)
    biases = [p for p in e.parameters if len(p.shape) == 1 and any(k in p.module_type for k in _LAYERS) and p.uses]
    big = [p for p in biases if math.sqrt(p.q) > 2.0 or p.abs_max > 20.0]
    last = biases[-1] if biases else None
    hidden = [p for p in big if p is not last and not _sets_gate(e, p)]
    head = [p for p in big if p is last and cause.kind in ("dead", "saturated")]
    gains = [p for p in e.parameters if len(p.shape) == 1 and any(k in p.module_type for k in _NORMS)]
    wild = [p for p in gains if math.sqrt(p.q) > 10.0]
    for group, what in ((hidden + head, "biases"), (wild, "normalisation parameters")):
        if group:
            worst = max(group, key=lambda p: p.q)
            fatal = not fate.starts and (
                cause.kind in ("dead", "saturated", "offset", "faded") or fate.reason == "exploded"
            )
            yield Finding(
                "WGT008", severity(fatal), worst.name,
                f"root mean square {number(math.sqrt(worst.q))}, mean {number(worst.mean)}; "
                f"so in {len(group)} of the {what}",
                "biases at most 2, gains at most 10 (modules draw 0 or U(±1/√fan_in), and 1)",
                "The constant decides the unit alone: it is dead, saturated or deaf to its input.",
                *_ordinary([p.name for p in group]),
                {"rms": math.sqrt(worst.q), "mean": worst.mean},
            )  # fmt: skip


def _ordinary(names: list[str]) -> tuple[str, str]:
    """A line that puts only these back to what modules begin with, where it can name them; and what it does."""
    biases = [name.rpartition(".")[2].startswith("bias") for name in names]
    if len(names) > _NAMED or len(set(biases)) > 1:
        return 'firstlight.initialize(model, "he")', "sets biases to 0 and gains to 1"
    init = f"torch.nn.init.{'zeros_' if biases[0] else 'ones_'}(model.get_parameter"
    if len(names) == 1:
        return f"{init}({names[0]!r}))", "leaves the weights as they are"
    return f"for name in {tuple(names)!r}: {init}(name))", "leaves the weights as they are"


_NAMED = 4
