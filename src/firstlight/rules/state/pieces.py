"""Tensors side by side whose samples (or positions) are not equally alike: a class token, skips of other layers.

One cube is the mean over the pieces by their energies. A norm gives every group the same energy, an index takes one
piece out, and a sum adds to each piece: then the pieces' own correlations count, which the signal carries that far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from firstlight.graph.pieces import Pieces
from firstlight.graph.signal import Array, Signal, powers, replace
from firstlight.rules.state.layout import axis_atoms, reshape
from firstlight.rules.state.projection import shared_cube

_DIFFERENT = 0.02  # in a correlation, from which pieces are followed
_MOST = 8  # pieces that are followed
_MIXED = 0.2  # share of the energy that came without pieces of its own, from which they are not sure


def known(x: Signal) -> Pieces | None:
    """The pieces of a signal, if it was put together or made entry by entry from one that was."""
    return x.pieces[1] if x.pieces is not None and x.pieces[0] == x.ident else None


def joined(out: Signal, axis: int, parts: Sequence[Signal]) -> Signal:
    """A concatenation that knows its parts, which have the layout of the whole, one atom along the axis."""
    at = axis_atoms(out, axis)[0]
    if not any(out.batch) or out.batch[at]:
        return out
    sizes: list[int] = []
    cubes: list[Array] = []
    mixed: list[float] = []
    for p in parts:
        own = known(p)
        if own is None or own.axis != axis or own.cubes[0].shape != np.take(p.corr, [0], axis=at).shape:
            own = Pieces(axis, (p.shape[axis],), (np.take(p.corr, [0], axis=at),))
        sizes += own.sizes
        cubes += own.cubes
        mixed += own.mixed or [0.0] * len(own.sizes)
    if len(cubes) > _MOST or max(float(np.abs(c - cubes[0]).max()) for c in cubes) <= _DIFFERENT:
        return out
    return replace(out, pieces=(out.ident, Pieces(axis, tuple(sizes), tuple(cubes), tuple(mixed))))


def energies(x: Signal, pieces: Pieces) -> Array:
    """Share of each piece in Σ x²."""
    atoms = axis_atoms(x, pieces.axis)
    others = tuple(i for i in range(x.q.ndim) if i not in atoms)
    line = np.broadcast_to(x.q.mean(axis=others), tuple(x.atoms[i] for i in atoms)).reshape(-1)
    ends = np.cumsum(pieces.sizes)[:-1]
    found = np.array([float(part.sum()) for part in np.split(line, ends)])
    return found / max(float(found.sum()), 1e-300)


def common(x: Signal, atoms: Sequence[int], average: float) -> float | Array:
    """What a group has in common, as a share of its energy: of each piece where groups lie in one, else the average."""
    pieces = known(x)
    if pieces is None or axis_atoms(x, pieces.axis)[0] in atoms:
        return average
    at = axis_atoms(x, pieces.axis)[0]
    line = np.repeat([float(shared_cube(x, atoms, c).flat[0]) for c in pieces.cubes], pieces.sizes)
    return line.reshape([-1 if i == at else 1 for i in range(x.q.ndim)])


def reweighed(out: Signal, x: Signal, atoms: Sequence[int] = (), *, centred: bool = False) -> Signal:
    """What a norm has made of x: its correlations with the energies that the pieces have now.

    Args:
        out: Behind the norm.
        x: In front of it.
        atoms: Those of the group.
        centred: Whether what a group has in common has been taken away.
    """
    pieces = known(x)
    if pieces is None or out.shape != x.shape:
        return out
    mine = axis_atoms(out, pieces.axis)
    if len(out.atoms) - len(mine) != len(x.atoms) - 1:
        return out
    cubes, before = pieces.cubes, energies(x, pieces)
    if centred and axis_atoms(x, pieces.axis)[0] not in atoms:
        shared = [shared_cube(x, atoms, c) for c in cubes]
        left = np.array([max(1.0 - float(s.flat[0]), 1e-9) for s in shared])
        cubes = tuple((c - s) / n for c, s, n in zip(cubes, shared, left, strict=True))
        before = before * left / float(before @ left)
    more = np.asarray(sum(w * c for w, c in zip(energies(out, pieces) - before, cubes, strict=True)))
    here = tuple(slice(0, 1) if i in mine else slice(None) for i in range(out.corr.ndim))
    if more.size != out.corr[here].size:
        return out
    corr = np.array(out.corr)
    corr[here] = np.clip(corr[here] + more.reshape(corr[here].shape), -1.0, 1.0)
    corr[(0,) * corr.ndim] = 1.0
    kept = (out.ident, Pieces(pieces.axis, pieces.sizes, cubes, pieces.mixed)) if len(mine) == 1 else None
    return replace(out, corr=corr, pieces=kept)


def mapped(out: Signal, x: Signal) -> Signal:
    """Behind independent weights along the last axis: sites are as alike as before, units are not."""
    pieces = known(x)
    if pieces is None or pieces.axis == x.ndim - 1 or out.ndim != x.ndim:
        return out
    at, first = axis_atoms(x, pieces.axis)[0], len(x.atoms) - len(x.groups[-1])
    cubes: list[Array] = []
    for cube in pieces.cubes:
        same = cube[(..., *(0,) * len(x.groups[-1]))]
        new = np.zeros(np.take(out.corr, [0], axis=at).shape)
        if new.shape[:first] != same.shape:
            return out
        new[(..., *(0,) * (new.ndim - first))] = same
        cubes.append(new)
    return replace(out, pieces=(out.ident, Pieces(pieces.axis, pieces.sizes, tuple(cubes), pieces.mixed)))


def viewed(out: Signal, x: Signal) -> Signal:
    """A view of x: pieces are followed where their axis stays one."""
    pieces = known(x)
    if pieces is None or known(out) is not None or len(x.groups[pieces.axis]) != 1:
        return out
    at = axis_atoms(x, pieces.axis)[0]
    inner = prod(x.atoms[at + 1 :])
    axes = [k for k, group in enumerate(out.groups) if group == x.groups[pieces.axis]]
    axis = next((k for k in axes if prod(out.shape[k + 1 :]) == inner), None)
    if axis is None:
        return out
    plain = replace(x, source=None, values=None, view=None, pieces=None, value=None)
    laid = [reshape(replace(plain, corr=np.repeat(c, x.corr.shape[at], axis=at)), out.shape) for c in pieces.cubes]
    if any(s.atoms != out.atoms for s in laid):
        return out
    cubes = tuple(np.take(s.corr, [0], axis=axis_atoms(out, axis)[0]) for s in laid)
    return replace(out, pieces=(out.ident, Pieces(axis, pieces.sizes, cubes, pieces.mixed)))


def permuted(out: Signal, x: Signal, dims: Sequence[int]) -> Signal:
    """x with its axes in another order."""
    pieces = known(x)
    if pieces is None or known(out) is not None:
        return out
    axes = [d % x.ndim for d in dims]
    order = [a for d in axes for a in axis_atoms(x, d)]
    cubes = tuple(np.transpose(c, order) for c in pieces.cubes)
    return replace(out, pieces=(out.ident, Pieces(axes.index(pieces.axis), pieces.sizes, cubes, pieces.mixed)))


def without_axis(out: Signal, x: Signal, dim: int) -> Signal:
    """x without an axis of size 1."""
    pieces = known(x)
    if pieces is None or pieces.axis == dim:
        return out
    axis = pieces.axis - (dim < pieces.axis)
    return replace(out, pieces=(out.ident, Pieces(axis, pieces.sizes, pieces.cubes, pieces.mixed)))


def by_rows(out: Signal, query: Signal, attend: Callable[[Signal], Signal]) -> Signal:
    """Attention's output: the rows of a piece are as alike as their own queries make them, all see the same keys.

    Args:
        out: The output.
        query: Queries, of which pieces are known.
        attend: The output for other queries.
    """
    pieces = known(query)
    axis = query.ndim - 2
    if pieces is None or pieces.axis != axis or out.groups[axis] != query.groups[axis]:
        return out
    at, to = axis_atoms(query, axis)[0], axis_atoms(out, axis)[0]
    here = tuple(slice(0, 1) if i == at else slice(None) for i in range(query.corr.ndim))
    cubes: list[Array] = []
    for cube in pieces.cubes:
        corr = np.array(query.corr)
        corr[here] = cube
        cubes.append(np.take(attend(replace(query, corr=corr, pieces=None)).corr, [0], axis=to))
    found = Pieces(axis, pieces.sizes, tuple(cubes), pieces.mixed)
    corr, here = np.array(out.corr), tuple(slice(0, 1) if i == to else slice(None) for i in range(out.corr.ndim))
    corr[here] = sum(w * c for w, c in zip(energies(out, found), cubes, strict=True))
    return replace(out, corr=corr, pieces=(out.ident, found))


def bent(out: Signal, x: Signal) -> Signal:
    """Behind a pointwise function of x: each piece's correlations by Mehler's series, and their mean as the whole's."""
    pieces, source = known(x), out.source
    if pieces is None or x.source is not None or source is None or out.values is None or x.mean.any():
        return out
    power = source.share @ np.square(out.values @ source.grid.hermite)
    total = source.average(np.square(out.values))
    if total <= 0.0:
        return out
    rest = total - float(power.sum())
    cubes = tuple(powers(c, len(power)).series(power, rest) / total for c in pieces.cubes)
    at = axis_atoms(x, pieces.axis)[0]
    corr, here = np.array(out.corr), tuple(slice(0, 1) if i == at else slice(None) for i in range(out.corr.ndim))
    if corr[here].shape != cubes[0].shape:
        return out
    corr[here] = np.clip(sum(w * c for w, c in zip(energies(out, pieces), cubes, strict=True)), -1.0, 1.0)
    corr[(0,) * corr.ndim] = 1.0
    return replace(out, corr=corr, pieces=(out.ident, Pieces(pieces.axis, pieces.sizes, cubes, pieces.mixed)))


