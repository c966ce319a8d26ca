"""What a tensor has in common with its own windows, with itself moved on, and with windows of windows.

PoolFormer mixes positions with A·norm(x) - norm(x), A the means of windows, again and again: behind L blocks the stream
is Σ_k c_k·A^k x of the x that weights made last. How alike its places are at all distances is then known to the border,
E (A^k x)(A^l x)ᵀ = A^k R A^lᵀ with the R of x, whose places are alike as they are in one window. From the cube of a
window alone, which knows the next place and all others, three blocks made 2.8 times what windows have. Without any of
this x and its pooled or rolled form count as independent, and what all positions have in common does not cancel.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from firstlight.graph.signal import Array, Signal, replace
from firstlight.rules.state.layout import axis_atoms, correlations, fit_states

Maps = dict[int, bytes]  # of each atom along which it maps, the matrix
Parts = dict[int, tuple[Signal, Array]]  # tensors by ident, with the coefficients of A⁰, A¹, …

_STEPS, _PARTS, _DEGREE = 4, 32, 24  # multiples on the way to a known form; tensors in it; windows of windows
_RIGHT = 1e-6  # E xy of two tensors at right angles, relative to the mean square of their sum


def remember(out: Signal, x: Signal, maps: Mapping[int, Array]) -> Signal:
    """y = Ax of the shape of x, as one more window of what x is made of.

    Args:
        out: y.
        x: The tensor.
        maps: Axis -> A along it.
    """
    if out.atoms != x.atoms or any(len(x.groups[axis]) != 1 for axis in maps) or x.value is not None:
        return out
    key = {axis_atoms(x, axis)[0]: np.ascontiguousarray(a).tobytes() for axis, a in maps.items()}
    known_as = expressed(x)
    again = known_as is not None and known_as[0] == key
    parts = known_as[1] if again and known_as is not None else _alone(x)
    parts = {i: (s, np.concatenate([[0.0], c])) for i, (s, c) in parts.items()}
    if max(len(c) for _, c in parts.values()) > _DEGREE:
        return out
    out = replace(out, mapped=(out.ident, key, parts))
    if not again:
        return out
    field, cube = _moments(out, key, parts, parts)
    q = np.maximum(field, np.square(out.mean))
    return replace(out, q=q, corr=correlations(cube, q))


def known(later: Signal) -> bool:
    """Whether a signal is made of windows of earlier ones, or of those moved."""
    return later.mapped is not None and later.mapped[0] == later.ident


def added(out: Signal, x: Signal, y: Signal, alpha: float) -> Signal:
    """x + α·y, made of the windows that both are made of."""
    one, two = expressed(x), expressed(y)
    if (one is None and two is None) or not x.atoms == y.atoms == out.atoms:
        return out
    key = (one or two or ({}, {}))[0]
    parts: Parts = {}
    for s, form, factor in ((x, one, 1.0), (y, two, alpha)):
        _put(parts, form[1] if form is not None and form[0] == key else _alone(s), factor)
    return out if len(parts) > _PARTS else replace(out, mapped=(out.ident, key, parts))


def expressed(x: Signal, steps: int = _STEPS) -> tuple[Maps, Parts] | None:
    """A and the polynomials in A whose sum a tensor is; None of a tensor without windows in it."""
    if x.mapped is not None and x.mapped[0] == x.ident:
        return x.mapped[1], x.mapped[2]
    if not steps or not x.terms or any(t.atoms != x.atoms for _, t in x.terms):
        return None
    forms = [expressed(t, steps - 1) for _, t in x.terms]
    key = next((f[0] for f in forms if f is not None), None)
    if key is None:
        return None
    parts: Parts = {}
    for (a, t), form in zip(x.terms, forms, strict=True):
        _put(parts, form[1] if form is not None and form[0] == key else _alone(t), a)
    return key, parts


def shared(x: Signal, y: Signal) -> tuple[Array, Array] | None:
    """E x_i y_j at equal indices and over pairs, if one is made of windows of what the other is made of as well."""
    if x.atoms != y.atoms or not (x.terms or known(x) or y.terms or known(y)):
        return None
    one, two = expressed(x), expressed(y)
    form = one or two
    if form is None or (one is not None and two is not None and one[0] != two[0]):
        return None
    left, right = (_taken_apart(s, form[1]) if f is None else f[1] for s, f in ((x, one), (y, two)))
    return _moments(x, form[0], left, right) if left.keys() & right.keys() else None


def _alone(x: Signal) -> Parts:
    """A tensor as a multiple of one that is no multiple, or of two at right angles, as what comes out of a norm is."""
    factor = 1.0
    while len(x.terms) == 1 and x.terms[0][0] and x.terms[0][1].atoms == x.atoms:
        factor, x = factor * x.terms[0][0], x.terms[0][1]
    if len(x.terms) == 2 and all(t.atoms == x.atoms for _, t in x.terms):
        parts: Parts = {}
        if abs(sum(a * a * t.mean_q for a, t in x.terms) - x.mean_q) <= _RIGHT * x.mean_q:
            for a, t in x.terms:
                _put(parts, _alone(t), factor * a)
            return parts
    return {x.ident: (x, np.array([factor]))}


def _taken_apart(x: Signal, roots: Parts) -> Parts:
    """A tensor without windows as the sum that it is of tensors, down to those that windows are of."""
    parts: Parts = {}
    todo, eldest = [(1.0, x)], min(roots)
    while todo:
        a, t = todo.pop()
        if t.ident not in roots and t.ident > eldest and t.terms and all(s.atoms == x.atoms for _, s in t.terms):
            todo += [(a * b, s) for b, s in t.terms]
        else:
            _put(parts, {t.ident: (t, np.ones(1))}, a)
    return parts


def _put(parts: Parts, more: Parts, factor: float) -> None:
    for ident, (s, c) in more.items():
        before = parts[ident][1] if ident in parts else np.zeros(1)
        n = max(len(before), len(c))
        parts[ident] = s, np.pad(before, (0, n - len(before))) + factor * np.pad(c, (0, n - len(c)))


def _moments(out: Signal, key: Maps, left: Parts, right: Parts) -> tuple[Array, Array]:
    """E x_i y_j of two sums of polynomials: tensors that differ have no more in common than their means."""
    field, cube = np.zeros((1,) * len(out.atoms)), np.zeros(out.corr.shape)
    at = sorted(key)
    here = tuple(slice(None) if a in key else slice(0, 1) for a in range(len(out.atoms)))
    for i, (s, c) in left.items():
        for j, (t, d) in right.items():
            mean = s.mean_mean * t.mean_mean
            if i != j and abs(mean) <= 1e-12 * (s.mean_q * t.mean_q) ** 0.5:
                continue
            same = i == j
            given = s.corr * s.mean_q if same else np.full((2,) * len(out.atoms), mean)
            lengths = [_lengths(s, a) if same else np.ones(out.atoms[a]) for a in at]
            tables = [
                _tables(key[a], u.tobytes(), len(c), len(d), given.shape[a], out.corr.shape[a])
                for a, u in zip(at, lengths, strict=True)
            ]
            rows = _apply([r for _, r in tables], np.outer(c, d), given[here], at)
            rest = s.q.mean(axis=tuple(at), keepdims=True) if same else np.ones(1)
            field = field + (rows if rest.size == 1 else rows * rest / s.mean_q)
            cube = cube + fit_states(_apply([t for t, _ in tables], np.outer(c, d), given, at), out.corr.shape)
    return field, cube


def _lengths(x: Signal, atom: int) -> Array:
    """√q along an atom, over that of the mean: places at a border of zeros are shorter."""
    if x.q.shape[atom] == 1 or x.mean_q <= 0.0:
        return np.ones(x.atoms[atom])
    return np.sqrt(x.q.mean(axis=tuple(a for a in range(x.q.ndim) if a != atom)) / x.mean_q)


def _apply(tables: list[Array], coefficients: Array, cube: Array, at: list[int]) -> Array:
    """Σ_kl c_kl · (T_kl ⊗ T'_kl …) on some axes of a cube."""
    inner, outer = "stuv"[: len(at)], "defg"[: len(at)]
    text = ",".join(["kl", *(f"kl{o}{i}" for i, o in zip(inner, outer, strict=True)), f"...{inner}"])
    moved = np.moveaxis(cube, at, range(-len(at), 0))
    found = np.einsum(f"{text}->...{outer}", coefficients, *tables, moved, optimize=True)
    return np.moveaxis(found, range(-len(at), 0), at)


@functools.lru_cache(maxsize=256)
def _tables(key: bytes, lengths: bytes, left: int, right: int, states: int, wanted: int) -> tuple[Array, Array]:
    """A^k R_e A^lᵀ, R_e the pairs of kind e: means over pairs of kind d, [k, l, d, e], and at (i, i), [k, l, i, e]."""
    u = np.frombuffer(lengths)
    n = len(u)
    a = np.frombuffer(key).reshape(n, n)
    taps = [(j, a[np.arange(n), (np.arange(n) + j) % n][:, None]) for j in _diagonals(a)]

    def moved_by(x: Array) -> Array:
        return sum((t * np.roll(x, -j, axis=0) for j, t in taps), np.zeros_like(x))

    asked = _kinds(n, wanted)
    out, rows = np.zeros((left, right, wanted, states)), np.zeros((left, right, n, states))
    for e, kind in enumerate(_kinds(n, states)):
        half = kind * np.outer(u, u)
        for k in range(left):
            half = moved_by(half) if k else half
            moved = half
            for m in range(right):
                moved = moved_by(moved.T).T if m else moved
                rows[k, m, :, e] = moved.diagonal()
                for d, pairs in enumerate(asked):
                    out[k, m, d, e] = float((moved * pairs).sum() / max(pairs.sum(), 1.0))
    return out, rows


def _diagonals(a: Array) -> list[int]:
    """How far from the middle, cyclically, entries of a matrix are that are not zero: those of few taps."""
    i, j = np.nonzero(a)
    return sorted(set(((j - i) % len(a)).tolist()))


def _kinds(n: int, states: int) -> list[Array]:
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    kinds = (apart == 0, apart > (1 if states == 3 else 0), apart == 1)
    return [kind.astype(np.float64) for kind in kinds[:states]]
