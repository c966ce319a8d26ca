"""The random-walk scheme: the log-norm has no drift, so the median length is kept, layer by layer."""

from __future__ import annotations

from typing import Literal

from firstlight.schemes.context import Context, Draw, Target
from firstlight.schemes.gains import keep_median
from firstlight.schemes.registry import scheme
from firstlight.schemes.scaled import Entries, scaled


@scheme(
    "random-walk",
    refs=("sussillo2014",),
    note="variance g(n)²/fan_in, g cancelling the log-norm's drift at width n: keeps the median length",
    keeps="median",
)
def random_walk(
    target: Target,
    context: Context,
    *,
    law: Literal["exact", "paper"] = "exact",
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    distribution: Entries = "normal",
    activation: str = "auto",
) -> Draw:
    """Variance g²/fan with g = exp(-½ E ln z) for the width of the layer that the activation belongs to.

    The gain is exact for independent normal entries. In convolutions the width is the number of channels,
    whose lengths fluctuate at most that much: an upper bound for large maps. "paper" uses the published fits
    for relu and linear layers.
    """
    gain, reason = keep_median(target, context, activation, law)
    return scaled(target, mode, distribution, gain, reason)
