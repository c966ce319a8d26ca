"""Checks on what no training can bring down: FWD008, FWD011, OUT004, OUT005, OUT006."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import decide
from firstlight.checks.mainline import REARRANGE
from firstlight.checks.phrases import number
from firstlight.checks.registry import check
from firstlight.graph.results import Finding, NodeStats


@check("FWD008", stage=44)
def linear_network(e: Evidence) -> Iterator[Finding]:
    """There is no non-linearity between the layers, and the task needs one.

    What it measures:
        The least loss on this batch of any linear function of the inputs, where every operation is linear.
    Why it matters:
        Layers without a function between them are one linear layer, whatever their number and weights.
    When it is harmless:
        If a linear function solves the task: then this does not fire.
    Remedy:
        A function behind each layer but the last: `torch.nn.ReLU()`.
    Source:
        A product of matrices is a matrix; the loss is convex in it, so its minimum bounds every optimizer. Fewer
        samples only make it smaller.
    """
    fate = decide(e)
    if fate.reason != "linear":
        return
    plain = all(n.module.isdigit() for n in e.nodes if n.parameters)
    yield Finding(
        "FWD008", "error", "", fate.text, "0.9 of it (a start)",
        "Layers without a function between them are one linear layer, which cannot solve this.",
        "model = torch.nn.Sequential(*[m for layer in model for m in (layer, torch.nn.ReLU())][:-1])" if plain
        else "for m in [m for m in model.modules() if isinstance(m, torch.nn.Linear)][:-1]: "
        "m.register_forward_hook(lambda m, x, out: out.relu())",
    )  # fmt: skip


@check("FWD011", stage=43)
def nothing_between(e: Evidence) -> Iterator[Finding]:
    """Two layers follow each other without a function between them.

    What it measures:
        Linear layers and convolutions (not grouped) that read nothing but another one's output, rearranged, dropped out
        or batch-normalised at most, and whose width in between is no bottleneck: at least that of the narrower end.
    Why it matters:
        Together they are one layer: the second adds weights and depth, but no function that the first alone could not
        be. Usually an activation was forgotten.
    When it is harmless:
        Always, for the start: that is why it is no warning. A bottleneck (LoRA, a factorised embedding) is a choice,
        and not reported.
    Remedy:
        A function between them.
    Source:
        A product of matrices is a matrix, of rank min(in, between, out).
    """
    if decide(e).reason == "linear":
        return
    pairs = list(_bare_pairs(e))
    if not pairs:
        return
    first, second = pairs[0]
    more = f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
    hook = "register_forward_hook(lambda module, x, out: out.relu())"
    yield Finding(
        "FWD011", "info", second.name, f"{second.name} reads {first.name} with no function in between{more}",
        "a function, or a width below both ends' (rank min(in, between, out))",
        "Two layers in a row are one layer: an activation may have been forgotten.",
        f"model.get_submodule({first.module!r}).{hook}" if first.module else "",
    )  # fmt: skip


def _bare_pairs(e: Evidence) -> Iterator[tuple[NodeStats, NodeStats]]:
    shapes = {p.name: p.shape for p in e.parameters if len(p.shape) > 1}
    nodes = {n.name: n for n in e.nodes}
    readers: dict[str, int] = {}
    for n in e.nodes:
        for name in n.inputs:
            readers[name] = readers.get(name, 0) + 1
    for n in e.nodes:
        second = _weight(n, shapes)
        step = nodes.get(n.inputs[0]) if second and len(n.inputs) == 1 else None
        while step is not None and step.op in _HANDS_ON and len(step.inputs) == 1 and readers.get(step.name) == 1:
            step = nodes.get(step.inputs[0])
        first = _weight(step, shapes) if step is not None and readers.get(step.name) == 1 else None
        if step is None or first is None or second is None or second[1] != first[0] or step.op != n.op:
            continue
        if first[0] >= min(first[1], second[0]):
            yield step, n


def _weight(n: NodeStats, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape of the one matrix that a layer reads, outputs first."""
    held = [shapes[name] for name in n.parameters if name in shapes]
    return held[0] if n.op in _MATRICES and len(held) == 1 else None


