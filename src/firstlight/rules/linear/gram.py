"""Products of a tensor with itself, or with its twin: Gram matrices, whose diagonal is no inner product like others.

G_ij = Σ_k x_ik y_jk with cross moments X = E x y of equal k has the mean M_ij = Σ_k X_ij: on the diagonal that of
equal rows, |x_i|² for y = x, and off it that of two rows. For Gaussian entries (Isserlis)

E G_ij G_i'j' = Σ_kl (E x_ik x_i'l E y_jk y_j'l + X_ij',kl X_i'j,lk) + M_ij M_i'j' - 2 (Σ_k E x E y)²:

the first sum is what independent factors give (`contraction`), the second is the swapped one; what the means alone
explain stands in all three, and counts once. Scores of self-supervised losses, covariance penalties, pairwise
interactions of features and attention without projections are such products.

Assumes: rows are exchangeable beyond their lengths, and G has two letters of its own, one of each operand; the swapped
sum of two rows that are one counts on the diagonal alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from firstlight.graph.signal import Array, Signal, next_id, replace
from firstlight.rules.linear.contraction import scatter_of
from firstlight.rules.state.cross import cross
from firstlight.rules.state.empirical import cube_of
from firstlight.rules.state.layout import axis_atoms, correlations, fit_states, moments, state_weights
from firstlight.rules.state.summation import count_along
from firstlight.rules.state.views import parts, unchanged

_LARGEST = 1 << 18  # entries of the matrix
_NOTHING = 1e-9  # share of a cross moment that is a rounding error


class Product(NamedTuple):
    """einsum("left,right->letters") of two signals, one letter per axis."""

    x: Signal
    left: str
    y: Signal
    right: str
    letters: str


class _Pair(NamedTuple):
    """Two operands, entry beside entry.

    Attributes:
        x: The first.
        y: The second.
        letters: Of both, but for the rows of the second.
        rows: The axis of the rows.
        second: The letter of the second operand's rows.
    """

    x: Signal
    y: Signal
    letters: str
    rows: int
    second: str

    @property
    def first(self) -> str:
        """The letter of the first operand's rows."""
        return self.letters[self.rows]


def met(out: Signal, of: Product) -> Signal:
    """A contraction, with what its operands have in common; unchanged where that is nothing.

    Args:
        out: What independent operands give.
        of: The operands.
    """
    pair = _beside(of)
    if pair is None:
        return out
    x, y, left, letters = pair.x, pair.y, pair.letters, of.letters
    rows = axis_atoms(x, pair.rows)[0]
    n = x.atoms[rows]
    field, cube = cross(x, y)
    common = float(np.abs(cube - x.mean_mean * y.mean_mean).max())
    if common <= _NOTHING * (x.mean_q * y.mean_q) ** 0.5 or n * n > _LARGEST:
        return out
    gone = [a for i, label in enumerate(left) if label not in letters for a in axis_atoms(x, i)]
    one, two = (axis_atoms(out, letters.index(a))[0] for a in (pair.first, pair.second))
    same = [label for label in left if label in letters and label != pair.first]
    kept = [a for label in same for a in axis_atoms(out, letters.index(label))]
    rank = len(out.atoms)
    matrix, diagonal = _means(field, cube, x.atoms, rows, gone), np.eye(n, dtype=bool)
    swapped, chance = _squared(np.take(cube, 1, axis=rows), x.atoms, rows, gone), _chance(x, cube, gone)
    level, alike = float(np.diag(matrix).mean()), float(matrix[0, 1:].mean())
    strays = 0.0 if chance else max(level**2 - alike**2, 0.0) * x.wander  # two rows are as alike as chance has it
    more = np.where(diagonal, _uneven(x, np.diag(matrix), gone) * np.square(matrix), swapped.flat[0] + strays)
    alone = np.square(out.mean)  # what the means explain, in each of the three
    q = np.where(_placed(diagonal, (one, two), rank), 0.0, out.q + chance - 2.0 * alone)
    q = q + _placed(np.square(matrix) + more, (one, two), rank)
    means = _placed(matrix, (one, two), rank)
    products = fit_states(cube_of(matrix, (False, False)), (out.corr.shape[one], out.corr.shape[two]))
    raw = moments(out) * out.mean_q + _placed(swapped, kept, rank) + _placed(products, (one, two), rank)
    return replace(
        out, mean=means, q=np.maximum(q, np.square(means)), corr=correlations(raw - 2.0 * float(alone.mean()), q),
        keyed=None, ident=next_id(),
    )  # fmt: skip


