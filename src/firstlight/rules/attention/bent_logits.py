"""Participation of a softmax whose logits are no Gaussians: functions of one, products, sums with such.

Heavy tails let single keys decide (|x|³, products), bounded ones (tanh, sigmoid) cut that off. E Σp² over n independent
keys of any law: 1/Z² = ∫ t e^{-tZ} dt, so that E Σp² = n ∫ E(te^ℓ)² e^{-te^ℓ} (E e^{-te^ℓ})^{n-1} dt/t, with both
expectations on the nodes of the law.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from firstlight.graph.signal import Array, Signal, replace
from firstlight.rules.attention.participation import log_sum, participation
from firstlight.rules.chains.laws import law_of, product_law, sum_law
from firstlight.rules.state.quadrature import in_one_draw
from firstlight.theory import special
from firstlight.theory.gaussian import gauss_nodes

_STEP = 0.1  # of ln t
_NODES = 160  # of the law
_LARGEST = 600.0  # logits beyond which single keys decide whatever their law
_SAME = 0.02  # difference of quantiles, in standard deviations, from a Gaussian's that changes nothing
_NEVER = 1e-9  # probability of entries that no row has
_EVEN = 0.02  # scatter of the variance that changes nothing
_KNOTS = 12  # numbers of keys for which the integral is taken


def participation_of(x: Signal, v: float, n: Array, scatter: float = 0.0) -> Array:
    """E Σ p² for each number of keys, for logits of x's law with the variance v within a row.

    Args:
        x: The logits, entries of one row independent but for what they have all in common.
        v: Variance over the keys of a row, its mean over rows.
        n: Numbers of keys, any shape.
        scatter: Relative variance of v from row to row.
    """
    if scatter > _EVEN:
        return sum((w * _of_one(x, v * k, n) for k, w in _levels(min(scatter, 4.0))), start=np.zeros_like(n))
    return _of_one(x, v, n)


def log_sum_of(x: Signal, v: float, n: int) -> tuple[float, float]:
    """Mean and variance of ln Σ e^ℓ over n keys of x's law, of variance v around 0.

    E ln S = ∫ (e^{-t} - E e^{-tS}) dt/t with E e^{-tS} = (E e^{-te^ℓ})^n (Frullani); the variance as for Gaussians.
    """
    law = _law(x)
    logits = None if law is None else v**0.5 * law[0]
    if law is None or logits is None or v <= 1e-12 or float(logits.max() - logits.min()) > _LARGEST:
        return log_sum(v, n)
    key = logits.round(4).tobytes(), law[1].tobytes()
    decay = np.exp(-np.exp(np.minimum(_grid(logits.round(4)), 7.0)))
    with np.errstate(under="ignore"):
        mean = _STEP * float(np.sum(decay - np.exp(n * _transforms(*key)[0])))
    return mean, 0.5 * v * (1.0 / n + _sum(*key, n))


def _grid(logits: Array) -> Array:
    """ln t from where nothing has decayed to where all has."""
    return np.arange(-40.0 - float(logits.max()), 8.0 - float(logits.min()), _STEP)


def _levels(scatter: float) -> list[tuple[float, float]]:
    """Factors of mean 1 with that variance, log-normal, and their weights (Gauss and Hermite's three)."""
    s2 = math.log1p(scatter)
    return [(math.exp(z * (3.0 * s2) ** 0.5 - 0.5 * s2), w) for z, w in ((-1.0, 1 / 6), (0.0, 2 / 3), (1.0, 1 / 6))]


def _of_one(x: Signal, v: float, n: Array) -> Array:
    law = _law(x)
    if law is None or v <= 1e-12:
        return participation(v, n)
    z, weights = law
    logits = v**0.5 * z
    if float(logits.max() - logits.min()) > _LARGEST:
        return participation(v, n)
    n = np.maximum(np.round(np.asarray(n, dtype=np.float64)), 1.0)
    counts = np.unique(n)
    if len(counts) > _KNOTS:
        counts = np.unique(np.round(np.geomspace(float(counts[0]), float(counts[-1]), _KNOTS)))
    key = logits.round(4).tobytes(), weights.tobytes()
    table = np.array([_sum(*key, int(k)) * k for k in counts])
    return np.interp(np.log(n), np.log(counts), table) / n


def _law(x: Signal) -> tuple[Array, Array] | None:
    """Standardised values and their weights; None for Gaussians."""
    found = _entries(x)
    if found is None:
        return None
    likely = found[1] > _NEVER
    values, weights = _fewer(found[0][likely], found[1][likely])
    weights = weights / weights.sum()
    values = values - values @ weights
    sd = float(np.square(values) @ weights) ** 0.5
    if sd <= 0.0:
        return None
    values = values / sd
    gaussian = special.ndtri(np.cumsum(weights) - 0.5 * weights)
    return None if float(np.square(values - gaussian) @ weights) ** 0.5 <= _SAME else (values, weights)


def _entries(x: Signal) -> tuple[Array, Array] | None:
    """Sorted values of an entry within one draw of the weights, and theirs: what rows scatter by comes on top."""
    if x.source is not None and x.values is not None:
        law = law_of(1.0, replace(x, values=in_one_draw(x.source, x.values)))
        return None if law is None else law[:2]
    bent = None if x.gaussian else sum_law(x) or product_law(x)
    nodes = gauss_nodes()
    return None if bent is None else (np.interp(nodes.z, *bent), nodes.weights)


def _fewer(values: Array, weights: Array) -> tuple[Array, Array]:
    """Neighbours of a sorted law put together, at most `_NODES`."""
    if len(values) <= _NODES:
        return values, weights
    group = np.arange(len(values)) * _NODES // len(values)
    mass = np.asarray(np.bincount(group, weights), dtype=np.float64)
    total = np.asarray(np.bincount(group, weights * values), dtype=np.float64)
    return total / np.maximum(mass, 1e-300), mass


@functools.lru_cache(maxsize=512)
def _transforms(logits: bytes, weights: bytes) -> tuple[Array, Array]:
    """ln E e^{-te^ℓ} and E (te^ℓ)² e^{-te^ℓ} on a grid of ln t."""
    values, mass = np.frombuffer(logits), np.frombuffer(weights)
    tau = _grid(values)
    level = np.minimum(tau[:, None] + values[None, :], 7.0)  # e^{-e⁷} is 0 in double precision
    decay = np.exp(-np.exp(level))
    return np.log(np.maximum(decay @ mass, 1e-300)), (np.exp(2.0 * level) * decay) @ mass


@functools.lru_cache(maxsize=2048)
def _sum(logits: bytes, weights: bytes, n: int) -> float:
    plain, two = _transforms(logits, weights)
    with np.errstate(under="ignore"):
        found = n * _STEP * float(np.sum(two * np.exp((n - 1.0) * plain)))
    return min(1.0, max(1.0 / n, found)) if math.isfinite(found) else 1.0
