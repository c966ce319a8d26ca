"""What the adjoint of a normalisation leaves of the pairs of a gradient: cubes over a group, and their composition."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import prod

import numpy as np

from firstlight.graph.signal import Array, Signal
from firstlight.rules.state.layout import state_weights
from firstlight.rules.state.noise import summed_pairs

_FEW = 1e-3  # relative variance of v̂ from which it changes correlations


def group_pairs(x: Signal, atoms: Sequence[int]) -> Array:
    """Share of the ordered pairs within a group at each index of the cube (pairs in other atoms: same)."""
    return summed_pairs(x.atoms, x.corr.shape, tuple(atoms))


def shared_cube(x: Signal, atoms: Sequence[int], cube: Array | None = None) -> Array:
    """Correlation of the group means: a cube (x.corr by default) averaged over the group's pairs, of size 1 there."""
    out: Array = x.corr if cube is None else cube
    for i in atoms:
        w = state_weights(x.atoms[i], out.shape[i]) / x.atoms[i]
        shape = (1,) * i + (-1,) + (1,) * (out.ndim - i - 1)
        out = np.add.reduce(out * w.reshape(shape), axis=i, keepdims=True)
    return out


def projected(
    g: Signal, hat: Signal, atoms: Sequence[int], *, centre: bool, kept: float, met: Array | None = None
) -> tuple[float, Array]:
    """The share that is left of a gradient, and its cube, behind g - ḡ - κ·x̂·mean(g x̂) over a group of n entries.

    For independent g, with the cube γ of g - ḡ, and x̂, with the cube ρ and Σ x̂² = n,
    E g'_i g'_j = γ_ij - κ/n·[(γρ)_ij + (ργ)_ij] + κ²·ρ_ij·Σ_kl γ_kl ρ_kl/n². On the diagonal this leaves
    1 - (2κ - κ²)·(mean of γρ over pairs); between positions it takes more where x̂ has something in common over
    them, so that sums of the gradient over positions are smaller than its entries say.

    A g that has met a factor φ(x̂) is not independent of it: what all entries have in common, a, comes back as
    a·E φ(x̂)x̂ in every entry of g·x̂ (half of it behind ReLU). With the cube η of g·x̂ the projection takes
    T = Σ η_ij/n² instead of Σ γ_ij ρ_ij/n²; since Σ g' = 0 still, the pairs of one group have the difference back.

    Args:
        g: The gradient at x̂.
        hat: x̂, with the same atoms.
        atoms: Those of the group.
        centre: Whether the group's mean goes.
        kept: κ = v/(v + ε).
        met: η, a cube, in units of g's mean square; None where g is independent of x̂.
    """
    cube: Array = np.array(g.corr)
    if centre:
        cube = cube - shared_cube(g, atoms)
    n = prod(g.atoms[a] for a in atoms)
    other = hat.corr[tuple(slice(None) if i in atoms else slice(0, 1) for i in range(hat.corr.ndim))]
    crossed = composed(cube, other, g.atoms, atoms) / n
    along = shared_cube(hat, atoms, cube * hat.corr)
    if met is not None:
        more = shared_cube(hat, atoms, met)
        crossed = crossed + _without_sum(g, atoms, cube.shape) * (more - along).flat[0]
        along = more
    cube = cube - 2.0 * kept * crossed + kept * kept * along * hat.corr
    origin = (0,) * cube.ndim
    share = max(float(cube[origin]), 0.0)
    if share <= 1e-12:
        return 0.0, g.corr
    corr: Array = np.clip(cube / share, -1.0, 1.0)
    corr[origin] = 1.0
    return share, corr


def _without_sum(g: Signal, atoms: Sequence[int], states: Sequence[int]) -> Array:
    """1 for an entry itself, -1/(n - 1) for the other entries of its group, nothing elsewhere."""
    n = prod(g.atoms[a] for a in atoms)
    out = np.zeros(tuple(states))
    out[tuple(slice(None) if i in atoms else 0 for i in range(out.ndim))] = -1.0 / max(n - 1, 1)
    out[(0,) * out.ndim] = 1.0
    return out