def added(out: Signal, x: Signal, y: Signal, alpha: float) -> Signal:
    """x + α·y, piece by piece."""
    pieces = known(x) or known(y)
    if pieces is None or out.shape != x.shape or len(axis_atoms(out, pieces.axis)) != 1:
        return out
    at = axis_atoms(out, pieces.axis)[0]
    mine = [_cubes(s, pieces, at) for s in (x, y)]
    shape = np.take(out.corr, [0], axis=at).shape
    if mine[0] is None or mine[1] is None or any(c.shape != shape for c in (*mine[0], *mine[1])):
        return out
    first, second = energies(x, pieces) * x.mean_q, energies(y, pieces) * (alpha * alpha * y.mean_q)
    cubes = tuple(
        (a * c + b * d) / max(a + b, 1e-300) for a, b, c, d in zip(first, second, mine[0], mine[1], strict=True)
    )
    shares = [(_mixed(s, len(cubes)), energy) for s, energy in ((x, first), (y, second))]
    mixed = sum((m * e for m, e in shares), start=np.zeros(len(cubes))) / np.maximum(first + second, 1e-300)
    return replace(out, pieces=(out.ident, Pieces(pieces.axis, pieces.sizes, cubes, tuple(mixed.tolist()))))


def _mixed(x: Signal, count: int) -> Array:
    """`Pieces.mixed` of a term of a sum; what is the same in all samples is so at every place."""
    pieces = known(x)
    if pieces is None:
        return np.full(count, float(x.corr[_two_samples(x, x.corr)] < 1.0))
    return np.array(pieces.mixed) if pieces.mixed else np.zeros(count)


