"""Checks on what no training can bring down: FWD008, OUT004, OUT005, OUT006."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import decide
from firstlight.checks.mainline import REARRANGE
from firstlight.checks.phrases import number
from firstlight.checks.registry import check
from firstlight.graph.results import Finding


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
    if fate.reason != "unreachable":
        return
    last = next((n for n in e.nodes if n.name in e.measurement.outputs), None)
    shape = last.output.shape if last is not None else ()
    mixed = e.targets is not None and e.targets.floating and e.targets.shape != shape
    limited = last is not None and last.op in _ENDS and not mixed
    yield Finding(
        "OUT004", "error", last.name if last is not None else "", fate.text, "0.9 of the best constant answer's loss",
        f"The targets lie out of the range of {last.op if last is not None else ''}." if limited else
        "The loss does not know which answer belongs to which sample.",
        "targets = (targets - targets.min()) / (targets.max() - targets.min())" if limited
        else "targets = targets.view_as(model(batch))  # of the outputs' shape",
        "" if limited or e.targets is None else f"outputs {shape} against targets {e.targets.shape}",
        {"free": e.probe.loss_free or 0.0},
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
    p = e.probe
    if p.loss_free is None or p.loss_constant is None or not decide(e).starts or p.loss_free >= p.loss_constant:
        return
    last = next((n for n in reversed(e.nodes) if n.op in _ENDS and n.name in _behind(e)), None)
    t = e.targets
    if last is None or last.op == "log_softmax" or (t is not None and not t.spread > 0.0):
        return
    whole = last.op not in ("softmax", "sigmoid")
    twice = not whole and (t is None or not t.floating or (t.low >= 0.0 and t.high <= 1.0))
    own = last.module and last.module_type.lower() == last.op
    yield Finding(
        "OUT006", "warning", last.name,
        f"the best answers that {last.op} can give have a loss of {number(p.loss_free)}, the best constant one "
        f"{number(p.loss_constant)}", "a tenth of the best constant answer's loss",
        f"The outputs come from {last.op} already, and the loss takes them for logits: part of it stays even when all "
        "answers are right." if twice
        else f"The targets lie partly out of the range of {last.op}: part of the loss stays whatever the answers.",
        (f"model.set_submodule({last.module!r}, torch.nn.Identity())  # the loss applies {last.op} itself" if own
         else f"# return what goes into {last.op}: the loss applies it itself") if twice
        else "targets = (targets - targets.min()) / (targets.max() - targets.min())",
        evidence={"free": p.loss_free},
    )  # fmt: skip


def _behind(e: Evidence) -> set[str]:
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


_ENDS = frozenset(["sigmoid", "tanh", "relu", "softmax", "log_softmax"])
