"""Means over keys with the weights of a softmax: what keys have in common, and what like keys do to each other."""

from __future__ import annotations

import numpy as np

from firstlight.graph.signal import Signal, replace


def is_weights(p: Signal) -> bool:
    """Whether a tensor is the weights of a softmax; the gradient of its logits has its tag, too, but no mean."""
    return p.tag is not None and p.tag[0] == "softmax" and bool(p.mean.any())


def shared(x: Signal, w: Signal) -> float:
    """Correlation of w between two different keys, which are x's last axis."""
    at = len(x.groups[-1])
    for axis, group in enumerate(w.groups):
        if group == x.groups[-1] and at:
            first = sum(len(g) for g in w.groups[:axis])
            return float(w.corr[tuple(1 if first <= i < first + at else 0 for i in range(w.corr.ndim))])
    return 0.0


def in_step(p: Signal, w: Signal) -> float:
    """Share of what correlations stray by that is left of a mean over keys with the weights p: Σp² + (1 - Σp²)·c²."""
    share = min(p.mean_q * p.shape[-1], 1.0)
    return share + (1.0 - share) * shared(p, w) ** 2


def uncommon(out: Signal, p: Signal, w: Signal) -> float:
    """Share of a weighted mean's energy that depends on the weights p, Σ p = 1: what keys have in common does not."""
    level = out.mean_q
    return float(np.clip(1.0 - max(shared(p, w), 0.0) * w.mean_q / level, 0.0, 1.0)) if level > 0.0 else 1.0


def coherent(out: Signal, extra: float, x: Signal, w: Signal) -> Signal:
    """A mean over keys, weighted by a softmax that follows their random correlations (`softmax.straying`).

    Attention adds Σ_{j≠k} p_j p_k c_jk to Σ p², both times what the values have not in common; the gradient of the
    queries is a sum over keys of |dℓ|²-times as much. Both belong to one site alone.
    """
    common = shared(x, w)
    gradient = not x.mean.any()
    q = out.q * (1.0 + extra) if gradient else out.q + extra * max(1.0 - common, 0.0) * w.mean_q
    level, grown = out.mean_q, float(q.mean())
    if level <= 0.0 or grown <= 0.0:
        return out
    corr = out.corr * (level / grown)
    corr[(0,) * corr.ndim] = 1.0
    return replace(out, q=q, corr=corr)
