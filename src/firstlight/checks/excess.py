"""Losses so far above chance that no usual learning rate brings them down within the budget."""

from __future__ import annotations

import math

from firstlight.checks.budget import ADAM_LR, LEAST_LR, LEAST_SGD_LR, STEPS, Fate
from firstlight.checks.evidence import LARGEST, Evidence, Probe
from firstlight.checks.mainline import RECURRENT, SATURATING, stations
from firstlight.checks.norms import norms
from firstlight.theory.descent import adam_share

# A loss this many times above chance must fall by as many e-folds before it says anything about the targets.
EXPLODED = 1e5
# Least share of the best constant answer's loss that is no start.
CHANCE = 0.9


def exploded(evidence: Evidence) -> Fate | None:
    """Outputs or a loss so large that steps which move them do not settle, and those that settle do not move them."""
    p = evidence.probe
    if p.loss is None and p.output_rms > EXPLODED:
        text = f"the outputs have size {p.output_rms:.1e}"
        return Fate(False, "exploded", math.log(EXPLODED / p.output_rms), text)
    if p.loss is None or p.loss_constant is None:
        return None
    # Identical outputs hide their size from the loss (all logits equal) until the first step tells them apart.
    size = max(p.loss, p.output_rms)
    over = size / max(p.loss_constant, 1e-3)
    if over <= EXPLODED:
        return _unsettled(p, over) or _remembered(evidence)
    # A loss that grows linearly with the outputs (cross entropy) only has to get all signs right: a coherent pull
    # does that at any scale, if the smallest usual learning rate moves the loss by its own size in 100 steps. Gradients
    # whose square is no number of the format do nothing: Adam divides them by infinity, plain descent overflows.
    linear = p.loss < 10.0 * p.output_rms
    top = math.sqrt(LARGEST[evidence.dtype])
    reach = sum(x.reach for x in p.pulls.values() if x.signal < top * math.sqrt(x.entries))
    if linear and reach * 1e-4 * 100 > size and p.loss > 1e-2 * size:
        return None
    what = "loss is" if p.loss >= p.output_rms else "outputs' size is"
    text = f"the {what} {over:.1e} times the best constant answer's loss"
    return Fate(False, "exploded", math.log(EXPLODED / over), text)


def _unsettled(p: Probe, over: float) -> Fate | None:
    """A loss that falls at a fixed pace, from so high that no learning rate is both fast and fine enough.

    Where the loss grows linearly with the outputs (cross entropy), a step of rate η takes η·reach from it. To come
    down within `STEPS` it needs η·reach·STEPS > loss; to settle at chance, η·reach/10 < chance, since Adam's momentum
    (β₁ = .9) averages steps of alternating sign to a tenth: impossible where the loss is more than 10·STEPS times
    chance, unless the pull falls with the loss. It does where all weights shrink together: there the smallest usual
    rate takes the loss' own size from it within the budget.
    """
    if p.loss is None or p.loss_constant is None or p.loss >= 10.0 * p.output_rms or over <= 10 * STEPS:
        return None
    share = LEAST_LR * STEPS * sum(x.reach for x in p.pulls.values()) / max(p.loss, 1e-300)
    if share >= 1.0:
        return None
    return Fate(
        False, "exploded", math.log(max(share, 1e-30)),
        f"the loss is {p.loss / max(p.loss_constant, 1e-3):.1e} times the best constant answer's, and {STEPS} steps of "
        f"{LEAST_LR:g} take {100.0 * share:.0f} % of it: rates that are faster cannot settle at chance",
    )  # fmt: skip


def _remembered(evidence: Evidence) -> Fate | None:
    """A squared error of outputs that are a product of the layers, under Adam, which remembers the large gradients.

    Where P/2 matrices follow each other with nothing but rectifiers between them, the loss is L₀·w^P of their common
    scale w, and its gradient falls faster than itself; but Adam divides it by the root of a mean over 1/(1 - β₂) =
    1000 steps, more than are given: the steps shrink with the gradient. `adam_share` follows that from a first step
    that takes the share rate·Σ|g|/L₀ of the loss. What is judged is the part that differs between samples, since a
    common shift is taken off by one bias. Plain descent is out of the question where its smallest rate is beyond the
    edge of stability, rate·g²/2L₀ > 2, the curvature along the gradient.
    """
    p = evidence.probe
    if p.loss is None or p.loss_constant is None or p.loss < 10.0 * p.output_rms or not p.output_rms > 0.0:
        return None
    loss = p.loss * (p.output_spread / p.output_rms) ** 2
    if not loss > 10.0 * p.loss_constant > 0.0 or LEAST_SGD_LR * p.signal**2 < 4.0 * loss:
        return None
    layers, reach = _product(evidence)
    if layers < 2:
        return None
    rates = [LEAST_LR * 10.0**i for i in range(1 + round(math.log10(ADAM_LR / LEAST_LR)))]
    shares = {rate: adam_share(rate * reach / loss, 2 * layers, STEPS) for rate in rates}
    rate = min(shares, key=lambda r: shares[r])
    level = shares[rate] * loss / p.loss_constant
    if level < CHANCE:
        return None
    return Fate(
        False, "exploded", math.log(CHANCE / level),
        f"the loss is {loss / p.loss_constant:.1e} times the best constant answer's; Adam's memory of the first "
        f"gradients leaves it {level:.1f} times that after {STEPS} steps of {rate:g}, the best of the usual rates",
    )  # fmt: skip


def _product(evidence: Evidence) -> tuple[int, float]:
    """How many trained matrices the outputs are a product of, and the loss' fall per unit rate by these; 0 if none.

    Those behind the last bounded function or normalisation of a plain stack; sums and products of branches have no
    such degree.
    """
    count, reach = 0, 0.0
    pulls = evidence.probe.pulls
    wide = {x.name for x in evidence.parameters if len(x.shape) > 1}
    for s in stations(evidence):
        if s.node.op in ("add", "cat", "mul") and len(s.node.inputs) > 1:
            return 0, 0.0
        if s.node.op in SATURATING or s.node.name in norms(evidence) or s.node.op in RECURRENT:
            count, reach = 0, 0.0
        held = [name for name in s.node.parameters if name in pulls]
        count += any(name in wide for name in held)
        reach += sum(pulls[name].reach for name in held)
    return count, reach
