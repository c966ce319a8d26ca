"""Linear forms over independent sources: sums and covariances of log-norm noises (THEORY §5, last paragraph).

A source is numbered when it first appears. A noise is a multiple of a shared row of loads (coefficient times
standard deviation, one per source) and a short tail of later sources, so that a chain of tensors shares one row and
the covariance of two noises is one scalar product, however deep the network.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from firstlight.graph.noise import SILENT, Form, Noise

_TAIL = 12  # sources beside the row before a new row is written
_ROW = 8192  # sources that a row tells apart; older ones count as independent of everything

_numbers = itertools.count(1)

Terms = list[tuple[float, Noise]]
Tail = tuple[tuple[int, float], ...]


def covariance(a: Noise, b: Noise) -> float:
    """Cov of two log-norms: Σ over common sources of the product of their loads."""
    if a is b:
        return a.variance
    x, y = a.form, b.form
    total = 0.0
    if x is not None and y is not None:
        total = a.scale * b.scale * (x.variance if x is y else _dot(x, y))
    if a.tail and y is not None:
        total += b.scale * _on_row(a.tail, y)
    if b.tail and x is not None:
        total += a.scale * _on_row(b.tail, x)
    if a.tail and b.tail and a.tail[-1][0] >= b.tail[0][0] and b.tail[-1][0] >= a.tail[0][0]:
        other = dict(b.tail)
        total += sum(v * other[k] for k, v in a.tail if k in other)
    return total


def _dot(x: Form, y: Form) -> float:
    first, end = max(x.first, y.first), min(x.first + len(x.loads), y.first + len(y.loads))
    if first >= end:
        return 0.0
    return float(x.loads[first - x.first : end - x.first] @ y.loads[first - y.first : end - y.first])


def _on_row(tail: Tail, x: Form) -> float:
    """Σ over the sources of a tail of their loads times those in a row."""
    first, end = x.first, x.first + len(x.loads)
    if tail[-1][0] < first or tail[0][0] >= end:
        return 0.0
    return sum([v * x.loads.item(k - first) for k, v in tail if first <= k < end])


def joint(a: Noise, b: Noise, sign: float = 1.0) -> float:
    """E XY/(E X · E Y) of two energies with log-normal noise, exp(cov); 1 for independent ones."""
    if a.variance * b.variance <= 1e-8:
        return 1.0
    found = covariance(a, b)
    return math.exp(min(max(sign * found, -1.0), 1.0)) if found else 1.0


def combine(terms: Terms, own: float = 0.0, drift: float = 0.0) -> Noise:
    """Noise that inherits Σ s_k·(noise k), plus an own source of the given variance and drift."""
    kept = [(s, n) for s, n in terms if n.variance > 0.0 and abs(s) > 1e-9]
    if not kept and own <= 0.0 and drift == 0.0:
        return SILENT
    total = drift + sum([s * n.drift for s, n in terms])
    form, scale, tail = None, 1.0, ()
    variance = 0.0
    if len(kept) == 1:
        s, n = kept[0]
        form, scale, variance = n.form, s * n.scale, s * s * n.variance
        tail = n.tail if s == 1.0 else tuple([(k, s * v) for k, v in n.tail])
    elif kept:
        form, scale, tail = _sum(kept)
        for i, (s, a) in enumerate(kept):
            variance += s * s * a.variance
            for t, b in kept[:i]:
                variance += 2.0 * s * t * covariance(a, b)
        variance = max(variance, 0.0)
    if len(tail) > _TAIL:
        form, scale, tail = _row([] if form is None else [(scale, form)], tail), 1.0, ()
    if own > 0.0:
        tail = (*tail, (next(_numbers), own**0.5))
        variance += own
    return Noise(total, variance, form, scale, tail)


def _sum(kept: Terms) -> tuple[Form | None, float, Tail]:
    """Σ s_k·(noise k) as a form, its factor and a tail; a new row only where two different ones meet."""
    loads: dict[int, float] = {}
    scales: dict[int, float] = {}
    forms: dict[int, Form] = {}
    for s, n in kept:
        for k, v in n.tail:
            loads[k] = loads.get(k, 0.0) + s * v
        if n.form is not None:
            key = id(n.form)
            forms[key] = n.form
            scales[key] = scales.get(key, 0.0) + s * n.scale
    tail = tuple(sorted(loads.items()))
    if not forms:
        return None, 1.0, tail
    if len(forms) == 1:
        ((key, form),) = forms.items()
        return form, scales[key], tail
    return _row([(scales[key], form) for key, form in forms.items()], tail), 1.0, ()


def _row(forms: list[tuple[float, Form]], tail: Tail) -> Form:
    """One row of all forms, each times its factor, and a tail; at least one of them is there."""
    starts, ends = [f.first for _, f in forms], [f.first + len(f.loads) for _, f in forms]
    if tail:
        starts.append(tail[0][0])
        ends.append(tail[-1][0] + 1)
    first, end = max(min(starts), max(ends) - _ROW), max(ends)
    row, lost = np.zeros(end - first), 0.0
    for scale, f in forms:
        skip = min(max(first - f.first, 0), len(f.loads))
        at = max(f.first - first, 0)
        row[at : at + len(f.loads) - skip] += scale * f.loads[skip:]
        lost += scale**2 * (f.lost + (float(f.loads[:skip] @ f.loads[:skip]) if skip else 0.0))
    for k, v in tail:
        if k >= first:
            row[k - first] += v
        else:
            lost += v * v
    return Form(first, row, lost, float(row @ row) + lost)


__all__ = ["combine", "covariance", "joint"]
