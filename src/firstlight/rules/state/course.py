"""Positions that are not equally alike: behind a causal mask early ones average over few keys, and over the same ones.

A row t that averages over its n = t + 1 keys has q' = q[S + (1 - S)·c̄(t)], S = E Σp², with the mean correlation c̄(t)
of its own keys; two rows t < s have o_ts·q + (1 - o_ts)·c̄(t, s) in common, o_ts = E Σ p_t p_s, 1/n_s for flat
weights. So early positions are longer and more alike than late ones, and the next attention's early rows see that. One
number for all pairs of positions loses it. So a signal behind a causal mask carries the correlations of all pairs of
positions, in bins (`graph.course`), and its gradient as well: early keys' gradients are sums over the same rows.

They are those of pairs that differ in position alone; the cube keeps their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from firstlight.graph.course import Course, bins
from firstlight.graph.signal import Array, Signal, once, replace

_FEW = 3  # positions from which they are told apart


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
    """Correlations of pairs of positions along an atom; those of the cube where nothing else is known."""
    found = next((c for c in x.course if c.atom == atom), None)
    if found is not None:
        return found.pairs
    size = len(bins(x.atoms[atom]).width)
    return np.full((size, size), _other(x, atom))


def _other(x: Signal, atom: int) -> float:
    return float(x.corr[tuple(1 if i == atom else 0 for i in range(x.corr.ndim))])


def given(x: Signal, found: Sequence[tuple[int, Array]]) -> Signal:
    """A signal with the correlations of pairs of positions along some atoms, and with their mean in its cube.

    Pairs of two samples keep one mean: of what the mean over pairs of positions has gained, where long positions are
    the alike ones, or early rows see the same keys, two samples have the share that they have of one position.
    """
    if not found:
        return x
    corr, size = np.array(x.corr), x.corr.ndim
    courses: list[Course] = []
    for atom, pairs in found:
        courses.append(Course(atom, x.atoms[atom], np.minimum(np.maximum(pairs, -1.0), 1.0)))
        here = tuple([1 if i == atom else 0 for i in range(size)])
        mean = mean_of(courses[-1].pairs, x, atom)
        if any(x.batch):
            one, two = (
                tuple([k if i == atom else (slice(1, None) if b else 0) for i, b in enumerate(x.batch)]) for k in (0, 1)
            )
            corr[two] = np.clip(corr[two] + np.maximum(corr[one], 0.0) * (mean - corr[here]), -1.0, 1.0)
        corr[here] = mean
    return replace(x, corr=corr, courses=(x.ident, tuple(courses)))


def mean_of(pairs: Array, x: Signal, atom: int) -> float:
    """The mean over pairs of positions of x as a cube has it: of moments, over that of √(q_i q_j)."""
    root = roots(x, atom)
    weights = bins(x.atoms[atom]).pairs * root * root[:, None]
    total = float(np.add.reduce(weights, axis=None))
    return float(np.vdot(weights, pairs)) / total if total > 0.0 else 1.0


def diluted(courses: tuple[Course, ...], share: float, rest: float | Array = 0.0) -> tuple[Course, ...]:
    """Where positions have only a share of their energy from what they have in common with others.

    Args:
        courses: Of the share.
        share: Of the energy.
        rest: Correlations of what else there is, a cube.
    """
    if share == 1.0:
        return courses
    cube = np.asarray(rest)
    more = [
        float(cube[tuple(1 if i == c.atom else 0 for i in range(cube.ndim))]) if cube.ndim else float(cube)
        for c in courses
    ]
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
        both = sum((np.sqrt(np.outer(q, q)) * of(p, a) for q, p in zip(level, parts, strict=True)), start=np.zeros(()))
        found.append((a, both / np.maximum(np.outer(whole, whole), 1e-300)))
    return given(out, found)


def beside(out: Signal, x: Signal, at: int, new: bool) -> Signal:
    """x put among zeros along the atom `at`, which is new or was there: its positions are as alike as before."""
    found = [Course(c.atom + int(new and c.atom >= at), c.size, c.pairs) for c in x.course if new or c.atom != at]
    return replace(out, courses=(out.ident, tuple(found))) if found else out


def both(x: Signal, y: Signal) -> list[int]:
    """Atoms whose positions are told apart in one of two aligned signals, and vary in both."""
    return sorted({c.atom for s in (x, y) for c in s.course})


def multiplied(out: Signal, x: Signal, y: Signal) -> Signal:
    """x·y of independent factors."""
    return given(out, [(a, of(x, a) * of(y, a)) for a in both(x, y)])


def added(out: Signal, x: Signal, y: Signal, alpha: float, cross: Array) -> Signal:
    """x + α·y with the cross moments E x_i y_j, a cube of means over pairs."""
    found: list[tuple[int, Array]] = []
    for a in both(x, y):
        one, two, whole = (roots(s, a) for s in (x, y, out))
        pairs = one * one[:, None] * of(x, a) + alpha * alpha * (two * two[:, None]) * of(y, a)
        pairs = pairs + 2.0 * alpha * float(cross[tuple(1 if i == a else 0 for i in range(cross.ndim))])
        found.append((a, pairs / np.maximum(whole * whole[:, None], 1e-300)))
    return given(out, found)


def normalised(out: Signal, x: Signal, same: float, shared: Array) -> Signal:
    """Behind a norm that takes what a group has in common: the share `same` of a position, and of pairs of them."""
    found: list[tuple[int, Array]] = []
    for c in x.course:
        other = float(shared[tuple(1 if i == c.atom else 0 for i in range(shared.ndim))])
        found.append((c.atom, (c.pairs - other) / max(1.0 - same, 1e-12)))
    return given(out, found)
