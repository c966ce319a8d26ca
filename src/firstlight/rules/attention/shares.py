"""The largest weights of a softmax, divided by their sum (routers of experts): their gradients.

With p the k largest weights of a row, S = Σp and w = p/S, a gradient g of w gives dS = -Σ g·w/S and, with the way
through S, dp_r = (g_r - s)/S, s = Σ g·w. Where the weights belong to rows y_r of independent experts, g_r = G·y_r and
s = G·Σ w_r·y_r, which later norms make small, and which is known from the form of Σ g·x: E s² = ρ·γ·Σw², where ρ = 1
is that of independent g_r. What is at right angles to Σ w_r·y_r is isotropic, so that g has the covariance
γ·(1 - (1 - ρ)·wwᵀ/Σw²): the larger a share, the smaller its gradient. Row by row that gives

    E dp_r² = γ·(1 - (1 - ρ)·w_r²/Σw² + ρ·(Σw² - 2w_r))/S²   and   E dS² = γ·ρ·Σw²/S².

Behind the softmax dℓ_r = p_r·dp_r, since Σ p·dp = 0, and Σ dℓ·ℓ = Σ_r w_r(ℓ_r - Σ w·ℓ)·g_r. Expectations are over
sampled rows. As independent factors anywhere in the row, p and dp would make dℓ too small (by 45 % for two of four
experts); the ways past S and through it, as independent, would make dp too large (by a third).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from firstlight.graph.along import Along
from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.gradients.along import fresh, mixed
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.reductions.ordering import TOP_SHARES, sampled
from firstlight.rules.state.empirical import uniform
from firstlight.rules.state.layout import axis_atoms

RETURNED = "returned"  # tag of the gradient of a sum of weights: its way on is in the gradient of the weights already
_MOST = 0.95  # part of what Σ g·w could be, where all of g goes along w


class Moments(NamedTuple):
    """Expectations over sampled rows, each as (a, b) of a + ρ·b in units of γ.

    Attributes:
        ranks: E dp_r² of each rank, shape (2, k).
        total: E dS².
        passed: E Σ dℓ².
        through: E (Σ dℓ·ℓ)².
    """

    ranks: Array
    total: Array
    passed: Array
    through: Array


@functools.lru_cache(maxsize=256)
def _moments(n: int, count: int, level: float) -> Moments:
    p, logits = (rows[:, :count] for rows in sampled(n, level))
    total = p.sum(axis=1, keepdims=True)
    w = p / total
    square = np.square(w)
    both = square.sum(axis=1, keepdims=True)
    inverse = 1.0 / np.square(total)
    apart, along = 1.0 - square / both, square / both + both - 2.0 * w
    centred = logits - (w * logits).sum(axis=1, keepdims=True)
    met = np.square((square * centred).sum(axis=1)) / both[:, 0]
    free = (square * np.square(centred)).sum(axis=1)
    return Moments(
        np.array([(f * inverse).mean(axis=0) for f in (apart, along)]),
        np.array([0.0, float((both * inverse).mean())]),
        np.array([float((square * f).sum(axis=1).mean()) for f in (apart, along)]),
        np.array([float((free - met).mean()), float(met.mean())]),
    )


def _at(pair: Array, known: float) -> Array:
    """a + ρ·b."""
    return np.maximum(pair[0] + known * pair[1], 0.0)


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
    of = _moments(n, count, level)
    # E s² over that of independent entries of the same mean square γ·(1 - (1 - ρ)/k): ρ/(1 - (1 - ρ)/k)
    free = g.mean_q * count * out.mean_q
    part = 1.0 if grad.along is None or free <= 0.0 else min(grad.along.variance / free, _MOST * count)
    known = part * (count - 1.0) / (count - part)
    gamma = g.mean_q / (1.0 - (1.0 - known) / count)
    ranks = gamma * _at(of.ranks, known)
    mine = uniform(x.shape, 0.0, float(ranks.mean()), noise=g.noise)
    at = axis_atoms(mine, -1)[0]
    line = ranks.reshape((1,) * at + (-1,) + (1,) * (len(mine.atoms) - at - 1))
    mine = replace(mine, q=line, tag=(TOP_SHARES, count, known), ident=next_id())
    both = gamma * float(_at(of.total, known))
    other = replace(uniform(total.shape, 0.0, both, noise=g.noise), tag=(RETURNED, x.ident, 0.0))
    form = None if grad.along is None else mixed([(-1.0, grad.along)])
    return {"input": Cotangent(mine, along=Along()), "other": Cotangent(other, along=form)}


def behind_softmax(g: Signal, back: Signal, p: Signal) -> Cotangent | None:
    """The logits' gradient where that of the weights is that of shares of the largest of them; None elsewhere."""
    if g.tag is None or g.tag[0] != TOP_SHARES:
        return None
    n, known = p.shape[-1], g.tag[2]
    of = _moments(n, g.tag[1], float(f"{p.mean_q * n * n:.3g}"))
    gamma = g.mean_q * n / max(float(_at(of.ranks, known).sum()), 1e-300)
    q = np.full((1,) * len(back.atoms), gamma * float(_at(of.passed, known)) / n)
    return Cotangent(replace(back, q=q, ident=next_id()), along=fresh(gamma * float(_at(of.through, known))))
