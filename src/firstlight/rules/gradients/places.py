"""How the gradient of an image goes with the length of its places: λ = d ln|g|²/d ln|x|² (`Image.lean`).

Behind z = w*h, a norm over a batch and a smooth f (hardswish, GELU) the gradient f'(z)² is larger where all channels of
a place are long, d ln E f'(√V u)²/d ln V = e_f = E[f'²(u² - 1)]/(2·E f'²); a norm over many places leaves their lengths
what they were. Convolutions hand λ on as far as a place of h belongs to the windows that read it. In front, f'(h)² is
large where h is long, too, and so is what a gate multiplies: with lengths of relative variance τ² at the source

    E g²·f'² = E g²·E f'²·(1 + λ·e_f·τ²).

A rectifier's slopes do not depend on lengths, e_f = 0.
"""

from __future__ import annotations

import numpy as np

from firstlight.graph.along import Image
from firstlight.graph.signal import Array, Cotangent, Signal, Source
from firstlight.rules.gradients.along import meeting
from firstlight.rules.state.layout import axis_atoms
from firstlight.rules.state.summation import sum_atoms

LITTLE = 1e-3  # λ that changes nothing
_LEAST = 0.25  # of the mean square that is left where the first order would take it all


def exponent(source: Source, values: Array) -> float:
    """d ln E f(√V u)²/d ln V at V = 1, for f on the nodes of a source."""
    square = np.square(values) * source.grid.weights
    level = float(source.share @ square.sum(axis=-1))
    return 0.5 * float(source.share @ (square @ (np.square(source.grid.z) - 1.0))) / level if level > 0.0 else 0.0


def gain(lean: float, source: Source, values: Array, slope: Array) -> float:
    """E g²f'² over E g²·E f'² for a gradient g of y = f(x), both on one source, that goes with the places of y by λ."""
    scatter = source.scatter - source.noise.variance  # of the places of one draw
    if abs(lean) < LITTLE or scatter <= 0.0:
        return 1.0
    return max(1.0 + lean * exponent(source, values) * exponent(source, slope) * scatter, _LEAST)


def before(lean: float, source: Source, values: Array, x: Array) -> float:
    """λ of x in front of y = f(x), from that of y: both go with the length of the source."""
    own = exponent(source, x)
    return lean * exponent(source, values) / own if own > 0.1 else 0.0


def in_window(lean: float, x: Signal, count: float, per: int, own: float) -> float:
    """λ of a place that windows read: as far as other entries than the one that is looked at make the window long.

    Args:
        lean: λ of what windows make.
        x: What they read.
        count: Places of a window.
        per: Channels of a window.
        own: What an entry itself makes of its window (`convolutions.steep`).
    """
    others = count * per - 1.0
    beside = (per - 1.0 + (count - 1.0) * per * x.reach) / others if others > 0.0 else 0.0
    return lean * (1.0 - own) * beside


def of_gate(g: Cotangent, out: Signal, image: Image) -> float:
    """E (Σ g·x)² over the places of a channel, over that of g which does not go with their lengths."""
    scatter = out.scatter - out.noise.variance
    if abs(image.lean) < LITTLE or scatter <= 0.0:
        return 1.0
    met = meeting(g, out)
    places = [a for k in range(2, met.ndim) for a in axis_atoms(met, k)]
    total = sum_atoms(met, places).mean_q
    alone = met.mean_q * met.numel / max(met.shape[0] * met.shape[1], 1)
    return max(1.0 + image.lean * scatter * min(alone / total, 1.0), _LEAST) if total > 0.0 else 1.0
