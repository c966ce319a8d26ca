"""Whether a first step can lower the loss: decided once, from the probe, and named by the checks."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

from firstlight.checks.budget import ADAM_LR, SGD_LR, STEPS, Fate, Reason
from firstlight.checks.evidence import STEP, Evidence, Probe, repeat_error
from firstlight.checks.excess import exploded
from firstlight.checks.mainline import NONLINEAR, RECURRENT, SATURATING, stations
from firstlight.checks.norms import norms
from firstlight.checks.reach import ADAM_EPS, moved_share, stalled_steps
from firstlight.graph.results import NodeStats
from firstlight.theory import lengths

# A difference between samples below this many units of roundoff is rounding error: a sum of n terms carries about
# √n/2 units, and layers of up to a thousand terms are common.
NOISE = 16.0
# The smallest step that people take: after it, biases that were zero have this size, and a signal below a unit of
# roundoff of it can no longer be added to them.
FIRST_STEP = 1e-3
# Rectifiers: a constant shift closes half of their units for good.
CLOSING = frozenset(["relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold"])
# Where a draw closes a layer less often than this, the rate of false alarms that is aimed at, it is not suspected.
RARE = 0.01
# One operation that shrinks the signal by more than this passes back gradients below Adam's ε = 1e-8.
SHUT = 1e-8


@lru_cache(maxsize=4)
def decide(evidence: Evidence) -> Fate:
    """Hold the probe against the floor of rounding errors, the budget and the range of numbers."""
    p = evidence.probe
    if not p.connected or p.trainable == 0:
        return Fate(False, "disconnected", -math.inf, "no gradient path from the loss to a parameter that is trained")
    undefined = any(n.output.nan_count and n.name not in evidence.unwritten for n in evidence.nodes)
    if not p.finite or undefined:  # an infinity that a softmax ends is a mask
        return Fate(False, "non-finite", -math.inf, "NaN or infinite values in the pass or its gradients")
    bounded = _unreachable(evidence) or _linear(p)
    if bounded is not None:
        return bounded
    floor = NOISE * evidence.eps
    level = _signal(p, evidence) if p.usable else _measured(evidence)
    if level < floor:
        return Fate(
            False,
            "silent",
            math.log(max(level, 1e-30) / floor),
            f"samples differ by {level:.1e} of the signal's size; rounding errors are {floor:.1e}",
        )
    drowned = _drowned(p)
    if drowned is not None:
        return drowned
    for rule in (_closed, _half, exploded, _faint_input, _far, _slow, _features, _still, stalled):
        fate = rule(evidence)
        if fate is not None:
            return fate
    margin = math.log(max(level, 1e-300) / floor)
    return Fate(True, "", margin, f"samples differ by {level:.1e} of the signal's size; {floor:.1e} would be noise")


def _signal(p: Probe, evidence: Evidence) -> float:
    """The clearest trace of the input: in the gradient here, in the outputs, or at a nearby reachable point.

    The gradient here sums over the samples, whose rounding errors are independent of each other: relative to what they
    have in common the error is 1/√samples of that of one, so that the contrast counts √samples times.
    """
    if p.samples < 2:
        return 1.0 if p.signal > 0.0 else 0.0
    level = min(1.0, math.sqrt(p.samples) * p.contrast)
    if p.moved is not None and p.moved.finite:
        level = max(level, p.moved.contrast)
    if p.output_spread > NOISE * STEP[evidence.dtype] and p.signal > 0.0:
        level = max(level, min(p.output_spread / p.output_rms, 1.0))
    faintest = faintest_station(evidence)
    if faintest is not None and faintest[1] < FIRST_STEP:
        closing = any(n.op in CLOSING for n in evidence.nodes)
        if faintest[1] > 0.0 and (closing or _shut(evidence)) and not _grows(evidence, faintest[0]):
            level = min(level, faintest[1] / FIRST_STEP)
    return level


def _grows(evidence: Evidence, node: NodeStats) -> bool:
    """Whether the matrix that made this signal faint gets a pull above Adam's ε: its first step makes it ordinary."""
    made: tuple[str, ...] = ()
    for s in stations(evidence):
        made = s.node.parameters or made
        if s.node is node:
            break
    pulls = evidence.probe.pulls
    wide = {x.name for x in evidence.parameters if len(x.shape) > 1}
    held = [pulls[name] for name in made if name in pulls and name in wide]
    return bool(held) and max(p.signal / math.sqrt(p.entries) for p in held) >= ADAM_EPS


def _measured(evidence: Evidence) -> float:
    """The same from the measurement alone: the least sensitivity in front of the read-out, 0 without any gradient."""
    if not any(x.grad_q for x in evidence.parameters):
        return 0.0
    line = stations(evidence)
    last = max((i for i, s in enumerate(line) if s.node.parameters), default=0)
    return min((s.sensitivity for s in line[:last]), default=1.0)


