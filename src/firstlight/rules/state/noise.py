"""Log-norm noise that each kind of operation adds: own sources and sensitivities (THEORY §5, last paragraph)."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.signal import SILENT, Array, Grid, Noise, Signal, Source, once
from firstlight.rules.state.forms import combine
from firstlight.rules.state.layout import state_weights
from firstlight.theory import log_moments

_NARROW = 1e-3  # relative variance of a layer's length from which its law is taken beyond first order in 1/width
_EXACT = 32.0  # effective units below which it is taken exactly
_FAR = 24.0  # from here the asymptotic series of ψ and ψ₁ miss less than 1e-16
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


@functools.lru_cache(maxsize=4096)
def summed_pairs(atoms: tuple[int, ...], states: tuple[int, ...], summed: tuple[int, ...]) -> Array:
    """Share of the pairs of summed entries of one site at each index of a cube."""
    out = np.ones((1,) * len(states))
    for i, s in enumerate(states):
        w = state_weights(atoms[i], s) / atoms[i] if i in summed else np.eye(1, s)[0]
        out = out * w.reshape((1,) * i + (-1,) + (1,) * (len(states) - i - 1))
    out.setflags(write=False)
    return out


def gaussian_energy(x: Signal, fan: float = np.inf, unit: int | None = None) -> float:
    """Relative variance of Σ x² for jointly Gaussian entries: 2·(mean of c² over pairs of entries).

    Two sites see the same `fan` weights: their products scatter by 1/√fan around the mean correlation, so that
    c² is c² + (1 - c²)/fan wherever the unit (atom `unit`) is the same.
    """
    square = strayed(x, np.square(x.corr))
    if unit is not None and math.isfinite(fan):
        near = square[(*(slice(None),) * unit, slice(0, 1))]
        near += (1.0 - near) / fan
        _sway(x, square, unit)
    return 2.0 * float(np.vdot(pair_shares(x, square.shape), square))


def _sway(x: Signal, square: Array, unit: int) -> None:
    """Make c² E c² over draws where only positions of one unit differ."""
    if x.sway[0] > 0.0:
        here = tuple(slice(0, 1) if b or i == unit else slice(None) for i, b in enumerate(x.batch))
        origin = square[(0,) * square.ndim]
        square[here] = np.minimum(square[here] + x.sway[0], 1.0)
        square[(0,) * square.ndim] = origin


def strayed(x: Signal, square: Array) -> Array:
    """E c² over draws where only samples differ, from the mean correlation's c², an array of the caller's own."""
    if x.wander > 0.0 and any(x.batch):
        samples = square[_samples(x.batch)]
        samples += x.wander * (1.0 - samples)
    return square


@functools.lru_cache(maxsize=1024)
def _samples(batch: tuple[bool, ...]) -> tuple[slice, ...]:
    """Where in a cube only samples differ."""
    return tuple(slice(None) if b else slice(0, 1) for b in batch)


def sample_correlation(x: Signal) -> float:
    """Correlation of the same entry in two samples."""
    return x.corr.item(two_samples(x.batch, x.corr.shape))


@functools.lru_cache(maxsize=1024)
def two_samples(batch: tuple[bool, ...], states: tuple[int, ...]) -> tuple[int, ...]:
    """The place in a cube of the same entry in two samples; of a lone sample, at two of its positions.

    Positions are all axes but the last one: tokens before features.
    """
    if batch and not any(batch):
        batch = (*(True for _ in batch[:-1]), False)
    return tuple(1 if b and s > 1 else 0 for b, s in zip(batch, states, strict=True))


def stray(x: Signal, fan: float) -> float:
    """`Signal.wander` after a fresh linear map that sums `fan` units, from that before it.

    The Gram matrix G of the samples at a layer of n units is a Wishart draw around that of the layer before:
    E tr G'² = (1 + 1/n) tr G² + (tr G)²/n and E (tr G')² = (tr G)² + (2/n) tr G², so for φ = tr G²/(tr G)², the
    mean c² of many samples, φ' - φ = (1 - φ)(1 + 2φ)/n: independent samples line up within about n layers.
    """
    return strayed_on(x.wander, sample_correlation(x), fan)


def strayed_on(wander: float, correlation: float, fan: float) -> float:
    """`stray` for samples of a given correlation."""
    if not math.isfinite(fan) or fan <= 0.0:
        return wander
    square = correlation**2
    phi = square + wander * (1.0 - square)
    return min(1.0, wander + (1.0 - wander) * (1.0 + 2.0 * phi) / fan)


def mixed_wander(parts: Sequence[tuple[float, Signal]], correlation: float, *, alike: bool = False) -> float:
    """`Signal.wander` of a sum or of tensors side by side, from the energies and signals of its parts.

    c = Σ w_i c_i for energy shares w_i, so that wander·(1 - c²) = Var Σ w_i c_i. What two parts stray by is taken to
    have the smaller of the two variances in common: a branch inherits what the stream it starts from strays by. Parts
    that are `alike` are places of one tensor, which stray each for itself.
    """
    strays = [x.wander * (1.0 - sample_correlation(x) ** 2) for _, x in parts]
    left = 1.0 - min(correlation * correlation, 1.0)
    total = sum(w for w, _ in parts)
    if left <= 1e-12 or total <= 0.0 or not any(strays):
        return max(x.wander for _, x in parts)
    shares = [w / total for w, _ in parts]
    variance = 0.0
    for i, (a, v) in enumerate(zip(shares, strays, strict=True)):
        variance += a * a * v
        variance += 0.0 if alike else 2.0 * a * sum(b * min(u, v) for b, u in zip(shares[:i], strays[:i], strict=True))
    return min(variance / left, 1.0)


def fresh_linear(
    x: Signal,
    inherited: list[tuple[float, Noise]],
    fan: float = np.inf,
    unit: int | None = None,
    returned: float = 0.0,
) -> Noise:
    """Noise after fresh Gaussian-like weights: the exact chi-square law of n effective entries.

    E ln z = ψ(n/2) - ln(n/2), Var ln z = ψ₁(n/2), with n = 2/(relative variance) effective entries (THEORY §1).
    `returned` is variance that the layers before gave too much (`rules.convolutions.sway`).
    """
    relative = gaussian_energy(x, fan, unit)
    if relative <= 0.0:
        return combine(inherited)
    half = 1.0 / relative  # n/2
    own, drift = chi_square_log(half)
    return combine(inherited, max(own - returned, 0.0), drift)


def chi_square_log(half: float) -> tuple[float, float]:
    """(variance, drift) of ln of a mean of 2·half squared normals, half ≥ ½; the large-n series where it is exact.

    Below it by ψ₁(x) = ψ₁(x + 1) + 1/x² and ψ(x) = ψ(x + 1) - 1/x, from where the series is good to the last digits.
    """
    if half > 1e4:
        return 1.0 / half, -0.5 / half
    if half > 12.0:  # the asymptotic series, good to 1e-12 from here
        x = 1.0 / half
        y = x * x
        variance = x * (1.0 + 0.5 * x + y * (1.0 / 6.0 - y * (1.0 / 30.0 - y * (1.0 / 42.0 - y / 30.0))))
        return variance, -0.5 * x - y * (1.0 / 12.0 - y * (1.0 / 120.0 - y * (1.0 / 252.0 - y / 240.0)))
    at = half = max(half, 0.5)
    above, below = 0.0, 0.0
    while at < _FAR:
        above += 1.0 / (at * at)
        below += 1.0 / at
        at += 1.0
    variance, drift = chi_square_log(at)
    return variance + above, drift + math.log(at / half) - below


@dataclass(frozen=True, slots=True, eq=False)
class _Draw:
    """A source within one draw of the weights, where its entries are Gaussian: `scatter` is between draws.

    Attributes:
        values: Its values u on the nodes, shape (rows, n).
        square: u² less its mean, shape (rows, n).
        mean: E u² of each row.
        spread: Var u² of each row.
        hermite: Hermite coefficients of `square`, shape (rows, K).
    """

    values: Array
    square: Array
    mean: Array
    spread: Array
    hermite: Array


def _draw(source: Source) -> _Draw:
    values = source.values if source.scatter <= 0.0 else source.bent(0.0)
    square = np.square(values)
    mean = square @ source.grid.weights
    square -= mean[:, None]
    return _Draw(values, square, mean, np.square(square) @ source.grid.weights, square @ source.grid.hermite)


def _one_draw(source: Source) -> _Draw:
    """Worked out once for every source that carries its values."""
    return _draw(source) if source.table is None else once(source, "_draw", source.table, lambda: _draw(source))


def squares_of(source: Source, values: Array, *, one_draw: bool = False) -> tuple[Array, Array]:
    """Squares of a chain's values on the nodes, and their Hermite coefficients, shapes (rows, n) and (rows, K).

    Args:
        source: Of the chain.
        values: Shape (rows, n).
        one_draw: Within one draw of the weights, without what the source's variance scatters between draws.
    """
    one_draw = one_draw and source.scatter > 0.0
    for of, at, within, found in _squares:
        if of is source and at is values and within is one_draw:
            return found
    squares = np.square(in_one_draw(source, values) if one_draw else values)
    found = squares, squares @ source.grid.hermite
    _squares.append((source, values, one_draw, found))
    return found


def in_one_draw(source: Source, values: Array) -> Array:
    """A chain's values on the nodes within one draw of the weights."""
    if source.scatter <= 0.0:
        return values
    table = source.table
    low, part = _between(source) if table is None else once(source, "_between_nodes", table, lambda: _between(source))
    return values[:, low] * (1.0 - part) + values[:, low + 1] * part


