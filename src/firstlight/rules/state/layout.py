"""Atoms, fields and cubes: how structural changes of a tensor move its statistics (docs/signal.md §1)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from math import prod
from operator import mul

import numpy as np

from firstlight.graph.course import moved_courses
from firstlight.graph.signal import Array, Groups, Signal, Source, next_id, replace
from firstlight.rules.state.profile import profile as profile
from firstlight.rules.state.profile import state_weights as state_weights
from firstlight.rules.state.views import moved_key, origin, then, unchanged

FieldMap = Callable[[Array], Array]


def promote(cube: Array, states: Sequence[int]) -> Array:
    """Give the cube the asked number of states per atom; a missing neighbour state copies "other"."""
    for axis, wanted in enumerate(states):
        if cube.shape[axis] < wanted:
            other = np.take(cube, [1], axis=axis)
            cube = np.concatenate([cube, other], axis=axis)
    return cube


def transform(
    x: Signal,
    groups: Groups,
    batch: tuple[bool, ...],
    on_field: FieldMap,
    on_cube: FieldMap,
    tag: Hashable = None,
    *,
    value: object = None,
) -> Signal:
    """Apply a change of layout to every field and cube; a tag changes the identity of the source."""
    source = x.source
    if source is not None:
        row = None if source.row is None else on_field(source.row)
        key = source.key if tag is None else moved_key(source.key, tag)
        moved = moved_courses(source.courses, on_field, len(x.atoms))
        source = replace(source, row=row, corr=on_cube(source.corr), key=key, courses=moved)
    steps = x.viewed[1] if tag is None else then(x.viewed[1], tag)
    if tag is not None and not steps and x.root is not x and unchanged(x):
        return regroup(x.root, groups)  # its atoms may have been split since
    ident = x.ident if tag is None else next_id()
    courses = moved_courses(x.course, on_field, len(x.atoms))
    out = replace(
        x, groups=groups, batch=batch, mean=on_field(x.mean), q=on_field(x.q), corr=on_cube(x.corr), source=source,
        terms=(), value=value, ident=ident, view=(ident, x.root, steps),
        courses=(ident, courses) if courses else None,
    )  # fmt: skip
    known = x.given is not None and x.given[0] == x.ident
    return replace(out, given=(ident, on_field(x.given[1]))) if known and x.given is not None else out


def offset(x: Signal, axis: int) -> int:
    """Index of the first atom of a tensor axis."""
    return sum(len(g) for g in x.groups[: axis % len(x.groups)])


def axis_atoms(x: Signal, axis: int) -> tuple[int, ...]:
    """Atoms of a tensor axis."""
    start = offset(x, axis)
    return tuple(range(start, start + len(x.groups[axis % len(x.groups)])))


def _merge_field(i: int, a: int, b: int) -> FieldMap:
    def on_field(f: Array) -> Array:
        if f.shape[i] == 1 and f.shape[i + 1] == 1:
            return f.reshape((*f.shape[:i], 1, *f.shape[i + 2 :]))
        full = np.broadcast_to(f, (*f.shape[:i], a, b, *f.shape[i + 2 :]))
        return full.reshape((*f.shape[:i], a * b, *f.shape[i + 2 :]))

    return on_field


def _merge_cube(i: int, a: int, b: int) -> FieldMap:
    def on_cube(c: Array) -> Array:
        w = np.outer(state_weights(a, c.shape[i]), state_weights(b, c.shape[i + 1]))
        w[0, 0] = 0.0
        moved = np.moveaxis(c, (i, i + 1), (-2, -1))
        other = (moved * (w / w.sum())).sum(axis=(-2, -1))
        return np.stack([moved[..., 0, 0], other], axis=i)

    return on_cube


def merge(x: Signal, i: int) -> Signal:
    """Merge atoms i and i+1, whatever axes they belong to (the first one's axis keeps the product)."""
    atoms, a, b = x.atoms, x.atoms[i], x.atoms[i + 1]
    flat = (*atoms[:i], a * b, *atoms[i + 2 :])
    batch = (*x.batch[:i], x.batch[i] or x.batch[i + 1], *x.batch[i + 2 :])
    return transform(x, (flat,), batch, _merge_field(i, a, b), _merge_cube(i, a, b), value=x.value)


def split(x: Signal, i: int, a: int, b: int) -> Signal:
    """Split atom i into a outer and b inner indices."""
    atoms = x.atoms
    flat = (*atoms[:i], a, b, *atoms[i + 1 :])
    batch = (*x.batch[:i], x.batch[i], x.batch[i], *x.batch[i + 1 :])

    def on_field(f: Array) -> Array:
        inner = (1, 1) if f.shape[i] == 1 else (a, b)
        return f.reshape(f.shape[:i] + inner + f.shape[i + 1 :])

    def on_cube(c: Array) -> Array:
        same, other = np.take(c, 0, axis=i), np.take(c, 1, axis=i)
        last = np.take(c, c.shape[i] - 1, axis=i)
        rows = [np.stack([same, other, last], axis=i), np.stack([other, other, other], axis=i)]
        if c.shape[i] == 2 or b < 3:
            rows = [np.stack([same, last], axis=i), np.stack([other, other], axis=i)]
        return np.stack(rows, axis=i)

    return transform(x, (flat,), batch, on_field, on_cube, value=x.value)


def _suffixes(sizes: Sequence[int]) -> list[int]:
    """Products of the sizes from each position to the end, that of the last one first."""
    return list(itertools.accumulate(reversed(sizes), mul))


def _refit(x: Signal, wanted: Sequence[int], *, force: bool = False) -> Signal:
    """Split and, where needed, merge atoms until every border in `wanted` (suffix products) is one of theirs.

    With `force`, borders that are not wanted are merged away.
    """
    total = x.numel
    chain = sorted({b for b in wanted if b < total} | {1, total})
    keep = list(chain)
    for border in _suffixes(x.atoms):
        if border in keep or force:
            continue
        lower = max(b for b in keep if b < border)
        upper = min(b for b in keep if b > border)
        if border % lower == 0 and upper % border == 0:
            keep = sorted([*keep, border])
    i = len(x.atoms) - 1
    while i > 0:
        if prod(x.atoms[i:]) not in keep:
            x = merge(x, i - 1)
        i -= 1
    i = len(x.atoms) - 1
    while i >= 0:
        low = prod(x.atoms[i + 1 :])
        high = low * x.atoms[i]
        inside = [b for b in keep if low < b < high]
        if inside:
            border = max(inside)
            x = split(x, i, high // border, border // low)
            i += 1
        else:
            i -= 1
    return x


def _group(atoms: Sequence[int], shape: Sequence[int]) -> Groups:
    """Distribute atoms over the axes of a shape whose borders are all among theirs."""
    out: list[tuple[int, ...]] = []
    k = 0
    for n in shape:
        taken: list[int] = []
        while prod(taken) < n:
            taken.append(atoms[k])
            k += 1
        out.append(tuple(taken))
    return tuple(out)


def reshape(x: Signal, shape: Sequence[int]) -> Signal:
    """View with another shape; the identity of a pointwise chain changes with the shape, not with its atoms."""
    step = ("reshape", x.shape, tuple(shape))
    back = origin(x, step)
    out = _refit(x, _suffixes(shape if back is None else back), force=back is not None)
    groups = _group(out.atoms, shape)
    value = None if x.value is None else x.value.reshape(shape)
    return transform(out, groups, out.batch, np.asarray, np.asarray, step, value=value)


def merge_axis(x: Signal, axis: int) -> Signal:
    """Make one tensor axis a single atom."""
    axis %= x.ndim
    groups = list(x.groups)
    start = offset(x, axis)
    size = prod(groups[axis]) if groups[axis] else 1
    for _ in range(len(groups[axis]) - 1):
        x = merge(x, start)
    groups[axis] = (size,) if size > 1 else ()
    return replace(x, groups=tuple(groups))


def permute(x: Signal, dims: Sequence[int]) -> Signal:
    """Reorder tensor axes."""
    dims = [d % x.ndim for d in dims]
    order = [a for d in dims for a in axis_atoms(x, d)]
    groups = tuple(x.groups[d] for d in dims)
    batch = tuple(x.batch[a] for a in order)
    value = None if x.value is None else np.transpose(x.value, dims)
    if dims == list(range(x.ndim)):
        return x

    def move(f: Array) -> Array:
        return np.transpose(f, order)

    return transform(x, groups, batch, move, move, ("permute", tuple(dims)), value=value)


def insert_atoms(x: Signal, at: int, sizes: Sequence[int]) -> tuple[FieldMap, FieldMap]:
    """Maps that insert atoms along which the tensor repeats itself."""
    k = len(sizes)

    def on_field(f: Array) -> Array:
        return f.reshape(f.shape[:at] + (1,) * k + f.shape[at:])

    def on_cube(c: Array) -> Array:
        full = c.reshape(c.shape[:at] + (1,) * k + c.shape[at:])
        return np.broadcast_to(full, c.shape[:at] + (2,) * k + c.shape[at:])

    return on_field, on_cube


def expand(x: Signal, groups: Groups, batch: Sequence[tuple[bool, ...]] | None = None) -> Signal:
    """Repeat along axes of size 1 (and leading axes that are absent) to reach the groups."""
    missing = len(groups) - x.ndim
    if missing > 0:
        x = replace(x, groups=((),) * missing + x.groups)
    changed = False
    for axis, wanted in enumerate(groups):
        if x.groups[axis] or not wanted:
            continue
        at = offset(x, axis)
        on_field, on_cube = insert_atoms(x, at, wanted)
        flags = batch[axis] if batch is not None else (False,) * len(wanted)
        new = (*x.groups[:axis], tuple(wanted), *x.groups[axis + 1 :])
        labels = (*x.batch[:at], *flags, *x.batch[at:])
        tag = ("expand", axis, tuple(wanted))
        x = transform(x, new, labels, on_field, on_cube, tag, value=x.value)
        changed = True
    if changed and x.value is not None:
        x = replace(x, value=np.broadcast_to(x.value, x.shape))
    return x


def common(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Atoms that refine both factorisations of one axis; the whole axis where none does."""
    borders = sorted({1, *_suffixes(left), *_suffixes(right)})
    for low, high in itertools.pairwise(borders):
        if high % low:
            return (borders[-1],)
    return tuple(high // low for low, high in itertools.pairwise(borders))[::-1]


def regroup(x: Signal, groups: Groups) -> Signal:
    """Bring the atoms of every axis to the asked ones (same sizes per axis)."""
    if x.groups == groups:
        return x
    flat = [n for g in groups for n in g]
    out = _refit(x, _suffixes(flat), force=True)
    return replace(out, groups=groups)


def align(x: Signal, y: Signal) -> tuple[Signal, Signal]:
    """Broadcast two signals against each other and give them the same atoms and states."""
    rank = max(x.ndim, y.ndim)
    left = ((),) * (rank - x.ndim) + x.groups
    right = ((),) * (rank - y.ndim) + y.groups
    if left != right or x.ndim != y.ndim:
        target: list[tuple[int, ...]] = []
        for a, b in zip(left, right, strict=True):
            target.append(common(a, b) if a and b else (a or b))
        groups = tuple(target)
        parts: list[Signal] = []
        labels: list[list[tuple[bool, ...]]] = []
        for item in (x, y):
            own = ((),) * (rank - item.ndim) + item.groups
            kept = tuple(g if o else () for g, o in zip(groups, own, strict=True))
            fitted = regroup(replace(item, groups=own), kept)
            parts.append(fitted)
            labels.append([tuple(fitted.batch[i] for i in axis_atoms(fitted, d)) for d in range(rank)])
        x = expand(parts[0], groups, labels[1])
        y = expand(parts[1], groups, labels[0])
    if x.corr.shape != y.corr.shape:
        states = [max(a, b) for a, b in zip(x.corr.shape, y.corr.shape, strict=True)]
        x, y = with_states(x, states), with_states(y, states)
    return x, y


def with_states(x: Signal, states: Sequence[int]) -> Signal:
    """Promote the cubes of a signal (and of its source) to the asked numbers of states."""
    if x.corr.shape == tuple(states):
        return x
    source: Source | None = x.source
    if source is not None:
        source = replace(source, corr=promote(source.corr, states))
    return replace(x, corr=promote(x.corr, states), source=source)


def keep_first(x: Signal, axis: int, size: int, pick: FieldMap, tag: Hashable, value: object) -> Signal:
    """Change the size of one axis by choosing or repeating indices of it; `pick` acts on a merged full field."""
    if len(x.groups[axis]) > 1:
        x = merge_axis(x, axis)
    at = offset(x, axis)
    if not x.groups[axis]:
        x = expand(x, (*x.groups[:axis], (2,), *x.groups[axis + 1 :]))
        x = replace(x, value=None)
    n = x.groups[axis][0]
    drop = size <= 1

    def on_field(f: Array) -> Array:
        if f.shape[at] > 1:
            f = pick(np.broadcast_to(f, (*f.shape[:at], n, *f.shape[at + 1 :])))
        return f.reshape(f.shape[:at] + f.shape[at + 1 :]) if drop else f

    def on_cube(c: Array) -> Array:
        return np.take(c, 0, axis=at) if drop else c

    groups = (*x.groups[:axis], () if drop else (size,), *x.groups[axis + 1 :])
    batch = (*x.batch[:at], *x.batch[at + 1 :]) if drop else x.batch
    return transform(x, groups, batch, on_field, on_cube, tag, value=value)


def moments(x: Signal) -> Array:
    """Mean pair moments at each index of the cube, relative to the mean of q."""
    return x.corr if x.q.size == 1 else x.corr * profile(x.q, x.corr.shape)


def correlations(raw: Array, q: Array) -> Array:
    """Normalised correlations from mean pair moments (any scale) and the field of q."""
    origin = (0,) * raw.ndim
    first = raw.item(origin)
    if not first > 0.0:
        return np.ones_like(raw)
    out = np.asarray(raw / first)
    if q.size > 1:
        out = np.asarray(out / np.maximum(profile(q, raw.shape), 1e-12))
    np.minimum(np.maximum(out, -1.0, out=out), 1.0, out=out)
    out[origin] = 1.0
    return out


def fit_states(cube: Array, states: Sequence[int]) -> Array:
    """A cube with the asked states per atom: neighbours are dropped or taken like others."""
    for axis, wanted in enumerate(states):
        if cube.shape[axis] > wanted:
            cube = np.take(cube, range(wanted), axis=axis)
    return promote(cube, states)
