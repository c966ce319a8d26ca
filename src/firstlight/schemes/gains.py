"""Which gain a layer takes: the choice of the activation; the numbers come from `theory`."""

from __future__ import annotations

from firstlight.schemes.context import Context, Target
from firstlight.theory import activations, random_walk
from firstlight.theory.activations import Activation

ASSUMED = "relu assumed"  # how the reason of a layer begins whose neighbours are not known


def chosen_activation(context: Context, activation: str, assume: str = "relu") -> tuple[Activation | None, str]:
    """The activation that a layer's gain is for, and why it is that one.

    "auto" is the activation whose output the layer reads. A layer that reads none (the first one, or one
    behind a normalisation) takes the gain of the activation that follows if that is homogeneous of degree
    1, since for such a function it does not matter on which side the gain stands; for all others the
    following activation expects an input of length 1, and so the gain is 1.

    Where nothing is known of the neighbours, the activation is `assume`: relu, as He et al. have it, or linear.
    """
    if activation != "auto":
        record = activations.get(activation)
        return record, f"{record.name}, as asked"
    if context.activation is not None:
        return context.activation, f"{context.activation.name} {context.activation_side}"
    if not context.neighbours:
        if assume == "linear":
            return None, "no activation was seen"
        record = activations.get(assume)
        return record, (
            f"{ASSUMED}: its operation was not recognised" if context.traced else f"{ASSUMED}: give a batch"
        )
    return None, "no activation at the layer's input"


def keep_mean(context: Context, activation: str, assume: str = "relu") -> tuple[float, str]:
    """The gain that keeps the mean square length, 1/√E φ(z)², and the reason."""
    record, reason = chosen_activation(context, activation, assume)
    return beside_factor(1.0 if record is None else random_walk.mean_gain(record), reason, context)


def keep_median(target: Target, context: Context, activation: str, law: str) -> tuple[float, str]:
    """The gain that keeps the median length of a layer of its own width, and the reason."""
    record, reason = chosen_activation(context, activation)
    width = context.width
    if width is None:
        width = target.channels[1] if target.channels else 1
    act = record or activations.get("linear")
    if law == "paper" and act.slopes in ((1.0, 0.0), (1.0, 1.0)):
        return beside_factor(random_walk.paper_gain(act, width), f"{reason}, {width} units", context)
    if law == "paper":
        reason = f"{reason} (exact: the paper has no fit for {act.name})"
    return beside_factor(random_walk.median_gain(act, width), f"{reason}, {width} units", context)


def beside_factor(gain: float, reason: str, context: Context) -> tuple[float, str]:
    """The gain of the weights where the network multiplies by constants as well: sin(30·Wx) leaves 1/30 to W."""
    if context.factor == 1.0:
        return gain, reason
    return gain / context.factor, f"{reason}, times {context.factor:.4g} by the network"
