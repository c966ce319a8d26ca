"""Checks on weights that are zero, constant or identical: WGT001 to WGT004."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.checks.blame import blame, fan_in
from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import decide
from firstlight.checks.mainline import REARRANGE
from firstlight.checks.phrases import counted, listed, number, severity
from firstlight.checks.registry import check
from firstlight.graph.results import Finding, ParameterStats


def matrices(e: Evidence) -> list[ParameterStats]:
    """Weight matrices, kernels and tables with more than one entry."""
    return [p for p in e.parameters if len(p.shape) > 1 and max(p.shape) > 1]


@check("WGT001", stage=10)
def non_finite_weights(e: Evidence) -> Iterator[Finding]:
    """A parameter holds NaN or infinite entries.

    What it measures:
        Counts entries that are not finite.
    Why it matters:
        They reach every output and every gradient.
    When it is harmless:
        Never for a parameter that is read.
    Remedy:
        Draw it again: `firstlight.initialize(model, "he")`.
    Source:
        IEEE 754 arithmetic.
    """
    bad = [p for p in e.parameters if (p.nan_count or p.inf_count) and not _never_filled(p)]
    for p in bad:
        yield Finding(
            "WGT001", "error" if p.uses else "warning", p.name,
            f"{p.nan_count} NaN and {p.inf_count} infinite of {_count(p)} entries", "0 (IEEE 754)",
            "The weights are broken: memory that was never filled, or the end of a diverged run.",
            'firstlight.initialize(model, "he")',
        )  # fmt: skip


@check("WGT002", stage=11)
def never_initialised(e: Evidence) -> Iterator[Finding]:
    """A parameter looks like memory that was never filled.

    What it measures:
        Subnormal entries, entries beyond 1e10, and repeated blocks of values: what `torch.empty` and `to_empty` leave.
    Why it matters:
        The values are whatever the allocator last held: zeros in one process, 1e28 in the next.
    When it is harmless:
        In a parameter that is loaded or overwritten before training.
    Remedy:
        Draw it: `firstlight.initialize(model, "he")`; after `to_empty`, call `reset_parameters` of every module.
    Source:
        A normal or uniform law of standard deviation s gives a subnormal float32 with probability below 1e-37/s, an
        entry beyond 1e10 s never, and equal entries only by rounding.
    """
    fate = decide(e)
    for p in e.parameters:
        if _count(p) < 2 or ((p.nan_count or p.inf_count) and not _never_filled(p)):
            continue
        signs: list[str] = []
        if p.subnormal_fraction > 0.0 and p.dtype != "float16":  # binary16 is subnormal from 6e-5 on
            signs.append(f"{100 * p.subnormal_fraction:.3g} % of the non-zero entries are subnormal")
        if p.abs_max > 1e10:
            signs.append(f"the largest entry is {number(p.abs_max)}")
        if signs and p.nan_count:
            signs.append(f"{p.nan_count} are NaN")
        if signs and _count(p) > 64 and p.distinct_fraction < 0.25 and p.structure != "constant":
            signs.append(f"only {100 * p.distinct_fraction:.3g} % of the entries are distinct")
        if signs:
            fatal = not fate.starts
            yield Finding(
                "WGT002", severity(fatal), p.name, "; ".join(signs),
                "0 subnormal, nothing beyond 1e10 (a drawn law gives neither)",
                "This is what torch.empty() leaves in memory: the parameter was never initialized.",
                'firstlight.initialize(model, "he")',
            )  # fmt: skip


@check("WGT003", stage=12)
def zero_weights(e: Evidence) -> Iterator[Finding]:
    """Weight matrices are zero throughout.

    What it measures:
        Matrices with only zero entries; whether the loss' gradient, here or at a random nearby point that training
        reaches, can tell samples apart.
    Why it matters:
        Behind a zero matrix nothing of the input is left, and no gradient passes it. If two factors of one product are
        zero the gradient of both is zero for ever: the network sits on a saddle that no step leaves.
    When it is harmless:
        If the matrix itself gets a gradient: a zero classifier, the last layer of a residual branch (Fixup, SkipInit),
        LoRA's B. The first step makes it non-zero. Reported as information then. What is only added to the signal or
        put beside it (class tokens, tables of positions) is no factor, and is not asked.
    Remedy:
        Draw the fatal one: `firstlight.initialize(model, "he")`.
    Source:
        Zhang et al. 1901.09321 (Fixup), Hu et al. 2106.09685 (LoRA). A polynomial that is zero at a random point is
        zero everywhere with probability one (Schwartz, Zippel), so one nearby point decides.
    """
    zero = [p for p in matrices(e) if p.zero_fraction == 1.0 and p.uses and not _only_added(e, p)]
    if not zero:
        return
    fate, cause = decide(e), blame(e)
    fatal = not fate.starts and fate.reason in ("silent", "disconnected", "slow") and cause.kind in ("zero", "gradient")
    where = cause.parameter.name if cause.parameter is not None and cause.kind == "zero" else zero[0].name
    names = listed([p.name for p in zero])
    what = f"{counted(len(zero), 'weight matrix is', 'weight matrices are')} zero: {names}"
    if fatal:
        yield Finding(
            "WGT003", "error", where, what,
            "a gradient that tells samples apart, here or after the first step (saddle test)",
            "A product of zeros: nothing of the input passes, and no gradient will ever change that.",
            'firstlight.initialize(model, "he")', "the gradient reaches every layer",
            {"zero_matrices": float(len(zero))},
        )  # fmt: skip
    else:
        many = len(zero) == len(matrices(e)) and len(zero) > 1
        yield Finding(
            "WGT003", "warning" if many else "info", where, what,
            "a gradient reaches them, or will after the first step (saddle test)",
            "All weights start at zero: training has to leave a saddle first, with identical units."
            if many else "Zero on purpose or by luck: the first step makes them non-zero, so this is harmless.",
            'firstlight.initialize(model, "he")' if many else "",
        )  # fmt: skip


@check("WGT004", stage=13)
def identical_units(e: Evidence) -> Iterator[Finding]:
    """Units of a layer are identical.

    What it measures:
        Rows of a weight matrix that equal an earlier row bit for bit (zero matrices are WGT003's).
    Why it matters:
        Identical units with identical outgoing weights receive identical gradients and stay identical: the layer is
        one unit wide. Bit-identical shards of a distributed tensor are the same mistake.
    When it is harmless:
        If dropout or the outgoing weights differ from unit to unit, so do the gradients of repeated rows: the first
        steps separate them, and it is reported as information. Tensors that no product of matrices reads (decay rates
        of state spaces, position tables, deviations of a posterior) are no units, and are not asked.
    Remedy:
        Draw the weights: `firstlight.initialize(model, "he", seed=0)`.
    Source:
        Goodfellow et al., Deep Learning (2016), §8.4: initialization must break symmetry between units.
    """
    fate = decide(e)
    drawn = [p for p in matrices(e) if p.duplicate_rows and p.q > 1e-60 and p.module_type != "Embedding"]
    hit = [p for p in drawn if p.duplicate_rows >= 0.5 * (p.shape[0] - 1) or p.duplicate_rows > 8]
    hit = [p for p in hit if not _entrywise(e, p)]
    if not hit:
        return
    apart = {p.name for p in hit if p.repeats_apart is not None and p.repeats_apart > _SEPARATED}
    stays = [p for p in hit if p.name not in apart]
    worst = max(stays or hit, key=lambda p: p.duplicate_rows / p.shape[0])
    constant = [p for p in hit if p.structure == "constant"]
    fatal = not fate.starts and worst.duplicate_rows == worst.shape[0] - 1
    if fate.starts and not stays:
        yield Finding(
            "WGT004", "info", worst.name,
            f"{worst.duplicate_rows + 1} of {worst.shape[0]} rows are identical, their gradients are not",
            f"{number(_SEPARATED)} of the gradient's mean square between rows that are alike",
            "Units begin alike and are told apart by the first steps: what reads them differs.",
        )  # fmt: skip
        return
    yield Finding(
        "WGT004", severity(fatal), worst.name,
        f"{worst.duplicate_rows + 1} of {worst.shape[0]} rows are identical; so in {len(hit)} matrices"
        + (f", {len(constant)} of them constant" if constant else ""),
        "0 identical rows (a drawn law repeats a row with probability 0)",
        "Identical units learn the same thing: the layer counts as one unit.",
        'firstlight.initialize(model, "he", seed=0)',
        f"{worst.shape[0]} different units instead of {worst.shape[0] - worst.duplicate_rows}",
        {"duplicate_rows": float(worst.duplicate_rows), "fan_in": float(fan_in(worst))},
    )  # fmt: skip


# A hundredth of the gradient's mean square, a tenth of its size: a few dozen steps have told the rows apart then.
_SEPARATED = 1e-2
# What reads a tensor entry by entry.
_POINTWISE = frozenset(
    [
        "exp", "neg", "log", "sigmoid", "softplus", "tanh", "to", "add", "sub", "mul", "div", "broadcast_tensors",
        *REARRANGE,
    ]
)  # fmt: skip


def _entrywise(e: Evidence, p: ParameterStats) -> bool:
    """Whether a parameter, and what is computed of it alone, meets all else entry by entry only.

    A posterior's deviations, all alike, are multiplied with noise and added to means: no unit is like another.
    """
    alone: set[str] = set()
    for n in e.nodes:
        if p.name not in n.parameters and alone.isdisjoint(n.inputs):
            continue
        if n.op not in _POINTWISE:
            return False
        if alone.issuperset(n.inputs) and set(n.parameters) <= {p.name}:
            alone.add(n.name)
    return True


def _only_added(e: Evidence, p: ParameterStats) -> bool:
    """Whether a parameter is added to the signal or put beside it, and multiplies nothing."""
    seen = {p.name}
    for n in e.nodes:
        if p.name not in n.parameters and seen.isdisjoint(n.inputs):
            continue
        if n.op in ("add", "sub", "cat", "stack"):
            continue  # a sum with the signal: what reads it reads the signal
        if n.op not in REARRANGE:
            return False
        seen.add(n.name)
    return True


def _never_filled(p: ParameterStats) -> bool:
    """Whether entries are subnormal: what addresses and counters in memory are when read as numbers, NaN among them."""
    return p.subnormal_fraction > 0.0 and p.dtype != "float16"


def _count(p: ParameterStats) -> int:
    n = 1
    for size in p.shape:
        n *= size
    return n
