"""Losses that a model works out by itself (a language model that is given its labels), as formulas of other rules."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import Signal, replace
from firstlight.rules.attention.hiding import HIDDEN
from firstlight.rules.composed.composed import composed
from firstlight.rules.composed.tape import Tape
from firstlight.rules.moves.lookup import one_of
from firstlight.rules.state.empirical import constant

_SAME = 1e-6  # relative scatter up to which numbers are one number


def reduced(tape: Tape, losses: Signal, reduction: str, samples: int = 1) -> Signal:
    """All losses, their mean, their sum, or their sum over the number of samples."""
    if reduction == "none":
        return losses
    if reduction == "batchmean":
        return tape("div", tape("sum", losses), float(max(samples, 1)))
    return tape(reduction, losses)


@composed("cross_entropy", example="F.cross_entropy(x, torch.randint(64, (16,)), label_smoothing=0.1)")
def cross_entropy(
    tape: Tape, input: Signal, target: Signal, weight: Signal | None = None, ignore_index: int = -100,
    reduction: str = "mean", label_smoothing: float = 0.0,
) -> Signal:  # fmt: skip
    """-Σ_c y_c ln softmax(x)_c over classes (axis 1, or the only one), y of a label mixed with ε/C (Szegedy 2016)."""
    axis = 0 if input.ndim == 1 else 1
    if target.integer and target.value is not None and float(input.mean.min()) <= HIDDEN and not label_smoothing:
        picked = _visible(tape, input, np.asarray(target.value), axis, ignore_index, reduction)
        return reduced(tape, tape("neg", picked), reduction)
    log_p = tape("log_softmax", input, axis)
    if target.shape == input.shape and not target.integer:
        losses = tape("neg", tape("sum", tape("mul", log_p, target), axis))
        return reduced(tape, losses, "batchmean" if reduction == "mean" else reduction, losses.numel)
    picked = _picked(tape, log_p, target, axis, weight, ignore_index, reduction)
    if label_smoothing:
        even = tape("mean", log_p, axis)
        picked = tape("add", tape("mul", picked, 1.0 - label_smoothing), tape("mul", even, label_smoothing))
    return reduced(tape, tape("neg", picked), reduction)


@composed("nll_loss", example="F.nll_loss(x.log_softmax(-1), torch.randint(64, (16,)))")
def nll_loss(
    tape: Tape, input: Signal, target: Signal, weight: Signal | None = None, ignore_index: int = -100,
    reduction: str = "mean",
) -> Signal:  # fmt: skip
    """-x of the label's class."""
    axis = 0 if input.ndim == 1 else 1
    return reduced(tape, tape("neg", _picked(tape, input, target, axis, weight, ignore_index, reduction)), reduction)


def _picked(
    tape: Tape, log_p: Signal, target: Signal, axis: int, weight: Signal | None, ignored: int, reduction: str
) -> Signal:
    """The entry of each label: a sum over classes of the entries times a one-hot mask that is independent of them.

    Two sites have the same class with probability Σ f_c², f_c the share of the labels that are c (1/C where they are
    not known). What is ignored leaves zeros, and a mean is one over the rest.
    """
    if weight is not None:
        tape.call.caveat("class weights are taken as equal ones")
    classes = log_p.shape[axis]
    same, kept = 1.0 / classes, 1.0
    if target.value is not None:
        labels = np.asarray(target.value).ravel()
        counted = labels[labels != ignored]
        kept = len(counted) / max(len(labels), 1)
        same = float(np.square(np.unique(counted, return_counts=True)[1] / max(len(counted), 1)).sum())
    hot = one_of(log_p.shape, (axis,), same=same, kept=kept)
    hot = replace(hot, batch=log_p.batch) if len(log_p.batch) == len(hot.batch) else hot
    over = 1.0 / kept if reduction == "mean" and kept > 0.0 else 1.0
    return tape("mul", tape("sum", tape("mul", log_p, hot), axis), over)


def _visible(tape: Tape, x: Signal, labels: Any, axis: int, ignored: int, reduction: str) -> Signal:
    """x - ln Σeˣ at known labels, one by one, where a mask hides logits: those are nobody's label."""
    kept = labels != ignored
    hot = np.zeros(x.shape)
    np.put_along_axis(hot, np.expand_dims(np.where(kept, labels, 0), axis), np.expand_dims(kept * 1.0, axis), axis)
    picked = tape("sum", tape("mul", x, constant(hot)), axis)
    rest = tape("mul", tape("logsumexp", x, axis), constant(kept * 1.0))
    over = 1.0 / max(float(kept.mean()), 1e-300) if reduction == "mean" else 1.0
    return tape("mul", tape("sub", picked, rest), over)


