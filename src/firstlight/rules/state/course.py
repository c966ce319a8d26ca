"""Positions that are not equally alike: behind a causal mask early ones average over few keys, and over the same ones.

A row t that averages over its n = t + 1 keys has q' = q[S + (1 - S)·c̄(t)], S = E Σp², with the mean correlation c̄(t)
of its own keys; two rows t < s have o_ts·q + (1 - o_ts)·c̄(t, s) in common, o_ts = E Σ p_t p_s, 1/n_s for flat
weights. So early positions are longer and more alike than late ones, and the next attention's early rows see that. One
number for all pairs of positions loses it. So a signal behind a causal mask carries the correlations of all pairs of
positions, in bins (`graph.course`), and its gradient as well: early keys' gradients are sums over the same rows.

They are those of pairs that differ in position alone, and of two samples: sequences whose first token is the same begin
alike, and so do their first averages. The cube keeps the means. Look-ups of known indices begin with how often which
places hold the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from firstlight.graph.course import Course, bins
from firstlight.graph.signal import Array, Signal, once, replace

_FEW = 3  # positions from which they are told apart
KINDS = 3  # of pairs: of one sample, of two, and of two at one position


def line(x: Signal, atom: int) -> Array:
    """Mean square at each position."""
    if x.q.size == x.q.shape[atom] > 1:
        return x.q.reshape(-1)
    others = tuple(i for i in range(x.q.ndim) if i != atom)
    return np.broadcast_to(x.q.mean(axis=others), (x.atoms[atom],))


def roots(x: Signal, atom: int) -> Array:
    """Root mean square of each bin of positions: the mean of √q over it."""

    def made() -> Array:
        b = bins(x.atoms[atom])
        return np.full(len(b.width), x.mean_q**0.5) if x.q.shape[atom] == 1 else b.means(np.sqrt(line(x, atom)))

    return once(x, f"_roots{atom}.{x.atoms[atom]}", x.q, made)


def of(x: Signal, atom: int) -> Array:
    """Correlations of pairs of positions of one sample along an atom; those of the cube where nothing else is known."""
    return every(x, atom, 1)[0]


def every(x: Signal, atom: int, kinds: int, batch: tuple[bool, ...] | None = None) -> Array:
    """Those of the first so many kinds of pairs (`Course.pairs`); `batch`: atoms that count samples, if not x's own."""
    found = next((c.pairs for c in x.course if c.atom == atom), np.empty((0, 0, 0)))
    if len(found) >= kinds:
        return found[:kinds]
    size = len(bins(x.atoms[atom]).width)
    rest = np.broadcast_to(constant(x.corr, x.batch if batch is None else batch, atom), (KINDS, size, size))
    return np.concatenate([found, rest[len(found) : kinds]]) if len(found) else rest[:kinds]


def agreeing(ids: npt.NDArray[Any]) -> Array:
    """Of sequences of indices (rows), the share of pairs of each kind that are equal.

    With N the number of times that each index stands in each bin of a sequence, Σ N Nᵀ counts equal pairs within
    sequences, and (Σ N)(Σ N)ᵀ all of them.
    """
    count, size = ids.shape
    b = bins(size)
    where = np.repeat(np.arange(len(b.width)), b.width.astype(np.intp))
    names, at = np.unique(ids, return_inverse=True)
    total, within = np.zeros((len(b.width), len(names))), np.zeros((len(b.width), len(b.width)))
    for row in at.reshape(ids.shape):
        there, place = np.unique(row, return_inverse=True)
        times = np.zeros((len(b.width), len(there)))
        np.add.at(times, (where, place), 1.0)
        total[:, there] += times
        within += times @ times.T
    equal = np.array([float(np.square(np.unique(column, return_counts=True)[1]).sum()) - count for column in ids.T])
    place, pairs = np.add.reduceat(equal, b.first), count * (count - 1.0)
    own = (within - count * np.diag(b.width)) / np.maximum(count * b.pairs, 1.0)
    two = (total @ total.T - within - np.diag(place)) / np.maximum(pairs * b.pairs, 1.0)
    return np.stack([own, two, np.diag(place / np.maximum(pairs * b.width, 1.0))])