def gradient(dx: Signal, g: Signal, of: Product) -> Signal:
    """The gradient of one operand, half of (g + gᵀ)·x where both are one tensor; unchanged where they are not.

    The two halves are delivered one by one, and add as independent. They are one where g has its diagonal: the share
    Σ_i E g_ii² / Σ_ij E g_ij² of their energy counts twice (rows of one length; entries off the diagonal independent).

    Args:
        dx: The gradient, worked out as if of independent operands.
        g: Gradient of the result.
        of: The operands.
    """
    pair = _beside(of)
    if pair is None or pair.x.ident != pair.y.ident:
        return dx
    one, two = (axis_atoms(g, of.letters.index(a))[0] for a in (pair.first, pair.second))
    n, others = pair.x.shape[pair.rows], tuple(i for i in range(len(g.atoms)) if i not in (one, two))
    q = np.broadcast_to(g.q.mean(axis=others), (n, n))
    total = float(q.sum())
    return replace(dx, q=dx.q * (1.0 + float(np.trace(q)) / total), ident=next_id()) if total > 0.0 else dx


def _beside(of: Product) -> _Pair | None:
    """The operands entry beside entry; None where the product is not one of rows with rows."""
    x, y = of.x, of.y
    known = x.weights or y.weights or x.value is not None or y.value is not None or x.complex or y.complex
    if known or x.ndim != y.ndim or x.ndim < 2:
        return None
    (x, left), (y, right), letters = _upright(x, of.left), _upright(y, of.right), set(of.letters)
    rows = [i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]
    if x.groups != y.groups or len(rows) != 1 or len({*left, *right}) != x.ndim + 1 or set(left) <= letters:
        return None
    (axis,) = rows
    single = len(x.groups[axis]) == 1
    return _Pair(x, y, left, axis, right[axis]) if single and {left[axis], right[axis]} <= letters else None


def _upright(x: Signal, letters: str) -> tuple[Signal, str]:
    """The tensor whose transpose it is, with its letters; what is known of how it was made is known of that one."""
    steps = x.viewed[1]
    kind, *dims = parts(steps[0]) if len(steps) == 1 and parts(steps[0]) else ("",)
    if kind != "permute" or not unchanged(x):
        return x, letters
    return x.root, "".join(letters[dims[0].index(axis)] for axis in range(x.ndim))


def _means(field: Array, cube: Array, sizes: tuple[int, ...], rows: int, gone: Sequence[int]) -> Array:
    """M: sums of the cross moments of equal rows on the diagonal, of two rows off it, by their lengths."""
    total = field.sum(axis=tuple(gone), keepdims=True) * count_along(field, sizes, tuple(gone))
    others = tuple(i for i in range(total.ndim) if i != rows)
    line = np.broadcast_to(total.mean(axis=others), (sizes[rows],))
    level = float(line.mean())
    off = cube[tuple(int(i == rows) for i in range(cube.ndim))] * float(np.prod([sizes[i] for i in gone]))
    roots = np.sqrt(line / level) if level > 0.0 and float(line.min()) >= 0.0 else np.ones(len(line))
    out = off * np.outer(roots, roots)
    np.fill_diagonal(out, line)
    return out


def _uneven(x: Signal, line: Array, gone: Sequence[int]) -> float:
    """Relative variance of |x_i|² beyond that of what is known of each row; scatter from site to site has both."""
    scatter, level = scatter_of(x, gone), float(np.square(line).mean())
    known = (1.0 + scatter) * float(line.mean()) ** 2 / level - 1.0 if level > 0.0 else 0.0
    return max(known, scatter - max(x.scatter, 0.0), 0.0)


def _chance(x: Signal, cube: Array, gone: Sequence[int]) -> float:
    """Σ over pairs of summed samples of what their moments stray by: mean c² beyond c̄² (`Signal.wander`), lengths."""
    samples = [a for a in gone if x.batch[a]]
    if not samples:
        return 0.0
    count, same = int(np.prod([x.atoms[a] for a in samples])), float(cube.flat[0]) ** 2
    other = float(cube[tuple(int(i in samples) for i in range(cube.ndim))]) ** 2
    return count * (same * max(x.scatter, 0.0) + (count - 1.0) * max(same - other, 0.0) * x.wander)


def _squared(cube: Array, sizes: tuple[int, ...], rows: int, gone: Sequence[int]) -> Array:
    """Σ_kl X² over the summed atoms, of a cube without the axis of the rows."""
    out = np.square(cube)
    for atom in sorted(gone, reverse=True):
        axis = atom - (atom > rows)
        out = np.tensordot(out, state_weights(sizes[atom], out.shape[axis]), axes=(axis, 0)) * sizes[atom]
    return np.asarray(out)


def _placed(cube: npt.NDArray[Any], atoms: Sequence[int], rank: int) -> npt.NDArray[Any]:
    """A cube (or field) over some atoms of a tensor as one that is the same over all others."""
    shape = [1] * rank
    for k, atom in enumerate(atoms):
        shape[atom] = cube.shape[k]
    return np.transpose(cube, np.argsort(atoms)).reshape(shape)
