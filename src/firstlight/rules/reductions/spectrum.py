"""E v·E 1/v of the variance v that a norm divides by: v̂ = wᵀΣw of a channel over its row of weights w.

In units of its mean v̂ = Σ λ_k z_k² with Σ λ_k = 1, and its relative variance s = 2 Σ λ_k² says what 1/v̂ is only
together with how unlike the λ_k are. Of m like ones it is a gamma law, E 1/v̂ = 1/(1 - s). Behind a convolution of a
small image three directions (what the samples have in common at each place) may make most of s and thirty small ones
next to nothing: 1.32 for s = .33, where a gamma law has 1.49. As m like directions with the share w of v̂ and a rest
that does not scatter, chosen such that Σ λ² and Σ λ³ are right, v̂ is 1 - w + w·χ²_m/m,

    w = (Σ λ²)²/Σ λ³,   m = 2w²/s,   E 1/v̂ = ∫₀^∞ e^(-t(1 - w))·(1 + 2tw/m)^(-m/2) dt

(Lieberman 1994: moments of ratios of quadratic forms as integrals over their moment generating function).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, Signal
from firstlight.rules.state.projection import composed, group_pairs

_LITTLE = 0.02  # s up to which the law of v̂ makes no difference: 1/(1 - s) is 1 + s
_LARGEST = 4.0
_STEPS = 200.0  # of s and w for each unit, so that equal norms are found again
_POINTS = 801


def share(x: Signal, atoms: Sequence[int], spread: float) -> float:
    """w = (Σ λ²)²/Σ λ³ of the pair moments of a group: 1 where all directions are alike."""
    if len(atoms) < 2 or spread < _LITTLE:
        return 1.0
    inside = tuple(slice(None) if i in atoms else slice(0, 1) for i in range(x.corr.ndim))
    cube, pairs = x.corr[inside], group_pairs(x, atoms)
    square = float(np.sum(pairs * np.square(cube)))
    n = float(np.prod([x.atoms[a] for a in atoms]))
    cubed = float(np.sum(pairs * cube * composed(cube, cube, x.atoms, atoms))) / n
    return min(square * square / cubed, 1.0) if cubed > 0.0 else 1.0


def inverse(spread: float, share: float) -> float:
    """E v̂·E 1/v̂ for v̂ of the relative variance s of which the share w scatters.

    Example:
        >>> round(inverse(0.25, 1.0), 3), round(inverse(0.25, 0.5), 3)
        (1.333, 1.217)
    """
    if spread <= _LITTLE or share > 1.0 - 1.0 / _STEPS:
        n = 2.0 / max(spread, 1e-12)
        return n / max(n - 2.0, n / _LARGEST)
    return _inverse(round(min(spread, 2.0) * _STEPS), max(round(share * _STEPS), 1))


@functools.lru_cache(maxsize=1024)
def _inverse(spread: int, share: int) -> float:
    s, w = spread / _STEPS, share / _STEPS
    half = w * w / s
    line: Array = np.linspace(-18.0, 12.0, _POINTS)  # ln t
    t = np.exp(line)
    inner = np.exp(line - t * (1.0 - w) - half * np.log1p(t * w / half))
    return min(float(np.trapezoid(inner, line)), _LARGEST)
