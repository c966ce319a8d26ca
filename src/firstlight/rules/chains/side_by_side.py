"""Tensors side by side as functions of one source: each keeps its law in rows of its own.

Channels behind a rectifier next to channels that come out of a convolution (dense blocks, skips of a U-Net, branches
that are put together) are no Gaussians of one law. A norm of channels divides each by its own length, and the next
rectifier meets each piece's own values: of relu(norm(relu(u))) E f² is .74, of relu(norm(u)) ½. The pieces' sources are
independent of each other; one source has the rows of all, on nodes that split at the kinks of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, Source, replace
from firstlight.rules.chains.grids import MOST_KINKS, grid
from firstlight.rules.chains.source import as_source, spread
from firstlight.rules.gradients.gradient import joined, parts_of, whole
from firstlight.rules.moves.ranges import take_range
from firstlight.rules.state.forms import combine
from firstlight.rules.state.views import source_key
from firstlight.theory import cubic

_ROWS = 128  # of all pieces together
_NEAR = 1e-3  # of two kinks, in z, that are one
_EVEN = 1e-6  # what a field may vary by within a row


def side_by_side(out: Signal, parts: Sequence[Signal], at: int) -> Signal:
    """A concatenation of parts of its layout along an atom, on one source if one of them stands on a source."""
    if all(p.source is None for p in parts) or not all(_follows_a_law(p) for p in parts):
        return out
    chains = [as_source(p) for p in parts]
    if sum(len(s.sd) for s, _ in chains) > _ROWS or any(s.corr.shape != out.corr.shape for s, _ in chains):
        return out
    kinks: list[float] = []
    for k in sorted(k for s, _ in chains for k in s.grid.kinks):
        kinks += [k] if not kinks or k - kinks[-1] > _NEAR else []
    if len(kinks) > MOST_KINKS:
        return out
    nodes = grid(tuple(kinks), max(s.grid.level for s, _ in chains))
    sources, values = [s for s, _ in chains], [cubic.between(s.grid.z, v, nodes.z) for s, v in chains]
    sizes = np.array([p.atoms[at] for p in parts], dtype=np.float64)
    shares, pairs = sizes / sizes.sum(), sizes * (sizes - 1.0) / (sizes.sum() * (sizes.sum() - 1.0))
    same = sum(w * np.take(s.corr, 0, axis=at) for w, s in zip(shares, sources, strict=True))
    other = sum(w * np.take(s.corr, 1, axis=at) for w, s in zip(pairs, sources, strict=True))
    tables = [cubic.between(s.grid.z, s.values, nodes.z) for s in sources]
    mean, sd = np.concatenate([s.mean for s in sources]), np.concatenate([s.sd for s in sources])
    table = np.concatenate(tables)
    source = Source(
        source_key(out), mean, sd, np.concatenate([w * s.share for w, s in zip(shares, sources, strict=True)]),
        _beside([_row(s, p, at) for s, p in zip(sources, parts, strict=True)], [len(s.sd) for s in sources], at),
        np.stack([np.asarray(same), np.asarray(other)], axis=at), nodes,
        combine([(float(w), s.noise) for w, s in zip(shares, sources, strict=True)]),
        float(shares @ [s.scatter for s in sources]),
        quantiles=(table - mean[:, None]) / np.maximum(sd, 1e-300)[:, None], table=table,
        wander=float(shares @ [s.wander for s in sources]),
    )  # fmt: skip
    return replace(out, source=source, values=np.concatenate(values), gaussian=False)


def _follows_a_law(x: Signal) -> bool:
    return x.value is None and x.weights is None and not x.data and (x.gaussian or x.source is not None)


def _row(source: Source, part: Signal, at: int) -> Array:
    """The row of each entry of a part along the atom."""
    row = np.zeros((1,) * len(part.atoms)) if source.row is None else source.row
    return np.broadcast_to(row, (*row.shape[:at], part.atoms[at], *row.shape[at + 1 :]))


def _beside(rows: Sequence[Array], counts: Sequence[int], at: int) -> Array:
    """Rows of all parts, those of each behind those of the parts before it."""
    starts = np.cumsum([0, *counts[:-1]])
    shape = [max(r.shape[i] for r in rows) for i in range(rows[0].ndim)]
    moved = [
        np.broadcast_to(r + start, (*shape[:at], r.shape[at], *shape[at + 1 :]))
        for r, start in zip(rows, starts, strict=True)
    ]
    return np.concatenate(moved, axis=at)


def taken_apart(grad: Cotangent, out: Signal, tensors: Sequence[Signal], dim: int) -> list[Cotangent]:
    """The gradient of each part: what it has met on the common source it has met on the part's own."""
    key = out.source.key if out.source is not None and out.source.key == source_key(out) else None
    sources = [as_source(x)[0] for x in tensors] if key is not None else []
    ends = np.cumsum([len(s.sd) for s in sources])
    found: list[list[Cotangent]] = [[] for _ in tensors]
    cut: dict[tuple[int, int], Signal] = {}
    for p in parts_of(grad) if key is not None else (Cotangent(whole(grad)),):
        on = p.source if p.values is not None and p.stray is None else None
        on = on if on is not None and on.key == key else None
        base, start = p.base if on is not None else whole(p), 0
        for i, x in enumerate(tensors):
            stop = start + x.shape[dim]
            piece = cut.get((base.ident, i))
            if piece is None:
                piece = cut[base.ident, i] = take_range(base, dim, start, stop, 1)
            start = stop
            if on is None or p.values is None:
                found[i].append(Cotangent(piece))
                continue
            rows = slice(ends[i] - len(sources[i].sd), ends[i])
            own = _finer(sources[i], on, rows)
            found[i].append(Cotangent(piece, own, p.values[rows], x, forked=p.forked))
    return [joined(parts) for parts in found]


def _finer(source: Source, on: Source, rows: slice) -> Source:
    """A part's source on the nodes of the common one."""
    table = on.values[rows]
    quantiles = (table - source.mean[:, None]) / np.maximum(source.sd, 1e-300)[:, None]
    return replace(source, grid=on.grid, quantiles=quantiles, table=table)


def by_row(source: Source, field: Array) -> Array:
    """A field's mean over each row of a source."""
    if field.size == 1 or source.row is None:
        return np.full(len(source.sd), float(field.mean()))
    row, wide = (a.ravel() for a in np.broadcast_arrays(source.row, field))
    low, n = row.astype(np.intp), len(source.sd)
    part, high = row - low, np.minimum(low + 1, n - 1)
    met = np.bincount(low, 1.0 - part, n) + np.bincount(high, part, n)
    found = np.bincount(low, (1.0 - part) * wide, n) + np.bincount(high, part * wide, n)
    return np.asarray(found / np.where(met > 0.0, met, 1.0))


def follows_rows(source: Source, field: Array) -> bool:
    """Whether a field is the same all over each row."""
    apart = np.abs(spread(source, by_row(source, field), field.ndim) - field).max()
    return field.size == 1 or float(apart) <= _EVEN * float(np.abs(field).max())
