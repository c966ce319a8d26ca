"""The largest weights of a softmax, divided by their sum (routers of experts): their gradients.

With p the k largest weights of a row, S = Σp and w = p/S, a gradient g of w gives dS = -Σ g·w/S and, with the way
through S, dp_r = (g_r - Σ g·w)/S. For entries of g with the mean square V, mean product C over ranks and independent
of p, E (Σ g·w)² = V·Σw² + C·(1 - Σw²), and all of dp goes with V - C:
E dp_r² = (V - C)·(1 - 2w_r + Σw²)/S². Behind the softmax dℓ_r = p_r·dp_r, since Σ p·dp = 0, and
Σ dℓ·ℓ = Σ_r w_r(ℓ_r - Σ w·ℓ)·g_r. Expectations are over sampled rows. As independent factors anywhere in the row, p and
dp would make dℓ too small (by 45 % for two of four experts); the ways past S and through it, as independent, would make
dp too large (by a third).
"""

from __future__ import annotations

import functools

import numpy as np

from firstlight.graph.along import Along
from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.along import fresh, mixed
from firstlight.rules.empirical import uniform
from firstlight.rules.gradient import whole
from firstlight.rules.layout import axis_atoms
from firstlight.rules.ordering import TOP_SHARES, sampled

RETURNED = "returned"  # tag of the gradient of a sum of weights: its way on is in the gradient of the weights already


@functools.lru_cache(maxsize=256)
def _moments(n: int, count: int, level: float) -> tuple[Array, float, float, float, float]:
    """E (1 - 2w_r + Σw²)/S² of each rank; E 1/S², E Σw²/S², E Σ w²(1 - 2w + Σw²) and E Σ w²(ℓ - Σ w·ℓ)²."""
    p, logits = (rows[:, :count] for rows in sampled(n, level))
    total = p.sum(axis=1, keepdims=True)
    w = p / total
    square = np.square(w)
    left = 1.0 - 2.0 * w + square.sum(axis=1, keepdims=True)
    centred = logits - (w * logits).sum(axis=1, keepdims=True)
    inverse = 1.0 / np.square(total[:, 0])
    return (
        (left * inverse[:, None]).mean(axis=0),
        float(inverse.mean()),
        float((square.sum(axis=1) * inverse).mean()),
        float((square * left).sum(axis=1).mean()),
        float((square * np.square(centred)).sum(axis=1).mean()),
    )


def are_shares(x: Signal, total: Signal) -> bool:
    """Whether a division x/Σx is that of the largest weights of a softmax by their sum over the last axis."""
    return (
        x.tag is not None and x.tag[0] == TOP_SHARES and x.ndim > 0 and x.shape[-1] > 1
        and total.tag is not None and total.tag[:2] == ("sum", x.ident) and total.shape == (*x.shape[:-1], 1)
    )  # fmt: skip


def shares_back(grad: Cotangent, out: Signal, x: Signal, total: Signal) -> dict[str, Cotangent]:
    """Gradients of the weights (with the way through their sum) and of the sum, of w = x/Σx."""
    assert x.tag is not None
    g = whole(grad)
    n, count, level = x.tag[1], x.shape[-1], x.tag[2]
    ranks, inverse, squares, passed, _ = _moments(n, count, level)
    v, w2 = g.mean_q, count * out.mean_q
    along = v * w2 if grad.along is None else grad.along.variance
    apart = min(max((v - along) / max(1.0 - w2, 1e-12), 0.0), v * count / (count - 1.0))  # V - C
    both = max((v - apart) * inverse + apart * squares, 0.0)  # E (V·Σw² + C(1 - Σw²))/S²
    mine = uniform(x.shape, 0.0, apart * float(ranks.mean()), noise=g.noise)
    at = axis_atoms(mine, -1)[0]
    line = ranks.reshape((1,) * at + (-1,) + (1,) * (len(mine.atoms) - at - 1))
    mine = replace(mine, q=apart * line, tag=(TOP_SHARES, count, apart * passed), ident=next_id())
    other = replace(uniform(total.shape, 0.0, both, noise=g.noise), tag=(RETURNED, x.ident, 0.0))
    form = None if grad.along is None else mixed([(-1.0, grad.along)])
    return {"input": Cotangent(mine, along=Along()), "other": Cotangent(other, along=form)}


def behind_softmax(g: Signal, back: Signal, p: Signal) -> Cotangent | None:
    """The logits' gradient where that of the weights is that of shares of the largest of them; None elsewhere."""
    if g.tag is None or g.tag[0] != TOP_SHARES:
        return None
    n = p.shape[-1]
    *_, passed, through = _moments(n, g.tag[1], float(f"{p.mean_q * n * n:.3g}"))
    q = np.full((1,) * len(back.atoms), g.tag[2] / n)
    return Cotangent(replace(back, q=q, ident=next_id()), along=fresh(g.tag[2] * through / passed))
