"""Checks on the range of numbers: NUM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from firstlight.checks.evidence import LARGEST, Evidence
from firstlight.checks.fate import decide
from firstlight.checks.phrases import number, severity
from firstlight.checks.registry import check
from firstlight.graph.results import Finding, NodeStats


@check("NUM001", stage=30)
def first_non_finite(e: Evidence) -> Iterator[Finding]:
    """An operation makes the first NaN or infinity.

    What it measures:
        The first operation, in execution order, whose output has entries that are not finite while its inputs and
        parameters have none; then the first such gradient, in backward order.
    Why it matters:
        Everything after it is NaN too; only the first one says why.
    When it is harmless:
        Infinite entries in an attention mask, which softmax turns into zeros; they are not reported.
    Remedy:
        At a division, logarithm or root: add an ε, or clamp the argument. After an overflow: scale the weights down.
    Source:
        IEEE 754 arithmetic; the request of PyTorch issue 160016.
    """
    if any(p.nan_count or p.inf_count for p in e.parameters):
        return
    bad = {n.name for n in e.nodes if not n.output.finite} - e.unwritten
    if e.probe.finite and _masks_only(e, bad):
        return
    fatal = not decide(e).starts
    hidden = masked(e.nodes)
    bad -= hidden
    for n in e.nodes:
        if n.op == "softmax" and n.output.nan_count and not hidden.isdisjoint(n.inputs) and n.name in bad:
            yield _all_masked(e, n, fatal)
            return
        if n.name in bad and not any(name in bad for name in n.inputs):
            overflow = n.output.inf_count > 0 and n.output.nan_count == 0 and n.op not in _POLES
            yield Finding(
                "NUM001", severity(fatal, "info"), n.name,
                f"{n.op} makes {n.output.nan_count} NaN and {n.output.inf_count} infinite entries"
                + (f" ({n.source})" if n.source else ""),
                "0; all its inputs are finite (IEEE 754)",
                f"The numbers leave the range of {n.output.dtype}." if overflow
                else "The operation is outside its domain: the root or logarithm of a negative number, 0/0, ∞-∞.",
                'firstlight.initialize(model, "he")' if overflow else _clamped(e, n),
            )  # fmt: skip
            return
    for n in reversed(e.nodes):
        if n.grad is not None and not n.grad.finite:
            yield Finding(
                "NUM001", severity(fatal), n.name,
                f"the gradient of {n.op}'s output has {n.grad.nan_count} NaN and {n.grad.inf_count} infinite entries",
                "0; its output is finite (IEEE 754)",
                "The backward pass leaves the domain: the derivative of a root at 0, or an overflow.",
                _clamped(e, n),
            )  # fmt: skip
            return


def _all_masked(e: Evidence, n: NodeStats, fatal: bool) -> Finding:
    s = next((s for s in e.softmaxes if s.name == n.name), None)
    place = f" at {n.source}" if n.source else ""
    across = s is not None and s.axis != len(s.shape) - 1
    return Finding(
        "NUM001", severity(fatal, "info"), n.name, f"softmax makes {n.output.nan_count} NaN out of minus infinities",
        "0; the softmax of minus infinities alone is 0/0 (IEEE 754)",
        f"The softmax runs over axis {s.axis} of {s.shape}, along which the mask hides everything." if s and across
        else "The mask hides everything from some rows.",
        f"# softmax(..., dim=-1){place}" if across
        else f"# a finite number for -inf, such as -1e9, or a mask that leaves every row an entry{place}",
    )  # fmt: skip


def masked(nodes: Sequence[NodeStats]) -> set[str]:
    """Operations whose infinities are a mask's: written there by hand, and read by what knows what they mean."""
    readers: dict[str, list[NodeStats]] = {}
    for n in nodes:
        for name in n.inputs:
            readers.setdefault(name, []).append(n)
    found: set[str] = set()
    for n in reversed(nodes):
        by_hand = n.op in _MASKING and n.output.inf_count > 0 and n.output.nan_count == 0 and n.name in readers
        if by_hand and all(r.op in _ENDS_OF_MASKS or r.name in found for r in readers[n.name]):
            found.add(n.name)
    return found


