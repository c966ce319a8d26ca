"""How far the loss' pull reaches down a plain stack, and how long the layers that it does not reach have to wait."""

from __future__ import annotations

import itertools
import math

import numpy as np

from firstlight.checks.budget import STEPS
from firstlight.checks.evidence import Evidence
from firstlight.checks.mainline import NONLINEAR, RECURRENT, SATURATING, stations
from firstlight.checks.norms import norms
from firstlight.errors import FirstlightError
from firstlight.theory import activations

# Adam divides by the gradient's size plus this: entries with smaller gradients stand still.
ADAM_EPS = 1e-8
# Largest learning rate that is tried.
RATE = 1e-2
# Bounded functions whose slope falls with a power of the input, not exponentially: saturated, they still pass a pull.
ALGEBRAIC = frozenset(["softsign"])
# Steps that a layer takes to wake up, in units of 1/(n·rate·φ'(0)); for bounded functions, which saturate above while
# the layers below still wait, the second number. Measured: on the development half and 26 stacks trained for these
# two numbers, those of less than 140 units in all (60 where bounded) started within 600 steps, those of more did not,
# three of them excepted.
WAKING, WAKING_BOUNDED = 4.25, 10.5


def stalled_steps(evidence: Evidence) -> float:
    """Steps until the pull has reached the first layer of a plain stack; 0 where it does already.

    A layer whose gradient is below ε waits until the layer above it has grown to gain one. Under Adam an aligned row of
    n inputs grows by n·rate per step, times the slope φ'(0) that it is passed through: 1/(n·rate·φ'(0)) steps, one
    layer after the other. Normalisations, recurrences and residual sums carry the pull past the layers: 0.
    """
    line = stations(evidence)
    if any(s.node.name in norms(evidence) or s.node.op in RECURRENT for s in line) or _jumps(evidence):
        return 0.0
    if any(s.sensitivity < evidence.eps for s in line[:-1]):
        return 0.0  # zero or lost on the way: another rule's matter
    pulls = evidence.probe.pulls
    by_name = {p.name: p for p in evidence.parameters}
    layers = [s for s in line if any(name in pulls for name in s.node.parameters)][:-1]
    following = {a.node.name: b.node.op for a, b in itertools.pairwise(line)}
    total = 0.0
    for s in layers:
        held = [by_name[name] for name in s.node.parameters if name in pulls]
        largest = max(pulls[p.name].constant / math.sqrt(pulls[p.name].entries) for p in held)
        if largest >= ADAM_EPS or any(p.zero_fraction == 1.0 for p in held if len(p.shape) > 1):
            continue
        fan = max(math.prod(p.shape[1:]) for p in held)
        total += 1.0 / (fan * RATE * _slope(following.get(s.node.name, "")))
    if any(s.node.output.rms > 3.0 for s in line[1:]):
        return 0.0  # out of the linear range, where φ'(0) is not the slope
    return total * (WAKING_BOUNDED if any(s.node.op in SATURATING - ALGEBRAIC for s in line) else WAKING)


def moved_share(evidence: Evidence) -> float:
    """Bound on how far the budget's steps of Adam move the network, as a share of itself; the read-out's bias left out.

    A weight of gradient g moves by rate·steps·g/(g + ε) at most. In a row of n inputs that is up to √n of it beside the
    row's own effect; of a bias it counts beside the output that it is added to. The sum over all weights bounds the
    relative change of every product of them, gradients too. Infinite where a weight is zero: its own size says nothing.
    """
    pulls = evidence.probe.pulls
    last = next((n for n in reversed(evidence.nodes) if n.parameters), None)
    total = 0.0
    for p in evidence.parameters:
        pull = pulls.get(p.name)
        readers = [n for n in evidence.nodes if p.name in n.parameters]
        if pull is None or (len(p.shape) < 2 and last is not None and p.name in last.parameters):
            continue
        g = math.hypot(pull.signal, pull.constant)  # bounds the largest entry
        step = RATE * STEPS * g / (g + ADAM_EPS)
        sizes = [math.sqrt(p.q)] if len(p.shape) > 1 else [math.sqrt(p.q), *(n.output.rms for n in readers)]
        size = min((x for x in sizes if x > 0.0), default=0.0)
        if size == 0.0:
            return math.inf
        total += max(1, len(readers)) * step * math.sqrt(math.prod(p.shape[1:])) / size
    return total if pulls else math.inf


def _slope(op: str) -> float:
    """φ'(0), the mean of both sides at a kink; 1 for what is no non-linearity."""
    if op not in NONLINEAR:
        return 1.0
    try:
        f = activations.get(op)
    except FirstlightError:
        return 1.0
    return max(1e-2, float(np.mean(np.asarray(f.df(np.array([-1e-6, 1e-6]))))))


def _jumps(evidence: Evidence) -> bool:
    """Whether a sum of two branches lies on the main line."""
    return any(s.node.op in ("add", "cat") and len(s.node.inputs) == 2 for s in stations(evidence))
