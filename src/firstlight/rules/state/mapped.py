"""What a tensor has in common with its own windows or with itself moved on: E y_s x_s' of y = Ax along some axes.

Without it x and its pooled or rolled form count as independent, and y - x, which is what PoolFormer mixes positions
with, comes out far too long: all that positions have in common goes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from firstlight.graph.signal import Array, Signal, replace
from firstlight.rules.state.layout import axis_atoms, moments
from firstlight.rules.state.summation import rooted


def remember(out: Signal, x: Signal, maps: Mapping[int, Array]) -> Signal:
    """y = Ax of the shape of x, with E y x' for each kind of pair of positions.

    Args:
        out: y.
        x: The tensor.
        maps: Axis -> A along it; y has the shape of x.
    """
    if out.atoms != x.atoms or any(len(x.groups[axis]) != 1 for axis in maps) or x.value is not None:
        return out
    cube: Array = np.broadcast_to(moments(x), x.corr.shape) * x.mean_q
    places = {axis_atoms(x, axis)[0]: a for axis, a in maps.items()}
    field = np.asarray(cube[tuple(slice(None) if i in places else slice(0, 1) for i in range(cube.ndim))])
    for at, a in places.items():
        table, rows = _tables(np.ascontiguousarray(a).tobytes(), len(a), cube.shape[at])
        cube = np.moveaxis(np.moveaxis(cube, at, -1) @ table.T, -1, at)
        field = np.moveaxis(np.moveaxis(field, at, -1) @ rows.T, -1, at)
    if x.q.size > 1:  # places of their own size
        field = field * x.q / x.mean_q
    return replace(out, mapped=(out.ident, x, field, cube))


def known(later: Signal) -> bool:
    """Whether a signal is a window of an earlier one, or that one moved."""
    return later.mapped is not None and later.mapped[0] == later.ident


def shared(later: Signal, earlier: Signal) -> tuple[Array, Array] | None:
    """E y_i x_j at equal indices and the cube, if `later` is y and `earlier` a multiple of x; None otherwise."""
    if later.mapped is None or later.mapped[0] != later.ident or later.atoms != earlier.atoms:
        return None
    _, of, field, cube = later.mapped
    (a, first), (b, second) = rooted(of), rooted(earlier)
    if first == second and a != 0.0:
        return field * (b / a), cube * (b / a)
    for c, term in of.terms:  # x = c·t and a rest that does not go along with t, as behind a norm
        f, root = rooted(term)
        if root == second and f != 0.0 and of.mean_q > 0.0:
            ratio = b * c * term.mean_q / (f * of.mean_q)
            return field * ratio, cube * ratio
    return None


@functools.lru_cache(maxsize=256)
def _tables(key: bytes, n: int, states: int) -> tuple[Array, Array]:
    """(d, e): of the entries that make y_s for pairs (s, s') at d, how much stands to s' at e; (s, e) for s' = s."""
    a = np.frombuffer(key).reshape(n, n)
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    kinds = [apart == 0, apart > (1 if states == 3 else 0), apart == 1][:states]
    out, rows = np.zeros((states, states)), np.zeros((n, states))
    for e, kind in enumerate(kinds):
        moved = a @ kind.astype(np.float64)
        rows[:, e] = moved.diagonal()
        for d, pairs in enumerate(kinds):
            out[d, e] = float(moved[pairs].mean()) if pairs.any() else 0.0
    return out, rows
