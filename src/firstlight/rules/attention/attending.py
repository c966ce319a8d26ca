"""How far the gradients of queries, keys and values go along them: what a softmax does to Σ g·x.

With c_j = G·v_j, the gradient of the weight of key j, and ℓ_j its logit, a row with the weights p contributes
Σ_j p_j(ℓ_j - Σpℓ)·c_j to the query, p_jℓ_j(c_j - Σpc) to key j and p_j·c_j to value j. The weights that are large are
those of large logits, so that keys have more of it than independent factors would, sharp queries less, and what keys
and values have belongs together. Where queries and keys are of one sequence a row also meets its own key.
(`rules.gradients.along` has the rest of Σ g·x.)
"""

from __future__ import annotations

import functools

import numpy as np

from firstlight.graph.along import Along
from firstlight.graph.signal import Array, Signal
from firstlight.rules.attention.participation import SPREADS, mean_over_rows, participation_curve
from firstlight.rules.gradients.along import mixed, source
from firstlight.rules.state.layout import offset

_ROWS = 1 << 16  # logits that one sampled expectation takes
SQUARE, FOURTH = 6, 7  # places of Σp² and Σp⁴/Σp² among the moments
_MOST = 256  # keys beyond which rows are sampled as if they had this many


@functools.lru_cache(maxsize=512)
def _moments(v: float, n: int) -> Array:
    """What rows pass on, as expectations over independent logits.

    Σp²(1-2p+Σp²), Σp²(ℓ-ℓ̄)², Σp²ℓ²(1-2p+Σp²), Σp²ℓ(1-p); of a row's own key with its query and with its value;
    Σp², Σp⁴/Σp² and Σp²/n. Sampled with a fixed seed: rows of n independent logits of variance v.
    """
    rng = np.random.default_rng(n)
    logits = v**0.5 * rng.standard_normal((max(_ROWS // n, 256), n))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    square = np.square(p)
    total = square.sum(axis=1, keepdims=True)
    centred = logits - (p * logits).sum(axis=1, keepdims=True)
    passed = square * (1.0 - 2.0 * p + total)
    own_key = p * logits * (p * centred - (square * centred).sum(axis=1, keepdims=True))
    found = (
        passed, square * np.square(centred), passed * np.square(logits), square * logits * (1.0 - p),
        own_key / n, square * centred / n, square, np.square(square) / total, square / n,
    )  # fmt: skip
    return np.array([float(f.sum(axis=1).mean()) for f in found])


def moments(v: float, counts: Array) -> Array:
    """The mean of `_moments` over rows that see different numbers of keys."""
    near = float(f"{max(v, 1e-6):.3g}")
    return mean_over_rows(lambda n: _moments(near, n), np.minimum(counts, _MOST), 16)


def row_law(p: Signal, dim: int) -> tuple[Array, Array]:
    """E Σp² and the number of visible keys of each row."""
    at, n = offset(p, dim), p.shape[dim]
    if n == 1:
        return np.ones((1,) * p.q.ndim), np.ones((1,) * p.q.ndim)
    square = p.q.mean(axis=at, keepdims=True) * n
    if p.keyed is not None and p.keyed.seen is not None and p.keyed.seen.size == square.size:
        return square, p.keyed.seen.reshape(square.shape)
    seen = np.maximum(np.sum(p.mean > 0.0, axis=at, keepdims=True), 1) * (n if p.mean.shape[at] == 1 else 1)
    return square, seen


def sharpness(share: Array, n: Array) -> float:
    """The variance of the logits at which the longest row's keys share E Σp²."""
    share, n = np.broadcast_arrays(share, np.asarray(n, dtype=np.float64))
    longest = int(np.argmax(n))
    curve = participation_curve(int(n.flat[longest]))
    return float(np.interp(float(share.flat[longest]), curve, SPREADS))


def forms(
    v: float,
    counts: Array,
    logits: float,
    values: float,
    rows: int,
    keys: int,
    heads: int,
    known: float,
    part: float,
    along: float = 1.0,
) -> tuple[Along, Along, Along] | None:
    """Forms of the queries', keys' and values' gradients, per head.

    A row's output is Σpv, with a known Σ_h G·Σpv = ρ of what independent factors have: of Σ_j p_j²c_j² that leaves out
    (1-ρ)·Σ_j(Σ_h p_j²)²/Σ_h Σp². Logits that are only in part those of queries and keys, x = (part)·ℓ + e, hand on what
    belongs to them.

    Args:
        v: Variance of a row's logits.
        counts: Number of visible keys of each row.
        logits: Mean over rows of E Σ g² of the logits' gradient.
        values: E (Σ g·x)² of the values, by independent factors.
        rows: Number of queries.
        keys: Number of keys.
        heads: Number of heads, H.
        known: ρ.
        part: Share of the logits' variance that is that of queries and keys; the rest is a bias.
        along: Factor of what goes along the query, against that of |g|².
    """
    passed, qq, kk, kv, qk, qv, square, fourth_power, apart = moments(v, counts)
    if passed <= 0.0 or values <= 0.0:
        return None
    scale, qq = logits / passed, qq * along
    rest = v * part * (1.0 - part) * passed
    qq, kk, kv, qk, qv = part * part * qq + rest, part * part * kk + rest, part * kv, part * part * qk, part * qv
    missing = (1.0 - known) * (fourth_power / heads + (1.0 - 1.0 / heads) * apart) / max(square, 1e-300)
    values *= min(max(1.0 - missing, 0.0), 2.0)
    many = rows / max(keys, 1)
    own = 1.0 if rows == keys else 0.0
    at_values, at_keys = source(), source()
    first = values**0.5
    second = scale * many * kv / first
    rest = max(scale * many * kk - second * second, 0.0) ** 0.5
    third = own * scale * qv / first
    fourth = own * (scale * qk - third * second) / rest if rest > 0.0 else 0.0
    left = max(scale * qq - third * third - fourth * fourth, 0.0)
    value, key = Along(((at_values, first),)), Along(((at_values, second), (at_keys, rest)))
    query = mixed([(1.0, Along(((at_values, third), (at_keys, fourth))))], left)
    return query, key, value
