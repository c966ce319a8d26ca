"""Log-norm noise that each kind of operation adds: own sources and sensitivities (THEORY §5, last paragraph)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import SILENT, Array, Grid, Noise, Signal, Source, once
from firstlight.rules.state import swaying
from firstlight.rules.state.forms import combine
from firstlight.rules.state.layout import state_weights
from firstlight.rules.state.quadrature import Law, OfUnit
from firstlight.theory import log_moments

_NARROW = 1e-3  # relative variance of a layer's length from which its law is taken beyond first order in 1/width
_EXACT = 32.0  # effective units below which it is taken exactly
_MOST = 1e4  # and below which it is where an expansion in them does not converge
_HEAVY = 1.0  # relative variance of a layer's length from which an entry or two make all of it
_FAR = 12.0  # from here the asymptotic series of ψ and ψ₁ miss less than 1e-16
# (2k, B_2k), the last ones first
_BERNOULLI = ((14, 7 / 6), (12, -691 / 2730), (10, 5 / 66), (8, -1 / 30), (6, 1 / 42), (4, -1 / 30), (2, 1 / 6))
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
    stray, few = x.wander if any(x.batch) else 0.0, 0.0 if unit is None else 1.0 / max(fan, 1.0)
    if unit is not None and few > 0.0 and swaying.positions(x):
        square = strayed(x, np.square(x.corr))
        near = square[(*(slice(None),) * unit, slice(0, 1))]
        near += (1.0 - near) * few
        square = swaying.squares(x, square)
        return 2.0 * float(np.vdot(pair_shares(x, square.shape), square))
    # that c² becomes 1 - (1 - c²)·(1 - stray)·(1 - few), each where it applies: sums over all pairs and over these
    shares, (_, samples, units, both) = _shares_of_kinds(x.atoms, x.corr.shape, x.batch, unit)
    line = x.corr.reshape(-1)
    every, alike, near, alike_near = (shares @ (line * line)).tolist()
    return 2.0 * (every + stray * (samples - alike) + few * (units - near) - stray * few * (both - alike_near))


@functools.lru_cache(maxsize=4096)
def _shares_of_kinds(
    atoms: tuple[int, ...], states: tuple[int, ...], batch: tuple[bool, ...], unit: int | None
) -> tuple[Array, list[float]]:
    """`pair_shares` of all pairs, where only samples differ, where the unit is the same, and both; with their sums."""
    every = _pair_shares(atoms, states)
    samples, units = np.zeros(states), np.zeros(states)
    samples[_samples(batch)] = 1.0
    if unit is not None:
        units[(*(slice(None),) * unit, slice(0, 1))] = 1.0
    rows = np.stack([(every * kind).reshape(-1) for kind in (np.ones(states), samples, units, samples * units)])
    return rows, rows.sum(axis=1).tolist()


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


def angle(x: Signal, wander: float, fan: float) -> float:
    """`Signal.angle` after a fresh linear map that sums `fan` units, behind which `wander` is what is given.

    The correlation of two Gaussian samples over n units strays by (1 - c²)²/n around c (Fisher 1915); what `wander`
    has beyond that are lengths: of E (x·y)² long samples make more.
    """
    c2 = sample_correlation(x) ** 2
    left = 1.0 - c2
    if not math.isfinite(fan) or fan <= 0.0 or wander * left <= 1e-12:
        return x.angle
    before = x.angle * x.wander * left
    return min((before + max(left - before, 0.0) ** 2 / fan) / (wander * left), 1.0)


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
) -> Noise:
    """Noise after fresh Gaussian-like weights: what comes in and what these add."""
    return combine(inherited, *of_weights(x, fan, unit))


def of_weights(x: Signal, fan: float = np.inf, unit: int | None = None) -> tuple[float, float]:
    """(variance, drift) that Gaussian-like weights add: the exact chi-square law of n effective entries.

    E ln z = ψ(n/2) - ln(n/2), Var ln z = ψ₁(n/2), with n = 2/(relative variance) effective entries (THEORY §1).
    """
    relative = gaussian_energy(x, fan, unit)
    return chi_square_log(1.0 / relative) if relative > 0.0 else (0.0, 0.0)


def chi_square_log(half: float) -> tuple[float, float]:
    """(variance, drift) of ln of a mean of 2·half squared normals, half ≥ ½: ψ₁(half), ψ(half) - ln(half).

    The large-n series where it is exact, below it by ψ₁(x) = ψ₁(x + 1) + 1/x² and ψ(x) = ψ(x + 1) - 1/x.
    """
    if half > 1e4:
        return 1.0 / half, -0.5 / half
    at = half = max(half, 0.5)
    above, below = 0.0, 0.0
    while at < _FAR:
        above += 1.0 / (at * at)
        below += 1.0 / at
        at += 1.0
    x = 1.0 / at
    y = x * x
    variance, drift = 0.0, 0.0
    for k, bernoulli in _BERNOULLI:
        variance, drift = y * (bernoulli + variance), y * (bernoulli / k + drift)
    variance, drift = x * (1.0 + 0.5 * x + variance), -0.5 * x - drift
    return variance + above, drift + math.log(at / half) - below


def log_normal(relative: float) -> float:
    """Variance of the logarithm of a log-normal variable of that relative variance; the same where it is small."""
    return math.log1p(max(relative, 0.0))


def noise_from(source: Source, law: Law, x: Signal) -> tuple[Noise, float]:
    """Noise of Σ f(u)²: the part along u² is inherited with the sensitivity d ln q_out/d ln q_in, the rest is new.

    The sensitivity is the regression of f² on u² (for a Gaussian u it is d ln q_out/d ln q_in); what it leaves has
    the Hermite coefficients b_k and the relative variance Σ_{k≥1} b_k²⟨c^k⟩/q².

    Returns:
        The noise and the sensitivity.
    """
    if not math.isfinite(law.total) or law.total <= 0.0:
        return SILENT, 0.0
    sensitivity, power, tail = law.inherited
    means, last = _mean_powers(source, x.atoms)
    own = max(float(power[1:] @ means[1:]) + tail * last, 0.0)
    own = log_normal(own)
    drift = -0.5 * own
    if own > _NARROW and len(source.sd) == 1:
        one, alike, square = means[:3].tolist()
        units, alike, square = 1.0 / one, alike / one, square / one
        found: list[tuple[float, float]] = []
        for shared in swaying.values(x, alike):
            near = 1.0 - float(f"{1.0 - shared:.2g}")  # rounded, so that equal laws are found again
            sites = 1.0 / max(square + shared**2 - alike**2, 1e-9)
            found.append(_narrow(law.of_unit(min(max(near, 0.0), 1.0)), source.grid, sensitivity, own, units, sites))
        own, drift = found[0] if len(found) == 1 else (sum(line) / len(found) for line in zip(*found, strict=True))
    own = max(own - sensitivity**2 * x.sway.owed, 0.0)
    return combine([(sensitivity, source.noise)], own, drift), sensitivity


def _mean_powers(source: Source, atoms: tuple[int, ...]) -> tuple[Array, float]:
    """`Powers.mean` of a source over all pairs that are correlated; the function and its slope ask for the same."""

    def made() -> tuple[tuple[int, ...], tuple[Array, float]]:
        related = np.abs(source.corr) > 1e-9
        return atoms, source.powers.mean(_pair_shares(atoms, source.corr.shape) * related)

    of, found = once(source, "_mean_powers", source.corr, made)
    return found if of == atoms else made()[1]


def _narrow(unit: OfUnit, grid: Grid, sensitivity: float, own: float, n: float, sites: float) -> tuple[float, float]:
    """(variance, drift) of a layer's own noise beyond first order in 1/n.

    The exact law of ln of the mean of n copies of f², less what comes with ln of the mean of n copies of u².

    Args:
        unit: f² of one unit, its mean over sites where they differ.
        grid: On whose nodes.
        sensitivity: Of ln f² to ln u².
        own: The variance to first order.
        n: Number of independent units.
        sites: Effective number of sites a unit has, 1/⟨c²⟩.
    """
    n = max(n, 1.0)
    if unit.second > _HEAVY * n:  # too heavy for five digits and for any expansion: one entry is all of it
        law = log_moments.on_nodes(unit.ratio, grid.weights, min(n, _MOST), 0.2)
    elif n < _EXACT or (n * unit.second < unit.third and n < _MOST):  # a heavy tail: the expansion diverges
        law = _law_of(unit.rounded, grid, float(f"{n:.4g}"))
    else:
        law = log_moments.second_order(unit.second, unit.third, n)
    variance, drift = chi_square_log(0.5 * n * sites)
    return max(law.variance - sensitivity**2 * variance, 0.25 * min(own, law.variance)), law.mean - sensitivity * drift


@functools.lru_cache(maxsize=1024)
def _law_of(ratio: bytes, grid: Grid, n: float) -> log_moments.LogMoments:
    return log_moments.on_nodes(np.frombuffer(ratio), grid.weights, n, 0.2)
