"""Factors of a gradient that a source's nodes do not fix: all that is known at a node u is E[φ|u] and E[φ²|u].

Such a factor is a mask behind a sum, seen from one of the terms. `Cotangent.values` is then √E[φ²|u], `expected` is
E[φ|u], and `stray` the correlation between entries of what is left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, Source, replace
from firstlight.rules.chains.grids import finer, on_grid
from firstlight.rules.chains.source import mehler, spread
from firstlight.rules.state.layout import fit_states
from firstlight.rules.state.views import source_key


def blurred(out: Signal, source: Source, expected: Array, stray: Array) -> Signal:
    """The factor φ as a signal, from that of √E[φ²|u].

    E φφ' = E E[φ|u] E[φ|u'] + s·E σ(u)σ(u') with σ² = Var[φ|u] and s the correlation of what is left.
    """
    assert out.values is not None
    w = source.grid.weights
    if not out.q.any():
        return out
    apart = np.copysign(np.sqrt(np.maximum(np.square(out.values) - np.square(expected), 0.0)), out.values)
    level, rest = source.average(np.square(expected)), source.average(np.square(apart))
    corr = np.asarray((mehler(expected, source, level) + stray * mehler(apart, source, rest)) / (level + rest))
    corr[(0,) * corr.ndim] = 1.0
    mean = spread(source, expected @ w, len(out.atoms))
    return replace(out, mean=mean, corr=np.clip(corr, -1.0, 1.0), source=None, values=None, cumulants=(0.0, 0.0))


def summed(one: Cotangent, other: Cotangent) -> Cotangent:
    """Two factors on one source: what its nodes do not fix of them is independent."""
    assert one.source is not None
    assert other.source is not None
    assert one.values is not None
    assert other.values is not None
    if finer(one.source, other.source) is not one.source:
        return summed(other, one)
    values = on_grid(other.values, other.source, one.source)
    if one.expected is None and other.expected is None:
        return replace(one, values=one.values + values, whole=None)
    first = one.values if one.expected is None else one.expected
    second = values if other.expected is None else on_grid(other.expected, other.source, one.source)
    left = [np.maximum(np.square(v) - np.square(m), 0.0) for v, m in ((one.values, first), (values, second))]
    shares = [one.source.average(v) for v in left]
    stray = sum(a * c.stray for a, c in zip(shares, (one, other), strict=True) if c.stray is not None)
    both = first + second
    return replace(
        one, values=np.sqrt(np.square(both) + left[0] + left[1]), expected=both, whole=None,
        stray=np.asarray(stray / max(sum(shares), 1e-300)),
    )  # fmt: skip


def behind(base: Signal, before: Signal, source: Source, values: Array, layout: Signal) -> Cotangent:
    """A function φ of a source times a tensor m that is independent of it, as seen from the source: E[φm|u] = φ·E m."""
    mean, square = before.mean_mean, before.mean_q
    apart = max(square - mean * mean, 0.0)
    if apart <= 1e-9 * square:
        return Cotangent(base, source, values * mean, layout)
    stray = np.clip((before.corr * square - mean * mean) / apart, -1.0, 1.0)
    return Cotangent(
        base, source, values * square**0.5, layout, expected=values * mean, stray=fit_states(stray, source.corr.shape)
    )


def raised(g: Cotangent, constant: float) -> Cotangent:
    """The factor plus a constant."""
    assert g.values is not None
    if constant == 0.0:
        return g
    if g.expected is None:
        return replace(g, values=g.values + constant, whole=None)
    apart, expected = np.maximum(np.square(g.values) - np.square(g.expected), 0.0), g.expected + constant
    return replace(g, values=np.sqrt(np.square(expected) + apart), expected=expected, whole=None)


def mixed(parts: Sequence[Cotangent], base: Signal) -> Cotangent:
    """Summands of different roots on one source as one, whose root is the sum of theirs."""
    first = parts[0]
    source = first.source
    assert source is not None
    sizes = [p.base.mean_q for p in parts]
    total = max(sum(sizes), 1e-300)
    square, expected, stray, left = np.zeros(()), np.zeros(()), np.zeros(()), 0.0
    for p, q in zip(parts, sizes, strict=True):
        assert p.values is not None
        assert p.source is not None
        line = np.square(on_grid(p.values, p.source, source)) * (q / total)
        mean = line if p.expected is None else np.square(on_grid(p.expected, p.source, source)) * (q / total)
        own = source.average(line - mean)
        square, expected, left = square + line, expected + mean, left + own
        stray = stray if p.stray is None else stray + own * p.stray
    bent = left > 0.0
    return replace(
        first, base=base, values=np.sqrt(square), whole=None, along=None,
        expected=np.sqrt(expected) if bent else None, stray=np.asarray(stray / left) if bent else None,
    )  # fmt: skip


def together_on(source: Source, one: Array, other: Array) -> float:
    """E a²b²/(E a²·E b²) of two functions of a source."""
    one, other = (np.broadcast_to(np.square(v), source.values.shape) for v in (one, other))
    w = source.grid.weights
    level = float(source.share @ (one @ w)) * float(source.share @ (other @ w))
    return float(source.share @ ((one * other) @ w)) / level if level > 0.0 else 1.0


def met(g: Cotangent, x: Signal) -> float:
    """E (Σ g·x)² over that of independent g and x, for a gradient whose factor is a function of x."""
    if g.rest or g.values is None or g.source is None or g.source.key != source_key(x):
        return 1.0
    return together_on(g.source, g.values, g.source.values)