_MATRICES = frozenset(["linear", "conv1d", "conv2d", "conv3d"])
_HANDS_ON = REARRANGE | {"dropout", "identity", "batch_norm"}


@check("OUT004", stage=36)
def answers_out_of_reach(e: Evidence) -> Iterator[Finding]:
    """Even the best answers that the outputs could give are no better than a constant.

    What it measures:
        The least loss of any outputs, chosen sample by sample: within the range of the last function (sigmoid, tanh,
        ReLU, softmax), or where the loss pulls all samples alike.
    Why it matters:
        Targets outside the range cannot be met. Where targets are broadcast against the outputs, (n, 1) against (n,),
        the loss compares every answer with every target, and the mean of the targets is the best answer to all.
    When it is harmless:
        Where all targets of the batch are the same: not judged.
    Remedy:
        Targets in the outputs' range, or no function behind the last layer; targets of the outputs' shape.
    Source:
        The minimum over all answers bounds every network; for broadcast squared errors it is the targets' variance.
    """
    fate = decide(e)
    x = e.probe.expected
    if fate.reason != "unreachable" or (x is not None and not x.as_expected):  # OUT007 says what is wrong
        return
    last = next((n for n in e.nodes if n.name in e.measurement.outputs), None)
    shape = last.output.shape if last is not None else ()
    mixed = e.targets is not None and e.targets.floating and e.targets.shape != shape
    if last is not None and last.op in _ENDS and not mixed:
        meaning, line = _limited(e, last)
        effect = ""
    else:
        meaning = "The loss does not know which answer belongs to which sample."
        line = "targets = targets.view_as(model(batch))  # of the outputs' shape"
        effect = "" if e.targets is None else f"outputs {shape} against targets {e.targets.shape}"
    yield Finding(
        "OUT004", "error", last.name if last is not None else "", fate.text, "0.9 of the best constant answer's loss",
        meaning, line, effect, {"free": e.probe.loss_free or 0.0},
    )  # fmt: skip


def _limited(e: Evidence, last: NodeStats) -> tuple[str, str]:
    """What a bounded function behind the last layer does to the loss, and the line that mends it.

    Where the targets lie within its range, or are classes, the loss takes the answers for something else.
    """
    t, (low, high) = e.targets, _ENDS[last.op]
    if t is not None and t.floating and not (low <= t.low and t.high <= high):
        scaled = "(targets - targets.min()) / (targets.max() - targets.min())"
        return (
            f"The targets lie partly out of the range of {last.op}: part of the loss stays whatever the answers.",
            f"targets = {'2 * ' if low < 0.0 else ''}{scaled}{' - 1' if low < 0.0 else ''}",
        )
    own = last.module and last.module_type.lower() == last.op
    itself = f"the loss applies {last.op} itself" if last.op in ("sigmoid", "softmax") else "the loss takes any number"
    return (
        f"The outputs come out of {last.op}, and the loss takes them for raw scores: part of it stays even when all "
        "answers are right.",
        f"model.set_submodule({last.module!r}, torch.nn.Identity())  # {itself}" if own
        else f"# return what goes into {last.op}{f', {last.source}' if last.source else ''}: {itself}",
    )  # fmt: skip


