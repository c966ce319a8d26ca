"""Checks on the path from the loss to the parameters: GRD001, GRD002, OPT001."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.checks.evidence import Evidence
from firstlight.checks.fate import decide
from firstlight.checks.phrases import listed, number
from firstlight.checks.registry import check
from firstlight.graph.results import Finding, ParameterStats


@check("GRD001", stage=20)
def disconnected(e: Evidence) -> Iterator[Finding]:
    """No gradient path from the loss to any trained parameter.

    What it measures:
        Whether any parameter requires a gradient, and whether the output is connected to one.
    Why it matters:
        `backward()` raises, or every step is zero.
    When it is harmless:
        In a model that is only evaluated.
    Remedy:
        `model.requires_grad_(True)`; remove `.detach()`, `.data`, `.item()`, `torch.no_grad()` and NumPy round trips
        from the forward pass.
    Source:
        The chain rule; PyTorch's autograd notes.
    """
    p = e.probe
    if p.connected and p.trainable:
        return
    if p.trainable == 0:
        yield Finding(
            "GRD001", "error", "", "0 parameters require a gradient", "at least 1", "Everything is frozen.",
            "model.requires_grad_(True)",
        )  # fmt: skip
        return
    yield Finding(
        "GRD001", "error", e.measurement.outputs[-1] if e.measurement.outputs else "",
        f"the loss reaches none of {p.trainable} trainable parameters", "at least 1 (chain rule)",
        "The graph is cut between the parameters and the loss: a detach(), .data, no_grad() or a NumPy round trip.",
        _joined(e),
    )  # fmt: skip


def _joined(e: Evidence) -> str:
    """A line that takes the cut out, where it is a module; else where it stands."""
    cuts = [n for n in e.nodes if n.op == "detach"]
    if not cuts:
        return "# remove .detach(), .data, .item() or torch.no_grad() between the layers and the loss"
    cut = cuts[-1]
    if cut.module and sum(n.module == cut.module for n in e.nodes) == 1:
        return f"model.set_submodule({cut.module!r}, torch.nn.Identity())  # it held a detach()"
    return f"# remove the .detach() at {cut.source or cut.name}"


@check("GRD002", stage=21)
def without_gradient(e: Evidence) -> Iterator[Finding]:
    """Some trained parameters receive no gradient.

    What it measures:
        Parameters that require a gradient and got none in the backward pass.
    Why it matters:
        They keep their drawn values for ever: unused modules, or layers cut off by a detach().
    When it is harmless:
        For branches that this batch does not use (mixture of experts, auxiliary heads); for a bias that the loss does
        not depend on, as where it only sees derivatives (physics-informed networks).
    Remedy:
        Use them, freeze them with `requires_grad_(False)`, or remove the cut.
    Source:
        The chain rule; PyTorch issue 33723 is the usual complaint.
    """
    if not e.probe.connected:
        return
    missing = [p for p in e.parameters if p.requires_grad and not p.received_grad]
    if not missing:
        return
    cut = [p for p in missing if p.uses]
    if cut and len(cut) == len(missing) and all(_only_shifts(e, p) for p in cut):
        yield Finding(
            "GRD002", "info", cut[0].name,
            f"{listed([p.name for p in cut])}: no gradient, though the weight beside it gets one", "0 (chain rule)",
            "The loss does not depend on this constant, as that of a derivative does not.",
        )  # fmt: skip
        return
    fatal = decide(e).reason in ("slow", "silent") and bool(cut)
    yield Finding(
        "GRD002", "error" if fatal else "warning", missing[0].name,
        f"{len(missing)} of {sum(p.requires_grad for p in e.parameters)} trainable parameters get no gradient "
        f"({len(cut)} of them are used in the forward pass): {listed([p.name for p in missing])}",
        "0 (chain rule)",
        "These layers are read but cut off from the loss." if cut else "These parameters are never used.",
        _joined(e) if cut
            else f"model.get_parameter({missing[0].name!r}).requires_grad_(False)",
        evidence={"missing": float(len(missing)), "cut": float(len(cut))},
    )  # fmt: skip


def _only_shifts(e: Evidence, p: ParameterStats) -> bool:
    """Whether it is a bias whose operation is reached by the gradient all the same: its weight gets one."""
    held = {name for n in e.nodes if p.name in n.parameters for name in n.parameters}
    return len(p.shape) == 1 and any(x.name in held and len(x.shape) > 1 and x.received_grad for x in e.parameters)


@check("GRD005", stage=22)
def frozen_features(e: Evidence) -> Iterator[Finding]:
    """Only the read-out learns, and its features carry too little.

    What it measures:
        The largest first-order fall of the loss in 600 steps at a learning rate of 0.01 (Adam) or 1 (SGD); and the
        least loss on this batch of any linear read-out of these features whose weights such steps can reach.
    Why it matters:
        With all other layers frozen, cut off or saturated the loss is convex in what learns, and nothing else can make
        up for features in which samples hardly differ.
    When it is harmless:
        With pretrained features, which differ strongly: then this does not fire.
    Remedy:
        Train the layers below too: `model.requires_grad_(True)`.
    Source:
        First-order bound: a step of sign descent lowers the loss by at most lr·|g|₁, of gradient descent by lr·|g|².
        A convex problem's minimum bounds every optimizer.
    """
    fate = decide(e)
    if fate.reason == "slow":
        frozen = any(not p.requires_grad or not p.received_grad for p in e.parameters)
        yield Finding(
            "GRD005", "error", "", fate.text, "a tenth of the best constant answer's loss",
            "The features hardly differ between samples, and only the last layer changes.",
            "model.requires_grad_(True)" if frozen else 'firstlight.initialize(model, "random-walk")',
        )  # fmt: skip


@check("GRD006", stage=19)
def not_registered(e: Evidence) -> Iterator[Finding]:
    """Layers are kept in a plain list or dict, where torch does not find them.

    What it measures:
        Attributes that hold modules with parameters which no `model.parameters()` gives.
    Why it matters:
        No optimizer gets them, `.to(device)` and `state_dict` leave them out: they keep their drawn values for ever.
    When it is harmless:
        If they are meant to stay as they are, as a frozen teacher hidden from the optimizer.
    Remedy:
        `torch.nn.ModuleList` or `torch.nn.ModuleDict`.
    Source:
        PyTorch's notes on modules: only attributes that are modules or parameters are registered.
    """
    for where in e.unregistered:
        owner, _, name = where.rpartition(".")
        holder = f"model.get_submodule({owner!r})" if owner else "model"
        yield Finding(
            "GRD006", "warning" if e.probe.trainable and e.probe.connected else "error", where,
            f"{where} holds layers in a plain list or dict", "modules are attributes, ModuleList or ModuleDict",
            "torch does not find these layers: they are never trained, moved or saved.",
            f"{holder}.{name} = torch.nn.ModuleList({holder}.{name})  # ModuleDict for a dict",
        )  # fmt: skip


@check("OPT001", stage=23)
def not_in_optimizer(e: Evidence) -> Iterator[Finding]:
    """The optimizer does not hold all trained parameters.

    What it measures:
        Trainable parameters of the model that are in none of the optimizer's groups.
    Why it matters:
        They get gradients and never move: parameters created after the optimizer, or of a copied model.
    When it is harmless:
        If a second optimizer holds them.
    Remedy:
        Make the optimizer after the model: `torch.optim.Adam(model.parameters())`.
    Source:
        PyTorch's torch.optim notes.
    """
    if e.optimizer is None:
        return
    trained = [p.name for p in e.parameters if p.requires_grad]
    missing = [name for name in trained if name not in e.optimizer.held]
    if missing:
        yield Finding(
            "OPT001", "error" if len(missing) == len(trained) else "warning", missing[0],
            f"{len(missing)} of {len(trained)} trained parameters are not in the {e.optimizer.name}: {listed(missing)}",
            "0", "The optimizer never moves these parameters.",
            f"optimizer = torch.optim.{e.optimizer.name}(model.parameters(), lr={e.optimizer.lr:g})",
        )  # fmt: skip


@check("OPT002", stage=63)
def rate_too_small(e: Evidence) -> Iterator[Finding]:
    """Plain gradient descent at this learning rate hardly moves the loss.

    What it measures:
        Steps until the loss falls by a tenth of the best constant answer's, to first order: 0.1·L/(lr·|g|²), with g the
        part of the gradient that tells samples apart; momentum m counts as 1/(1-m) times the rate.
    Why it matters:
        The weights are sound, but this optimizer does not get them anywhere: the gradient is too small for its rate.
    When it is harmless:
        With Adam and its kin, which divide by the gradient's size (not judged); the pull grows as layers align, so up
        to some ten thousand steps nothing is said.
    Remedy:
        `torch.optim.Adam(model.parameters(), lr=1e-3)`, or a larger rate.
    Source:
        Taylor's theorem: a step of -lr·g lowers the loss by lr·|g|² to first order.
    """
    p = e.probe
    if e.optimizer is None or e.optimizer.name != "SGD" or p.loss_constant is None or not decide(e).starts:
        return
    rate = e.optimizer.lr / max(1e-3, 1.0 - e.optimizer.momentum)
    steps = 0.1 * max(p.loss_constant, 1e-12) / max(rate * p.signal**2, 1e-300)
    if steps < 1e5:
        return
    yield Finding(
        "OPT002", "error" if steps > 1e7 else "warning", "",
        f"about {number(steps)} steps of SGD at lr {e.optimizer.lr:g} until the loss falls by a tenth",
        "100000 steps, 10 million to call it stuck (first order, lr·|g|²)",
        "The gradient that tells samples apart is too small for this learning rate.",
        "optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)", evidence={"steps": steps, "signal": p.signal},
    )  # fmt: skip
