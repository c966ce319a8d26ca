"""Pointwise chains: functions of one Gaussian source, carried as values on its quadrature nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.course import Course
from firstlight.graph.nodes import series
from firstlight.graph.signal import Array, Powers, Signal, Source, average, largest, next_id, once, replace, vanishes
from firstlight.rules.chains import two_samples
from firstlight.rules.chains.grids import SMOOTH, TERMS, Bend, grid, kinks_of, level_of, on_grid, refined
from firstlight.rules.chains.laws import changes_sign, lognormal, product_law, shape_of, sum_law
from firstlight.rules.state import course, kin, placed, sites, unitwise
from firstlight.rules.state.noise import noise_from
from firstlight.rules.state.noise import two_samples as _two_samples
from firstlight.rules.state.quadrature import reading, unit
from firstlight.rules.state.views import source_key
from firstlight.theory import copula, special
from firstlight.theory.cross import absolute_correlation

_ROWS = 16  # rows of a source whose entries differ in scale
_PAIRS = 48  # rows of a source whose entries differ in mean
_LIVES = 1e3  # draws in which the largest entry is looked for


def _flat(f: Array) -> float | None:
    """The value of a field that does not vary, else None."""
    if f.size == 1:
        return f.item()
    low, high = float(f.min()), float(f.max())
    return low if high - low <= 1e-9 * max(abs(low), abs(high)) else None


def _rows(mean: Array, variance: Array) -> tuple[Array, Array, Array, Array | None]:
    """Represent fields of means and variances by a few rows: (means, sds, shares, fractional row of each entry)."""
    m, v = _flat(mean), _flat(variance)
    if m is not None and v is not None:
        return np.array([m]), np.array([v**0.5]), np.ones(1), None
    mean, variance = np.broadcast_arrays(mean, variance)
    sd = np.sqrt(variance).ravel()
    if m is not None:
        some = sd[:: max(1, sd.size // (4 * _ROWS))]
        if len(set(some.round(12).tolist())) <= _ROWS:  # else there are more, without sorting all of them
            levels, inverse, counts = np.unique(sd.round(12), return_inverse=True, return_counts=True)
            if len(levels) <= _ROWS:
                return np.full(len(levels), m), levels, counts / sd.size, inverse.reshape(mean.shape).astype(float)
        top = float(sd.max())
        low = max(float(sd[sd > 1e-6 * top].min()), 1e-6 * top)
        knots = np.geomspace(low, top, _ROWS)
        has_zero = bool(sd.min() < low)
        table = np.concatenate([[0.0], knots]) if has_zero else knots
        with np.errstate(divide="ignore"):
            row = np.interp(np.log(np.maximum(sd, low)), np.log(knots), np.arange(_ROWS) + float(has_zero))
        if has_zero:
            row = np.where(sd < low, 0.0, row)
        share = shares_of(row, len(table))
        return np.full(len(table), m), table, share, row.reshape(mean.shape)
    pairs = mean.ravel().round(12) + 1j * sd.round(12)  # sorted like pairs, ten times as fast as rows of a matrix are
    found, inverse, counts = np.unique(pairs, return_inverse=True, return_counts=True)
    levels = np.stack([found.real, found.imag], axis=1)
    if len(levels) > _PAIRS:
        order = np.argsort(levels[:, 1] if np.ptp(levels[:, 1]) > np.ptp(levels[:, 0]) else levels[:, 0])
        block = np.empty(len(levels), dtype=int)
        block[order] = np.arange(len(levels)) * _PAIRS // len(levels)
        inverse = block[inverse]
        counts = np.bincount(inverse, minlength=_PAIRS)
        m_rows = np.bincount(inverse, mean.ravel(), _PAIRS) / counts
        v_rows = np.bincount(inverse, variance.ravel(), _PAIRS) / counts
        return m_rows, np.sqrt(v_rows), counts / counts.sum(), inverse.reshape(mean.shape).astype(float)
    return levels[:, 0], levels[:, 1], counts / counts.sum(), inverse.reshape(mean.shape).astype(float)


def shares_of(row: Array, n: int) -> Array:
    """Share of the entries on each of n rows."""
    low = np.floor(row).astype(int)
    part = row - low
    share = np.bincount(low, 1.0 - part, n) + np.bincount(np.minimum(low + 1, n - 1), part, n)
    return share / share.sum()


def spread(source: Source, per_row: Array, ndim: int) -> Array:
    """A quantity known per row, as a field."""
    row = source.row
    if row is None:
        return per_row[:1].reshape((1,) * ndim)
    low, high, part = once(source, "_between", row, lambda: _between(row, len(per_row)))
    return per_row[low] * (1.0 - part) + per_row[high] * part


def _between(row: Array, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """The rows below and above a fractional one of so many, and how far it is on its way up."""
    low = np.floor(row).astype(np.intp)
    return low, np.minimum(low + 1, count - 1), row - low


def central(x: Signal) -> tuple[Array, Array]:
    """Variance field of the entries and the cube of centred correlations."""
    if vanishes(x.mean):
        return np.maximum(x.q, 0.0), x.corr
    variance = np.maximum(x.q - np.square(x.mean), 0.0)
    variance = np.where(variance <= 1e-13 * x.q, 0.0, variance)
    q = x.mean_q
    square = float(np.square(x.mean).mean())
    if q - square <= 1e-13 * q or q <= 0.0:
        return variance, np.ones_like(x.corr)
    return variance, np.clip((x.corr * q - square) / (q - square), -1.0, 1.0)


def _central(x: Signal) -> tuple[Course, ...]:
    """Correlations of pairs of positions without what means have in common."""
    if not x.course:
        return ()
    square, q = average(np.square(x.mean)), x.mean_q
    if q - square <= 1e-13 * q:
        return ()
    return tuple([Course(c.atom, c.size, np.clip((c.pairs * q - square) / (q - square), -1.0, 1.0)) for c in x.course])


def as_source(x: Signal, bend: Bend = SMOOTH) -> tuple[Source, Array]:
    """The source of a signal's chain and the signal's values on it; a new source where there is none."""
    if x.source is not None and x.values is not None:
        return refined(x.source, x.values, bend)
    step = None if bend.positive and bool(np.all(x.mean > 0.0)) else affine_of(x)
    if step is not None:  # 0.5·x stands on x's source, so that 0.5·x·(1 + tanh x) is one chain; x·relu6(x + 3) as well
        a, c, base = step
        inner = dataclasses.replace(bend, kinks=tuple((k - c) / a for k in bend.kinks), scale=bend.scale / abs(a))
        source, values = as_source(base, inner)
        return source, a * values + c
    apart, bias = two_samples.apart(x), two_samples.bias(x)
    variance, corr = central(replace(x, corr=two_samples.of_one_length(x, x.corr, apart, bias)))
    mean, sd, share, row = _rows(x.mean, variance)
    homogeneous = bend.slopes is not None and vanishes(mean)
    nodes = grid((), level_of(largest(sd), np.inf if homogeneous else bend.scale))
    law = sites.law(x)
    if law is None:
        law = lognormal(mean, sd) if bend.positive and bool(np.all(mean > 0.0)) else None
    if law is None and not x.gaussian:
        law = sum_law(x) or product_law(x)
        homogeneous = homogeneous and not changes_sign(x)
    source = Source(
        source_key(x), mean, sd, share, row, corr, nodes, x.noise, x.scatter, *shape_of(x, variance),
        None if law is None else np.interp(nodes.z, *law), wander=x.wander, sites=x.sites,
        courses=_central(x), kin=(source_key(x), kin.of(x)), angle=x.angle, apart=apart, bias=bias,
    )  # fmt: skip
    if bend.steep and law is None and x.scatter > 0.0:
        law = _reached(source, x.numel)
        source = replace(source, quantiles=np.interp(nodes.z, *law))
    values = _values(source)
    kinks = () if homogeneous and bend.kinks == (0.0,) else kinks_of(source, values, bend)
    if kinks:  # nodes must not straddle a kink of the function
        nodes = grid(kinks, level_of(float(sd.max()), bend.scale))
        source = replace(source, grid=nodes, quantiles=None if law is None else np.interp(nodes.z, *law))
        values = _values(source)
    if (
        not homogeneous and apart <= 0.0 and bias <= 0.0
    ):  # |u|'s own law only scales what is linear on each side of zero
        source = replace(source, corr=_under(source, values))
    return replace(source, table=values, of=(source.key, x)), values


def _values(source: Source) -> Array:
    """u on the nodes, where that has been worked out for another length from there."""
    one = unit(source)
    return source.values if one is None else one.values * source.sd[0]


def _reached(source: Source, entries: int) -> tuple[Array, Array]:
    """Standardised quantiles of a law of random variance V up to where an entry gets once in `_LIVES` draws of all.

    With ln V normal E e^2u = E e^2V does not exist: the farther nodes go, the larger it would come out, from entries
    that no tensor has.
    """
    end = float(special.ndtri(1.0 - 1.0 / (_LIVES * entries)))
    z = np.linspace(-end, end, 2 * round(100 * end) + 1)
    one = replace(source, mean=np.zeros(1), sd=np.ones(1), grid=grid(), quantiles=None, table=None)
    return z, np.asarray(np.interp(z, one.grid.z, one.values[0]), dtype=np.float64)


def _under(source: Source, values: Array) -> Array:
    """Correlations of the Gaussian z under a law u = T(z) that give u its own, row by row alike."""
    row = int(np.argmax(source.sd))
    t = (values[row] - source.mean[row]) / max(float(source.sd[row]), 1e-300)
    if source.sd[row] <= 0.0 or float(np.abs(t - source.grid.z).max()) <= 1e-9:
        return source.corr
    return copula.under(source.corr, t @ source.grid.hermite)


def affine_of(x: Signal) -> tuple[float, float, Signal] | None:
    """(a, c, y) if x = a·y + c exactly, entry by entry and draw by draw, with two numbers."""
    terms = [t for t in x.terms if t[1].ident != 0]  # the number has no identity (`merge.unit`)
    if len(terms) != 1 or len(x.terms) > 2 or x.value is not None:
        return None
    a, base = terms[0]
    if a == 0.0 or base.shape != x.shape or base.atoms != x.atoms or base.q.shape != x.q.shape:
        return None
    c = sum(b * y.mean.item() for b, y in x.terms if y.ident == 0)
    if len(x.terms) == 1 and x.scatter != base.scatter:  # a normalised tensor: a multiple on average only
        return None
    if x.mean.shape != base.mean.shape or not np.allclose(x.mean, a * base.mean + c, rtol=1e-12, atol=0.0):
        return None
    level = a * a * base.q + 2.0 * a * c * base.mean + c * c
    return (a, c, base) if bool(np.all(np.abs(x.q - level) <= 1e-9 * level)) else None


def on_source(x: Signal, source: Source) -> Array | None:
    """Values of x on the nodes of a source, if x stands on it, is it, or is a·y + c of one that does."""
    factor, level = 1.0, 0.0
    while True:
        if x.source is not None:
            if x.values is None or x.source.key != source.key:
                return None
            return factor * on_grid(x.values, x.source, source) + level
        if source.key == source_key(x):
            return factor * source.values + level
        step = affine_of(x)
        if step is None:
            return None
        factor, level, x = factor * step[0], level + factor * step[1], step[2]


def from_values(x: Signal, source: Source, values: Array, slopes: tuple[float, float] | None = None) -> Signal:
    """The signal, laid out like x, whose values on the source's nodes are given.

    r(c) = Σ_k a_k² c^k with Hermite coefficients a_k (Mehler), and what the first `TERMS` miss of r(1) at the
    power 2·TERMS; for maps that are linear on each side of zero the closed form.

    Args:
        x: Layout (and batch labels).
        source: Source of the chain.
        values: Shape (rows, n).
        slopes: Slopes above and below zero, if the values are such a map of a centred source.
    """
    ndim = len(x.atoms)
    of, a = reading(source, values)
    mean, q = spread(source, of.first * a, ndim), spread(source, of.second * (a * a), ndim)
    total, power = of.total * (a * a), of.power * (a * a)
    known = isfinite(total) and total > 0.0
    closed = slopes if vanishes(source.mean) else None
    rest = total - float(power.sum()) if closed is None else 0.0

    def alike(cube: Array, expanded: Callable[[], Powers] | None = None) -> Array:
        if not known:
            return np.ones_like(cube)
        if closed is None:
            return (series(cube, power, rest) if expanded is None else expanded().series(power, rest)) / total
        even, odd = (0.5 * (closed[0] - closed[1])) ** 2, (0.5 * (closed[0] + closed[1])) ** 2
        near = np.minimum(np.maximum(cube, -1.0), 1.0)  # rounding
        return (odd * near + even * absolute_correlation(near)) / (odd + even)

    corr = plain = alike(source.corr, lambda: source.powers)
    noise, sensitivity = noise_from(source, of, x)
    form = alike if known and closed is not None else None
    corr = two_samples.behind(x, source, values, of, corr, form) if known else corr
    out = replace(
        unitwise.with_laws(x),
        mean=mean,
        q=q,
        corr=corr,
        source=source,
        values=values,
        gaussian=False,
        noise=noise,
        scatter=source.scatter * sensitivity * sensitivity,
        sites=sites.behind_function(source, values, sensitivity, total),
        wander=_wander(x, source, power, total, corr),
        angle=source.angle,
        data=False,
        cumulants=(of.cumulants[0] * a**3, of.cumulants[1] * a**4),
        tag=None,
        terms=(),
        weights=None,
        value=None,
        integer=False,
        ident=next_id(),
    )
    if x.source is None and source.key == source_key(x) and vanishes(x.mean):
        out = placed.bent(out, x, alike)
    found = [(c.atom, course.moved_on(alike(c.pairs), c.atom, out.batch, plain, corr)) for c in source.courses]
    return course.given(out, found)


def _wander(x: Signal, source: Source, power: Array, total: float, corr: Array) -> float:
    """`Signal.wander` behind a function f: its c' = C(c) strays by C'(c) times what c strays by.

    C'(c) = Σ k b_k² c^(k-1)/Σ b_k² with the squares of the Hermite coefficients b_k of f.
    """
    if source.wander <= 0.0 or total <= 0.0:  # or nothing comes through
        return 0.0
    at = _two_samples(x.batch, source.corr.shape)
    c, bent = source.corr.item(at), corr.item(at)
    slope = float((power[1:] * _ORDERS) @ source.powers.of(at)[:-1]) / total
    left = 1.0 - bent * bent
    return min(1.0, source.wander * slope * slope * (1.0 - c * c) / left) if left > 1e-12 else source.wander


_ORDERS = np.arange(1.0, TERMS)


def mehler(values: Array, source: Source, total: float, other: Array | None = None) -> Array:
    """E f(u)g(v) over the cube of the source's correlations; g = f unless other values are given.

    Args:
        values: f on the nodes, shape (rows, n).
        source: The source of both.
        total: E f g at correlation 1.
        other: g on the nodes.
    """
    a = values @ source.grid.hermite
    b = a if other is None else other @ source.grid.hermite
    power = source.share @ (a * b)
    return source.powers.series(power, total - float(power.sum()))
