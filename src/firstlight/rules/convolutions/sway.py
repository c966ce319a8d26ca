"""How correlations of positions stray where all positions share a few channels' weights (convolutions).

Let G_pp' = Σ_i h_i(p)h_i(p')/C be the Gram matrix of the positions of an image over C channels, t = mean G_pp its mean
square, s = mean G_pp'/t the mean correlation. A convolution averages G over its taps, which move p and p' together:
what G_pp' strays by at one displacement everywhere is kept. Let h = f(u), u of correlation c: a channel's positions
have √c·z_i in common, and with m(z) = E[f|z], r(z) = E[f²|z] over many positions

    t = Σ_i r(z_i)/C,    s·t = Σ_i m(z_i)²/C,

C independent terms each. The law of (s, ln t) is worked out at sampled z, with the same ones for all layers: where
positions have become alike, few units are all that a draw has, and first order in 1/C has half of the variance of s.
c itself is taken to have a beta law over draws. So E s, Var s and Cov(s, ln t) follow from those of c, and so does
what a draw whose positions are alike has ahead: more noise and a more negative drift E[ln t|c]. That feedback takes
back a part of the variance of ln t.

What is left of 1/P and of chance in the squares of P positions' correlations, κ, makes the correlation of a
displacement stray by κ(1 - s)²(1 + 4s - 2s²)/C as well (of Gaussian h), from s = 0 on. As long as it strays by more
than c itself (gradients) displacements stray each for itself: that is counted in κ.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.signal import Array, Grid, Signal, replace
from firstlight.graph.sway import STILL, Sway
from firstlight.rules.chains.grids import grid
from firstlight.rules.state.quadrature import in_one_draw
from firstlight.rules.state.swaying import beta
from firstlight.rules.state.windows import pair_average

_SAMPLED = 1 << 15  # normal numbers z
_FEW = 32  # channels from which all goes like 1/C
LEVELS = 1.0 - np.square(np.linspace(1.0, 0.0, 17))  # correlations that are tabulated
_ALIKE = 1.0 - 1e-6


UNSTRAYED = (1.0, STILL)


def sway(x: Signal, places: Sequence[int], channels: int, fan: float) -> tuple[float, Sway]:
    """What a convolution of x does to correlations of positions: the factor on 1 - c, and how they stray behind it.

    Data are the same in every draw and do not stray; negative correlations are not followed.

    Args:
        x: The image.
        places: The atoms of its positions.
        channels: How many of its channels are summed.
        fan: Entries that are summed.
    """
    moved = [a for a in places if x.atoms[a] > 1]
    if x.data or not moved or channels < 1.0 or x.weights is not None:
        return UNSTRAYED
    s = min(max(pair_average(x, moved), 0.0), 1.0)
    if x.source is not None and x.values is not None and len(x.values) == 1:
        nodes, f = x.source.grid, in_one_draw(x.source, x.values)[0]
        c = pair_average(replace(x, corr=x.source.corr), moved)
    elif not x.mean.any():
        nodes = grid()
        f, c = nodes.z, s
    else:
        return UNSTRAYED
    level = float(np.square(f) @ nodes.weights)
    if not level > 0.0 or s >= _ALIKE:
        return UNSTRAYED
    before = x.sway if x.noise.variance > 0.0 else x.sway._replace(covariance=0.0)
    own = 1.0 / prod(x.atoms[a] for a in moved)
    v, each = (0.0, before.variance) if c * c <= before.variance else (before.variance, 0.0)
    kappa = own + (1.0 - own) * (before.brief + each)
    fresh = kappa * (1.0 - s) ** 2 * (1.0 + s * (4.0 - 2.0 * s)) / channels
    brief = (1.0 - s * s) / fan
    if c <= 0.0:
        return 1.0, Sway(each + fresh, before.covariance, brief)
    law = of_draws((f / level**0.5).round(5).tobytes(), nodes, min(channels, _FEW))
    at = beta(c, v)
    few = min(1.0, _FEW / channels)
    flat, bias, spread, along, drift = (np.interp(at, LEVELS, line) for line in law)
    mean = flat + few * bias
    lower = s + float(mean.mean() - np.interp(c, LEVELS, law[0]))
    apart, lengths = mean - mean.mean(), few * (drift - drift.mean())
    steep, feedback = (float(line @ (at - c)) / max(float(np.square(at - c).sum()), 1e-12) for line in (apart, lengths))
    variance = float(np.square(apart).mean() + few * spread.mean()) + fresh + each
    covariance = steep * before.covariance + float((apart * lengths).mean() + few * along.mean())
    owed = -2.0 * feedback * before.covariance - float(np.square(lengths).mean())
    return (1.0 - lower) / (1.0 - s), Sway(variance, covariance, brief, owed=owed)


@functools.lru_cache(maxsize=8)
def _places(nodes: Grid, channels: int) -> tuple[NDArray[np.intp], Array]:
    """Where between the nodes lies what the positions of each channel share, in draws and their negatives."""
    half = np.random.default_rng(channels).standard_normal((_SAMPLED // (2 * channels), channels))
    place = np.interp(np.concatenate([half, -half]), nodes.z, np.arange(float(len(nodes.z))))
    low: NDArray[np.intp] = np.minimum(place.astype(np.intp), len(nodes.z) - 2)
    return low, place - low


@functools.lru_cache(maxsize=64)
def of_draws(values: bytes, nodes: Grid, channels: int) -> tuple[Array, ...]:
    """The law of (s, ln t) over draws of a few channels, for many positions, at the correlations `LEVELS` of u.

    Args:
        values: f on the nodes, with E f² = 1.
        nodes: Of u.
        channels: C.

    Returns:
        C(c), E s - C(c), Var s, Cov(s, ln t) and E ln t.
    """
    f = np.frombuffer(values)
    low, part = _places(nodes, channels)
    a, b = f @ nodes.hermite, np.square(f) @ nodes.hermite
    series = nodes.hermite / nodes.weights[:, None]

    def at_sampled(line: Array) -> Array:
        return (line[low] + part * np.diff(line)[low]).mean(axis=1)

    found: list[tuple[float, ...]] = []
    for c in LEVELS:
        powers = np.power(c, 0.5 * np.arange(len(a)))
        one = np.clip(series @ (a * powers), f.min(), f.max()) if c < 1.0 else f
        square = np.maximum(series @ (b * powers), np.square(one)) if c < 1.0 else np.square(f)
        t = np.maximum(at_sampled(square), 1e-300)
        both = at_sampled(np.square(one))
        s, log, mean = both / t, np.log(t), float(np.square(one) @ nodes.weights)
        # of first order in 1/√C the means are known: 0
        bias = float((s - both + mean * (t - 1.0)).mean())
        found.append((mean, bias, float(s.var()), float(np.cov(s, log)[0, 1]), float((log - t).mean()) + 1.0))
    return tuple(np.array(line) for line in zip(*found, strict=True))