def unsure(x: Signal, out: Signal) -> float:
    """How far a tensor of its own, cut out of x, is from its average piece; 0 where it is no piece or all is known."""
    pieces = known(x)
    if pieces is None or out.ndim >= x.ndim:
        return 0.0
    average = float(x.corr[_two_samples(x, x.corr)])
    apart = [abs(float(c[_two_samples(x, c)]) - average) for c in pieces.cubes]
    return max([a for a, m in zip(apart, pieces.mixed, strict=False) if m > _MIXED], default=0.0)


def _two_samples(x: Signal, cube: Array) -> tuple[int, ...]:
    return tuple(1 if b and n > 1 else 0 for b, n in zip(x.batch, cube.shape, strict=True))


def _cubes(x: Signal, pieces: Pieces, at: int) -> tuple[Array, ...] | None:
    """The cubes of the pieces of x: its own, or one for all."""
    own = known(x)
    if own is None:
        return (np.take(x.corr, [0], axis=at),) * len(pieces.sizes)
    return own.cubes if own.axis == pieces.axis and own.sizes == pieces.sizes else None


def _beside(out: Signal, x: Signal, pieces: Pieces, axis: int) -> Signal:
    """A range of another axis than that of the pieces, or one index of it."""
    if len(x.groups[axis]) != 1 or out.ndim != x.ndim:
        return out
    at = axis_atoms(x, axis)[0]
    cubes = pieces.cubes if out.groups[axis] else tuple(np.take(c, 0, axis=at) for c in pieces.cubes)
    return replace(out, pieces=(out.ident, Pieces(pieces.axis, pieces.sizes, cubes, pieces.mixed)))


def taken(out: Signal, x: Signal, axis: int, start: int, count: int) -> Signal:
    """A range of the axis: if it lies in one piece, its entries are as alike as those of that piece."""
    pieces = known(x)
    if pieces is None or out.source is not None:
        return out
    if pieces.axis != axis:
        return _beside(out, x, pieces, axis)
    ends = np.cumsum(pieces.sizes)
    which = int(np.searchsorted(ends, start, side="right"))
    if which >= len(ends) or start + count > ends[which]:
        return out
    at = axis_atoms(x, axis)[0]
    cube = pieces.cubes[which]
    if not out.groups[axis]:
        cube = np.take(cube, 0, axis=at)
        return replace(out, corr=np.array(cube)) if cube.shape == out.corr.shape else out
    corr = np.array(out.corr)
    here = tuple(slice(0, 1) if i == at else slice(None) for i in range(corr.ndim))
    if corr[here].shape == cube.shape:
        corr[here] = cube
    return replace(out, corr=corr)