def _shut(evidence: Evidence) -> bool:
    """Whether a single non-linear operation of the main line takes nearly all of the signal away."""
    line = stations(evidence)
    pairs = itertools.pairwise(line)
    return any(
        b.node.output.sample_variance is not None
        and a.node.output.sample_variance is not None
        and b.node.op in NONLINEAR | RECURRENT
        and 0.0 < b.node.output.sample_variance < SHUT**2 * a.node.output.sample_variance
        for a, b in pairs
    )


def faintest_station(evidence: Evidence) -> tuple[NodeStats, float] | None:
    """The operation in front of the read-out where samples differ least in absolute terms, and by how much."""
    line = stations(evidence)
    last = max((i for i, s in enumerate(line) if s.node.parameters), default=0)
    inner = [(s.node, math.sqrt(max(0.0, s.node.output.sample_variance or 0.0))) for s in line[:last]]
    return min(inner, key=lambda pair: pair[1], default=None)


def _unreachable(evidence: Evidence) -> Fate | None:
    """Answers of which even the best, sample by sample, are no start: out of range, or not matched with samples.

    Where all targets of the batch are alike the best constant answer is the best of all, and that says nothing.
    """
    p = evidence.probe
    if p.loss_free is None or p.loss_constant is None or p.loss_free < 0.9 * p.loss_constant:
        return None
    known = evidence.targets is not None and evidence.targets.spread > 0.0
    if not known and not p.loss_constant > 1e-2 * (p.loss_silent or math.inf):
        return None
    return Fate(
        False, "unreachable", -math.inf,
        f"the best answers that these outputs can give have a loss of {p.loss_free:.3g}, the best constant one "
        f"{p.loss_constant:.3g}",
    )  # fmt: skip


def _linear(p: Probe) -> Fate | None:
    if p.loss_linear is None or p.loss_constant is None or p.loss_constant <= 0.0:
        return None
    return Fate(
        False, "linear", math.log(0.9 / (p.loss_linear / p.loss_constant)) - 1.0,
        f"the network is linear, and the best linear function of the inputs has {p.loss_linear / p.loss_constant:.2f} "
        "of the best constant answer's loss on this batch",
    )  # fmt: skip


def _drowned(p: Probe) -> Fate | None:
    """Dropout's noise covers the input in the outputs and in the gradients too, so that steps do not add up.

    A few outputs may differ between masks while all gradients point one way. The gradients' entries are not
    independent of each other: chance is that of a single one.
    """
    if p.repeat is None or p.repeats or p.output_spread < 0.1 * p.output_rms:
        return None
    if p.agreement is not None and p.agreement >= 3.0 * repeat_error(1):
        return None
    needed = 3.0 * repeat_error(p.samples * p.outputs)
    return Fate(
        False, "drowned", math.log(max(p.repeat, 1e-3) / needed),
        f"passes with different dropout masks agree to {p.repeat:.3f} only; {needed:.3f} is chance",
    )  # fmt: skip


def _closed(evidence: Evidence) -> Fate | None:
    """Rectifiers whose signal is smaller than the first step of their biases, and dead at a nearby reachable point.

    Where a layer's pre-activations are below the step, the biases alone decide which units are open: for all samples
    alike, so that n units are all closed with probability 2^-n (Lu et al. 1903.06733). The nearby point draws it; but
    where wide layers make that unlikely, its silence comes from small weights, which grow.
    """
    moved = evidence.probe.moved
    if moved is None or not moved.finite or moved.samples < 2 or not any(n.op in CLOSING for n in evidence.nodes):
        return None
    faintest = faintest_station(evidence)
    if faintest is None or faintest[1] >= FIRST_STEP or moved.contrast >= evidence.eps:
        return None
    widths = [s.node.output.units for s in stations(evidence) if s.node.op in CLOSING and s.node.output.units > 0]
    if widths and lengths.p_dead(widths) < RARE:
        return None
    return Fate(
        False, "silent", math.log(max(moved.contrast, 1e-30) / evidence.eps),
        f"samples differ by {faintest[1]:.1e} in front of a rectifier; a first step of the biases, {FIRST_STEP:g}, "
        "closes it for all of them",
    )  # fmt: skip


def _faint_input(evidence: Evidence) -> Fate | None:
    """Inputs so small that no usable step brings the first layer to the size of a bias."""
    if norms(evidence):
        return None
    real = [x for x in evidence.inputs if x.floating and x.rms > 0.0]
    if not real or len(real) < len(evidence.inputs):
        return None
    fan = max(math.prod(x.shape[1:]) for x in real)
    reached = ADAM_LR * STEPS * math.sqrt(fan) * max(x.rms for x in real)
    if reached >= 0.01:
        return None
    return Fate(
        False, "budget", math.log(reached / 0.01),
        f"{STEPS} steps of {ADAM_LR:g} bring the first layer to {reached:.1e} at most",
    )  # fmt: skip


