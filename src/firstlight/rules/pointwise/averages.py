"""Weighted averages written out, Σ a_k·v_k / Σ a_k: attention without a softmax, as RWKV's, step by step.

Numerator and denominator are long together: of an average E (Σ a v)²/(Σ a)² is near E (Σ a v)²/E (Σ a)² (weights are
shares of their sum), while E 1/(Σ a)² alone of a log-normal sum is carried by sums so small that their numerator is
nothing either. So 1/Σa counts as one number, the inverse of its root mean square, forward and backward.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import Signal, next_id, replace
from firstlight.rules.pointwise.powers import product_of

_MANY = 256  # summands of a sum that is taken apart


def averages(x: Signal, total: Signal) -> bool:
    """Whether each summand of x is a product with a factor that a summand of the total has as well; there are several.

    Args:
        x: Numerator, Σ a_k·v_k.
        total: Denominator, Σ a_k; a summand is a_k itself or, of a sum that goes on, a_k times what it was.
    """
    if len(x.terms) < 2 or total.mean_mean <= 0.0:
        return False
    weights = {total.ident}.union(*({term.ident, *_parts(term)} for term in _summands(total)))
    return all(_parts(term) & weights for term in _summands(x))


def inverse_in(inverse: Signal, x: Any, total: Signal) -> Signal:
    """1/Σa of x/Σa: one number, on the same layout, where that is an average; as it was in any other quotient."""
    if not isinstance(x, Signal) or not averages(x, total):
        return inverse
    size = 1.0 / max(total.mean_q, 1e-300)
    one = (1,) * len(inverse.atoms)
    return replace(
        inverse, mean=np.full(one, size**0.5), q=np.full(one, size), corr=np.ones_like(inverse.corr), source=None,
        values=None, scatter=0.0, sites=None, ident=next_id(),
    )  # fmt: skip


def _parts(term: Signal) -> frozenset[int]:
    """The factors of a product, by ident; a term that is none is its own."""
    product = product_of(term)
    return frozenset((term.ident,) if product is None else (product[1].ident, product[2].ident))


def _summands(x: Signal) -> list[Signal]:
    """What a sum (of sums) is made of, each up to a number; the sum of too many is one."""
    found: list[Signal] = []
    waiting = [x]
    while waiting:
        term = waiting.pop()
        if term.terms and product_of(term) is None:
            waiting += [t for _, t in term.terms]
        else:
            found.append(term)
        if len(found) + len(waiting) > _MANY:
            return [x]
    return found