@composed(
    "binary_cross_entropy_with_logits",
    example="F.binary_cross_entropy_with_logits(x, torch.randn(64).sigmoid().expand(16, 64), reduction='none')",
)
def binary_cross_entropy_with_logits(
    tape: Tape, input: Signal, target: Signal, weight: Signal | None = None, reduction: str = "mean",
    pos_weight: Signal | None = None,
) -> Signal:  # fmt: skip
    """(1 - y)·x + (1 + (w - 1)y)·softplus(-x), w of the positive class.

    Of y its mean goes along with x's function; what is left does not.
    """
    level = target.mean_mean
    more = 0.0 if pos_weight is None else pos_weight.mean_mean - 1.0
    if pos_weight is not None and pos_weight.mean_q > (1.0 + _SAME) * pos_weight.mean_mean**2:
        tape.call.caveat("weights of the positive class are taken as their mean")
    below, rest = tape("softplus", tape("neg", input)), tape("sub", target, level)
    losses = tape("add", tape("mul", input, 1.0 - level), tape("mul", below, 1.0 + more * level))
    losses = tape("sub", losses, tape("mul", input, tape("mul", rest, 1.0 + 0.5 * more)))
    if more:  # (w - 1)softplus(-x) - x is odd and even: its slopes have nothing in common
        even = tape("log", tape("cosh", tape("mul", input, 0.5)))
        losses = tape("add", losses, tape("mul", tape("add", even, float(np.log(2.0))), tape("mul", rest, more)))
    return reduced(tape, losses if weight is None else tape("mul", losses, weight), reduction)


@composed("binary_cross_entropy", example="F.binary_cross_entropy(x.sigmoid(), torch.full((16, 64), 0.5))")
def binary_cross_entropy(
    tape: Tape, input: Signal, target: Signal, weight: Signal | None = None, reduction: str = "mean"
) -> Signal:
    """-y ln p - (1 - y) ln(1 - p) = -ln(p(1 - p))/2 - (y - 1/2) ln p/(1 - p)."""
    even = tape("mul", tape("log", tape("mul", input, tape("sub", 1.0, input))), -0.5)
    losses = tape("sub", even, tape("mul", tape("sub", target, 0.5), tape("logit", input)))
    return reduced(tape, losses if weight is None else tape("mul", losses, weight), reduction)


@composed("kl_div", example="F.kl_div(x.log_softmax(-1), torch.randn(16, 64).softmax(-1), reduction='batchmean')")
def kl_div(tape: Tape, input: Signal, target: Signal, reduction: str = "mean", log_target: bool = False) -> Signal:
    """y (ln y - x)."""
    y = tape("exp", target) if log_target else target
    own = tape("mul", y, target if log_target else tape("log", target))
    return reduced(tape, tape("sub", own, tape("mul", y, input)), reduction, input.shape[0] if input.ndim else 1)


@composed("huber_loss", example="F.huber_loss(x, 0.5 * x.roll(1, 1), reduction='none', delta=0.5)")
def huber_loss(
    tape: Tape, input: Signal, target: Signal, reduction: str = "mean", delta: float = 1.0, weight: Signal | None = None
) -> Signal:
    """½d² up to |d| = δ, linear beyond: c·(d - c/2) of c = d cut at ±δ (Huber 1964)."""
    losses = _huber(tape, tape("sub", input, target), float(delta))
    return reduced(tape, losses if weight is None else tape("mul", losses, weight), reduction)


@composed("smooth_l1_loss", example="F.smooth_l1_loss(x, 0.5 * x.roll(1, 1), reduction='none', beta=0.5)")
def smooth_l1_loss(tape: Tape, input: Signal, target: Signal, reduction: str = "mean", beta: float = 1.0) -> Signal:
    """Huber's loss over β."""
    apart = tape("sub", input, target)
    if beta == 0.0:
        return reduced(tape, tape("abs", apart), reduction)
    return reduced(tape, tape("div", _huber(tape, apart, float(beta)), float(beta)), reduction)


def _huber(tape: Tape, apart: Signal, delta: float) -> Signal:
    cut = tape("clamp", apart, -delta, delta)
    return tape("mul", cut, tape("sub", apart, tape("mul", cut, 0.5)))


