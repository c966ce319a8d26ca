"""Products of functions of one unit at different places: what u has there in common makes factors dependent.

A recurrence multiplies slices of one tensor, h_t = e^-cδ_t·h_(t-1) + δ_t·b_t·x_t with δ = softplus(u). Two places of
u have its bias in common, and what inputs share: u_t = √ρ·w + √(1 - ρ)·e_t, w of each unit and e_t of each place, so

    E f(u_s)²g(u_t)² = E_w E[f²|w]·E[g²|w],    E f(u_s)g(u_t) = E_w E[f|w]·E[g|w]:

a unit with long steps has a short memory, and what comes in at several places comes in with one sign as far as b and
x have that in common (Gaussian entries are f(u) = u). Products and sums carry E[x|w] and E[x²|w] on, for each number c
and of each tensor u; of a sum with several u all but one law are taken as the mean of its terms'. Of a factor of which
nothing is known the sign may be another at each place. A sum over the units ends what is known of them. The w are
independent of each other and of what a site's units have in common (`rules.state.sites`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import numpy as np

from firstlight.graph.nodes import Grid
from firstlight.graph.signal import Array, Signal, Source, replace
from firstlight.graph.unitwise import Common
from firstlight.rules.state.layout import axis_atoms
from firstlight.rules.state.views import parts

_W, _E = 24, 12  # nodes of what is in common and of the rest
_ONE = np.ones(1)
_LEAST = 0.02  # correlation below which nothing is


_UNKNOWN = Common(0, 0.0, (), np.zeros((1, _W)), np.ones((1, _W)))  # of a factor that may have any sign at each place


@lru_cache(maxsize=2)
def _normal(n: int) -> tuple[Array, Array]:
    """Nodes and weights of N(0, 1)."""
    z, w = np.polynomial.hermite_e.hermegauss(n)
    return z, w / w.sum()


@lru_cache(maxsize=64)
def _smoothing(grid: Grid, rho: float) -> Array:
    """E[f(z)|w] = f @ this of a function on the nodes of z = √ρ·w + √(1 - ρ)·e, linear between them."""
    w, _ = _normal(_W)
    e, share = _normal(_E)
    at = rho**0.5 * w[:, None] + (1.0 - rho) ** 0.5 * e
    order = np.argsort(grid.z)
    out = np.empty((len(grid.z), _W))
    for i, one in zip(order, np.eye(len(order)), strict=True):
        out[i] = np.interp(at, grid.z[order], one) @ share
    return out


def _of_chain(x: Signal, rho: float, apart: Sequence[int] = ()) -> tuple[Array, Array] | None:
    """E[f|w] and E[f²|w] of a chain, in units of its own mean square.

    For each entry of an axis along which alone its rows differ, of no atom `apart`; else the mean over the rows.
    """
    source, values = x.source, x.values
    assert source is not None
    assert values is not None
    smooth = _smoothing(source.grid, round(min(rho, 1.0), 3))
    first, second = values @ smooth, np.square(values) @ smooth
    along = [] if source.row is None else [i for i, n in enumerate(source.row.shape) if n > 1]
    if source.row is not None and len(along) == 1 and along[0] not in apart and along[0] == _axis(x, x.atoms[along[0]]):
        row = source.row.ravel()
        at = np.minimum(row.astype(np.intp), len(first) - 2)
        part = (row - at)[:, None]
        first, second = ((1.0 - part) * f[at] + part * f[at + 1] for f in (first, second))
    else:
        first, second = (source.share @ f for f in (first, second))
        first, second = first[None], second[None]
    total = second @ _normal(_W)[1]
    if not (np.all(np.isfinite(total)) and np.all(total > 0.0)):
        return None
    return first / np.sqrt(total)[:, None], second / total[:, None]


def _axis(x: Signal, rows: int) -> int | None:
    """The atom of an axis of so many numbers."""
    return max((i for i, n in enumerate(x.atoms) if n == rows), default=None)


def by_row(x: Signal, each: Array) -> Array:
    """Numbers of each row as a field of a tensor; their mean where it has no such axis."""
    axis = _axis(x, each.size) if each.size > 1 else None
    return each.mean() if axis is None else each.reshape([-1 if i == axis else 1 for i in range(len(x.atoms))])


def _levels(x: Signal, rows: int) -> Array:
    """Mean square of each row."""
    axis = _axis(x, rows) if rows > 1 else None
    if axis is None or x.q.shape[axis] == 1:
        return np.full(rows, x.mean_q)
    return x.q.mean(axis=tuple([i for i in range(x.q.ndim) if i != axis]))


def _eldest(source: Source) -> int | None:
    """The tensor of which a chain's source is a view, numbers that it was multiplied by left out."""
    known = parts(source.key)
    while known and known[0] != "source":
        known = parts(known[0])
    return cast(int, known[1]) if known else None