def constant(cube: Array, batch: tuple[bool, ...], atom: int) -> Array:
    """What a cube says of each kind of pairs, whatever the positions are."""
    samples = [1 if b and n > 1 else 0 for b, n in zip(batch, cube.shape, strict=True)]
    places = min(1, cube.shape[atom] - 1)
    kinds = ((0, places), (1, places), (1, 0))
    found = [cube[tuple([place if i == atom else two * s for i, s in enumerate(samples)])] for two, place in kinds]
    return np.array(found, dtype=np.float64)[:, None, None]


def kinds_of(x: Signal) -> int:
    """How many kinds of pairs are known of a signal's positions."""
    return max((len(c.pairs) for c in x.course), default=0)


def given(x: Signal, found: Sequence[tuple[int, Array]]) -> Signal:
    """A signal with the correlations of pairs of positions along some atoms, and with their means in its cube.

    Where those of two samples are not known they keep one mean: of what the mean over pairs of positions has gained,
    where long positions are the alike ones, or early rows see the same keys, two samples have the share that they have
    of one position.
    """
    if not found:
        return x
    corr, size = np.array(x.corr), x.corr.ndim
    courses: list[Course] = []
    for atom, pairs in found:
        new = Course(atom, x.atoms[atom], np.minimum(np.maximum(pairs, -1.0), 1.0).reshape(-1, *pairs.shape[-2:]))
        courses.append(new)
        here = tuple([1 if i == atom else 0 for i in range(size)])
        mean = mean_of(new.pairs[0], x, atom)
        if any(x.batch):
            one, two = (
                tuple([k if i == atom else (slice(1, None) if b else 0) for i, b in enumerate(x.batch)]) for k in (0, 1)
            )
            if len(new.pairs) == KINDS:
                corr[two], corr[one] = mean_of(new.pairs[1], x, atom), _at_one_place(new.pairs[2], x, atom)
            else:
                corr[two] = np.clip(corr[two] + np.maximum(corr[one], 0.0) * (mean - corr[here]), -1.0, 1.0)
        corr[here] = mean
    return replace(x, corr=corr, courses=(x.ident, tuple(courses)))


def _at_one_place(pairs: Array, x: Signal, atom: int) -> float:
    """The mean over positions of what two samples have in common there."""
    b = bins(x.atoms[atom])
    level = b.width * (np.full(len(b.width), x.mean_q) if x.q.shape[atom] == 1 else b.means(line(x, atom)))
    total = float(level.sum())
    return float(level @ np.diag(pairs)) / total if total > 0.0 else 1.0


def mean_of(pairs: Array, x: Signal, atom: int) -> float:
    """The mean over pairs of positions of x as a cube has it: of moments, over that of √(q_i q_j)."""
    root = roots(x, atom)
    weights = bins(x.atoms[atom]).pairs * root * root[:, None]
    total = float(np.add.reduce(weights, axis=None))
    return float(np.vdot(weights, pairs)) / total if total > 0.0 else 1.0


def moved_on(pairs: Array, atom: int, batch: tuple[bool, ...], before: Array, after: Array) -> Array:
    """Pairs of two samples take part in what a rule does to their correlations beyond a function of each.

    Where c strays, or lengths part, by (1 - c²)·s, s as for the mean of all.

    Args:
        pairs: Of each kind.
        atom: Of the positions.
        batch: Atoms that count samples.
        before: The cube without that.
        after: With it.
    """
    level, more = (constant(cube, batch, atom)[1 : len(pairs)] for cube in (before, after))
    two = pairs[1:] + (more - level) * (1.0 - np.square(pairs[1:])) / np.maximum(1.0 - np.square(level), 1e-9)
    return np.concatenate([pairs[:1], two])


def diluted(
    courses: tuple[Course, ...], share: float, rest: float | Array, batch: tuple[bool, ...]
) -> tuple[Course, ...]:
    """Where positions have only a share of their energy from what they have in common with others.

    Args:
        courses: Of the share.
        share: Of the energy.
        rest: Correlations of what else there is, a cube, or one number for all pairs.
        batch: Atoms that count samples.
    """
    if share == 1.0:
        return courses
    more = [constant(rest, batch, c.atom)[: len(c.pairs)] if isinstance(rest, np.ndarray) else rest for c in courses]
    return tuple(
        [Course(c.atom, c.size, c.pairs * share + r * (1.0 - share)) for c, r in zip(courses, more, strict=True)]
    )


