"""x/Σx over one or more axes: shares, which sum to one. By rows and columns in turn: Sinkhorn's iteration."""

from __future__ import annotations

import numpy as np

from firstlight.graph.along import Along
from firstlight.graph.signal import Cotangent, Signal, next_id, replace
from firstlight.rules.attention.shares import RETURNED
from firstlight.rules.gradients.gradient import scaled, whole
from firstlight.rules.state.empirical import uniform

#: Tag of a gradient that is at right angles to its tensor over some axes: (tag, a bit for each axis from the end, 0.0).
_BALANCED = "balanced"


def divides_by_own_sum(x: Signal, total: Signal) -> bool:
    """Whether x/total is x over its own sum (a small number beside it, which keeps it from zero, included)."""
    return total.tag is not None and total.tag[:2] == ("sum", x.ident)


def shares(out: Signal, x: Signal, total: Signal) -> Signal:
    """x and Σx grow together: shares sum to one, and E (x/Σx)² is near E x²/E (Σx)²."""
    size = x.mean_q / max(total.mean_q, 1e-300) / max(out.mean_q, 1e-300)
    mean = out.mean * (x.mean_mean / total.mean_mean / max(out.mean_mean, 1e-300))
    return replace(out, q=np.maximum(out.q * size, np.square(mean)), mean=mean)


def back(grad: Cotangent, direct: Cotangent, out: Signal, x: Signal, total: Signal) -> dict[str, Cotangent]:
    """Gradients of x, with what comes back through the sum, and of the sum, of s = x/Σx.

    dx = (g - t)/Σx with t = Σ g·s over the n entries of a sum. With E t² = ρ·n·E g²·E s², ρ = 1 for independent g, s,
    E (g - t)² = E g²·(1 - ρ·(2/n - E s²·n)) for even shares, where n·E s is 1. Σ dx·x = 0, whatever g is; division by
    sums over other axes keeps that, as long as shares are nearly even, so that ρ = 0 where x is divided by a sum over
    the same axis once more.

    Args:
        grad: Of the shares.
        direct: g/Σx.
        out: The shares.
        x: What is divided.
        total: Its sum.
    """
    g, n = whole(grad), x.numel / total.numel
    axes = sum(1 << (x.ndim - 1 - k) for k, size in enumerate(total.shape) if size == 1 < x.shape[k])
    last = total.shape == (*x.shape[:-1], 1)
    before = g.tag[1] if g.tag is not None and g.tag[0] == _BALANCED else 0
    square = n * out.mean_q  # of t, relative to E g²
    if before & axes == axes:
        known = 0.0
    elif grad.along is not None and last and g.mean_q > 0.0:
        known = min(grad.along.variance / (g.mean_q * square), n)
    else:
        known = 1.0
    left = max(1.0 - known * (2.0 / n - out.mean_q * n), 0.0)
    base = whole(scaled(direct, left**0.5))
    mine = replace(base, tag=(_BALANCED, before | axes, 0.0), ident=next_id())
    through = known * square * g.mean_q / max(total.mean_q, 1e-300)
    other = replace(uniform(total.shape, 0.0, through, noise=g.noise), tag=(RETURNED, x.ident, 0.0))
    return {"input": Cotangent(mine, along=Along() if last else None), "other": Cotangent(other)}
