"""Causal attention, row by row: what the keys of a row, and the rows of a key, have in common (`rules.state.course`).

Row t sees n_t = t + 1 keys with weights p. With S_t = E Σ p², o_ts = E Σ p_t p_s of different rows, n the smaller of
n_t and n_s, C_ts the mean correlation of different keys that rows t and s see, and G_ts that of the rows' gradients,

    E y_t y_s = o_ts + (1 - o_ts)·C_ts,    E p_tj p_sj = o_ts/n,    E p_tj p_sk = (1 - o_ts)/(n_t n_s - n),
    E dv_j dv_k = Σ_ts E p_tj p_sk·G_ts.

Rows of two samples meet in E Σ p_tj p'_sj, 1/n for weights that are independent (n the larger number of keys), and then
have what two samples have in common at one key; else what they have at two.

A row's gradient of the logits adds up to nothing: of the values' products, dp_tj = g_t·v_j, it keeps 1 - C_tt, and of
the keys, which it meets in the queries' gradient, as much. Two rows have o_ts·G_ts·(1 - A) of it in common, with
A = 1/n + (1 - 1/n)·C of the row that sees fewer keys: for flat weights (v_j - v̄_t)·(v_j - v̄_s) has the mean 1 - A over
the keys that both see. All sums run over bins of positions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from firstlight.graph.course import Course, Rows, bins
from firstlight.graph.signal import Array, Signal, replace
from firstlight.rules.attention.overlap import less
from firstlight.rules.attention.participation import shares
from firstlight.rules.attention.straying import together
from firstlight.rules.state import course
from firstlight.rules.state.layout import axis_atoms

_LEAST = 3  # positions from which rows differ


def causal(count: Array, at: int, size: int) -> bool:
    """Whether each row of a softmax sees the keys up to its own.

    Args:
        count: Number of visible keys of each row, a field.
        at: Atom of the keys; that of the queries is the one before.
        size: Number of keys.
    """
    if at < 1 or size < _LEAST or count.size != size or count.shape[at - 1] != size:
        return False
    return bool((count.ravel() == np.arange(float(size)) + 1.0).all())


def variances(x: Signal, at: int, v: float, size: int) -> Array:
    """Variance of the logits x over the keys of the rows of each bin, v for all if keys are equally alike."""
    b = bins(size)
    if all(c.atom != at for c in x.course):
        return np.full(len(b.seen), v)
    plain = Rows(b, 1.0 / b.seen, np.empty(0), np.empty(0), np.empty(0), 0.0)
    mean = float(x.corr[tuple(1 if i == at else 0 for i in range(x.corr.ndim))])
    return v * apart(plain, replace(x, q=np.ones((1,) * x.q.ndim)), at) / max(1.0 - mean, 1e-9)


def tempered(share: Array, at: int, v: float, rows: Array, size: int) -> Array:
    """E Σp² of each row, a field, for rows whose logits have variances of their own instead of v."""
    if v <= 1e-9 or float(np.abs(rows - v).max()) <= 1e-9 * v:
        return share
    b = bins(size)
    ratio = b.line(shares(rows, b.seen) / shares(np.full_like(rows, v), b.seen))
    return share * ratio.reshape([-1 if i == at - 1 else 1 for i in range(share.ndim)])


def rows_of(
    x: Signal,
    share: Array,
    at: int,
    v: Array,
    size: int,
    coherent: Callable[[Array], tuple[Array, Array]],
    wander: float,
    covariance: Array,
) -> Rows:
    """The rows of a causal softmax over the atom `at` of x.

    Two rows of like queries, whose logits have the covariance k, have E Σ p_t p_s = P(k, n)·n/n' in common (sharp rows
    less, `rules.attention.overlap`) if they see n ≤ n' keys: of equal queries the longer row has the weights of the
    shorter one in proportion.

    Args:
        x: Logits.
        share: E Σp² of each row, a field.
        at: Atom of the keys; that of the queries is the one before.
        v: Variances of the rows' logits.
        size: Number of keys.
        coherent: `Keyed.coherent` and `Keyed.lone` of rows that see so many unlike keys.
        wander: E c² of two unlike keys.
        covariance: Of two rows' logits of one key, without what keys have in common, a cube over the atoms before them.
    """
    b = bins(size)
    lines = np.broadcast_to(share.mean(axis=tuple(i for i in range(share.ndim) if i != at - 1)), (size,))
    square = np.clip(b.means(lines), 1.0 / b.seen, 1.0)
    root = np.sqrt(np.outer(v, v))
    kinds = [np.clip(course.of(x, at - 1), 0.0, 1.0)]
    if any(x.batch[: at - 1]):
        two, level = tuple(map(int, x.batch[: at - 1])), max(float(covariance.flat[0]), 1e-300)
        kinds += [np.full_like(root, np.clip(covariance[(*two, place)] / level, 0.0, 1.0)) for place in (1, 0)]
    fewer, more = np.minimum.outer(b.seen, b.seen), np.maximum.outer(b.seen, b.seen)
    met = [shares(root * k, fewer) * less(root, root * k, fewer) * fewer / more for k in kinds]
    met = np.minimum(met, np.minimum.outer(square, square))
    return Rows(b, square, met, *coherent(b.seen), wander)


def _common(rows: Rows, w: Signal, atom: int) -> tuple[Array, Array]:
    """Of the keys of rows: E w² of those that both of two see, and the mean product of different ones."""
    level, pairs = rows.bins.means(course.line(w, atom)), course.of(w, atom)
    return _products(rows, level, level, pairs)


def _products(rows: Rows, level: Array, same: Array, pairs: Array) -> tuple[Array, Array]:
    """Mean products of one key that both of two rows see, and of different ones.

    Args:
        rows: Of the softmax.
        level: Mean square of the keys of each bin.
        same: Mean product of one key with itself (in another sample).
        pairs: Correlations of different keys.
    """
    seen, root = rows.seen, rows.seen * np.sqrt(level)
    own = np.minimum.outer(range(len(level)), range(len(level)))
    products = root @ pairs @ root.T - (seen @ (level * np.diag(pairs)))[own]
    number = np.outer(rows.bins.seen, rows.bins.seen) - rows.fewer
    mean = seen @ same / rows.bins.seen
    return mean[own], np.where(number > 1e-9, products / np.maximum(number, 1e-9), mean[own])


def apart(rows: Rows, w: Signal, atom: int) -> Array:
    """1 - C_tt of the keys of each row, in units of their own mean square."""
    level, common = _common(rows, w, atom)
    return np.clip(1.0 - np.diag(common) / np.maximum(np.diag(level), 1e-300), 0.0, 2.0)


def _with_line(out: Signal, atom: int, line: Array) -> Signal:
    """The same with the mean squares of positions."""
    ratio = line / np.maximum(course.line(out, atom), 1e-300)
    return replace(out, q=out.q * ratio.reshape([-1 if i == atom else 1 for i in range(out.q.ndim)]))


def _normalised(pairs: Array, level: Array) -> Array:
    root = np.sqrt(np.maximum(level, 0.0))
    both = np.outer(root, root)
    return np.where(both > 0.0, pairs / np.maximum(both, 1e-300), 0.0)


def outputs(out: Signal, atom: int, p: Signal, rows: Rows, v: Signal, keys: int) -> Signal:
    """y = Σ p·v by rows: their mean squares, and what two of them have in common, of one sample or of two."""
    b, level = rows.bins, rows.bins.means(course.line(v, keys))
    mean, common = _common(rows, v, keys)
    square = course.line(p, len(p.atoms) - 2) * p.shape[-1]
    line = square * b.line(np.diag(mean)) + np.maximum(1.0 - square, 0.0) * b.line(np.diag(common))
    pairs = rows.met[:1] * mean + (1.0 - rows.met[:1]) * common
    if len(rows.met) > 1 and any(v.batch):
        _, other, same = course.every(v, keys, course.KINDS)
        mean, common = _products(rows, level, level * np.diag(same), other)
        pairs = np.concatenate([pairs, rows.met[1:] * mean + (1.0 - rows.met[1:]) * common])
    return course.given(_with_line(out, atom, line), [(atom, _normalised(pairs, b.means(line)))])


def values_back(out: Signal, atom: int, p: Signal, rows: Rows, g: Signal, queries: int) -> Signal:
    """dv = Σ_t p_t·g_t by keys."""
    b, n, seeing = rows.bins, rows.bins.seen, rows.seeing
    level = b.means(course.line(g, queries))
    both = np.sqrt(np.outer(level, level)) * course.of(g, queries)
    same, other = both * rows.met[0] / rows.fewer, both * (1.0 - rows.met[0])
    number = np.outer(n, n) - rows.fewer
    other = np.where(number > 1e-9, other / np.maximum(number, 1e-9), 0.0)
    alone = np.where(n > 1.5, (1.0 - rows.share) / np.maximum(n * (n - 1.0), 1e-9), 0.0) * level
    line = _down(p, g, queries) + b.line(_pairs(seeing, same))
    last = np.maximum.outer(range(len(n)), range(len(n)))
    pairs = (seeing.T @ (alone - np.diag(other)))[last] + seeing.T @ other @ seeing
    out = _with_line(out, atom, line)
    return course.given(out, [(atom, _normalised(pairs, b.means(line)))])


def _pairs(seeing: Array, same: Array) -> Array:
    """Σ over different rows that see a key."""
    return ((seeing.T @ same) * seeing.T).sum(axis=1) - seeing.T @ np.diag(same)


def _down(x: Signal, g: Signal, queries: int) -> Array:
    """Σ_t x_tj²·g_t² of each key."""
    size = x.shape[-1]
    field = x.q.mean(axis=tuple(range(x.q.ndim - 2)))
    if field.shape[1] > 1:
        return course.line(g, queries) @ np.broadcast_to(field, (size, size))
    each = np.broadcast_to(field[:, 0], (size,)) * size / (np.arange(size) + 1.0) * course.line(g, queries)
    return np.cumsum(each[::-1])[::-1]


def logits_back(dl: Signal, g: Signal, p: Signal, rows: Rows, own: float) -> Signal:
    """dℓ behind a softmax by rows: each keeps 1 - C_tt of the products with values instead of the mean `own`.

    It carries how alike the products were, by rows and by keys.
    """
    queries, keys = len(p.atoms) - 2, len(p.atoms) - 1
    kept = apart(rows, g, keys)
    ratio = rows.bins.line(kept) / max(own, 1e-9)
    found = tuple([Course(a, g.atoms[a], course.every(g, a, 1)) for a in (queries, keys)])
    q = dl.q * ratio.reshape([-1 if i == queries else 1 for i in range(dl.q.ndim)])
    return replace(dl, q=q, courses=(dl.ident, found))


def _met(rows: Rows, dl: Signal) -> tuple[Array, Array]:
    """Σ_j dℓ_tj² of rows, and E dℓ_tj dℓ_sj of two of them at a key that both see."""
    b, queries, keys = rows.bins, len(dl.atoms) - 2, len(dl.atoms) - 1
    level = b.means(course.line(dl, queries) * dl.shape[-1])
    found = {c.atom: c for c in dl.course}
    if keys not in found:
        return level, np.zeros((len(level), len(level)))
    products = replace(dl, q=np.ones((1,) * dl.q.ndim), courses=(dl.ident, tuple(found.values())))
    mean, common = _common(rows, products, keys)
    n = b.seen
    left = np.maximum(1.0 - np.diag(mean) / n - (1.0 - 1.0 / n) * np.diag(common), 0.0)  # 1 - A
    gradient = np.where(left > 1e-9, level / (rows.share * np.maximum(left, 1e-9)), 0.0)
    few = np.minimum.outer(range(len(n)), range(len(n)))
    both = np.sqrt(np.outer(gradient, gradient)) * found[queries].pairs[0]
    return level, both * left[few] * rows.met[0] / rows.fewer


def _in_step(rows: Rows, v: Signal, k: Signal, keys: tuple[int, int]) -> Array:
    """E Σ_jk dℓ_j dℓ_k·k_j·k_k of each row over that of values and keys whose correlations V and K are not in step.

    For flat weights on m keys it is tr HVHK/m², H = 1 - 11ᵀ/m: with P the mean of V_jk K_jk, T that of V_jk K_jl and
    V̄, K̄ all their own means, for random m = 1/S of the row's n keys
    (m-1)(1-V̄)(1-K̄) + (m-1)[(m-2+2/m)·δP - (2(m-2) - 4(m-2)/m)·δT + (m-2)(m-3)/m·δQ], δP = P - V̄K̄ and so on,
    with Q, of four different keys, from the sum of all.
    """
    n, seen = rows.bins.seen, rows.seen
    one, two = (course.of(s, a) for s, a in zip((v, k), keys, strict=True))
    pairs = np.maximum(n * (n - 1.0), 1e-9)
    triples = np.maximum(pairs * (n - 2.0), 1e-9)

    def mean(products: Array) -> Array:
        return (((seen @ products) * seen).sum(axis=1) - seen @ np.diag(products)) / pairs

    first, second = mean(one), mean(two)
    around = seen @ one - np.diag(one), seen @ two - np.diag(two)  # Σ over the other keys of the row
    level = first * second
    p = mean(one * two) - level
    t = ((seen * around[0] * around[1]).sum(axis=1) - pairs * (p + level)) / triples - level
    quadruples = np.maximum(pairs * (n - 2.0) * (n - 3.0), 1e-9)
    q = -(2.0 * pairs * p + 4.0 * triples * t) / quadruples
    m = 1.0 / rows.share
    more = (m - 2.0 + 2.0 / m) * p - 2.0 * (m - 2.0) * (1.0 - 2.0 / m) * t + (m - 2.0) * (m - 3.0) / m * q
    plain = np.maximum((1.0 - first) * (1.0 - second), 1e-6)
    return np.where(n > 2.5, np.maximum(1.0 + more / plain, 0.0), 1.0)


def queries_back(out: Signal, atom: int, dl: Signal, rows: Rows, k: Signal, keys: int, own: float) -> Signal:
    """dq_t = Σ_j dℓ_tj·k_j by rows; `own` is the mean of 1 - C_tt that has been taken."""
    kept = apart(rows, k, keys)
    level, met = _met(rows, dl)
    # keys in step by their places and those that are alike by chance add up; the mean of these is still to come
    mean = 1.0 if dl.keyed is None else dl.keyed.coherent
    strayed = rows.coherent + [together(rows.wander, 1.0 - left) for left in kept.tolist()]
    kept = kept * (_in_step(rows, dl, k, (len(dl.atoms) - 1, keys)) + strayed - 1.0) / mean
    line = course.line(out, atom) * rows.bins.line(kept) / max(own, 1e-9)
    few = np.minimum.outer(range(len(kept)), range(len(kept)))
    out = _with_line(out, atom, line)
    return course.given(out, [(atom, _normalised(rows.fewer * met * kept[few], level * kept))])


def keys_back(out: Signal, atom: int, dl: Signal, rows: Rows, q: Signal, queries: int) -> Signal:
    """dk_j = Σ_t dℓ_tj·q_t by keys."""
    b, n, seeing = rows.bins, rows.bins.seen, rows.seeing
    level, met = _met(rows, dl)
    length = b.means(course.line(q, queries))
    met = met * np.sqrt(np.outer(length, length)) * course.of(q, queries)
    line = _down(dl, q, queries) + b.line(_pairs(seeing, met))
    alone = np.where(n > 1.5, level * length / np.maximum(n * (n - 1.0), 1e-9), 0.0)
    other = np.where(rows.fewer > 1.5, met / np.maximum(np.maximum.outer(n, n) - 1.0, 1e-9), 0.0)
    last = np.maximum.outer(range(len(n)), range(len(n)))
    pairs = (seeing.T @ (alone - np.diag(other)))[last] + seeing.T @ other @ seeing
    out = _with_line(out, atom, np.maximum(line, 0.0))
    return course.given(out, [(atom, _normalised(-pairs, b.means(np.maximum(line, 0.0))))])


def contracted(out: Signal, x: Signal, left: str, w: Signal, right: str, letters: str, own: float) -> Signal:
    """einsum("left,right->letters") of a causal softmax's weights, or of its logits' gradient, over keys or queries."""
    rows = x.keyed.causal if x.keyed is not None else None
    if rows is None or len(left) < 2 or (left[-2] in letters) == (left[-1] in letters) or not out.mean_q > 0.0:
        return out
    over, stays = (left[-1], left[-2]) if left[-2] in letters else (left[-2], left[-1])
    if over not in right or stays in right:
        return out
    mine, other = axis_atoms(out, letters.index(stays)), axis_atoms(w, right.index(over))
    if len(mine) != 1 or len(other) != 1:
        return out
    weights, keys = bool(x.mean.any()), over == left[-1]
    if weights:
        return (outputs if keys else values_back)(out, mine[0], x, rows, w, other[0])
    if keys:
        return queries_back(out, mine[0], x, rows, w, other[0], own)
    return keys_back(out, mine[0], x, rows, w, other[0])