def _between(source: Source) -> tuple[NDArray[np.intp], Array]:
    """Where the values of one draw lie between those on the nodes: alike in all rows, which differ in scale alone."""
    row = int(np.argmax(source.sd))
    plain, bent = _one_draw(source).values[row], source.values[row]
    place: Array = np.asarray(np.interp(plain, bent, np.arange(float(len(bent)))), dtype=np.float64)
    low: NDArray[np.intp] = np.minimum(place.astype(np.intp), len(bent) - 2)
    return low, place - low


def by_length(source: Source, values: Array) -> Array:
    """dE[f(u)|V]/dln V of each row, V the variance of u: the regression of f on u², E f·(u² - V)·V/Var u²."""
    draw = _one_draw(source)
    lines = in_one_draw(source, values)
    return ((lines * draw.square) @ source.grid.weights) * draw.mean / np.maximum(draw.spread, 1e-300)


# the last answers: a chain's end is asked for them again
_squares: deque[tuple[Source, Array, bool, tuple[Array, Array]]] = deque(maxlen=2)


def noise_from(source: Source, values: Array, x: Signal, total: float) -> tuple[Noise, float]:
    """Noise of Σ f(u)²: the part along u² is inherited with the sensitivity d ln q_out/d ln q_in, the rest is new.

    The sensitivity is the regression of f² on u² (for a Gaussian u it is d ln q_out/d ln q_in); what it leaves has
    the Hermite coefficients b_k and the relative variance Σ_{k≥1} b_k²⟨c^k⟩/q².

    Returns:
        The noise and the sensitivity.
    """
    if not math.isfinite(total) or total <= 0.0:
        return SILENT, 0.0
    w = source.grid.weights
    draw = _one_draw(source)
    squares, coefficients = squares_of(source, values, one_draw=True)
    slope = ((squares * draw.square) @ w) / np.maximum(draw.spread, 1e-300)
    slope[draw.spread <= 0.0] = 0.0
    fourth = source.average(np.square(squares - slope[:, None] * draw.square))
    power = source.share @ np.square(coefficients - slope[:, None] * draw.hermite)
    sensitivity = float(source.share @ (slope * draw.mean)) / total
    related = np.abs(source.corr) > 1e-9
    means, last = source.powers.mean(pair_shares(x, source.corr.shape) * related)
    tail = max(fourth - float(power.sum()), 0.0)
    own = float(power[1:] @ means[1:]) + tail * last
    own = max(own, 0.0) / total / total
    drift = -0.5 * own
    if len(squares) == 1 and own > _NARROW:
        units = 1.0 / float(means[0])
        shared = 1.0 - float(f"{1.0 - float(means[1] * units):.2g}")  # rounded, so that equal laws are found again
        one = squares[0]
        if shared < 1.0:  # a unit's mean over its sites, as a function of what they have in common
            one = _site_mean(source.grid, coefficients[0], max(shared, 0.0))
        sites = 1.0 / float(means[2] * units) if means[2] > 0.0 else 1.0
        own, drift = _narrow(one, w, sensitivity, own, units, sites)
    return combine([(sensitivity, source.noise)], own, drift), sensitivity


def _site_mean(grid: Grid, coefficients: Array, shared: float) -> Array:
    """E[f(u)² | z] for u = √c z + √(1-c) e: each Hermite coefficient of f² times c^(k/2)."""
    return np.maximum((grid.hermite @ (coefficients * _half_powers(shared, len(coefficients)))) / grid.weights, 0.0)


@functools.lru_cache(maxsize=256)
def _half_powers(c: float, count: int) -> Array:
    return np.power(c, 0.5 * np.arange(count, dtype=np.float64))


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
