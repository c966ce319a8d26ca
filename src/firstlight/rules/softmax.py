"""Participation of a softmax: E Σ p² over n keys with independent Gaussian logits of variance v."""

from __future__ import annotations

import functools

import numpy as np

from firstlight.graph.signal import Array
from firstlight.theory.gaussian import gauss_nodes

_STEP = 0.2


@functools.lru_cache(maxsize=256)
def _transforms(v: float) -> tuple[Array, Array, Array]:
    """ln t, E e^{-t e^ℓ} and E e^{2ℓ} e^{-t e^ℓ} for ℓ ~ N(-v/2, v)."""
    nodes = gauss_nodes((), scale=2.0 ** -min(6, max(0, int(np.ceil(np.log2(max(v, 1e-9)) / 2)))))
    logit = np.sqrt(v) * nodes.z - 0.5 * v
    tau = np.arange(-30.0 - 3.0 * np.sqrt(v), 12.0 + 4.0 * np.sqrt(v) + v, _STEP)
    inside = np.exp(np.clip(tau[:, None] + logit[None, :], -700, 700))
    decay = np.exp(-np.minimum(inside, 700.0))
    return tau, decay @ nodes.weights, (decay * np.exp(2.0 * logit)) @ nodes.weights


@functools.lru_cache(maxsize=4096)
def _one(v: float, n: int) -> float:
    tau, plain, square = _transforms(v)
    t = np.exp(tau)
    with np.errstate(divide="ignore", under="ignore"):
        rest = np.exp((n - 1.0) * np.log(np.maximum(plain, 1e-300)))
    return float(min(1.0, max(1.0 / n, n * _STEP * np.sum(t * t * square * rest))))


def participation(v: float, n: Array) -> Array:
    """E Σ p² for each number of keys: 1/Z² = ∫ t e^{-tZ} dt turns it into ∫ t·E[e^{2ℓ}e^{-te^ℓ}]·E[e^{-te^ℓ}]^{n-1} dt·n.

    Args:
        v: Variance of the logits over the keys.
        n: Numbers of keys, any shape.
    """
    n = np.maximum(np.round(np.asarray(n, dtype=np.float64)), 1.0)
    if v <= 1e-12:
        return 1.0 / n
    v = float(f"{v:.5g}")
    counts = np.unique(n)
    if len(counts) > 24:
        knots = np.unique(np.round(np.geomspace(counts[0], counts[-1], 24)))
    else:
        knots = counts
    table = np.array([_one(v, int(k)) * k for k in knots])
    return np.interp(np.log(n), np.log(knots), table) / n
