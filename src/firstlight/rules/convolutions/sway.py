"""How correlations of positions stray where all positions share a few channels' weights (convolutions).

Let G_pp' = Σ_c h_c(p)h_c(p')/C be the Gram matrix of the positions of an image over C channels, t = mean G_pp its mean
square, s = mean G_pp'/t the mean correlation. A convolution averages G over its taps, which move p and p' together:
what G_pp' strays by at one displacement everywhere is kept. With h = f(u), u of correlation c, over draws

    V = C·Var t/t² = E f_p² f_p'² - 1,   D = C·Cov(s·t, t)/t² = E f_p f_p' f_p''² - s      (E f² = 1)

and of the ratio s = (s·t)/t: E s' = s - (D - sV)/C, Cov(s, ln t) = (D - sV)/C, and of a displacement's correlation
(linear h) the variance (φ + s² - 4s³ + 2s²φ)/C with φ = E c². The map c → s damps what was there by its slope.
A draw whose positions happen to be alike is long and has more noise ahead, so a more negative drift:
∂ E ln t/∂c = -V'(c)/2C. That feedback takes back a part of the variance of ln t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from firstlight.graph.signal import Array, Signal
from firstlight.rules.state.windows import pair_average


@dataclass(frozen=True, slots=True)
class Sway:
    """What one layer's few channels do to the correlations of positions.

    Attributes:
        stretch: Factor on 1 - c of pairs of positions.
        variance: Of a displacement's correlation over draws, after the layer.
        covariance: Of the correlation with ln of the mean square, after the layer.
        returned: Variance of ln of the mean square that the feedback takes back.
    """

    stretch: float = 1.0
    variance: float = 0.0
    covariance: float = 0.0
    returned: float = 0.0


STILL = Sway()


def sway(x: Signal, places: Sequence[int], channels: float) -> Sway:
    """Of a convolution that sums `channels` channels of x; `places` are the atoms of its positions.

    Data are the same in every draw and do not stray; negative correlations are not followed.
    """
    moved = [a for a in places if x.atoms[a] > 1]
    if x.data or not moved or channels < 1.0 or x.weights is not None:
        return STILL
    shared = pair_average(x, moved)
    v, r = x.sway
    r = r if x.noise.variance > 0.0 else 0.0
    s = min(max(shared, 0.0), 1.0)
    if x.source is not None and x.values is not None and len(x.values) == 1:
        source = x.source
        level = float(np.square(x.values[0]) @ source.grid.weights)
        if level <= 0.0:
            return STILL
        c = min(max(pair_average(_cube_of(x, source.corr), moved), 0.0), 1.0)
        f, grid = x.values[0] / level**0.5, source.grid
        polynomials = grid.hermite / grid.weights[:, None]
        a, b = f @ grid.hermite, np.square(f) @ grid.hermite
    elif not x.mean.any():
        return _linear(s, v, r, channels)
    else:
        return STILL
    k = np.arange(len(a))
    powers = c ** (0.5 * k)
    one, square = polynomials @ (a * powers), polynomials @ (b * powers)
    big_v = float(np.square(b[1:]) @ c ** k[1:])
    steep = float((k[1:] * np.square(b[1:])) @ c ** (k[1:] - 1.0))
    slope = float((k[1:] * np.square(a[1:])) @ c ** (k[1:] - 1.0))
    big_d = float((np.square(one) * square) @ grid.weights) - float(np.square(one) @ grid.weights)
    return _step(s, big_v, big_d, steep, min(slope, 1.0), v, r, channels)


def _linear(s: float, v: float, r: float, channels: float) -> Sway:
    return _step(s, 2.0 * s * s, 2.0 * s * s, 4.0 * s, 1.0, v, r, channels)


def _step(
    s: float, big_v: float, big_d: float, steep: float, slope: float, v: float, r: float, channels: float
) -> Sway:
    if s >= 1.0 - 1e-9:
        return STILL
    lower = s * (1.0 + big_v / channels) / (1.0 + big_d / (s * channels)) if s > 1e-6 else s
    lower = min(lower, s)
    feedback = -0.5 * steep / channels
    phi = s * s + slope * slope * v
    fresh = max(phi + s * s - 4.0 * s**3 + 2.0 * s * s * phi, 0.0) / channels
    variance = min(slope * slope * v + fresh, 0.5 * (1.0 - s * s))
    covariance = slope * (r + feedback * v) + (s - lower)
    return Sway((1.0 - lower) / (1.0 - s), variance, covariance, -(2.0 * feedback * r + feedback**2 * v))


def _cube_of(x: Signal, corr: Array) -> Signal:
    return Signal(x.groups, x.mean, x.q, corr, x.batch)
