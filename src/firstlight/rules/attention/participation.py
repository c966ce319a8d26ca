"""Participation of a softmax: E Σ p² over n keys with independent Gaussian logits of variance v."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from firstlight.graph.signal import Array
from firstlight.theory import special
from firstlight.theory.gaussian import gauss_nodes

_STEP = 0.2


SPREADS = (0.0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.2, 3.0, 4.5, 7.0, 12.0, 25.0, 60.0)


# Variance of the logits up to which the integrals are taken; beyond, what the two largest logits decide is expanded in
# 1/√v. The integrals need nodes in proportion to √v.
_SHARP = 2500.0


@functools.lru_cache(maxsize=256)
def _transforms(v: float) -> tuple[Array, Array]:
    """E e^{-te^ℓ} and E (te^ℓ)^k e^{-te^ℓ} for k = 2, 3, 4, shape (t,) and (3, t), ln t in steps, ℓ ~ N(0, v).

    Both are convolutions of a function of ln t + ℓ with the law of ℓ, on one grid where ℓ is wide enough for that.
    """
    sd = math.sqrt(v)
    reach = math.ceil(9.0 * sd / _STEP)
    tau: Array = _STEP * np.arange(-200 - reach, 41 + reach, dtype=np.float64)
    if sd < 2.0 * _STEP:
        nodes = gauss_nodes()
        decay, higher = _kernels(tau[:, None] + sd * nodes.z[None, :])
        return decay @ nodes.weights, higher @ nodes.weights
    step: Array = _STEP * np.arange(-reach, reach + 1, dtype=np.float64)
    law: Array = np.exp(-0.5 * np.square(step) / v)
    law /= law.sum()
    wide: Array = _STEP * np.arange(-200 - 2 * reach, 41 + 2 * reach, dtype=np.float64)
    decay, higher = _kernels(wide)

    def smoothed(f: Array) -> Array:
        return np.convolve(f, law, "valid").astype(np.float64)

    return smoothed(decay), np.array([smoothed(h) for h in higher])


def _few(counts: Array, most: int) -> Array:
    """At most so many of ascending numbers, even on a log scale."""
    if len(counts) <= most:
        return counts
    ladder: Array = np.exp(np.linspace(math.log(float(counts[0])), math.log(float(counts[-1])), most))
    return np.unique(np.round(ladder)).astype(np.float64)


def mean_over_rows(law: Callable[[int], Sequence[float] | Array], counts: Array, knots: int = 6) -> Array:
    """Mean over rows of what a law says of one that sees n keys; between a few n it is linear in ln n.

    Args:
        law: Numbers for n keys.
        counts: How many keys each row sees, any shape; at least 1.
        knots: How many n the law is asked for, at most.
    """
    n, many = np.unique(np.maximum(np.round(np.asarray(counts, dtype=np.float64)), 1.0), return_counts=True)
    weights: Array = many.astype(np.float64) / float(many.sum())
    return np.array([float(column @ weights) for column in at_counts(law, n, knots)])


def at_counts(law: Callable[[int], Sequence[float] | Array], n: Array, knots: int = 6) -> list[Array]:
    """What a law says of n keys, for ascending n; between a few of them it is linear in ln n."""
    at = _few(n, knots)
    table = np.array([law(round(k)) for k in at.tolist()])
    return [np.asarray(np.interp(np.log(n), np.log(at), column), dtype=np.float64) for column in table.T]


def _kernels(level: Array) -> tuple[Array, Array]:
    """e^{-y} and y^k e^{-y}, k = 2, 3, 4, at y = e^level."""
    level = np.minimum(level, 7.0)  # e^{-e⁷} is 0 in double precision
    decay = np.exp(-np.exp(level))
    return decay, np.array([np.exp(k * level) * decay for k in (2, 3, 4)])


@functools.lru_cache(maxsize=4096)
def _sums(v: float, n: int) -> tuple[float, float]:
    """(E Σp², E Σp²(1 - 2p + Σp²)): 1/Z^m = ∫ t^{m-1} e^{-tZ} dt / (m-1)! turns each into one integral over ln t."""
    if n == 1:
        return 1.0, 0.0
    if v > _SHARP:
        return _winner(v, n)
    plain, (two, three, four) = _transforms(v)
    floor = np.log(np.maximum(plain, 1e-300))
    with np.errstate(under="ignore"):
        one_less, two_less = np.exp((n - 1.0) * floor), np.exp((n - 2.0) * floor)
    s2 = n * _STEP * float(np.sum(two * one_less))
    s3 = n * _STEP * float(np.sum(three * one_less)) / 2.0
    s4 = n * _STEP * float(np.sum(four * one_less)) / 6.0
    s22 = s4 + n * (n - 1.0) * _STEP * float(np.sum(two * two * two_less)) / 6.0
    s2 = min(1.0, max(1.0 / n, s2))
    return s2, max(s2 - 2.0 * s3 + s22, 0.0)


def _winner(v: float, n: int) -> tuple[float, float]:
    """The same for sharp softmaxes: 1 - E Σp² = ρ/√v + b/v, a third of it for the Jacobian.

    Only the gap g of the two largest logits counts, whose density at 0 is ρ/√v, ρ = n(n-1)∫φ²Φ^{n-2}:
    ∫ 2e^{-g}/(1+e^{-g})² dg = 1 and, with p = 1/(1+e^{-g}), ∫ 4p²(1-p)² dg = 1/3. b continues `_SHARP`.
    """
    nodes = gauss_nodes((), scale=1.0)
    density = np.exp(-0.5 * np.square(nodes.z)) / np.sqrt(2.0 * np.pi)
    rho = n * (n - 1.0) * float((density * special.ndtr(nodes.z) ** (n - 2.0)) @ nodes.weights)
    s2, jacobian_ = _sums(_SHARP, n)
    rest, third = (1.0 - s2) * _SHARP - rho * _SHARP**0.5, jacobian_ * _SHARP - rho / 3.0 * _SHARP**0.5
    return 1.0 - rho / v**0.5 - rest / v, rho / 3.0 / v**0.5 + third / v


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


def log_sum(v: float, n: int) -> tuple[float, float]:
    """Mean and variance of ln Σ e^ℓ over n independent logits of variance v around 0.

    E = ln n + ½ ∫₀^v (1 - E Σp²(u)) du: the derivative in the variance of Gaussian arguments is half the trace of the
    Hessian, Σ p(1 - p). Var = v·∫₀¹ E Σ p(ℓ)p(ℓ_t) dt over logits of correlation t, between v/n and v·E Σp²; their mean
    is what the trapezoid has.
    """
    z, weights = np.polynomial.legendre.leggauss(8)
    count = np.array(float(n))
    spent = sum(w * float(participation(0.5 * v * (1.0 + u), count)) for u, w in zip(z, weights, strict=True))
    return float(np.log(n)) + 0.5 * v * (1.0 - 0.5 * spent), 0.5 * v * (1.0 / n + float(participation(v, count)))


@functools.lru_cache(maxsize=256)
def _curve(n: int) -> tuple[Array, Array]:
    """E Σp² and E Σp²(1 - 2p + Σp²) over E Σp²·(1 - E Σp²), for growing variances of the logits."""
    pairs = [(1.0 / n, (1.0 - 1.0 / n) / n) if v == 0.0 else _sums(v, n) for v in SPREADS]
    s2 = np.array([a for a, _ in pairs])
    return s2, np.array([b / max(a * (1.0 - a), 1e-300) for a, b in pairs])


def shares(v: Array, n: Array) -> Array:
    """E Σp² of n keys with logits of the variance v, of the same shape; between tabulated v and n."""
    v, n = np.broadcast_arrays(v, np.maximum(n, 1.0))
    ladder: list[float] = np.geomspace(2.0, max(float(n.max()), 2.0), 6).tolist()
    knots = sorted({1, 2, *(round(k) for k in ladder)})
    table = np.array(
        [np.log(np.interp(v.ravel(), SPREADS, _curve(k)[0]) * k) if k > 1 else 0.0 * v.ravel() for k in knots]
    )
    place = np.interp(np.log(n.ravel()), np.log(knots), np.arange(len(knots)))
    low = np.minimum(np.floor(place).astype(int), len(knots) - 2)
    part, columns = place - low, np.arange(v.size)
    found = np.exp(table[low, columns] * (1.0 - part) + table[low + 1, columns] * part)
    return np.clip(found.reshape(v.shape) / n, 1.0 / n, 1.0)


def participation_curve(n: int) -> Array:
    """E Σp² of n keys at the variances `SPREADS` of the logits."""
    return _curve(n)[0]


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


_FEW, _ROWS = 512, 512  # keys up to which rows are sampled; how many


def let_through(logits: Array, weights: Array, n: int, met: Array | None = None) -> tuple[Array, Array, Array]:
    """E p², E p²(1 - p)²φ² and E [p²·Σ of the others' p²φ²] of an entry with each logit: what it has, and passes back.

    Args:
        logits: Of one entry on nodes, any shape.
        weights: Of the nodes, of that shape; they add up to 1.
        n: Number of keys, independent entries of this law; beyond `_FEW` their sums are as good as their means.
        met: φ, what the gradients of the weights have met since they were independent of them; 1 if None.
    """
    phi = np.ones_like(logits) if met is None else np.square(met)
    e = np.exp(logits - float(logits.max()))
    if n > _FEW:
        first, second = (np.array([(n - 1.0) * float(np.vdot(weights, f))]) for f in (e, phi * e**2))
    else:
        picked = np.random.default_rng(n).choice(e.size, (_ROWS, n - 1), p=weights.ravel() / weights.sum())
        others: Array = e.ravel()[picked]
        first, second = others.sum(axis=1), (np.square(others) * phi.ravel()[picked]).sum(axis=1)
    total = e[..., None] + first
    square = np.square(e[..., None] / total)
    own, others = phi * (square * np.square(first / total)).mean(axis=-1), square * second / np.square(total)
    return square.mean(axis=-1), own, others.mean(axis=-1)
