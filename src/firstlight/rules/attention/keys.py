"""Means over keys with the weights of a softmax: what keys have in common, and what like keys do to each other."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from firstlight.graph.signal import Signal, replace
from firstlight.rules.state.layout import axis_atoms, moments


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


def at_keys(dl: Signal, left: str, queries: Signal, summed: Sequence[str]) -> float:
    """Factor of the keys' gradients Σ_t dℓ_tj q_t, over that of queries independent of the weights of their rows.

    Of two rows' Σ_{t≠t'} dℓ_tj dℓ_t'j q_t·q_t' only what all queries have in common is there without it: queries that
    are alike by chance pull like keys, so that rows which get one gradient (in front of a mean over positions) add up.

    Args:
        dl: The logits' gradient.
        left: A letter for each of its axes.
        queries: The queries.
        summed: Letters that are summed over, those of the rows.
    """
    keyed = dl.keyed
    if keyed is None:
        return 1.0
    rows = [a for i, letter in enumerate(left) if letter in summed for a in axis_atoms(dl, i)]
    others = moments(dl)[tuple(1 if a in rows and dl.corr.shape[a] > 1 else 0 for a in range(dl.corr.ndim))]
    pairs = float(others) * (prod(dl.atoms[a] for a in rows) - 1.0)
    common = _common_of_places(queries)
    return keyed.rows + keyed.together * (1.0 - common) * pairs / max(1.0 + pairs * common, 0.1)


def _common_of_places(x: Signal) -> float:
    """Correlation of two positions, the last axis but one."""
    atoms = axis_atoms(x, x.ndim - 2)
    return float(x.corr[tuple(1 if a in atoms else 0 for a in range(x.corr.ndim))])


def coherent(out: Signal, extra: float, x: Signal, w: Signal) -> Signal:
    """A mean over keys, weighted by a softmax that follows their random correlations (`participation.straying`).

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
