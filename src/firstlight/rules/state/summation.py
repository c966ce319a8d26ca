"""Sums and means over atoms of a tensor, whose entries have pair moments."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from firstlight.graph.signal import Array, Groups, Signal
from firstlight.rules.state import lengths, sites, unitwise
from firstlight.rules.state.layout import correlations, moments, state_weights


def without(groups: Groups, gone: Sequence[int], *, keep_axes: bool) -> Groups:
    """Groups after atoms have been summed away."""
    out: list[tuple[int, ...]] = []
    k = 0
    for group in groups:
        rest = tuple(n for i, n in enumerate(group) if k + i not in gone)
        k += len(group)
        if rest or not group or keep_axes:
            out.append(rest)
    return tuple(out)


TOTAL = "total"  # tag of y = c·Σx: E x_i y = w·E y², w = 1/(c·n), for the x_i of a sum on average


def rooted(x: Signal) -> tuple[float, int]:
    """(a, ident of z) of x = a·z, as far back as it is no more than that."""
    factor = 1.0
    while len(x.terms) == 1 and x.terms[0][0]:
        factor, x = factor * x.terms[0][0], x.terms[0][1]
    return factor, x.ident


def centred(ident: int) -> int:
    """The name in tags of x - x̄, whose mean square var(x) is."""
    return -ident


def is_centred(x: Signal, name: int) -> bool:
    """Whether a tensor is y - ȳ of the y whose centred form has this name."""
    if name >= 0 or len(x.terms) != 2:
        return False
    (one, y), (other, mean) = x.terms
    known = mean.tag is not None and mean.tag[0] in (TOTAL, "sum")
    return known and one == 1.0 and other == -1.0 and centred(y.ident) == name


def _tag(x: Signal, scale: float, count: int) -> tuple[str, int, float]:
    factor, ident = rooted(x)
    return TOTAL, ident, 1.0 / (scale * count * factor)


def count_along(f: Array, sizes: Sequence[int], axes: tuple[int, ...]) -> float:
    """How many entries each entry of a broadcastable field stands for along the axes."""
    return float(prod([sizes[i] for i in axes if f.shape[i] == 1]))


def sum_atoms(
    x: Signal, atoms: Sequence[int], *, mean: bool = False, keep_axes: bool = True, kept: float | None = None
) -> Signal:
    """Sum (or mean) over atoms.

    q' = Σ_i q_i + ĉ·[(Σ_i √q_i)² - Σ_i q_i], ĉ the mean correlation over pairs of different summed entries.

    Args:
        x: The tensor.
        atoms: What is summed away.
        mean: Whether to divide by the number of entries.
        keep_axes: Whether axes without atoms stay.
        kept: q'/Σ_i q_i where it is the same for every sum, however many entries count in it (rows behind a mask);
            None where ĉ is.
    """
    gone = tuple(sorted(atoms))
    if not gone:
        return x
    sizes = x.atoms
    total = prod(sizes[i] for i in gone)
    scale = 1.0 / total if mean else 1.0
    first = x.mean.sum(axis=gone) * count_along(x.mean, sizes, gone) * scale
    repeat = count_along(x.q, sizes, gone)
    diagonal = x.q.sum(axis=gone) * repeat
    root = np.sqrt(x.q).sum(axis=gone) * repeat
    off = np.maximum(np.square(root) - diagonal, 0.0)
    weights = np.ones((1,) * len(gone))
    for k, i in enumerate(gone):
        w = state_weights(sizes[i], x.corr.shape[i])
        weights = weights * w.reshape((1,) * k + (-1,) + (1,) * (len(gone) - k - 1))
    weights = weights.reshape(-1).copy()
    weights[0] = 0.0
    rest = [i for i in range(len(sizes)) if i not in gone]
    order = [*rest, *gone]
    shape = tuple(x.corr.shape[i] for i in rest)
    cube = np.transpose(moments(x), order).reshape(*shape, -1)
    same = cube[..., 0]
    pairs = weights.sum()
    other = cube @ (weights / pairs) if pairs > 0 else np.zeros_like(same)
    origin = (0,) * same.ndim
    # ĉ: the mean correlation of pairs within one site's sum, from the mean pair moments
    inner = float(off.mean()) / max(float(diagonal.mean()), 1e-300) / pairs if pairs > 0 else 1.0
    hat = float(other[origin]) / inner if inner > 0 else 0.0
    hat = min(max(float(hat), -1.0), 1.0)
    total_q = diagonal + off * hat if kept is None else diagonal * kept
    q = np.maximum(total_q, np.square(first / scale)) * scale**2
    corr = correlations(same + pairs * other, q)
    groups = without(x.groups, gone, keep_axes=keep_axes)
    made = None
    if x.sites is not None and not any(x.batch[i] for i in gone):
        made, both = sites.summed(x.sites, total)
        q = lengths.times(q, both)
    out = Signal(
        groups=groups,
        mean=first,
        q=q,
        corr=corr,
        batch=tuple(x.batch[i] for i in rest),
        noise=x.noise,
        scatter=x.scatter,
        gaussian=total >= 16,
        sites=made,
        tag=_tag(x, scale, total),
    )
    return unitwise.with_laws(out, unitwise.still_there(x.common, x, out))