def _far(evidence: Evidence) -> Fate | None:
    """A pull so weak, or targets so large, that the loss cannot fall by a tenth even if the pull grows on the way.

    Where the gradient tells nothing here (a saddle, a plateau) its size says nothing either: not asked.
    """
    p = evidence.probe
    if p.loss is None or p.loss_constant is None or p.loss_constant <= 0.0:
        return None
    if p.loss_constant < 100.0 and (p.moved is not None or p.samples < 2):
        return None
    fall = _alignment(evidence) * ADAM_LR * STEPS * sum(x.reach for x in p.pulls.values())
    if fall >= 0.1 * p.loss_constant:
        return None
    text = f"{STEPS} steps of {ADAM_LR:g} lower the loss by about {fall:.1e} of {p.loss_constant:.1e}"
    reason: Reason = "budget" if p.loss_constant >= 100.0 else "weak"
    return Fate(False, reason, math.log(max(fall, 1e-30) / (0.1 * p.loss_constant)), text)


def _alignment(evidence: Evidence) -> float:
    """How many times the pull on one matrix grows while sign descent aligns the others that it is multiplied with.

    Every entry moves by lr·steps in the same direction: n inputs of an aligned row add up to n·lr·steps, where drawn
    ones gave √(n·E w²). Only what follows the last bounded function or normalisation of the main line can grow. The
    pull on a matrix grows with all the others, so the least gain is left out; ten is granted in any case.
    """
    gains: list[float] = []
    parameters = {x.name: x for x in evidence.parameters if len(x.shape) > 1 and x.requires_grad}
    for s in stations(evidence):
        if s.node.op in SATURATING or s.node.name in norms(evidence) or s.node.op in RECURRENT:
            gains = []
        for x in (parameters[name] for name in s.node.parameters if name in parameters):
            drawn = math.sqrt(max(x.q, 1e-30) * max(1, math.prod(x.shape[1:])))
            gains.append(max(1.0, ADAM_LR * STEPS * math.prod(x.shape[1:]) / max(drawn, 1.0 / 3.0)))
    return max(10.0, math.prod(sorted(gains)[1:]) / max(1, len(gains)))


def _half(evidence: Evidence) -> Fate | None:
    p = evidence.probe
    if evidence.dtype != "float16" or p.loss is None or p.loss_constant is None:
        return None
    over = p.loss / max(p.loss_constant, 1e-3)
    if over < 10.0:
        return None
    return Fate(False, "half", math.log(10.0 / over), f"float16 weights with a loss {over:.0f} times chance")


def _slow(evidence: Evidence) -> Fate | None:
    """Only a linear read-out is trained: the loss is convex and its first-order fall per step is all there is."""
    p = evidence.probe
    trained = [x for x in evidence.parameters if x.requires_grad]
    last = next((n for n in reversed(evidence.nodes) if n.parameters), None)
    if last is None or any(x.name not in last.parameters for x in trained) or p.loss_constant is None:
        return None
    need = 0.1 * p.loss_constant
    fall = ADAM_LR * STEPS * sum(x.reach for x in p.pulls.values())
    fall = max(fall, SGD_LR * STEPS * p.signal**2)
    if fall >= need:
        return None
    return Fate(
        False, "slow", math.log(max(fall, 1e-30) / need),
        f"the loss of the only trained layer falls by at most {fall:.1e} in {STEPS} steps; {need:.1e} is a start",
    )  # fmt: skip


def _features(evidence: Evidence) -> Fate | None:
    """Only a linear read-out gets a pull, and the best one of all on these features is no start."""
    p = evidence.probe
    if p.loss_readout is None or p.loss_constant is None or p.loss_constant <= 0.0:
        return None
    share = p.loss_readout / p.loss_constant
    if share < 0.9:
        return None
    return Fate(
        False, "slow", math.log(0.9 / share) - 1.0,
        f"only the last layer gets a pull, and the best weights that its steps reach bring the loss to {share:.2f} of "
        "the best constant answer's",
    )  # fmt: skip


def _still(evidence: Evidence) -> Fate | None:
    """Nothing but the answers' constant part moves, and the pull lowers the loss by less than a tenth.

    Were the pull constant, all weights would move by S of their size together. It grows at most as e^s with what they
    have moved, a product of them all: s' = S·e^s over the budget ends at e^s = 1/(1 - S).
    """
    p = evidence.probe
    if p.loss_constant is None or p.loss_constant <= 0.0:
        return None
    share = moved_share(evidence)
    if share >= 0.5:
        return None
    fall = ADAM_LR * STEPS * sum(x.reach for x in p.pulls.values()) / (1.0 - share)
    if fall >= 0.1 * p.loss_constant:
        return None
    return Fate(
        False, "stalled", math.log(max(share, 1e-30)),
        f"the loss' pull is so far below Adam's 1e-8 that {STEPS} steps at {ADAM_LR:g} move all weights together by "
        f"{share:.1e} of their size at most",
    )  # fmt: skip


def stalled(evidence: Evidence) -> Fate | None:
    """Too many layers where the loss' pull is below Adam's ε, for the budget in which they could wake up in turn."""
    steps = stalled_steps(evidence)
    if steps <= STEPS:
        return None
    return Fate(
        False, "stalled", math.log(STEPS / steps),
        f"the loss' pull is below Adam's 1e-8 in so many layers that they need about {steps:.0f} steps at {ADAM_LR:g} "
        f"to wake up in turn; {STEPS} are given",
    )  # fmt: skip