@composed(
    "gaussian_nll_loss",
    example="F.gaussian_nll_loss(x, 0.5 * x.roll(1, 1), torch.full((16, 64), 0.5), reduction='none')",
)
def gaussian_nll_loss(
    tape: Tape, input: Signal, target: Signal, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Signal:
    """½(ln v + (x - y)²/v), and ½ ln 2π."""
    square = tape("square", tape("sub", input, target))
    if not isinstance(var, Signal):
        losses = tape("mul", tape("add", tape("div", square, float(var)), float(np.log(var))), 0.5)
    else:
        v = tape("clamp", var, eps)
        losses = tape("mul", tape("add", tape("log", v), tape("div", square, v)), 0.5)
    return reduced(tape, tape("add", losses, 0.5 * float(np.log(2.0 * np.pi))) if full else losses, reduction)


@composed("poisson_nll_loss", example="F.poisson_nll_loss(x, x.roll(1, 1).detach().abs(), reduction='none')")
def poisson_nll_loss(
    tape: Tape, input: Signal, target: Signal, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> Signal:  # fmt: skip
    """e^x - y·x, or x - y·ln(x + ε)."""
    if full:
        tape.call.caveat("Stirling's term, which has no gradient, is left out")
    if log_input:
        losses = tape("sub", tape("exp", input), tape("mul", target, input))
    else:
        level, log = target.mean_mean, tape("log", tape("add", input, eps))  # of y its mean goes along with x
        losses = tape("sub", tape("sub", input, tape("mul", log, level)), tape("mul", log, tape("sub", target, level)))
    return reduced(tape, losses, reduction)


@composed("soft_margin_loss", example="F.soft_margin_loss(x, torch.ones(16, 64), reduction='none')")
def soft_margin_loss(tape: Tape, input: Signal, target: Signal, reduction: str = "mean") -> Signal:
    """ln(1 + e^{-yx})."""
    return reduced(tape, tape("softplus", tape("neg", tape("mul", target, input))), reduction)


@composed(
    "margin_ranking_loss",
    example="F.margin_ranking_loss(x, x.roll(1, 1), torch.randn(16, 64).sign(), 0.5, reduction='none')",
)
def margin_ranking_loss(
    tape: Tape, input1: Signal, input2: Signal, target: Signal, margin: float = 0.0, reduction: str = "mean"
) -> Signal:
    """max(0, m - y(x_1 - x_2))."""
    wrong = tape("neg", tape("mul", target, tape("sub", input1, input2)))
    return reduced(tape, tape("relu", tape("add", wrong, float(margin)) if margin else wrong), reduction)


@composed("hinge_embedding_loss", example="F.hinge_embedding_loss(x, torch.randn(16, 64).sign(), reduction='none')")
def hinge_embedding_loss(
    tape: Tape, input: Signal, target: Signal, margin: float = 1.0, reduction: str = "mean"
) -> Signal:
    """x where y is 1, max(0, m - x) where it is -1."""
    beyond = tape("sub", float(margin), input)
    return reduced(tape, _either(tape, target, beyond, float(margin)), reduction)


@composed(
    "cosine_embedding_loss",
    example="F.cosine_embedding_loss(x[:, :32], x[:, 32:], torch.randn(16).sign(), reduction='none')",
)
def cosine_embedding_loss(
    tape: Tape, input1: Signal, input2: Signal, target: Signal, margin: float = 0.0, reduction: str = "mean"
) -> Signal:
    """1 - cos where y is 1, max(0, cos - m) where it is -1."""
    cosine = tape("cosine_similarity", input1, input2, -1)
    return reduced(tape, _either(tape, target, tape("sub", cosine, float(margin)), 1.0 - float(margin)), reduction)


def _either(tape: Tape, target: Signal, x: Signal, shift: float) -> Signal:
    """b - x where y is 1, relu(x) where it is -1: of y its mean goes along with x's function.

    What is left of y multiplies half the difference, b - x - relu(x) = b - 2·leaky(x) of slope 1/2 below zero: one
    function, whose slopes are followed together.
    """
    level = target.mean_mean
    share = 0.5 * (1.0 + level)
    one = tape("sub", shift, x)
    mean = tape("add", tape("mul", one, share), tape("mul", tape("relu", x), 1.0 - share))
    apart = tape("sub", 0.5 * shift, tape("leaky_relu", x, 0.5))
    return tape("add", mean, tape("mul", apart, tape("sub", target, level)))
