"""Losses that a model computes itself, as formulas of other operations; targets are independent of the answers."""

from __future__ import annotations

from typing import Any

from firstlight.graph.signal import Signal
from firstlight.rules.composed.composed import composed
from firstlight.rules.composed.tape import Tape
from firstlight.rules.moves.lookup import one_of


def _reduced(tape: Tape, x: Signal, reduction: str) -> Signal:
    return tape(reduction, x) if reduction in ("mean", "sum") else x


def _plain(tape: Tape, *given: Any) -> None:
    """Say what of a loss' options is left out."""
    if any(g is not None and g is not False and g != 0.0 for g in given):
        tape.call.caveat("weights of classes, ignored targets and smoothed labels are not followed")


def _chosen(tape: Tape, logs: Signal, reduction: str) -> Signal:
    axis = min(1, logs.ndim - 1)
    picked = tape("sum", tape("mul", logs, one_of(logs.shape, axis)), axis)
    return _reduced(tape, tape("neg", picked), reduction)


@composed("nll_loss", example="F.nll_loss(x.log_softmax(1), torch.arange(16), reduction='none')")
def nll_loss(tape: Tape, input: Signal, target: Signal, weight: Any = None, reduction: str = "mean") -> Signal:
    """-x_t of a target t, which is any class of the second axis (or of the only one)."""
    _plain(tape, weight)
    return _chosen(tape, input, reduction)


@composed("cross_entropy", example="F.cross_entropy(x, torch.arange(16), reduction='none')")
def cross_entropy(
    tape: Tape, input: Signal, target: Signal, weight: Any = None, reduction: str = "mean", label_smoothing: float = 0.0
) -> Signal:
    """-ln softmax(x)_t, or its mean under the probabilities of all classes."""
    _plain(tape, weight, label_smoothing)
    axis = min(1, input.ndim - 1)
    logs = tape("log_softmax", input, axis)
    if target.integer:
        return _chosen(tape, logs, reduction)
    return _reduced(tape, tape("neg", tape("sum", tape("mul", target, logs), axis)), reduction)


@composed(
    "binary_cross_entropy_with_logits",
    example="F.binary_cross_entropy_with_logits(x, x.roll(1, 1).sigmoid().detach(), reduction='none')",
)
def binary_cross_entropy_with_logits(
    tape: Tape, input: Signal, target: Signal, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Signal:
    """softplus(x) - x·y = (softplus(x) - x/2) - x·(y - 1/2): even and odd functions of x have nothing in common."""
    _plain(tape, weight, pos_weight)
    even = tape("sub", tape("softplus", input), tape("mul", input, 0.5))
    return _reduced(tape, tape("sub", even, tape("mul", input, tape("sub", target, 0.5))), reduction)


@composed(
    "binary_cross_entropy",
    example="F.binary_cross_entropy(x.sigmoid(), x.roll(1, 1).sigmoid().detach(), reduction='none')",
)
def binary_cross_entropy(
    tape: Tape, input: Signal, target: Signal, weight: Any = None, reduction: str = "mean"
) -> Signal:
    """-y ln p - (1 - y) ln(1 - p) = -ln(p(1 - p))/2 - (y - 1/2) ln p/(1 - p)."""
    _plain(tape, weight)
    even = tape("mul", tape("log", tape("mul", input, tape("sub", 1.0, input))), -0.5)
    return _reduced(tape, tape("sub", even, tape("mul", tape("sub", target, 0.5), tape("logit", input))), reduction)


def _huber(tape: Tape, x: Signal, y: Signal, edge: float) -> Signal:
    """k·(d - k/2) with k = d clipped at ±edge: d²/2 inside, edge·(|d| - edge/2) outside."""
    d = tape("sub", x, y)
    k = tape("clamp", d, -edge, edge)
    return tape("mul", k, tape("sub", d, tape("mul", k, 0.5)))


@composed("huber_loss", example="F.huber_loss(x, 0.5 * x.roll(1, 1), reduction='none')")
def huber_loss(tape: Tape, input: Signal, target: Signal, reduction: str = "mean", delta: float = 1.0) -> Signal:
    """Squares of small differences, sizes of large ones."""
    return _reduced(tape, _huber(tape, input, target, float(delta)), reduction)


@composed("smooth_l1_loss", example="F.smooth_l1_loss(x, 0.5 * x.roll(1, 1), reduction='none')")
def smooth_l1_loss(tape: Tape, input: Signal, target: Signal, reduction: str = "mean", beta: float = 1.0) -> Signal:
    """The same over its edge."""
    if float(beta) == 0.0:
        return _reduced(tape, tape("abs", tape("sub", input, target)), reduction)
    return _reduced(tape, tape("div", _huber(tape, input, target, float(beta)), float(beta)), reduction)


@composed(
    "gaussian_nll_loss",
    example="F.gaussian_nll_loss(x, 0.5 * x.roll(1, 1), 0.5 + torch.sigmoid(x.roll(2, 1)), reduction='none')",
)
def gaussian_nll_loss(
    tape: Tape, input: Signal, target: Signal, var: Signal, full: bool = False, reduction: str = "mean"
) -> Signal:
    """(ln v + (x - y)²/v)/2, without the constant unless it is asked for."""
    square = tape("div", tape("square", tape("sub", input, target)), var)
    each = tape("mul", tape("add", tape("log", var), square), 0.5)
    return _reduced(tape, tape("add", each, 0.9189385332046727) if full else each, reduction)
