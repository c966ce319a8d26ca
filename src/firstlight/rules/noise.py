"""Log-norm noise that each kind of operation adds: own sources and sensitivities (THEORY §5, last paragraph)."""

from __future__ import annotations

import functools
import math

import numpy as np

from firstlight.graph.signal import SILENT, Array, Grid, Noise, Signal, Source, replace
from firstlight.rules.forms import combine
from firstlight.rules.layout import state_weights
from firstlight.theory import log_moments, special

_NARROW = 1e-3  # relative variance of a layer's length from which its law is taken beyond first order in 1/width
_EXACT = 32.0  # effective units below which it is taken exactly
_WIDEST = 1e6  # variance of a log-norm beyond which it is no longer followed


def pair_shares(x: Signal, states: tuple[int, ...]) -> Array:
    """Share of the ordered pairs of entries at each index of a cube."""
    return _pair_shares(x.atoms, states)


@functools.lru_cache(maxsize=4096)
def _pair_shares(atoms: tuple[int, ...], states: tuple[int, ...]) -> Array:
    out = np.ones((1,) * len(states))
    for i, (n, s) in enumerate(zip(atoms, states, strict=True)):
        w = state_weights(n, s) / n
        out = out * w.reshape((1,) * i + (s,) + (1,) * (len(states) - i - 1))
    out.setflags(write=False)
    return out


def gaussian_energy(x: Signal, fan: float = np.inf, unit: int | None = None) -> float:
    """Relative variance of Σ x² for jointly Gaussian entries: 2·(mean of c² over pairs of entries).

    Two sites see the same `fan` weights: their products scatter by 1/√fan around the mean correlation, so that
    c² is c² + (1 - c²)/fan wherever the unit (atom `unit`) is the same.
    """
    square = strayed(x, np.square(x.corr))
    if unit is not None and np.isfinite(fan):
        near = [slice(None)] * square.ndim
        near[unit] = slice(0, 1)
        square = square.copy()
        square[tuple(near)] += (1.0 - square[tuple(near)]) / fan
        square = _swayed(x, square, unit)
    return float(2.0 * np.sum(pair_shares(x, square.shape) * square))


def _swayed(x: Signal, square: Array, unit: int) -> Array:
    """E c² over draws where only positions of one unit differ; adds to an array of the caller's own."""
    if x.sway[0] > 0.0:
        here = tuple(slice(0, 1) if b or i == unit else slice(None) for i, b in enumerate(x.batch))
        origin = square[(0,) * square.ndim]
        square[here] = np.minimum(square[here] + x.sway[0], 1.0)
        square[(0,) * square.ndim] = origin
    return square


def strayed(x: Signal, square: Array) -> Array:
    """E c² over draws where only samples differ, from the mean correlation's c²."""
    if x.wander <= 0.0 or not any(x.batch):
        return square
    square = square.copy()
    samples = tuple(slice(None) if b else slice(0, 1) for b in x.batch)
    square[samples] += x.wander * (1.0 - square[samples])
    return square


def sample_correlation(x: Signal) -> float:
    """Correlation of the same entry in two samples."""
    return float(x.corr[tuple(1 if b and s > 1 else 0 for b, s in zip(x.batch, x.corr.shape, strict=True))])


def stray(x: Signal, fan: float) -> float:
    """`Signal.wander` after a fresh linear map that sums `fan` units, from that before it.

    The Gram matrix G of the samples at a layer of n units is a Wishart draw around that of the layer before:
    E tr G'² = (1 + 1/n) tr G² + (tr G)²/n and E (tr G')² = (tr G)² + (2/n) tr G², so for φ = tr G²/(tr G)², the
    mean c² of many samples, φ' - φ = (1 - φ)(1 + 2φ)/n: independent samples line up within about n layers.
    """
    if not np.isfinite(fan) or fan <= 0.0 or not any(x.batch):
        return x.wander
    square = sample_correlation(x) ** 2
    phi = square + x.wander * (1.0 - square)
    return min(1.0, x.wander + (1.0 - x.wander) * (1.0 + 2.0 * phi) / fan)


def fresh_linear(
    x: Signal,
    inherited: list[tuple[float, Noise]],
    fan: float = np.inf,
    unit: int | None = None,
    returned: float = 0.0,
) -> Noise:
    """Noise after fresh Gaussian-like weights: the exact chi-square law of n effective entries.

    E ln z = ψ(n/2) - ln(n/2), Var ln z = ψ₁(n/2), with n = 2/(relative variance) effective entries (THEORY §1).
    `returned` is variance that the layers before gave too much (`rules.sway`).
    """
    relative = gaussian_energy(x, fan, unit)
    if relative <= 0.0:
        return combine(inherited)
    half = 1.0 / relative  # n/2
    own, drift = chi_square_log(half)
    return combine(inherited, max(own - returned, 0.0), drift)


def chi_square_log(half: float) -> tuple[float, float]:
    """(variance, drift) of ln of a mean of 2·half squared normals; the large-n series where it is exact enough."""
    if half > 1e4:
        return 1.0 / half, -0.5 / half
    if half > 12.0:  # the asymptotic series, good to 1e-12 from here
        x = 1.0 / half
        y = x * x
        variance = x * (1.0 + 0.5 * x + y * (1.0 / 6.0 - y * (1.0 / 30.0 - y * (1.0 / 42.0 - y / 30.0))))
        return variance, -0.5 * x - y * (1.0 / 12.0 - y * (1.0 / 120.0 - y * (1.0 / 252.0 - y / 240.0)))
    half = max(half, 0.5)
    return _polygammas(half)


