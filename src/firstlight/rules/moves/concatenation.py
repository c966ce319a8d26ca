"""Tensors side by side: concatenation and stacking weigh pairs by how often they occur."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.chains import side_by_side
from firstlight.rules.gradients.along import of_pieces
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.moves.ranges import range_of, take_index, take_range
from firstlight.rules.registry import Call, Grads, rule
from firstlight.rules.state import course, pieces, sites, twins
from firstlight.rules.state.cross import beside_of, cross
from firstlight.rules.state.empirical import constant
from firstlight.rules.state.forms import combine, covariance
from firstlight.rules.state.layout import axis_atoms, fit_states, merge_axis, offset, regroup, transform, with_states
from firstlight.rules.state.noise import mixed_wander, sample_correlation

_FEW = 6  # stacked tensors whose pairs are looked at one by one


def _between(x: Signal, y: Signal, at: int) -> Any:
    """Σ E x_i y_j over the pairs of entries of two pieces along an axis, however their other indices differ."""
    n, m = x.atoms[at], y.atoms[at]
    if twins.known(x) is None or twins.known(y) is None or n != m:
        return n * m * x.mean_mean * y.mean_mean
    cube = cross(x, y)[1]
    return n * np.take(cube, 0, axis=at) + n * (n - 1) * np.take(cube, 1, axis=at)


def join(parts: list[Signal], dim: int) -> Signal:
    """Concatenate along an axis: fields side by side, pairs weighted by how often they occur."""
    first = parts[0]
    dim %= first.ndim
    if len(parts) == 1:
        return first
    if all(p.value is not None for p in parts):
        return constant(np.concatenate([np.asarray(p.value) for p in parts], axis=dim))
    sizes = [p.shape[dim] for p in parts]
    total = sum(sizes)
    fitted: list[Signal] = []
    for p in parts:
        p = merge_axis(p, dim)
        if not p.groups[dim]:  # an axis of one entry becomes an atom like the others'
            p = _atom(p, dim)
        fitted.append(p)
    fitted = _same_layout(fitted, dim)
    at = offset(fitted[0], dim)
    rank = len(fitted[0].corr.shape)
    qs = [p.mean_q for p in fitted]
    weight = sum(n * q for n, q in zip(sizes, qs, strict=True))
    same = sum(n * q * np.take(p.corr, 0, axis=at) for n, q, p in zip(sizes, qs, fitted, strict=True))
    other = sum(n * (n - 1) * q * np.take(p.corr, 1, axis=at) for n, q, p in zip(sizes, qs, fitted, strict=True))
    between = sum(2.0 * _between(fitted[i], fitted[j], at) for i in range(len(fitted)) for j in range(i))
    roots = [n * q**0.5 for n, q in zip(sizes, qs, strict=True)]
    pairs = sum(roots) ** 2 - sum(n * q for n, q in zip(sizes, qs, strict=True))
    corr = np.ones((*(fitted[0].corr.shape[:at]), 2, *(fitted[0].corr.shape[at + 1 :])))
    if weight > 0:
        lower = np.asarray(same) / weight
        upper = (np.asarray(other) + between) / pairs if pairs > 0 else np.zeros_like(lower)
        corr = np.clip(np.stack([lower, upper], axis=at), -1.0, 1.0)
    fields: dict[str, Array] = {}
    for name in ("mean", "q"):
        arrays: list[Array] = [getattr(p, name) for p in fitted]
        if all(a.shape[at] == 1 and np.array_equal(a, arrays[0]) for a in arrays):
            fields[name] = arrays[0]
            continue
        shape = [max(a.shape[i] for a in arrays) for i in range(rank)]
        wide: list[Array] = []
        for a, n in zip(arrays, sizes, strict=True):
            shape[at] = n
            wide.append(np.broadcast_to(a, shape))
        fields[name] = np.concatenate(wide, axis=at)
    groups = (*fitted[0].groups[:dim], (total,), *fitted[0].groups[dim + 1 :])
    noise = fitted[0].noise
    if weight > 0:
        inherited = [(n * q / weight, p.noise) for n, q, p in zip(sizes, qs, fitted, strict=True)]
        linear = combine(inherited)
        gain = 0.5 * (sum(w * p.variance for w, p in inherited) - linear.variance)
        noise = combine(inherited, 0.0, gain)
    batch = tuple(any(p.batch[i] for p in fitted) for i in range(rank))
    out = Signal(
        groups, fields["mean"], fields["q"], corr, batch, gaussian=all(p.gaussian for p in fitted), noise=noise
    )
    energies = [(n * q, p) for n, q, p in zip(sizes, qs, fitted, strict=True)]
    out = replace(out, beside=_beside(energies))
    if fitted[0].batch[at]:
        return out
    out = side_by_side.side_by_side(course.joined(pieces.joined(out, dim, fitted), at, fitted), fitted, at)
    alike = all(p.wander == fitted[0].wander and q == qs[0] for p, q in zip(fitted, qs, strict=True))
    out = replace(out, wander=mixed_wander(energies, sample_correlation(out), alike=alike))
    return _with_lengths(out, dim, fitted)


def _beside(parts: list[tuple[float, Signal]]) -> tuple[int, float, float]:
    """`Signal.beside` of gradients side by side, the mean over their energies."""
    level, first = parts[0]
    for more, other in parts[1:]:
        first = replace(other, beside=beside_of(level, first, more, other))
        level += more
    return first.beside


def _with_lengths(out: Signal, dim: int, parts: list[Signal]) -> Signal:
    """How the lengths of sites scatter: parts of the units have their shares in it, as the terms of a sum have.

    Along other axes the parts are different sites: their lengths stand in the fields, place by place.
    """
    total = sum(p.mean_q * p.numel for p in parts)
    if total <= 0.0:
        return out
    shares = [p.mean_q * p.numel / total for p in parts]
    if not (dim == out.ndim - 1 or any(p.sites is not None and p.sites.units == p.shape[dim] for p in parts)):
        return out
    scatter = sum(
        a * b * _together(p, q) for a, p in zip(shares, parts, strict=True) for b, q in zip(shares, parts, strict=True)
    )
    made = sites.of_sum([(p.q, w, p.sites) for w, p in zip(shares, parts, strict=True)])
    if made is not None:
        made.units = out.shape[dim]
    return replace(out, scatter=scatter, sites=made)


def _together(x: Signal, y: Signal) -> float:
    """The covariance of the mean squares of two parts of a site: as far as their noises go together."""
    if x is y:
        return x.scatter
    free = (x.noise.variance * y.noise.variance) ** 0.5
    joint = covariance(x.noise, y.noise) / free if free > 0.0 else 0.0
    return joint * (max(x.scatter, 0.0) * max(y.scatter, 0.0)) ** 0.5


def _atom(x: Signal, dim: int) -> Signal:
    """Represent an axis of one entry by an atom (its "other" state is never met)."""
    at = offset(x, dim)

    def on_field(f: Any) -> Any:
        return np.expand_dims(f, at)

    def on_cube(c: Any) -> Any:
        return np.stack([c, np.full_like(c, 0.0)], axis=at)

    groups = (*x.groups[:dim], (1,), *x.groups[dim + 1 :])
    return transform(x, groups, (*x.batch[:at], False, *x.batch[at:]), on_field, on_cube, ("atom", dim))


def _same_layout(parts: list[Signal], dim: int) -> list[Signal]:
    """The same atoms on every axis but one."""
    base = parts[0]
    out = [base]
    for p in parts[1:]:
        for axis in range(base.ndim):
            if axis != dim and p.groups[axis] != base.groups[axis]:
                base, p = merge_axis(base, axis), merge_axis(p, axis)
        out.append(p)
    out[0] = base
    shaped: list[Signal] = []
    for p in out:
        groups = tuple(base.groups[a] if a != dim else p.groups[a] for a in range(base.ndim))
        shaped.append(regroup(p, groups))
    states = [max(s) for s in zip(*(p.corr.shape for p in shaped), strict=True)]
    return [with_states(p, states) for p in shaped]


@rule("cat", "hstack", "vstack", example="torch.cat([x, torch.relu(x)], dim=-1)")
def cat(call: Call, tensors: tuple[Signal, ...], dim: int = 0) -> Signal:
    """Concatenation."""
    if call.node.op == "hstack":
        dim = 1 if tensors[0].ndim > 1 else 0
    there = [t for t in tensors if 0 not in t.shape] or list(tensors[:1])
    return _in_new_order(there, dim) or join(there, dim)


def _in_new_order(parts: list[Signal], dim: int) -> Signal | None:
    """All ranges of one tensor, each once, in another order: its entries are moved, and it keeps its source."""
    found = [range_of(p, dim % p.ndim) for p in parts]
    whole_one = parts[0].root
    if len(parts) < 2 or any(f is None or p.root is not whole_one for f, p in zip(found, parts, strict=True)):
        return None
    order = [i for f in found if f is not None for i in f]
    return take_index(whole_one, dim, order) if sorted(order) == list(range(whole_one.shape[dim])) else None


@cat.adjoint
def _(call: Call, grad: Cotangent, out: Signal, tensors: tuple[Signal, ...], dim: int = 0) -> Grads:
    if call.node.op == "hstack":
        dim = 1 if tensors[0].ndim > 1 else 0
    parts: list[Cotangent | None] = [None] * len(tensors)
    there = [i for i, t in enumerate(tensors) if 0 not in t.shape]  # others are empty caches, say
    if not there:
        return {"tensors": tuple(parts)}
    given = tuple(tensors[i] for i in there)
    found = side_by_side.taken_apart(grad, out, given, dim % out.ndim)
    for i, known, g in zip(there, of_pieces(grad, given, dim), found, strict=True):
        parts[i] = replace(g, along=known)
    return {"tensors": tuple(parts)}


@rule("stack", example="torch.stack([x, torch.tanh(x)], dim=1).sum(1)")
def stack(call: Call, tensors: tuple[Signal, ...], dim: int = 0) -> Signal:
    """A new axis."""
    del call
    rank = tensors[0].ndim + 1
    dim %= rank
    parts = [replace(t, groups=(*t.groups[:dim], (), *t.groups[dim:]), value=None, ident=next_id()) for t in tensors]
    out = _related(join(parts, dim), tensors, dim)
    return replace(out, sites=sites.side_by_side([t.sites for t in tensors]))


def _related(out: Signal, tensors: tuple[Signal, ...], dim: int) -> Signal:
    """The pieces' cross moments at "another index" of the new axis."""
    at = axis_atoms(out, dim)
    atoms = {t.atoms for t in tensors}
    if len(at) != 1 or len(atoms) != 1 or not 1 < len(tensors) <= _FEW or out.mean_q <= 0.0:
        return out
    states = (*out.corr.shape[: at[0]], *out.corr.shape[at[0] + 1 :])
    pairs = [fit_states(cross(x, y)[1], states) for i, x in enumerate(tensors) for y in tensors[:i]]
    level = sum(t.mean_q**0.5 for t in tensors) ** 2 - sum(t.mean_q for t in tensors)
    corr = out.corr.copy()
    where: list[Any] = [slice(None)] * corr.ndim
    where[at[0]] = 1
    corr[tuple(where)] = np.clip(2.0 * np.sum(pairs, axis=0) / max(level, 1e-300), -1.0, 1.0)
    return replace(out, corr=corr)


@stack.adjoint
def _(call: Call, grad: Cotangent, out: Signal, tensors: tuple[Signal, ...], dim: int = 0) -> Grads:
    del call
    g = whole(grad)
    dim %= out.ndim
    parts: list[Cotangent] = []
    at = axis_atoms(g, dim)
    if len(at) == 1 and g.q.shape[at[0]] == 1 and float(np.take(g.corr, 1, axis=at[0]).flat[0]) > 1.0 - 1e-9:
        piece = take_range(g, dim, 0, 1, 1)  # a sum behind: all get the same gradient, not only one like it
        return {
            "tensors": (Cotangent(replace(piece, groups=(*piece.groups[:dim], *piece.groups[dim + 1 :]))),)
            * len(tensors)
        }
    for i in range(len(tensors)):
        piece = take_range(g, dim, i, i + 1, 1)
        parts.append(Cotangent(replace(piece, groups=(*piece.groups[:dim], *piece.groups[dim + 1 :]))))
    return {"tensors": tuple(parts)}