def with_laws(x: Signal, laws: tuple[Common, ...] = ()) -> Signal:
    """A tensor with these laws instead of those that it has taken over."""
    return replace(x, common=laws) if laws or x.common else x


def at_one_place(out: Signal, x: Signal, dim: int) -> Signal:
    """One place of an axis, with its laws given what units have at all places in common."""
    found = x.common or _before(x, dim, out)
    return with_laws(out, found)


def _before(x: Signal, dim: int, out: Signal | None = None) -> tuple[Common, ...]:
    """The laws of a tensor along whose axis `dim` one place is taken: of a chain, of Gaussian entries, of factors."""
    x = x.root if x.root.shape == x.shape else x
    axis, chain = axis_atoms(x, dim), x.source if x.values is not None else None
    if chain is None and x.factors is not None and x.factors[0] == x.ident:
        found = [_before(f, dim) if f.ndim == x.ndim and f.groups[dim] else _laws(f) for f in x.factors[1:]]
        return _together(*found)[2]
    of, corr = (x.ident, x.corr) if chain is None else (_eldest(chain), chain.corr)
    if of is None or len(axis) != 1:
        return (_UNKNOWN,)
    rho = float(corr[tuple([int(i in axis) for i in range(corr.ndim)])])
    rest = [i for i in range(corr.ndim) if i not in axis and not x.batch[i]]
    units = [x.atoms[i] for i in rest if corr[tuple([int(i == k) for k in range(corr.ndim)])] < 0.5 * rho]
    if not (rho > _LEAST and units):
        return (_UNKNOWN,)
    if chain is None:
        w = _normal(_W)[0]
        return (Common(of, rho, tuple(units), rho**0.5 * w[None], rho * np.square(w)[None] + 1.0 - rho),)
    law = _of_chain(x if out is None or out.source is None else out, rho, axis if out is None else ())
    return (_UNKNOWN,) if law is None else (Common(of, rho, tuple(units), *law),)


def _laws(x: Signal) -> tuple[Common, ...]:
    """The laws of a tensor; one that nothing is known of has nothing in common, numbers and weights are the same."""
    same = x.weights is not None or x.value is not None
    return x.common or (() if same else (_UNKNOWN,))


def _known(x: Signal, beside: Signal) -> tuple[Common, ...]:
    """The laws of a factor; of a chain on the source that the other one's law is about, its own."""
    if x.source is None or x.values is None:
        return still_there(x.common, x, x) or _laws(x)
    of = _eldest(x.source)
    laws = [(c, _of_chain(x, c.rho)) for c in beside.common if c.of == of]
    return still_there(x.common, x, x) or tuple([_with(c, *law) for c, law in laws if law is not None]) or _laws(x)


def of_product(x: Signal, y: Signal) -> tuple[Array, Array, tuple[Common, ...]]:
    """E (xy)²/(E x²·E y²), E xy/(E x·E y), for each row, and the laws of x·y given each w."""
    if not (x.common or y.common):
        return _ONE, _ONE, ()
    return _together(_known(x, y), _known(y, x))