def composed(f: Array, h: Array, sizes: Sequence[int], atoms: Sequence[int]) -> Array:
    """Σ_k f_ik h_kj over the k of a group, for cubes f and h; h is of size 1 in the atoms outside of the group."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    out = np.asarray(f[(..., *(None,) * h.ndim)] * h)
    for i in range(f.ndim):
        if i in atoms:  # axes: f's, then h's; the pair's index takes the place of f's
            axes, new = letters[: out.ndim], letters[out.ndim]
            result = axes.replace(axes[i], new).replace(axes[f.ndim], "")
            step = _intermediates(sizes[i], f.shape[i])
            out = np.einsum(f"{axes},{new}{axes[i]}{axes[f.ndim]}->{result}", out, step)
        else:
            out = out[(..., *(0 if k == f.ndim else slice(None) for k in range(f.ndim, out.ndim)))]
    return out


def divided(cube: Array, sizes: Sequence[int], atoms: Sequence[int], spread: float) -> Array:
    """The cube of x̂ = x/√v̂ over groups of n entries whose v̂ = mean x² has the relative variance s, from that of x.

    E x_i x_j/v̂ to first order in s is C_ij(1 + s) - Cov(x_i x_j, v̂), and Cov is 2(C²)_ij/n for a Gaussian x: pairs
    that go together with all others are large where v̂ is. Seen along an eigenvector of C with the eigenvalue λ that is
    λ(1 + s - 2λ/n), which is the start of E λz²/v̂ ∝ λ/(1 + 2λ/n), with z² tilted by itself in v̂: C' ∝ C(I + 2C/n)⁻¹,
    scaled such that Σ x̂² = n. It keeps what sums to nothing where the group's mean is gone. For entries that are no
    Gaussians s·n²/tr C² stands for 2.

    Two groups, in two samples say, have a v̂ each, of covariance s' = s·tr BBᵀ/tr C² with the pairs B between them:
    E x_i y_j/√(v̂ŵ) is B(1 + ¾s + ¼s') - 2CB/n, so that B' ∝ B(I + 2C/n)⁻¹·(1 - ¼(s - s')). Where entries are
    independent of each other that is the mean cosine of two vectors, c·(1 - (1 - c²)·s/4); where few channels have
    all that samples have in common, v̂ is large in the draws in which they have much of it.

    Args:
        cube: C and B.
        sizes: Of all atoms.
        atoms: Those of a group.
        spread: s.
    """
    n = prod(sizes[a] for a in atoms)
    inside = tuple(slice(None) if i in atoms else slice(0, 1) for i in range(cube.ndim))
    operator, weight = cube[inside], np.ones(())
    for i in reversed(range(cube.ndim)):  # X -> XC, one atom after the other: axes (d, e) of those behind come last
        if i in atoms:
            step = _intermediates(sizes[i], cube.shape[i])
            operator = np.moveaxis(np.tensordot(step, operator, (2, i)), (0, 1), (-2, -1))
            weight = np.multiply.outer(state_weights(sizes[i], cube.shape[i]) / sizes[i], weight)
        else:
            operator = np.take(operator, 0, axis=i)
    k = operator.ndim // 2
    matrix = operator.transpose((*range(operator.ndim - 2, -1, -2), *range(operator.ndim - 1, -1, -2)))
    order = [*(i for i in range(cube.ndim) if i in atoms), *(i for i in range(cube.ndim) if i not in atoms)]
    moved = cube.transpose(order)
    pairs = moved.reshape(weight.size, -1)  # a column for each pair of groups, the first for a group with itself
    squares = weight.reshape(-1) @ np.square(pairs)
    if squares[0] <= 0.0 or k == 0:
        return cube
    left: Array = np.eye(len(pairs)) + spread / squares[0] / n * matrix.reshape(len(pairs), -1)
    found: Array = np.asarray(np.linalg.solve(left, pairs), dtype=np.float64)
    if found[0, 0] <= 0.0:
        return cube
    found *= (1.0 - 0.25 * spread * np.maximum(1.0 - squares / squares[0], 0.0)) / found[0, 0]
    return np.clip(found.reshape(moved.shape).transpose(np.argsort(order)), -1.0, 1.0)


def of_few(x: Signal, atoms: Sequence[int], spread: float) -> Array:
    """Correlations after division by a v̂ of relative variance s (few effective entries)."""
    return x.corr if spread < _FEW else divided(x.corr, x.atoms, atoms, spread)


@functools.lru_cache(maxsize=512)
def _intermediates(n: int, states: int) -> Array:
    """How many k there are for a pair (i, j) at d with i, k at e and k, j at e': shape (d, e, e').

    With next neighbours those of the pairs further apart are what is left of all, so that row sums multiply.
    """
    out = np.zeros((states, states, states))
    weights = state_weights(n, states)
    out[0] = np.diag(weights)
    if states == 2:
        out[1] = [[0.0, 1.0], [1.0, n - 2.0]]
        return out
    beside = (n - 2.0) / (n - 1.0)
    out[2] = [[0.0, 0.0, 1.0], [0.0, n - 2.0 - 2.0 * beside, beside], [1.0, beside, 0.0]]
    far = float(weights[1])
    out[1] = (np.outer(weights, weights) - out[0] - weights[2] * out[2]) / far if far > 1e-9 else out[2]
    return out
