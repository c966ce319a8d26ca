"""What two rows of a softmax have in common: E Σ p_j p'_j for logits with the correlation ρ.

While e^v is small beside n it is P(ρv, n), the participation of logits of their covariance; sharp rows have less in
common, since two rows of correlated logits need not have their largest one at the same key. With ℓ = √ρ·a + b, the same
a in both rows, 1/(Z Z') = ∫∫ e^{-tZ - sZ'} dt ds makes it

    n ∫∫ E_a[ψ(t e^√ρa) ψ(s e^√ρa)]·E_a[φ(t e^√ρa) φ(s e^√ρa)]^{n-1} d ln t d ln s,

φ(t) = E_b e^{-te^b} and ψ(t) = E_b te^b e^{-te^b}.

Of gradients c of the weights that are independent from key to key and the same in both rows, the logits' gradients
p_j(c_j - Σpc) have E Σ p_jp'_j(1 - p_j - p'_j + Σpp') in common. That is not the same share of E Σp²(1 - 2p + Σp²):
rows that choose one key are alike where their gradient is 0, so that sharp rows have less in common than their weights
do, and flat ones more.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.signal import Array
from firstlight.rules.attention.participation import SPREADS, participation

_VARIANCES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_KEYS = (2, 3, 5, 8, 14, 24, 48, 96, 192, 384, 1024, 4096, 1 << 20)
_CORRELATIONS = (0.0, 0.1, 0.25, 0.45, 0.65, 0.85, 1.0)
_STEP = 0.4  # of ln t
_ROWS, _MOST = 1 << 17, 512  # logits that one sampled expectation takes; keys beyond which rows count as this long


def overlap(v: float, k: float, n: Array) -> Array:
    """E Σ p_j p'_j of two rows over the same keys.

    Args:
        v: Variance of the logits of a row.
        k: Their covariance, > 0.
        n: Numbers of keys, any shape.
    """
    return participation(k, n) * less(v, np.asarray(k), n)


def less(v: float | Array, k: Array, n: Array) -> Array:
    """E Σ p_j p'_j over P(k, n), tabulated: linear between a few ln v, correlations k/v and ln n."""
    v, k, n = np.broadcast_arrays(np.asarray(v, dtype=np.float64), k, np.maximum(n, 1.0))
    out = np.ones(k.shape)
    asked = (v > _VARIANCES[0]) & (k > 0.0) & (n > 1.5)
    if not asked.any():
        return out
    v, k, n = v[asked], k[asked], n[asked]
    i, down, rows = _between(np.log(v), np.log(_VARIANCES))
    j, across, columns = _between(np.log(n), np.log(_KEYS))
    c, along, _ = _between(k / v, np.array(_CORRELATIONS))
    table = _table(*rows, *columns)
    i, j, found = i - rows[0], j - columns[0], np.zeros(v.shape)
    for row, weight in ((i, 1.0 - down), (np.minimum(i + 1, len(table) - 1), down)):
        for column, share in ((j, 1.0 - across), (np.minimum(j + 1, table.shape[1] - 1), across)):
            low, high = table[row, column, c], table[row, column, c + 1]
            found += weight * share * (low + along * (high - low))
    out[asked] = found
    return out


def _between(x: Array, knots: Array) -> tuple[NDArray[np.intp], Array, tuple[int, int]]:
    """The knot below each x, how far x is on the way to the next, and the range of the knots that this takes."""
    place: Array = np.asarray(np.interp(x, knots, np.arange(float(len(knots)))), dtype=np.float64)
    low: NDArray[np.intp] = np.minimum(place.astype(np.intp), len(knots) - 2)
    return low, place - low, (int(low.min()), math.ceil(place.max()) + 1)


@functools.lru_cache(maxsize=64)
def _table(top: int, bottom: int, left: int, right: int) -> Array:
    """`_ratios` at some of the variances and numbers of keys, shape (variances, keys, correlations)."""
    return np.array([[_ratios(v, n) for n in _KEYS[left:right]] for v in _VARIANCES[top:bottom]])