def _together(one: tuple[Common, ...], two: tuple[Common, ...]) -> tuple[Array, Array, tuple[Common, ...]]:
    q, mean, found = _ONE, _ONE, {c.of: c for c in one}
    _, share = _normal(_W)
    for c in two:
        mine = found.get(c.of)
        if mine is None or len({1, len(c.first), len(mine.first)}) > 2:
            found[c.of] = c
            continue
        first, second = mine.first * c.first, mine.second * c.second
        both, means = second @ share, (mine.first @ share) * (c.first @ share)
        q = q * both
        mean = mean * np.where(np.abs(means) > _LEAST, first @ share / np.where(means == 0.0, 1.0, means), 1.0)
        found[c.of] = _with(c, first / np.sqrt(both)[:, None], second / both[:, None])
    return q, mean, tuple(found.values())


def _with(law: Common, first: Array, second: Array) -> Common:
    """The law of another tensor given the same w."""
    return Common(law.of, law.rho, law.units, first, second)


def of_sum(x: Signal, y: Signal, alpha: float) -> tuple[Array, tuple[Common, ...]]:
    """E (x + αy)²/(E x² + α²E y²), for each row, and the laws of x + αy, where each w alone makes x and y dependent.

    E xy = √(E x²·E y²)·Π_w E_w[f_x f_y]: what comes in at several places comes in with one sign, as far as all of its
    factors do. A law that one of the two has not is that of a number, which is the same for all w.
    """
    if not (x.common or y.common):
        return _ONE, ()
    one, two = ({c.of: c for c in _laws(s)} for s in (x, y))
    rows = max(len(c.first) for c in (*x.common, *y.common))
    qx, qy = _levels(x, rows), alpha * alpha * _levels(y, rows)
    level = np.maximum(qx + qy, 1e-300)
    a, b = np.sqrt(qx / level)[:, None], float(np.sign(alpha)) * np.sqrt(qy / level)[:, None]
    ones, share = np.ones((1, _W)), _normal(_W)[1]
    pairs = {
        of: [
            (ones, ones) if c is None or len(c.first) not in (1, rows) else (c.first, c.second)
            for c in (one.get(of), two.get(of))
        ]
        for of in one | two
    }
    means = {of: (f[0] * g[0] @ share)[:, None] for of, (f, g) in pairs.items()}
    both = np.ones((1, 1))
    for mean in means.values():
        both = both * mean
    total = np.maximum(1.0 + 2.0 * a * b * both, _LEAST)
    out: list[Common] = []
    scale = 1.0 / np.sqrt(total)
    for of, c in (one | two).items():
        (f, p), (g, q) = pairs[of]
        first = (a * f + b * g) * scale
        scale = 1.0 / np.maximum(np.abs(a) + np.abs(b), 1e-30)  # of two terms all but one law are their mean
        crossed = 2.0 * a * b * both * f * g / np.where(means[of] == 0.0, 1.0, means[of])
        out.append(_with(c, first, np.maximum((a * a * p + b * b * q + crossed) / total, 0.0)))
    return total[:, 0], tuple(out)


def still_there(laws: tuple[Common, ...], x: Signal, out: Signal) -> tuple[Common, ...]:
    """Laws of a tensor x in another one with all of its units; without some, nothing is known of them."""
    found: list[Common] = []
    atoms = list(out.atoms)
    for c in laws:
        if any(atoms.count(n) < c.units.count(n) for n in c.units):
            c = _UNKNOWN
        rows = len(c.first)
        if rows > 1 and _axis(out, rows) is None:
            q = _levels(x, rows)[:, None] / max(float(_levels(x, rows).sum()), 1e-300)
            c = _with(
                c,
                (c.first * np.sqrt(q)).sum(axis=0, keepdims=True) / rows**0.5,
                (c.second * q).sum(axis=0, keepdims=True),
            )
        found.append(c)
    return tuple({c.of: c for c in found}.values())
