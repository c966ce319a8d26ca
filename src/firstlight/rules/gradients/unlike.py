"""Sums of two tensors of which a site can have much of the one and little of the other.

Of z = x + y with a gradient g that is independent but for Σ g·z = s, the terms have Σ g·x = (x·z/z·z)·s + e, with e
from what of x is at right angles to z: E e² = E |g|²·|x|²|y|²(1 - κ²)/|z|², κ the cosine of both (`gradients.along`).
With the mean lengths in these ratios e is too large: |x|²|y|²/|x + y|² bends down, and behind a norm |g|² is small
where |z|² is large. So they are means over sites, whose mean squares V_x and V_y are independent and log-normal, κ
normal with the variance 1/n, |g|² ~ V_z^λ and s² ~ |g|²·V_z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal
from firstlight.rules.gradients.gradient import parts_of, whole
from firstlight.rules.linear.contraction import energy_cube
from firstlight.rules.state.layout import axis_atoms
from firstlight.rules.state.projection import group_pairs

_RULE = np.polynomial.hermite_e.hermegauss(5)
_NODES: Array = np.asarray(_RULE[0])
_WEIGHTS: Array = np.asarray(_RULE[1] / _RULE[1].sum())
_MOST = 4.0  # relative variance of lengths that is followed


@dataclass(frozen=True, slots=True)
class Shares:
    """What the terms of a sum have of it, means over sites.

    Attributes:
        first: Mean of x·z/z·z, by |g|²·|z|².
        spread: Its variance.
        across: E |x⊥|², by |g|², per entry; x⊥ is at right angles to z.
    """

    first: float
    spread: float
    across: float


def lean_of(g: Cotangent) -> float:
    """λ of the whole gradient: its summands' by their energies."""
    if not g.rest:
        return g.base.lean
    parts = parts_of(g)
    levels = [whole(p).mean_q for p in parts]
    total = sum(levels)
    return sum(w * p.base.lean for w, p in zip(levels, parts, strict=True)) / total if total > 0.0 else 0.0


def scattered(x: Signal) -> float:
    """Relative variance of |x|² over the sites: of their laws, of the units that they have, of the field of q."""
    atoms = axis_atoms(x, -1)
    own = 0.0
    if not x.data:
        own = float(np.sum(group_pairs(x, atoms) * energy_cube(x)))
    out = (1.0 + own) * (1.0 + x.scatter) if x.scatter > 0.0 else 1.0 + max(own + x.scatter, 0.0)
    if x.q.size > 1:
        level = x.q.mean(axis=tuple(atoms)) if atoms else x.q
        mean = float(level.mean())
        out *= float(np.square(level).mean()) / mean**2 if mean > 0.0 else 1.0
    return min(max(out - 1.0, 0.0), _MOST)


def shares(x: Signal, y: Signal, one: float, other: float, both: float, lean: float, known: float) -> Shares:
    """Of z = x + y.

    Args:
        x: One term.
        y: The other.
        one: E x².
        other: E y².
        both: E xy.
        lean: λ.
        known: E s² over that of independent g and z.
    """
    n = x.shape[-1] if x.ndim else 1
    root = (one * other) ** 0.5
    if n < 2 or root <= 0.0:
        total = one + other + 2.0 * both
        share = (one + both) / total
        return Shares(share, 0.0, max(one - share * (one + both), 0.0))
    cosine = np.clip(both / root + _NODES[:, None, None] / n**0.5, -1.0, 1.0)
    v_x = one * _log_normal(scattered(x))[:, None]
    v_y = other * _log_normal(scattered(y))
    mixed = cosine * np.sqrt(v_x * v_y)
    z = np.maximum(v_x + v_y + 2.0 * mixed, 1e-12 * (one + other))
    w = _WEIGHTS[:, None, None] * _WEIGHTS[:, None] * _WEIGHTS * z**lean
    share = (v_x + mixed) / z
    across = float((w * v_x * v_y * (1.0 - np.square(cosine)) / z).sum() / w.sum()) * (n - min(known, n)) / (n - 1.0)
    w *= z
    w /= w.sum()
    first = float((w * share).sum())
    return Shares(first, max(float((w * np.square(share)).sum()) - first**2, 0.0), across)


def _log_normal(variance: float) -> Array:
    """Nodes of a length of mean 1 and the given relative variance."""
    s2 = math.log1p(variance)
    return np.exp(s2**0.5 * _NODES - 0.5 * s2)
