"""Participation of a softmax: E Σ p² over n keys with independent Gaussian logits of variance v."""

from __future__ import annotations

import functools

import numpy as np

from firstlight.graph.signal import Array
from firstlight.theory.gaussian import gauss_nodes

_STEP = 0.2


_SPREADS = (0.0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.2, 3.0, 4.5, 7.0, 12.0, 25.0, 60.0)


@functools.lru_cache(maxsize=256)
def _transforms(v: float) -> tuple[Array, Array, Array]:
    """t and E e^{kℓ} e^{-t e^ℓ} for k = 0 and 2, 3, 4, shape (t,) and (3, t), with ℓ ~ N(-v/2, v)."""
    nodes = gauss_nodes((), scale=2.0 ** -min(6, max(0, int(np.ceil(np.log2(max(v, 1e-9)) / 2)))))
    logit = np.sqrt(v) * nodes.z - 0.5 * v
    tau = np.arange(-30.0 - 3.0 * np.sqrt(v), 12.0 + 4.0 * np.sqrt(v) + v, _STEP)
    t = np.exp(tau)
    scaled = np.exp(np.clip(tau[:, None] + logit[None, :], -700, 700))
    decay = np.exp(-np.minimum(scaled, 700.0))
    higher = np.array([(scaled**k * decay) @ nodes.weights for k in (2, 3, 4)])
    return t, decay @ nodes.weights, higher


@functools.lru_cache(maxsize=4096)
def _sums(v: float, n: int) -> tuple[float, float]:
    """(E Σp², E Σp²(1 - 2p + Σp²)): 1/Z^m = ∫ t^{m-1} e^{-tZ} dt / (m-1)! turns each into one integral over ln t."""
    _, plain, (two, three, four) = _transforms(v)
    floor = np.log(np.maximum(plain, 1e-300))
    with np.errstate(under="ignore"):
        one_less, two_less = np.exp((n - 1.0) * floor), np.exp(max(n - 2.0, 0.0) * floor)
    s2 = n * _STEP * float(np.sum(two * one_less))
    s3 = n * _STEP * float(np.sum(three * one_less)) / 2.0
    s4 = n * _STEP * float(np.sum(four * one_less)) / 6.0
    s22 = s4 + (n * (n - 1.0) * _STEP * float(np.sum(two * two * two_less)) / 6.0 if n > 1 else 0.0)
    s2 = min(1.0, max(1.0 / n, s2))
    return s2, max(s2 - 2.0 * s3 + s22, 0.0)


def participation(v: float, n: Array) -> Array:
    """E Σ p² for each number of keys.

    Args:
        v: Variance of the logits over the keys.
        n: Numbers of keys, any shape.
    """
    n = np.maximum(np.round(np.asarray(n, dtype=np.float64)), 1.0)
    if v <= 1e-12:
        return 1.0 / n
    v = float(f"{v:.4g}")
    counts = np.unique(n)
    knots = counts if len(counts) <= 16 else np.unique(np.round(np.geomspace(float(counts[0]), float(counts[-1]), 16)))
    table = np.array([_sums(v, int(k))[0] * k for k in knots])
    return np.interp(np.log(n), np.log(knots), table) / n


@functools.lru_cache(maxsize=256)
def _curve(n: int) -> tuple[Array, Array]:
    """E Σp² and E Σp²(1 - 2p + Σp²) over E Σp²·(1 - E Σp²), for growing variances of the logits."""
    pairs = [(1.0 / n, (1.0 - 1.0 / n) / n) if v == 0.0 else _sums(v, n) for v in _SPREADS]
    s2 = np.array([a for a, _ in pairs])
    return s2, np.array([b / max(a * (1.0 - a), 1e-300) for a, b in pairs])


def jacobian(share: Array, n: Array) -> Array:
    """E Σp²(1 - 2p + Σp²): what the softmax lets through of independent gradients of the weights p.

    Args:
        share: E Σp² per row.
        n: Number of keys per row.
    """
    share, n = np.broadcast_arrays(np.asarray(share, dtype=np.float64), np.asarray(n, dtype=np.float64))
    out = np.zeros(share.shape)
    most = int(n.max())
    knots = sorted({2, *(int(k) for k in np.unique(np.round(np.geomspace(2, max(most, 2), 6))))})
    rows = np.array([np.interp(share.ravel(), *_curve(k)) for k in knots])
    place = np.interp(np.log(np.maximum(n.ravel(), 2.0)), np.log(knots), np.arange(len(knots)))
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(knots) - 1)
    columns = np.arange(int(rows.shape[1]))
    ratio = rows[low, columns] * (1.0 - (place - low)) + rows[high, columns] * (place - low)
    out = ratio.reshape(share.shape) * share * np.maximum(1.0 - share, 0.0)
    return np.where(n > 1, out, 0.0)
