"""The verbs: orchestration only; the work is done on the floors below."""

from __future__ import annotations

from firstlight.errors import InputError
from firstlight.theory import activations, random_walk


def gain(
    activation: str | activations.Activation,
    fan: int | None = None,
    keep: str = "median",
    law: str = "exact",
    q: float = 1.0,
    **parameters: activations.Parameter,
) -> float:
    """The gain g of weights with variance g²/fan_in that keeps a signal's length from layer to layer.

    | keep | law | g |
    | --- | --- | --- |
    | "median" | "exact" | exp(-½ E ln z), exact at this fan: the log-norm has no drift (given a living layer) |
    | "median" | "paper" | the published fits, for linear and relu only |
    | "mean" | "exact" | √(q/Eφ(√q z)²), at any fan: the mean square has no drift (relu: He's √2) |

    Keeping the median lets the mean grow, keeping the mean lets the median fall; see the page on mean and median.
    For φ of degree 1 (linear, relu, leaky_relu, prelu, abs) g does not depend on q. For all others it holds at
    pre-activations of mean square q.

    Args:
        activation: Name ("relu", "gelu-tanh", …), alias or record.
        fan: Number of units of the layer (fan_in of the next); needed for keep="median".
        keep: "median" or "mean".
        law: "exact" or "paper".
        q: Mean square of the pre-activations at which a gain of a φ that is not of degree 1 holds.
        **parameters: Constructor parameters of the nonlinearity, for example ``negative_slope=0.2``.

    Returns:
        g.

    Raises:
        InputError: Unusable arguments, or a combination for which there is no published fit.
        RegistryError: Unknown activation.

    Example:
        >>> round(gain("relu", fan=64), 4), round(gain("relu", keep="mean"), 4)
        (1.4429, 1.4142)

    References:
        sussillo2014, he2015
    """
    act = activations.get(activation, **parameters)
    for name, value, known in (("keep", keep, ("median", "mean")), ("law", law, ("exact", "paper"))):
        if value not in known:
            raise InputError(f"gain, {name}", got=repr(value), expected=" or ".join(map(repr, known)))
    if keep == "mean":
        if law == "paper":
            raise InputError(
                "gain",
                got="keep='mean' with law='paper'",
                expected="keep='median' (linear, relu), the only gains for which the paper gives a fit",
                action="Use law='exact': the mean-keeping gain is exact at every fan.",
            )
        return random_walk.mean_gain(act, q)
    if fan is None:
        raise InputError(
            "gain, fan",
            got="None",
            expected="the number of units of the layer",
            action="Pass fan=64, or keep='mean', which holds at any fan.",
        )
    return random_walk.paper_gain(act, fan) if law == "paper" else random_walk.median_gain(act, fan, q)
