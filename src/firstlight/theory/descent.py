"""How far an optimizer brings down a loss whose shape is known, in a given number of steps."""

from __future__ import annotations

import math
from functools import lru_cache


@lru_cache(maxsize=256)
def adam_share(first: float, power: int, steps: int, *, beta1: float = 0.9, beta2: float = 0.999) -> float:
    r"""Share of L(w) = w^P that Adam leaves, started at w = 1.

    The iteration itself (Kingma & Ba 1412.6980, algorithm 1), with \(g = P\,w^{P-1}\) and the rate at which the first
    step would take, to first order, the share `first` of the loss: \(\eta = \mathrm{first}/P\). While the loss falls,
    \(\sqrt{\hat v}\) keeps the size of the first gradients for \(1/(1-\beta_2)\) steps, so that for large P the loss
    falls with a power of the steps only, \(L \approx (\mathrm{first}\cdot t)^{-3/2}\).

    Args:
        first: Share of the loss that the first step takes to first order, > 0.
        power: P, the number of equal factors of the loss.
        steps: Number of steps.
        beta1: Decay of the mean gradient.
        beta2: Decay of the mean square.

    Returns:
        The least value on the way; 0 below 1e-30.

    References:
        kingma2015

    Example:
        >>> adam_share(0.05, 2, 600) < 1e-3 < adam_share(0.05, 200, 600)
        True
    """
    w, m, v, least = 1.0, 0.0, 0.0, 1.0
    rate = first / power
    for t in range(1, steps + 1):
        g = power * math.copysign(abs(w) ** (power - 1), w)
        m = beta1 * m + (1.0 - beta1) * g
        v = beta2 * v + (1.0 - beta2) * g * g
        root = math.sqrt(v / (1.0 - beta2**t))
        if root == 0.0:
            return 0.0
        w -= rate * m / (1.0 - beta1**t) / root
        if abs(w) > 1e3:  # far beyond where it began: it diverges
            return least
        least = min(least, abs(w) ** power)
        if least < 1e-30:
            return 0.0
    return least