@check("OUT006", stage=37)
def range_costs(e: Evidence) -> Iterator[Finding]:
    """Even perfect answers leave a loss: the function behind the last layer keeps them from it.

    What it measures:
        The least loss of any answers in the range of the last function (softmax, sigmoid, tanh, ReLU), chosen sample by
        sample, against a tenth of the best constant answer's.
    Why it matters:
        A softmax in front of `cross_entropy`, which applies one itself, leaves ln(1 + (K-1)/e): 1.46 of 2.30 for ten
        classes; a sigmoid in front of `binary_cross_entropy_with_logits` .5 of .69. The gradient passes both and is
        small. Targets beyond the range cannot be met either.
    When it is harmless:
        It is a start, and the order of the classes may still be learned; slower than without the function. Targets
        that are no certainties (smoothed labels) have a loss of their own, which is told apart: their best answers lie
        inside the range. `log_softmax` may be applied twice.
    Remedy:
        Return the logits where the loss expects them; targets in the outputs' range.
    Source:
        The minimum over all answers bounds every network. Applied twice, softmax maps onto logits between 0 and 1.
    """
    p, x = e.probe, e.probe.expected
    last = next((n for n in reversed(e.nodes) if n.op in _ENDS and n.name in behind_outputs(e)), None)
    if last is None or last.op == "log_softmax" or not decide(e).starts or (x is not None and not x.as_expected):
        return
    least = p.loss_free
    if least is not None and (p.loss_constant is None or least >= p.loss_constant):
        return
    if least is None and x is not None and x.are == "probabilities" and not x.logs:
        least = math.log(1.0 + (x.count - 1) / math.e)  # too many answers to search, but cross entropy's least is known
    if least is None or (e.targets is not None and not e.targets.spread > 0.0):
        return
    meaning, line = _limited(e, last)
    constant = p.loss_constant if p.loss_constant is not None else math.nan
    yield Finding(
        "OUT006", "warning", last.name,
        f"the best answers that {last.op} can give have a loss of {number(least)}, the best constant one "
        f"{number(constant)}", "a tenth of the best constant answer's loss",
        meaning, line, evidence={"free": least},
    )  # fmt: skip


def behind_outputs(e: Evidence) -> set[str]:
    """The outputs and what they merely rearrange."""
    found = set(e.measurement.outputs)
    for n in reversed(e.nodes):
        if n.name in found and n.op in REARRANGE:
            found.update(n.inputs)
    return found


@check("OUT005", stage=61)
def weak_pull(e: Evidence) -> Iterator[Finding]:
    """The loss hardly depends on the weights: outputs, or the loss itself, are multiplied by something tiny.

    What it measures:
        The largest first-order fall of the loss in 600 steps of Adam at 0.01, times what the pull can grow while all
        layers align, against a tenth of the best constant answer's loss.
    Why it matters:
        An optimizer that divides by the gradient's size moves weights by the learning rate, not outputs: a factor of
        1e-6 behind the last layer stays there. Gradients below Adam's ε move nothing at all.
    When it is harmless:
        Behind a saddle or plateau (zero read-outs), where the gradient's size says nothing: not judged there.
    Remedy:
        Take the factor out: divide the outputs by their size, or multiply the loss.
    Source:
        First-order bound: a step of sign descent lowers the loss by at most lr·|g|₁; Kingma & Ba 1412.6980 for ε.
    """
    fate, p = decide(e), e.probe
    if fate.reason != "weak":
        return
    of_loss = p.loss_constant is not None and p.loss_constant < 1e-3
    yield Finding(
        "OUT005", "error", "", fate.text, "a tenth of the best constant answer's loss",
        "The loss is so small that its gradients are below what an optimizer can use." if of_loss
        else f"The outputs are of size {number(p.output_rms)} and no usual step makes them larger.",
        f"loss = lambda out, targets, loss=loss: {1.0 / (p.loss_constant or 1.0):.1g} * loss(out, targets)" if of_loss
        else f"model.register_forward_hook(lambda model, x, out: out / {p.output_rms:.1g})  # or without the factor",
    )  # fmt: skip


# Functions that end a network, and the numbers that they can give.
_ENDS = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, math.inf), "softmax": (0.0, 1.0),
         "log_softmax": (-math.inf, 0.0)}  # fmt: skip
