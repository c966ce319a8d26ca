"""Checks on what adds up to one, along which axis, and who reads it so: OUT007, OUT008, FWD009, FWD010."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.checks.bounds import behind_outputs
from firstlight.checks.evidence import Evidence, Expected, Softmax
from firstlight.checks.fate import decide
from firstlight.checks.phrases import number, severity
from firstlight.checks.registry import check
from firstlight.graph.results import Finding, NodeStats

# Operations between a product of two signals and the softmax of it: scale, mask, bias.
_SCORED = frozenset(
    ["mul", "div", "truediv", "add", "sub", "masked_fill", "where", "dropout", "clamp", "tanh", "to", "view",
     "reshape", "transpose", "permute", "unsqueeze", "squeeze", "contiguous", "clone"]
)  # fmt: skip
_PRODUCTS = frozenset(["matmul", "bmm", "mm", "einsum", "baddbmm"])
_STEPS = 12


@check("OUT007", stage=34)
def not_what_the_loss_expects(e: Evidence) -> Iterator[Finding]:
    """The loss takes the outputs for something else than they are: other classes, or log-probabilities.

    What it measures:
        Along which axis the loss compares answers, read off its gradient r at the outputs: of cross entropy each line
        of r = p - y along the classes adds up to zero, of the negative log-likelihood one entry of each is not zero.
        Along which axis the outputs, or their exponentials, add up to one.
    Why it matters:
        A softmax over the samples or positions lets these compete, not the classes: an answer depends on who else is
        in the batch, and alone every sample has probability one of everything. The negative log-likelihood of raw
        outputs has no lower bound and runs away to minus infinity; of probabilities it is their mean, which pulls on
        samples that are answered wrongly least of all.
    When it is harmless:
        It is not; probabilities under a negative log-likelihood do learn, more slowly.
    Remedy:
        `dim=` the axis of the classes; `cross_entropy` on raw outputs, or `log_softmax` in front of `nll_loss`.
    Source:
        ∂/∂z of the cross entropy is softmax(z) - y (Bridle 1990); PyTorch's notes on NLLLoss ask for log-probabilities.
    """
    x = e.probe.expected
    if x is None or x.as_expected:
        return
    yield _other_axis(e, x) if x.ones not in (None, x.classes) else _no_logs(e, x)


def _other_axis(e: Evidence, x: Expected) -> Finding:
    assert x.ones is not None
    s = next((s for s in reversed(e.softmaxes) if s.name in behind_outputs(e)), None) or _last(e)
    node = _node(e, s.name) if s is not None else None
    what = "samples" if x.ones == 0 else "positions"
    twice = not x.logs and x.are == "probabilities"  # cross entropy makes probabilities itself
    return Finding(
        "OUT007", severity(decide(e).reason == "unreachable"), node.name if node is not None else "",
        f"the outputs are {x.are} along axis {x.ones}; the loss compares answers along axis {x.classes}",
        f"axis {x.classes}, along which the loss' gradient "
        + ("has one entry per answer" if x.logs else "adds up to zero"),
        f"The softmax runs over the {what}, not over the classes: {what} compete with each other for each class.",
        _taken_out(node) if twice else _other_dim(node, x.classes),
        evidence={"axis": float(x.ones), "classes": float(x.classes)},
    )  # fmt: skip


def _no_logs(e: Evidence, x: Expected) -> Finding:
    raw = not x.are
    end = next((n for n in reversed(e.nodes) if n.op == "softmax" and n.name in behind_outputs(e)), None)
    own = end is not None and end.module and end.module_type == "Softmax"
    logs = f"torch.nn.LogSoftmax(dim={x.classes})"
    if raw:
        line = f"model = torch.nn.Sequential(model, {logs})  # or cross_entropy, which does it itself"
    elif own and end is not None:
        line = f"model.set_submodule({end.module!r}, {logs})"
    else:
        line = f"# log_softmax(dim={x.classes}) in place of softmax" + (f", {end.source}" if end is not None else "")
    return Finding(
        "OUT007", "warning", end.name if end is not None else "",
        "the loss reads one output of each sample, as the negative log-likelihood does; "
        "the exponentials of the outputs add up to one along no axis"
        + (", the outputs themselves do" if not raw else ""),
        f"log-probabilities: exponentials that add up to 1 along axis {x.classes}",
        "The loss wants log-probabilities and gets raw outputs: it falls without end, whatever is learned."
        if raw else "The loss wants log-probabilities and gets probabilities: wrong answers pull least.",
        line,
    )  # fmt: skip


@check("OUT008", stage=38)
def rectified_answers(e: Evidence) -> Iterator[Finding]:
    """A rectifier behind the last layer cuts the loss' gradient off.

    What it measures:
        Share of the gradient |∂L/∂f|² at the outputs that are exactly zero, where a ReLU is the last operation and the
        loss compares classes; and the classes whose output is zero for every sample.
    Why it matters:
        A score that is zero gets no gradient: the loss asks for more of the right class and the rectifier does not pass
        it on. A class that is zero for all samples is never learned.
    When it is harmless:
        For targets that are counts or sizes, which are no classes: not reported.
    Remedy:
        No function behind the last layer.
    Source:
        The derivative of ReLU is 0 below 0; a class is shut for all samples with the probability of a dead unit (Lu et
        al. 1903.06733).
    """
    x = e.probe.expected
    end = next((n for n in reversed(e.nodes) if n.op == "relu" and n.name in behind_outputs(e)), None)
    if x is None or end is None or x.closed < 0.1:
        return
    own = end.module and end.module_type == "ReLU"
    shut = f", {x.shut} of {x.count} classes for every sample" if x.shut else ""
    yield Finding(
        "OUT008", "warning", end.name,
        f"{number(x.closed)} of the gradient's square stops at outputs that are zero{shut}",
        "0.1 (the derivative of ReLU at zero outputs is 0)",
        "The rectifier behind the last layer keeps part of the loss' gradient from the weights.",
        f"model.set_submodule({end.module!r}, torch.nn.Identity())" if own
        else f"# return what goes into the relu{f', {end.source}' if end.source else ''}",
        evidence={"closed": x.closed, "shut": float(x.shut)},
    )  # fmt: skip


@check("FWD009", stage=35)
def over_the_samples(e: Evidence) -> Iterator[Finding]:
    """A softmax runs over the samples of the batch.

    What it measures:
        The axis of each softmax: the first, of the batch's size, where the outputs have the samples there too.
    Why it matters:
        What a sample gets depends on who else is in the batch, and one sample alone gets the weight one everywhere.
        `F.softmax(x)` without `dim` takes the first axis of tensors of three axes.
    When it is harmless:
        If the first axis holds positions of one sequence; if samples are to compete on purpose (routing by experts).
    Remedy:
        `dim=-1`, or the axis of what is to be compared.
    Source:
        PyTorch's notes on softmax: every slice along `dim` adds up to 1.
    """
    for s in _over_samples(e)[:1]:
        node = _node(e, s.name)
        yield Finding(
            "FWD009", "warning", s.name,
            f"{node.op if node else 'softmax'} over axis 0 of {s.shape}, along which the {s.shape[0]} samples lie",
            "an axis within a sample (every slice along dim adds up to 1)",
            "The samples of the batch compete with each other: an answer depends on who else is in the batch.",
            _other_dim(node, -1),
        )  # fmt: skip


def _over_samples(e: Evidence) -> list[Softmax]:
    """Softmaxes over the first axis, where that is the batch's from the inputs to the outputs."""
    n = e.measurement.batch_size
    first = {s.output.shape[:1] for s in e.nodes if s.name in e.measurement.outputs}
    if n < 2 or first != {(n,)} or e.time_first or (e.probe.expected is not None and e.probe.expected.ones == 0):
        return []
    return [s for s in e.softmaxes if s.axis == 0 and len(s.shape) > 1 and s.shape[0] == n and n not in s.shape[1:]]


