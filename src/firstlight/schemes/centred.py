"""Weights whose rows sum to zero: what a layer's units have in common does not get through."""

from __future__ import annotations

import math

import torch

from firstlight.graph.ir import Law
from firstlight.schemes.context import Context, Draw, Target
from firstlight.schemes.draws import Stream
from firstlight.schemes.gains import beside_factor, chosen_activation, keep_mean
from firstlight.schemes.registry import scheme
from firstlight.schemes.scaled import scaled
from firstlight.theory import random_walk
from firstlight.theory.mean_field import mean_activation


@scheme(
    "centred",
    refs=("huang2017centred",),
    note="rows sum to zero, variance g²/fan_in with g = 1/√Var φ: a sigmoid stack starts as a tanh stack",
    keeps="mean",
)
def centred(target: Target, context: Context, *, activation: str = "auto") -> Draw:
    """W = (V - row means of V)·√(n/(n-1)), V normal of variance g²/fan_in, g = 1/√Var φ(z).

    Wh = W(h - mean of h): the mean that a sigmoid or a softplus gives to all units, the same for every input, would
    otherwise be most of the signal and make all inputs alike within a few layers. In a convolution every tap's sum
    over the n channels is zero, so that borders are centred too. A layer that reads no activation with a mean, one
    of a single channel, a gate or a transposed convolution gets He's law.
    """
    record, reason = chosen_activation(context, activation, assume="linear")
    channels = target.channels[0] if target.channels else target.shape[1] if len(target.shape) > 1 else 1
    reads = context.activation_side == "before" or activation != "auto"
    shaped = target.in_axes[:1] == (1,) and (target.split == 1 or bool(target.kernel_axes))
    if record is None or not reads or not shaped or channels < 2 or abs(float(mean_activation(record, 1.0))) < 1e-12:
        gain, why = keep_mean(context, activation, assume="linear")
        return scaled(target, "fan_in", "normal", gain, f"{why}; nothing to centre")
    gain, reason = beside_factor(random_walk.centred_gain(record), reason, context)
    std = gain / math.sqrt(target.fan_in) if target.fan_in else 0.0
    law = Law(0.0, std**2, structure="centred" if std else "constant")

    def build(stream: Stream, dtype: torch.dtype) -> torch.Tensor:
        w = stream.normal(target.shape).to(torch.float64)
        w = (w - w.mean(dim=1, keepdim=True)) * (std * math.sqrt(channels / (channels - 1)))
        return w.to(dtype)

    return Draw(law, build=build, gain=gain, reason=f"{reason}; rows sum to zero")