# Operations by which minus infinity is put where nothing is to be seen, and what may stand between them and the end.
_MASKING = frozenset(["masked_fill", "where", "add", "sub", "mul", "div", "view", "reshape", "to", "transpose"])
# Functions with a pole or an edge of their domain at 0.
_POLES = frozenset(["log", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "div", "truediv", "pow"])


def _clamped(e: Evidence, n: NodeStats) -> str:
    """A line that keeps the argument of an operation positive: runs as it stands where the operation is a module."""
    alone = n.module and sum(other.module == n.module for other in e.nodes) == 1
    if not alone:
        return f"# x = x.clamp_min(1e-6) before this operation, {n.source or n.name}"
    return f"model.get_submodule({n.module!r}).register_forward_pre_hook(lambda module, x: (x[0].clamp_min(1e-6),))"


def _masks_only(e: Evidence, bad: set[str]) -> bool:
    """Whether there is no NaN, and every infinity ends where minus infinity stands for "not this one"."""
    if any(n.output.nan_count for n in e.nodes):
        return False
    return all(n.name in bad or n.op in _ENDS_OF_MASKS for n in e.nodes if not bad.isdisjoint(n.inputs))


# Operations of which minus infinity is an argument with a meaning: weight zero, or never the largest.
_ENDS_OF_MASKS = frozenset({"softmax", "scaled_dot_product_attention", "exp", "logsumexp", "sigmoid", "amax", "max"})


@check("NUM002", stage=31)
def half_range(e: Evidence) -> Iterator[Finding]:
    """Half-precision numbers near the end of their range.

    What it measures:
        For tensors in float16 or bfloat16: decades between the largest entry and overflow, and the share of the
        gradient's entries that are flushed to zero.
    Why it matters:
        float16 ends at 65504 and at 6e-8: a loss ten times chance overflows in a few steps, and small gradients vanish.
    When it is harmless:
        bfloat16 has float32's range; with loss scaling (GradScaler) small gradients survive.
    Remedy:
        Keep the weights in float32 and use autocast: `model.float()` with `torch.autocast("cuda", torch.float16)`.
    Source:
        IEEE 754 binary16; Micikevicius et al. 1710.03740 (mixed precision training).
    """
    fate = decide(e)
    half = [n for n in e.nodes if n.output.dtype in ("float16", "bfloat16")]
    if not half:
        return
    worst = max(half, key=lambda n: n.output.abs_max / LARGEST[n.output.dtype])
    room = LARGEST[worst.output.dtype] / max(worst.output.abs_max, 1e-300)
    if room < 10.0 or fate.reason == "half":
        yield Finding(
            "NUM002", severity(fate.reason in ("half", "exploded", "non-finite")), worst.name,
            f"largest entry {number(worst.output.abs_max)} in {worst.output.dtype}; {fate.text}"
            if fate.reason == "half" else f"largest entry {number(worst.output.abs_max)} in {worst.output.dtype}",
            f"{number(LARGEST[worst.output.dtype])} overflows (IEEE 754); 10 times of room for the first steps",
            "The numbers are about to leave the format's range.",
            'model.float()  # and torch.autocast("cuda", torch.float16) around the forward pass',
        )  # fmt: skip
    lost = [n for n in half if n.output.dtype == "float16" and n.grad is not None and n.grad.flushed_fp16 > 0.5]
    tiny = [n for n in half if n.output.dtype == "float16" and n.grad is not None and n.grad.zero_fraction > 0.99]
    if len(lost) + len(tiny) > 0.5 * len(half) and fate.reason in ("silent", "half"):
        yield Finding(
            "NUM002", severity(not fate.starts), (lost or tiny)[0].name,
            f"{len(lost) + len(tiny)} of {len(half)} gradients are flushed to zero in float16",
            "6e-8, the smallest positive float16", "The gradients are too small for the format.",
            "scaler = torch.amp.GradScaler()",
        )  # fmt: skip