@check("FWD010", stage=36)
def weights_of_others(e: Evidence) -> Iterator[Finding]:
    """Attention weights add up to one along another axis than the one that they are summed over.

    What it measures:
        The axis of each softmax of a product of two signals (queries with keys), followed to the product with the
        values: whether that one sums over it.
    Why it matters:
        Softmax over the queries, the heads or the samples: the weights that one query gives to the keys no longer add
        up to one, so that its output is no mean of the values but anything from nothing to the sum of many. Over the
        queries a causal mask lets the future through: the weights of an early one depend on the later ones.
    When it is harmless:
        If the weights are divided by their sum afterwards (slot attention): not reported.
    Remedy:
        `dim=-1` for scores of the form (..., queries, keys).
    Source:
        Vaswani et al. 1706.03762, equation 1: each row of softmax(QKᵀ/√d) is one query's weights.
    """
    said = {s.name for s in _over_samples(e)}
    wrong = [s for s in e.softmaxes if s.summed and not s.matched and s.name not in said and _of_two(e, s)]
    if not wrong:
        return
    s = wrong[0]
    node = _node(e, s.name)
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    yield Finding(
        "FWD010", "warning", s.name,
        f"the weights of shape {s.shape} add up to one along axis {s.axis}; {s.where} sums over another{more}",
        "the axis that is summed over (1706.03762, equation 1)",
        "Each query's attention weights do not add up to one: the softmax runs over the wrong axis.",
        _other_dim(node, -1), evidence={"axis": float(s.axis), "count": float(len(wrong))},
    )  # fmt: skip


def _of_two(e: Evidence, s: Softmax) -> bool:
    """Whether the scores are a product of two signals, as those of attention, not of a signal with weights."""
    nodes = {n.name: n for n in e.nodes}
    step = nodes.get(s.name)
    for _ in range(_STEPS):
        if step is None:
            return False
        if step.op in _PRODUCTS:
            return not step.parameters
        if step is not nodes.get(s.name) and step.op not in _SCORED:
            return False
        before = [nodes[name] for name in step.inputs if name in nodes]
        step = max(before, key=lambda n: len(n.output.shape), default=None)
    return False


def _node(e: Evidence, name: str) -> NodeStats | None:
    return next((n for n in e.nodes if n.name == name), None)


def _last(e: Evidence) -> Softmax | None:
    return e.softmaxes[-1] if e.softmaxes else None


def _taken_out(node: NodeStats | None) -> str:
    """A line that hands on what goes into the softmax."""
    if node is not None and node.module and node.module_type == "Softmax":
        return f"model.set_submodule({node.module!r}, torch.nn.Identity())  # the loss applies softmax itself"
    where = f", {node.source}" if node is not None and node.source else ""
    return f"# return what goes into softmax{where}: the loss applies it itself"


def _other_dim(node: NodeStats | None, axis: int) -> str:
    """A line that gives the softmax its axis: runs as it stands where it is a module."""
    if node is None:
        return f"# dim={axis} in the softmax"
    if node.module_type in ("Softmax", "LogSoftmax") and node.module:
        return f"model.get_submodule({node.module!r}).dim = {axis}"
    return f"# {node.op}(..., dim={axis})" + (f" at {node.source}" if node.source else "")