def of_gradients(same: Array, v: float, n: int) -> Array:
    """E Σ dℓ_j dℓ'_j/E Σ dℓ_j² of two rows that get one gradient of their weights.

    Args:
        same: E Σ p_j p'_j/E Σ p_j².
        v: Variance of the logits of a row.
        n: Number of keys.
    """
    if n < 2 or v <= 0.0:
        return same
    n = min(n, _MOST)
    i = min(max(int(np.searchsorted(SPREADS, v)), 1), len(SPREADS) - 1)
    part = min((v - SPREADS[i - 1]) / (SPREADS[i] - SPREADS[i - 1]), 1.0)
    found = np.zeros_like(same)
    for weight, level in ((1.0 - part, SPREADS[i - 1]), (part, SPREADS[i])):
        if weight > 0.0 and level > 0.0:
            weights, gradients = _in_common(level, n)
            low = np.minimum(same / weights[0], 1.0)  # less than rows of independent logits have
            found += weight * low * np.interp(same, weights, gradients)
        else:
            found += weight * same
    return found


@functools.lru_cache(maxsize=512)
def _in_common(v: float, n: int) -> tuple[Array, Array]:
    """What weights and gradients of rows have in common at `_CORRELATIONS`; sampled, with a fixed seed."""
    rng = np.random.default_rng(n)
    a, b, c = v**0.5 * rng.standard_normal((3, max(_ROWS // n, 256), n))

    def weights(rho: float, own: Array) -> Array:
        logits = rho**0.5 * a + (1.0 - rho) ** 0.5 * own
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True), dtype=np.float64)

    def both(p: Array, q: Array) -> tuple[float, float]:
        met = (p * q).sum(axis=1, keepdims=True)
        return float(met.mean()), float((p * q * (1.0 - p - q + met)).sum(axis=1).mean())

    pairs = np.array([both(weights(rho, b), weights(rho, c)) for rho in _CORRELATIONS])
    shares = np.maximum.accumulate(pairs / pairs[-1], axis=0)
    return shares[:, 0], shares[:, 1]


@functools.lru_cache(maxsize=256)
def _ratios(v: float, n: int) -> Array:
    """E Σ p_j p'_j over P(ρv, n) at the tabulated correlations; 1 at both ends."""
    middle = [_overlap(v, rho, n) / float(participation(rho * v, np.array(n))) for rho in _CORRELATIONS[1:-1]]
    return np.array([1.0, *middle, 1.0])


def _overlap(v: float, rho: float, n: int) -> float:
    """E Σ p_j p'_j."""
    both, none = _transforms(v, rho)
    with np.errstate(under="ignore"):
        return n * _STEP * _STEP * float(np.sum(both * np.exp((n - 1.0) * none)))


@functools.lru_cache(maxsize=64)
def _transforms(v: float, rho: float) -> tuple[Array, Array]:
    """E_a[ψψ'] and ln E_a[φφ'] at all pairs of ln t and ln s."""
    sd = math.sqrt(v)
    step = min(0.25, 1.0 / sd)  # e^{-e^x} is smooth: even steps of 1 in x, or less, are exact to 1e-4
    z = step * np.arange(-math.ceil(5.5 / step), math.ceil(5.5 / step) + 1)
    weights = np.exp(-0.5 * np.square(z))
    weights /= weights.sum()
    tau = np.arange(-6.0 * sd - 18.0, 6.0 * sd + 4.0, _STEP)
    a, b = math.sqrt(rho * v) * z, math.sqrt((1.0 - rho) * v) * z
    level = np.minimum(tau[:, None, None] + a[None, :, None] + b[None, None, :], 7.0)
    decay = np.exp(-np.exp(level))
    phi, psi = decay @ weights, (np.exp(level) * decay) @ weights
    return (psi * weights) @ psi.T, np.log(np.maximum((phi * weights) @ phi.T, 1e-300))
