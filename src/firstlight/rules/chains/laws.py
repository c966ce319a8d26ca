"""Laws of entries that are no Gaussians: of sums, of products, of positive quantities; quantiles at normal places."""

from __future__ import annotations

import numpy as np

from firstlight.graph.signal import Array, Signal, Source, average
from firstlight.rules.chains.grids import grid
from firstlight.theory import special


def lognormal(mean: Array, sd: Array) -> tuple[Array, Array] | None:
    """Standardised quantiles of a positive quantity with the largest relative spread of its rows."""
    ratio = float(np.max(sd / mean))  # of the row that scatters most: none may come below zero
    if ratio <= 1e-9:
        return None
    s2 = float(np.log1p(ratio * ratio))
    z = np.linspace(-10.0, 10.0, 2001)
    return z, np.expm1(s2**0.5 * z - 0.5 * s2) / ratio


def sum_law(x: Signal) -> tuple[Array, Array] | None:
    """Standardised quantiles of a sum of two independent signals of which one is bent: (z, (u - m)/s on z).

    P(u ≤ t) = Σ_j w_j P(b ≤ t - a_j) over the nodes of one term, with the other's law between its nodes.
    """
    if len(x.terms) != 2:
        return None
    one, other = (law_of(coefficient, term) for coefficient, term in x.terms)
    if one is None or other is None or all(term.values is None for _, term in x.terms):
        return None
    (a, weights, _), (b, _, z) = one, other
    low, high = float(a[0] + b[0]), float(a[-1] + b[-1])
    t = np.linspace(low, high, 401)
    step = 1e-9 * max(high - low, 1e-300)
    inverse = np.interp(t[:, None] - a[None, :], b + step * np.arange(len(b)), z, left=-12.0, right=12.0)
    p = np.clip(special.ndtr(inverse) @ weights, 0.0, 1.0)
    inside = (p > 1e-13) & (p < 1.0 - 1e-13)
    if inside.sum() < 16:
        return None
    place, values = special.ndtri(p[inside]), t[inside]
    density = np.diff(p[inside])
    middle = 0.5 * (values[1:] + values[:-1])
    total = float(density.sum())
    mean = float(middle @ density) / total
    sd = (float(np.square(middle - mean) @ density) / total) ** 0.5
    return (place, (values - mean) / sd) if sd > 0.0 else None


def product_law(x: Signal) -> tuple[Array, Array] | None:
    """Standardised quantiles of a product of two independent signals: (z, (u - m)/s on z)."""
    if x.factors is None or x.factors[0] != x.ident:
        return None
    laws = [law_of(1.0, y) for y in x.factors[1:]]
    if laws[0] is None or laws[1] is None:
        return None
    (a, wa, _), (b, wb, _) = ((v[:: len(v) // 160 + 1], w[:: len(w) // 160 + 1], z) for v, w, z in (laws[0], laws[1]))
    values, weights = np.multiply.outer(a, b).ravel(), np.multiply.outer(wa, wb).ravel()
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order] / weights.sum()
    mean = float(values @ weights)
    sd = float(np.square(values - mean) @ weights) ** 0.5
    # each half from its own end: summed from the other one, what is rarer than rounding errors would have one place
    below, above = np.cumsum(weights) - 0.5 * weights, np.cumsum(weights[::-1])[::-1] - 0.5 * weights
    place = np.copysign(special.ndtri(np.minimum(np.minimum(below, above), 0.5)), below - above)
    return (place, (values - mean) / sd) if sd > 0.0 else None


def changes_sign(x: Signal) -> bool:
    """Whether it is a product of which either factor changes its sign from entry to entry: no gate of a Gaussian."""
    if x.factors is None or x.factors[0] != x.ident:
        return False
    ends = [law[0] for y in x.factors[1:] if (law := law_of(1.0, y)) is not None]
    return len(ends) == 2 and all(v[0] < 0.0 < v[-1] for v in ends)


def law_of(coefficient: float, x: Signal) -> tuple[Array, Array, Array] | None:
    """Sorted values, their weights and the z of their quantiles, all rows of a source together."""
    if x.source is not None and x.values is not None:
        flat = (coefficient * x.values).ravel()
        weights = (x.source.share[:, None] * x.source.grid.weights[None, :]).ravel()
        order = np.argsort(flat, kind="stable")
        flat, weights = flat[order], weights[order]
        below = np.clip(np.cumsum(weights) - 0.5 * weights, 1e-16, 1.0 - 1e-16)
        return flat, weights, special.ndtri(below)
    base = grid()
    variance = max(x.mean_q - x.mean_mean**2, 0.0)
    single = Source(
        None, np.array([coefficient * x.mean_mean]), np.array([abs(coefficient) * variance**0.5]), np.ones(1), None,
        x.corr, base, x.noise, x.scatter, *shape_of(x, np.array([variance])),
    )  # fmt: skip
    return single.values[0], base.weights, base.z


def shape_of(x: Signal, variance: Array) -> tuple[float, float]:
    """Skewness and excess kurtosis of a signal that is no Gaussian mixture."""
    third, fourth = x.cumulants
    if third == 0.0 and fourth == 0.0:
        return 0.0, 0.0
    v = average(variance)
    if v <= 0.0:
        return 0.0, 0.0
    return third / v**1.5, fourth / v**2
