"""Checks on units: dead, saturated, or alone under a softmax: ACT001, ACT002, OUT001."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.checks.blame import blame
from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import decide
from firstlight.checks.mainline import NONLINEAR, REARRANGE, SATURATING, stations
from firstlight.checks.phrases import counted, listed, number, severity
from firstlight.checks.registry import check
from firstlight.graph.results import Finding, NodeStats
from firstlight.theory import lengths


@check("OUT001", stage=35)
def constant_output(e: Evidence) -> Iterator[Finding]:
    """A softmax over one unit, which is always 1.

    What it measures:
        Softmax operations along an axis with one entry: on the path to the output, or of a layer with one unit.
    Why it matters:
        The output is 1 whatever the input, its gradient is zero for ever.
    When it is harmless:
        Never as the output; an attention over a single key is harmless.
    Remedy:
        A sigmoid in its place; better still, return the logit and use `torch.nn.BCEWithLogitsLoss()`.
    Source:
        softmax(z) = e^z / e^z.
    """
    line = {s.node.name for s in stations(e)}
    nodes = {n.name: n for n in e.nodes}
    for n in (nodes[s.name] for s in e.softmaxes if s.shape and s.shape[s.axis] == 1 and s.name in nodes):
        if n.name not in line and not _scores_of_one_unit(e, n):
            continue
        place = f", {n.source}" if n.source else ""
        instead = "torch.sigmoid in place of this softmax" if n.name in line else "dim= the axis of what is weighed"
        yield Finding(
            "OUT001", severity(not decide(e).starts), n.name, f"{n.op} over an axis of size 1",
            "at least 2 entries (e^z/e^z = 1)",
            "The output is the same constant for every input and every weight." if n.name in line
            else "These weights are 1 for every input, and what makes them never learns.",
            f"model.set_submodule({n.module!r}, torch.nn.Sigmoid())" if n.module_type == "Softmax" and n.module
            else f"# {instead}{place}",
        )  # fmt: skip


def _scores_of_one_unit(e: Evidence, n: NodeStats) -> bool:
    """Whether a layer of one unit gives the scores: then it is no accident that there is one of them."""
    nodes = {x.name: x for x in e.nodes}
    shapes = {p.name: p.shape for p in e.parameters if len(p.shape) > 1}
    while len(n.inputs) == 1 and (n.op in REARRANGE or n.op == "softmax"):
        n = nodes.get(n.inputs[0], n)
        if n.op == "input":
            return False
    return any(shapes[name][0] == 1 for name in n.parameters if name in shapes)


@check("ACT001", stage=40)
def dead_units(e: Evidence) -> Iterator[Finding]:
    """Units, or whole layers, that no sample of the batch wakes.

    What it measures:
        Units whose output is exactly zero (for smooth functions: whose layer loses the signal altogether) for every
        sample and position.
    Why it matters:
        A dead ReLU passes neither signal nor gradient. A dead layer ends training before it begins.
    When it is harmless:
        Some dead units in a wide layer cost capacity only; another batch may wake them. Deep in a stack half of
        them are off for all samples, which point one way there.
    Remedy:
        A dead layer: `firstlight.initialize(model, "random-walk")` (biases 0), normalise the input, or a leaky
        function; in narrow deep networks widen the layers. Many dead units: a leaky function, if they stay asleep.
    Source:
        Lu et al. 1903.06733: a layer of n ReLU units is dead at a given input with probability 2^-n, so a network with
        probability 1-Π(1-2^-n) (theory.lengths.p_dead).
    """
    cause = blame(e)
    relus = [n for n in e.nodes if n.op in NONLINEAR and n.op not in SATURATING and n.op != "softmax"]
    dead = [
        n
        for n in relus
        if n.output.units > 0 and n.output.dead_units == n.output.units and n.output.zero_fraction == 1.0
    ]
    if cause.kind == "dead" and cause.node is not None and cause.node not in dead:
        dead.insert(0, cause.node)
    widths = [n.output.units for n in relus if n.op in ("relu", "relu6") and n.output.units < 64]
    chance = lengths.p_dead(widths) if widths else 0.0
    if dead:
        first = dead[0]
        fatal = cause.kind in ("dead", "offset", "faded") and not decide(e).starts
        fed = [n for n in e.nodes if n.name in first.inputs]
        shift = f"; its pre-activations have mean {number(fed[0].output.mean)}" if fed else ""
        yield Finding(
            "ACT001", severity(fatal), first.name,
            f"layer dead: none of its {first.output.units} units passes any sample{shift}"
            + (f"; so in {len(dead)} layers" if len(dead) > 1 else ""),
            f"at least one living unit; drawn at random, a network of these widths has a dead layer with probability "
            f"{number(chance)} (Lu et al. 1903.06733)",
            "Nothing passes this layer, forward or backward.",
            'firstlight.initialize(model, "random-walk")' if chance < 0.3 else _leaky(relus),
            f"alive with probability {1.0 - chance:.2f}" if chance < 0.3
            else f"no unit is ever dead; a redraw would be with probability {chance:.2f}, wider layers more rarely",
            {"p_dead": chance},
        )  # fmt: skip
        return
    if e.measurement.batch_size < 8:
        return  # a unit that a few samples leave asleep is no dead unit
    worst = max(relus, key=lambda n: n.output.dead_units / max(1, n.output.units), default=None)
    if worst is None or worst.op not in ("relu", "relu6"):
        return
    # Samples that have become alike sleep together: each unit then with probability 1/2.
    n = worst.output.units
    limit = 0.5 * n + 1.5 * n**0.5
    if worst.output.dead_units > limit:
        yield Finding(
            "ACT001", "warning", worst.name, f"{worst.output.dead_units} of {n} units are zero for the whole batch",
            f"{limit:.0f}: half of the units, where samples are alike, and 3 standard deviations of that",
            "Much of this layer takes no part.",
            "nn.LeakyReLU(0.01)  # in place of the ReLU, if the units stay asleep in training",
        )  # fmt: skip


def _leaky(relus: list[NodeStats]) -> str:
    """A line that puts leaky functions, with the slope that Keras gives them, in place of the rectifiers."""
    if not all(n.module_type in ("ReLU", "ReLU6") for n in relus if n.op in ("relu", "relu6")):
        return "# torch.nn.functional.leaky_relu(x, 0.3) in place of every relu, or wider layers"
    return (
        "for name in [n for n, m in model.named_modules() if isinstance(m, torch.nn.ReLU)]: "
        "model.set_submodule(name, torch.nn.LeakyReLU(0.3))"
    )


@check("ACT002", stage=41)
def saturated_units(e: Evidence) -> Iterator[Finding]:
    """Most entries of a bounded non-linearity lie on its flat ends.

    What it measures:
        Share of entries where the slope is below 1 % of its largest value (theory.activations).
    Why it matters:
        The gradient is multiplied by the slope: it dies, and samples that differ become equal.
    When it is harmless:
        In a few gates or outputs; below nine tenths enough entries pass.
    Remedy:
        `firstlight.initialize(model, "xavier")` and a normalised input.
    Source:
        Glorot & Bengio 2010; the mean-field χ₁ = σ_w² E φ'² of Schoenholz et al. 1611.01232.
    """
    cause = blame(e)
    hit = [
        n for n in e.nodes
        if n.op in SATURATING and n.output.saturated_fraction is not None and n.output.saturated_fraction > 0.9
    ]  # fmt: skip
    if cause.kind == "saturated" and cause.node is not None and cause.node not in hit:
        hit.insert(0, cause.node)
    if not hit:
        return
    first = hit[0]
    fate = decide(e)
    fatal = (cause.kind == "saturated" or fate.reason == "exploded") and not fate.starts
    share = first.output.saturated_fraction
    yield Finding(
        "ACT002", severity(fatal), first.name,
        (f"{100 * share:.0f} % of the entries are saturated" if share else "the entries no longer move with the input")
        + f", in {counted(len(hit), 'operation', 'operations')}: {listed([n.name for n in hit])}",
        "90 % with a slope below 1 % of the largest (theory.activations)",
        "The flat ends let neither differences nor gradients through.",
        'firstlight.initialize(model, "xavier")  # and a normalised input',
        "puts pre-activations at size 1, where the slope is large",
    )  # fmt: skip