@functools.lru_cache(maxsize=1024)
def _polygammas(half: float) -> tuple[float, float]:
    return float(special.trigamma(half)), float(special.digamma(half)) - math.log(half)


def within_draw(source: Source, values: Array) -> tuple[Array, Array]:
    """Values of the source and of a chain on it within one draw: `scatter` is between draws, the entries Gaussian."""
    if source.scatter <= 0.0:
        return source.values, values
    if _within and _within[0][0] is source and _within[0][1] is values:
        return _within[0][2]
    bent, plain = source.values, replace(source, scatter=0.0, table=None).values
    lines = np.empty_like(values)
    for line, row in zip(lines, zip(plain, bent, values, strict=True), strict=True):
        line[:] = np.interp(*row)
    _within[:] = [(source, values, (plain, lines))]
    return plain, lines


_within: list[tuple[Source, Array, tuple[Array, Array]]] = []  # the last answer: a chain's end is asked for it again


def noise_from(source: Source, values: Array, x: Signal, total: float) -> tuple[Noise, float]:
    """Noise of Σ f(u)²: the part along u² is inherited with the sensitivity d ln q_out/d ln q_in, the rest is new.

    The sensitivity is the regression of f² on u² (for a Gaussian u it is d ln q_out/d ln q_in); what it leaves has
    the Hermite coefficients b_k and the relative variance Σ_{k≥1} b_k²⟨c^k⟩/q².

    Returns:
        The noise and the sensitivity.
    """
    if not np.isfinite(total) or total <= 0.0:
        return SILENT, 0.0
    w = source.grid.weights
    bent, values = within_draw(source, values)
    squares = np.square(values)
    base = np.square(bent)
    first = base @ w
    base = base - first[:, None]
    spread = (base * base) @ w
    slope = np.where(spread > 0.0, ((squares * base) @ w) / np.maximum(spread, 1e-300), 0.0)
    rest = squares - slope[:, None] * base
    b = rest @ source.grid.hermite
    fourth = float(source.share @ (np.square(rest) @ w))
    power = source.share @ np.square(b)
    sensitivity = float(source.share @ (slope * first)) / total
    weights = pair_shares(x, source.corr.shape).ravel()
    c = source.corr.ravel()
    keep = (weights > 0.0) & (np.abs(c) > 1e-9)
    c, weights = c[keep], weights[keep]
    n = len(power)
    means = weights @ np.vander(c, n, increasing=True)
    tail = max(fourth - float(power.sum()), 0.0)
    own = float(power[1:] @ means[1:] + tail * float(weights @ c ** (2 * n)))
    own = max(own, 0.0) / total / total
    drift = -0.5 * own
    if len(values) == 1 and own > _NARROW:
        units = 1.0 / float(means[0])
        shared = 1.0 - float(f"{1.0 - float(means[1] * units):.2g}")  # rounded, so that equal laws are found again
        one = squares[0]
        if shared < 1.0:  # a unit's mean over its sites, as a function of what they have in common
            one = _site_mean(source.grid, one, max(shared, 0.0))
        sites = 1.0 / float(means[2] * units) if means[2] > 0.0 else 1.0
        own, drift = _narrow(one, w, sensitivity, own, units, sites)
    return combine([(sensitivity, source.noise)], own, drift), sensitivity


def _site_mean(grid: Grid, squares: Array, shared: float) -> Array:
    """E[f(u)² | z] for u = √c z + √(1-c) e: each Hermite coefficient times c^(k/2)."""
    level: Array = np.power(shared, 0.5 * np.arange(grid.hermite.shape[1], dtype=np.float64))
    return np.maximum((grid.hermite @ ((squares @ grid.hermite) * level)) / grid.weights, 0.0)


def _narrow(squares: Array, w: Array, sensitivity: float, own: float, n: float, sites: float) -> tuple[float, float]:
    """(variance, drift) of a layer's own noise beyond first order in 1/n.

    The exact law of ln of the mean of n copies of f², less what comes with ln of the mean of n copies of u².

    Args:
        squares: f² of one unit on the nodes, its mean over sites where they differ.
        w: Weights of the nodes.
        sensitivity: Of ln f² to ln u².
        own: The variance to first order.
        n: Number of independent units.
        sites: Effective number of sites a unit has, 1/⟨c²⟩.
    """
    n = max(n, 1.0)
    mean = float(squares @ w)
    ratio = squares / mean
    centred = ratio - 1.0
    if n < _EXACT:
        law = _law_of(ratio.round(5).tobytes(), w.tobytes(), float(f"{n:.4g}"))
    else:
        law = log_moments.second_order(float(np.square(centred) @ w), float((centred * centred * centred) @ w), n)
    variance, drift = chi_square_log(0.5 * n * sites)
    return max(law.variance - sensitivity**2 * variance, 0.25 * own), law.mean - sensitivity * drift


@functools.lru_cache(maxsize=1024)
def _law_of(ratio: bytes, weights: bytes, n: float) -> log_moments.LogMoments:
    return log_moments.on_nodes(np.frombuffer(ratio), np.frombuffer(weights), n, 0.2)