def mapped(out: Signal, x: Signal, change: Callable[[Array], Array] | None = None) -> Signal:
    """A tensor of the same positions, whose pairs are as alike as those of x, or a function of that."""
    if not x.course or len(out.atoms) < 1 + max(c.atom for c in x.course):
        return out
    if any(out.atoms[c.atom] != c.size or out.corr.shape[c.atom] < 2 for c in x.course):
        return out
    return given(out, [(c.atom, c.pairs if change is None else change(c.pairs)) for c in x.course])


def kept(x: Signal, ident: int) -> tuple[int, tuple[Course, ...]] | None:
    """What is known of x, for a multiple of it with that identity."""
    return (ident, x.course) if x.course else None


def joined(out: Signal, at: int, parts: Sequence[Signal]) -> Signal:
    """Tensors of the same positions side by side along the atom `at`: each counts with its energy there."""
    found: list[tuple[int, Array]] = []
    for a in sorted({c.atom for p in parts for c in p.course if c.atom != at}):
        level = [p.atoms[at] * bins(p.atoms[a]).means(line(p, a)) for p in parts]
        whole = np.sqrt(sum(level, start=np.zeros_like(level[0])))
        kinds = max(map(kinds_of, parts))
        each = [np.sqrt(np.outer(q, q)) * every(p, a, kinds, out.batch) for q, p in zip(level, parts, strict=True)]
        both = sum(each, start=np.zeros(()))
        found.append((a, both / np.maximum(np.outer(whole, whole), 1e-300)))
    return given(out, found)


def beside(out: Signal, x: Signal, at: int, new: bool) -> Signal:
    """x put among zeros along the atom `at`, which is new or was there: its positions are as alike as before."""
    found = [Course(c.atom + int(new and c.atom >= at), c.size, c.pairs) for c in x.course if new or c.atom != at]
    return replace(out, courses=(out.ident, tuple(found))) if found else out


def both(x: Signal, y: Signal) -> list[int]:
    """Atoms whose positions are told apart in one of two aligned signals, and vary in both."""
    return sorted({c.atom for s in (x, y) for c in s.course if x.atoms[c.atom] == y.atoms[c.atom] == c.size})


def multiplied(out: Signal, x: Signal, y: Signal) -> Signal:
    """x·y of independent factors."""
    kinds = max(kinds_of(x), kinds_of(y))
    return given(out, [(a, every(x, a, kinds, out.batch) * every(y, a, kinds, out.batch)) for a in both(x, y)])


def added(out: Signal, x: Signal, y: Signal, alpha: float, cross: Array) -> Signal:
    """x + α·y with the cross moments E x_i y_j, a cube of means over pairs."""
    found: list[tuple[int, Array]] = []
    kinds = max(kinds_of(x), kinds_of(y))
    for a in both(x, y):
        one, two, whole = (roots(s, a) for s in (x, y, out))
        pairs = one * one[:, None] * every(x, a, kinds, out.batch)
        pairs = pairs + alpha * alpha * (two * two[:, None]) * every(y, a, kinds, out.batch)
        pairs = pairs + 2.0 * alpha * constant(cross, out.batch, a)[:kinds]
        found.append((a, pairs / np.maximum(whole * whole[:, None], 1e-300)))
    return given(out, found)


def normalised(out: Signal, x: Signal, same: float, shared: Array, before: Array) -> Signal:
    """Behind a norm that takes what a group has in common: the share `same` of a position, and of pairs of them.

    Args:
        out: With the cube behind the norm.
        x: In front of it.
        same: Share of a position.
        shared: Of pairs, a cube.
        before: The cube had all groups one length.
    """
    found: list[tuple[int, Array]] = []
    for c in x.course:
        other = constant(shared, x.batch, c.atom)[: len(c.pairs)] if same > 0.0 else 0.0
        pairs = (c.pairs - other) / max(1.0 - same, 1e-12)
        found.append((c.atom, moved_on(pairs, c.atom, x.batch, before, out.corr)))
    return given(out, found)
