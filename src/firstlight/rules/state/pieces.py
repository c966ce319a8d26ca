"""Tensors side by side whose samples (or positions) are not equally alike: a class token, skips of other layers.

One cube is the mean over the pieces by their energies. A norm gives every group the same energy, an index takes one
piece out, and a sum adds to each piece: then the pieces' own correlations count, which the signal carries that far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstlight.graph.pieces import Pieces
from firstlight.graph.signal import Array, Signal, powers, replace
from firstlight.rules.state.layout import axis_atoms
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
    if not any(out.batch) or len(parts) > _MOST or out.batch[at]:
        return out
    cubes = [np.take(p.corr, [0], axis=at) for p in parts]
    if max(float(np.abs(c - cubes[0]).max()) for c in cubes) <= _DIFFERENT:
        return out
    return replace(out, pieces=(out.ident, Pieces(axis, tuple(p.shape[axis] for p in parts), tuple(cubes))))


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
    shares = [(_mixed(known(s), len(cubes)), energy) for s, energy in ((x, first), (y, second))]
    mixed = sum((m * e for m, e in shares), start=np.zeros(len(cubes))) / np.maximum(first + second, 1e-300)
    return replace(out, pieces=(out.ident, Pieces(pieces.axis, pieces.sizes, cubes, tuple(mixed.tolist()))))


def _mixed(pieces: Pieces | None, count: int) -> Array:
    """`Pieces.mixed` of a term of a sum."""
    if pieces is None:
        return np.ones(count)
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


def taken(out: Signal, x: Signal, axis: int, start: int, count: int) -> Signal:
    """A range of the axis: if it lies in one piece, its entries are as alike as those of that piece."""
    pieces = known(x)
    if pieces is None or pieces.axis != axis or out.source is not None:
        return out
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
