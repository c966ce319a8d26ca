"""Gradients that are large where the window in front of them is, seen from the entries of that window.

Behind z = w*h and a function f the gradient f'(ẑ)² of a smooth f, as hardswish or GELU, grows with |ẑ|, and ẑ is long
where the window's energy V = Σ w²h²/Σ w² is: to first order

    E[δ²|V] = E δ²·(1 + e·(V - 1)),   e = E[φ²·(ẑ² - 1)]/(2·E φ²),

φ the factor that the gradient has met (E[φ(√V u)²] has this slope at V = 1), and at most e = 1, or it would be negative
for short windows (a place is the largest of many only where it is long). One entry h_i of a dense convolution
hardly matters for V. Of a channel's own window of n entries it is the share of V that goes back to it as well, so that
E Σ w_i²·w_i²/(Σ w²)² counts instead of 1/n: that is κ/(n + κ - 1) for weights of kurtosis κ (3/11 for nine normal
ones). The other entries go along with it as far as squares of neighbours do. So the gradient wᵀδ is large where h is,
and that is where f' in front is large again: a MobileNet with hardswish loses a tenth to a fifth a block without.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, Source, replace
from firstlight.rules.gradients.gradient import parts_of, whole
from firstlight.rules.gradients.places import exponent
from firstlight.rules.linear.contraction import energy_cube
from firstlight.rules.state.views import source_key

_LITTLE = 0.01  # relative change of the gradient's mean square at a typical entry that is left out
_LEAST = 0.1  # of the mean square that is left where the first order would take it all


def of_factors(g: Cotangent, out: Signal) -> float:
    """e of a gradient that has met functions of its own tensor; 0 where it has not.

    Args:
        g: The gradient of out.
        out: Its tensor ẑ, or a function of it.
    """
    key, total, bent = source_key(out), 0.0, 0.0
    for p in parts_of(g):
        total += whole(p).mean_q
        if p.source is not None and p.values is not None and p.source.key == key:
            bent += whole(p).mean_q * min(exponent(p.source, p.values), 1.0)
    return bent / total if total > 0.0 else 0.0


def known(g: Cotangent, out: Signal) -> tuple[float, bool]:
    """e of the gradient of a convolution's output, and whether the channels' means have been taken off before f."""
    signal = whole(g)
    if signal.steep is not None and signal.steep[0] == signal.ident:
        return signal.steep[1], True
    return of_factors(g, out), False


def behind(
    dx: Cotangent, x: Signal, weight: Signal, g: Cotangent, out: Signal, taps: Sequence[int], count: float
) -> Cotangent:
    """The gradient of a convolution's input with its dependence on the input's own entries.

    Args:
        dx: The gradient, of weights that are independent of all.
        x: The input.
        weight: The weights.
        g: The gradient of the output.
        out: The output.
        taps: Atoms of the positions of x.
        count: Taps inside a window.
    """
    if x.source is None or x.values is None or x.data:
        return dx
    steep, centred = known(g, out)
    level = x.mean_mean if centred else 0.0
    share = _share(x, level, weight, taps, count, max(weight.shape[1], 1)) if abs(steep) > _LITTLE else 0.0
    if abs(steep * share) < _LITTLE or dx.source is not None or dx.rest or dx.factor is not None:
        return dx
    return replace(dx, source=x.source, values=_factor(x.source, x.values - level, steep * share), layout=x)


def own_share(weight: Signal, count: float) -> float:
    """E Σ w_i⁴/(Σ w²)² over a window of `count` places: κ/(n + κ - 1), exact for normal weights."""
    kurtosis = 3.0 if weight.weights is None else weight.weights.kurtosis
    return kurtosis / (max(count * weight.shape[1], 1.0) + kurtosis - 1.0)


def _share(x: Signal, level: float, weight: Signal, taps: Sequence[int], count: float, per: int) -> float:
    """What V has of the square of one of its entries, in the mean over those to whom the gradient goes back."""
    own, n = own_share(weight, count), max(count * per, 1.0)
    assert x.values is not None
    cube = energy_cube(replace(x, values=x.values - level), one_draw=True)
    here = float(cube[(0,) * cube.ndim])
    near = float(cube[tuple(cube.shape[i] - 1 if i in taps else 0 for i in range(cube.ndim))])
    beside = near / here if here > 0.0 else 0.0
    return own + (1.0 - own) * beside * (count - 1.0) / max(n - 1.0, 1.0)


def _factor(source: Source, h: Array, slope: float) -> Array:
    """√(1 + slope·(h²/E h² - 1)) on the nodes, of mean square 1."""
    square = np.square(h)
    level = float(source.share @ (square @ source.grid.weights))
    found = np.maximum(1.0 + slope * (square / max(level, 1e-300) - 1.0), _LEAST)
    return np.sqrt(found / float(source.share @ (found @ source.grid.weights)))
