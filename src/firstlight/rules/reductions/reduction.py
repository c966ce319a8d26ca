"""Reductions over axes: sums and means divide what entries have not in common, norms and variances concentrate."""

from __future__ import annotations

from collections.abc import Sequence
from math import gamma, pi, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.along import Along
from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.attention.bent_logits import log_sum_of
from firstlight.rules.attention.hiding import seen_of, visible
from firstlight.rules.attention.shares import RETURNED
from firstlight.rules.attention.softmax import soft
from firstlight.rules.chains.source import spread
from firstlight.rules.composed.composed import gradients_of
from firstlight.rules.composed.orders import (
    back_to_singular_values,
    logsumexp_over,
    matrix_norm_of_order,
    matrix_order,
    norm_of_order,
    of_singular_values,
)
from firstlight.rules.composed.tape import Tape
from firstlight.rules.gradients.along import mixed, of_summands
from firstlight.rules.gradients.gradient import scale, whole
from firstlight.rules.linear.contraction import energy_cube, product
from firstlight.rules.pointwise.elementwise import Pointwise, apply
from firstlight.rules.pointwise.merge import shifted
from firstlight.rules.registry import EXCHANGEABLE, Call, Grads, rule, several
from firstlight.rules.state import sites
from firstlight.rules.state.layout import axis_atoms, correlations, expand, moments
from firstlight.rules.state.projection import group_pairs, shared_cube
from firstlight.rules.state.quadrature import by_length
from firstlight.rules.state.summation import centred, sum_atoms

_NOTHING = 1e-12  # share of a mean square that is no more than rounding


def axes_of(x: Signal, dim: Any) -> list[int]:
    """The axes meant by torch's `dim`: none given means all."""
    if dim is None or dim == ():
        return list(range(x.ndim))
    return [int(d) % x.ndim for d in (dim if several(dim) else (dim,))]


def reduced(x: Signal, dim: Any, keepdim: bool, *, mean: bool) -> Signal:
    """Sum (or mean) over axes."""
    axes = axes_of(x, dim)
    out = sum_atoms(replace(x, source=None, values=None), [a for k in axes for a in axis_atoms(x, k)], mean=mean)
    if axes == [x.ndim - 2] and x.scatter != 0.0 and not any(x.batch[a] for a in axis_atoms(x, axes[0])):
        out = replace(out, scatter=x.scatter * _in_step(x, axes[0]))
    if axes == [x.ndim - 1] and x.shape[-1] > 1:
        out = _with_lengths(out, x, 1.0 if mean else float(x.shape[-1]))
    if not keepdim:
        out = replace(out, groups=tuple(g for k, g in enumerate(out.groups) if k not in axes))
    return replace(out, noise=x.noise, ident=next_id())


def _in_step(x: Signal, axis: int) -> float:
    """What is left of the scatter of sites when they are added: of unlike ones each has lengths of its own.

    Σ_r V_r of sites with mean squares q_r and correlations c of their entries scatters by Σq_r²/(Σq_r)² of what one
    does, and by c² of the rest.
    """
    atoms = axis_atoms(x, axis)
    level = x.q.mean(axis=tuple([a for a in range(x.q.ndim) if a not in atoms]), keepdims=True)
    level = np.broadcast_to(level, [n if a in atoms else 1 for a, n in enumerate(x.atoms)])
    total = float(level.sum())
    own = float(np.square(level).sum()) / total**2 if total > 0.0 else 1.0
    n = level.size
    alike = (n * float(shared_cube(x, atoms).flat[0]) - 1.0) / max(n - 1.0, 1.0)
    return own + (1.0 - own) * min(max(alike, 0.0), 1.0) ** 2


def _with_lengths(out: Signal, x: Signal, count: float) -> Signal:
    """A sum over the units f(u) of a site, whose u have one variance V in common that scatters from site to site.

    Given V, pairs of units are what the cube says; over sites their means E[f|V] go with V, which adds
    count²·τ²·(dE[f|V]/dln V)² to the sum's square: τ²q² for the mean square of a tensor.
    """
    if x.source is None or x.values is None or x.source.scatter <= 0.0:
        return out
    slope = spread(x.source, by_length(x.source, x.values), len(x.atoms)).mean(axis=axis_atoms(x, -1))
    q = out.q + x.source.scatter * np.square(count * slope)
    level, grown = out.mean_q, float(q.mean())
    if level <= 0.0 or grown <= level:
        return out
    corr = np.array(out.corr * (level / grown))  # a number, where no axis is left
    corr[(0,) * corr.ndim] = 1.0
    return replace(out, q=q, corr=corr, scatter=0.0)


def spread_over(g: Signal, x: Signal, dim: Any, keepdim: bool, factor: float) -> Signal:
    """The adjoint of a reduction: a gradient times a factor, repeated over the axes of x that were reduced."""
    axes = axes_of(x, dim)
    groups = list(g.groups)
    if not keepdim:
        for k in sorted(axes):
            groups.insert(k, ())
    wide = replace(g, groups=tuple(groups), source=None, values=None, value=None, lean=0.0)
    labels = [tuple(x.batch[a] for a in axis_atoms(x, k)) for k in range(x.ndim)]
    target = tuple(x.groups[k] if k in axes else wide.groups[k] for k in range(x.ndim))
    full = expand(wide, target, [lab if k in axes else (False,) * len(target[k]) for k, lab in enumerate(labels)])
    return scale(full, factor)


@rule("mean", "nanmean", assumes=(EXCHANGEABLE,), example="x.mean(1, keepdim=True) + x")
def mean(call: Call, input: Signal, dim: Any = None, keepdim: bool = False) -> Signal:
    """q' = q/k + (1 - 1/k) r over k entries."""
    del call
    out = reduced(input, dim, keepdim, mean=True)
    if input.tag is not None and input.tag[0] == "square":
        out = replace(out, tag=("mean square", input.tag[1], out.mean_mean))
        return sites.mean_squares(out, input.sites)
    return out


@mean.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: Any = None, keepdim: bool = False) -> Grads:
    del call
    wide = spread_over(whole(grad), input, dim, keepdim, out.numel / input.numel)
    return {"input": Cotangent(wide, along=_along(grad, input, dim, keepdim))}


@rule("sum", "nansum", assumes=(EXCHANGEABLE,), example="x.view(-1, 8, 8).sum(1)")
def sum_(call: Call, input: Signal, dim: Any = None, keepdim: bool = False) -> Signal:
    """q' = k q + k(k-1) r."""
    del call
    out = reduced(input, dim, keepdim, mean=False)
    if not keepdim or input.mean.min() <= 0.0:
        return out
    return replace(out, tag=("sum", input.ident, out.numel / input.numel))


@sum_.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: Any = None, keepdim: bool = False) -> Grads:
    del call
    if grad.base.tag is not None and grad.base.tag[:2] == (RETURNED, input.ident):
        return {}
    wide = spread_over(whole(grad), input, dim, keepdim, 1.0)
    known = _along(grad, input, dim, keepdim) or of_summands(grad, input, out, axes_of(input, dim))
    return {"input": Cotangent(wide, along=known)}


def _along(grad: Cotangent, x: Signal, dim: Any, keepdim: bool, degree: float = 1.0) -> Along | None:
    """Behind a function of the last axis that is homogeneous of some degree: Σ g·x = degree·(g·y)."""
    one = keepdim and axes_of(x, dim) == [x.ndim - 1]
    return mixed([(degree, grad.along)]) if one and grad.along is not None else None


def _variance(x: Signal, dim: Any, keepdim: bool, unbiased: bool) -> Signal:
    """Mean v = q - r̄ over the axes, fluctuating like a mean of squares."""
    axes = axes_of(x, dim)
    atoms = [a for k in axes for a in axis_atoms(x, k)]
    n = prod(x.atoms[a] for a in atoms)
    shared = shared_cube(x, atoms)
    common = float(shared[(0,) * shared.ndim])
    v = np.maximum(x.q.mean(axis=tuple(atoms), keepdims=True) * (1.0 - common), 0.0)
    if unbiased and n > 1:
        v = v * (n / (n - 1.0))
    relative = float(np.sum(group_pairs(x, atoms) * np.maximum(energy_cube(_centred(x, shared)), 0.0)))
    out = _positive(x, axes, keepdim, v, relative)
    return replace(out, tag=("mean square", centred(x.ident), out.mean_mean))


def _centred(x: Signal, shared: Array) -> Signal:
    """x - x̄ of a group, with whose squares the group's variance fluctuates; `shared` is the cube of what x̄ has."""
    if x.source is not None and x.values is not None:
        return replace(x, values=x.values - x.mean_mean)
    raw = np.broadcast_to(moments(x), x.corr.shape) - shared
    if raw[(0,) * raw.ndim] <= _NOTHING:
        return x
    return replace(x, corr=correlations(raw, x.q), mean=np.zeros_like(x.mean))


def _positive(x: Signal, axes: Sequence[int], keepdim: bool, m: Array, relative: float) -> Signal:
    """A positive tensor with mean field m and a relative variance, independent between sites."""
    atoms = tuple(a for k in axes for a in axis_atoms(x, k))
    m = m.squeeze(axis=atoms)
    rest = [i for i in range(len(x.atoms)) if i not in atoms]
    corr = np.full(tuple(x.corr.shape[i] for i in rest), 1.0 / (1.0 + relative))
    corr[(0,) * corr.ndim] = 1.0
    groups = [() if k in axes else g for k, g in enumerate(x.groups)]
    if not keepdim:
        groups = [g for k, g in enumerate(groups) if k not in axes]
    return Signal(
        tuple(groups), m, np.square(m) * (1.0 + relative), corr, tuple(x.batch[i] for i in rest), noise=x.noise
    )


@rule("var", assumes=(EXCHANGEABLE,), example="x.var(1, keepdim=True) + x")
def var(
    call: Call, input: Signal, dim: Any = None, unbiased: bool = True, keepdim: bool = False, correction: Any = None
) -> Signal:
    """Variance over axes."""
    del call
    return _variance(input, dim, keepdim, unbiased and correction != 0)


@rule("std", assumes=(EXCHANGEABLE,), example="x.std(1, keepdim=True) + x")
def std(
    call: Call, input: Signal, dim: Any = None, unbiased: bool = True, keepdim: bool = False, correction: Any = None
) -> Signal:
    """Standard deviation over axes."""
    del call
    v = _variance(input, dim, keepdim, unbiased and correction != 0)
    out = _power_of(v, 0.5)
    return replace(out, tag=("rms", centred(input.ident), out.mean_q**0.5))


def _power_of(v: Signal, p: float) -> Signal:
    """v^p for a positive tensor that fluctuates little (log-normal)."""
    s2 = np.log(np.maximum(v.q / np.maximum(np.square(v.mean), 1e-300), 1.0))
    log_mean = np.log(np.maximum(v.mean, 1e-300)) - 0.5 * s2
    m = np.exp(p * log_mean + 0.5 * p * p * s2)
    q = np.exp(2.0 * p * log_mean + 2.0 * p * p * s2)
    return replace(v, mean=m, q=q, terms=(), ident=next_id())


def _var_back(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: Any = None, **rest: Any) -> Grads:
    axes = axes_of(input, dim)
    atoms = [a for k in axes for a in axis_atoms(input, k)]
    n = prod(input.atoms[a] for a in atoms)
    keepdim = bool(rest.get("keepdim", False))
    g = spread_over(whole(grad), input, dim, keepdim, 2.0 / max(n - 1, 1))
    v = max(input.mean_q - input.mean_mean**2, 0.0)
    size = v if call.node.op == "var" else 0.25
    form = _along(grad, input, dim, keepdim, 2.0 if call.node.op == "var" else 1.0)
    return {
        "input": Cotangent(replace(g, q=g.q * size, mean=g.mean * 0.0, terms=(), tag=None, ident=next_id()), along=form)
    }


var.adjoint(_var_back)


std.adjoint(_var_back)


def _order(call: Call, p: Any, dim: Any) -> tuple[Any, Any]:
    """Order and axes of a norm: norms of matrices are Frobenius' over the last two axes if nothing is said."""
    if call.node.op in ("linalg_matrix_norm", "frobenius_norm"):
        return "fro" if p is None else p, (-2, -1) if dim is None else dim
    return p, dim


def _of_matrices(call: Call, x: Signal, p: Any, dim: Any) -> bool:
    """Whether a norm is one of matrices, other than Frobenius'."""
    op = call.node.op
    return op != "linalg_vector_norm" and matrix_order(x, p, dim, vector=op == "norm")


def _singular(p: Any) -> bool:
    return isinstance(p, str) or abs(float(p)) == 2.0


@rule(
    "norm", "linalg_vector_norm", "linalg_norm", "linalg_matrix_norm", "frobenius_norm", assumes=(EXCHANGEABLE,),
    example="x.norm(dim=1, keepdim=True) + x",
)  # fmt: skip
def norm(call: Call, input: Signal, p: Any = None, dim: Any = None, keepdim: bool = False, ord: Any = None) -> Signal:
    """Euclidean norm over axes, or one of another order, also of matrices."""
    p, dim = _order(call, p if ord is None else ord, dim)
    if _of_matrices(call, input, p, dim):
        if not _singular(p):
            return matrix_norm_of_order(Tape(call), input, float(p), dim, keepdim)
        if (found := of_singular_values(call)) is not None:
            return found
        call.caveat(f"the norm {p!r}: taken as the Euclidean one")
        p = "fro"
    if not _euclidean(p):
        return norm_of_order(Tape(call), input, p, dim, keepdim)
    axes = axes_of(input, dim)
    atoms = [a for k in axes for a in axis_atoms(input, k)]
    n = prod(input.atoms[a] for a in atoms)
    m = input.q.mean(axis=tuple(atoms), keepdims=True) * n
    relative = float(np.sum(group_pairs(input, atoms) * np.maximum(energy_cube(input), 0.0)))
    out = _power_of(_positive(input, axes, keepdim, m, relative), 0.5)
    return replace(out, tag=("rms", input.ident, out.mean_q**0.5))


@norm.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, p: Any = None, dim: Any = None, keepdim: bool = False,
    ord: Any = None,
) -> Grads:  # fmt: skip
    p, dim = _order(call, p if ord is None else ord, dim)
    if _of_matrices(call, input, p, dim):
        if not _singular(p):
            return gradients_of(matrix_norm_of_order, call, grad, input=input, order=float(p), dim=dim, keepdim=keepdim)
        if call.sampler is not None:
            return back_to_singular_values(call, grad)
        p = "fro"
    if not _euclidean(p) and (float(p) == 1.0 or np.isinf(float(p))):
        return gradients_of(norm_of_order, call, grad, input=input, p=p, dim=dim, keepdim=keepdim)
    g = spread_over(whole(grad), input, dim, keepdim, 1.0)
    n = input.numel / max(out.numel, 1)
    form = _along(grad, input, dim, keepdim)
    # times x/|x| it is no sum of the gradient's entries any more
    q = g.q * _share(n, 2.0 if _euclidean(p) else float(p))
    g = replace(g, q=q, mean=g.mean * 0.0, terms=(), tag=None, ident=next_id())
    return {"input": Cotangent(g, along=form)}


def _share(n: float, p: float) -> float:
    """E |x|^(2p-2)/(E Σ|x|^p)^((2p-2)/p) of n normal entries: the square of their norm's slope, 1/n for p = 2."""
    moments = [2.0 ** (0.5 * k) * gamma(0.5 * (k + 1.0)) / pi**0.5 for k in (2.0 * p - 2.0, p)]
    return 1.0 / n if p == 2.0 or p <= 0.5 else moments[0] / (n * moments[1]) ** ((2.0 * p - 2.0) / p)


def _euclidean(p: Any) -> bool:
    return p is None or isinstance(p, str) or float(p) in (0.0, 2.0)  # of order 0, a count, there is no gradient


@rule("logsumexp", example="x.logsumexp(1, keepdim=True) + x")
def logsumexp(call: Call, input: Signal, dim: Any, keepdim: bool = False) -> Signal:
    """ln Σ e^x = x̄ + ln Σ e^(x - x̄): the mean, of which rows have in common what they have, and one more number.

    Of n visible entries with the variance v within a row that number has the mean and the variance that `log_softmax`
    takes from it, for any law; v/n of the variance is the mean's own. Several axes are one. Where entries differ in
    size along the axes ln of a sum of log-normals, to second order.
    """
    axes = axes_of(input, dim)
    atoms = [a for k in axes for a in axis_atoms(input, k)]
    tag = ("logsumexp", input.ident, float(axes[0])) if len(axes) == 1 and keepdim else None
    seen = seen_of(input)
    x = input if seen is None else _evenly(visible(input, seen))
    if any(f.shape[a] > 1 for f in (x.mean, x.q) for a in atoms):
        return replace(_log_of_sum(call, input, dim, keepdim), tag=tag)
    full = prod(x.atoms[a] for a in atoms)
    counts = np.full(1, float(full)) if seen is None else _visible_entries(seen, x, atoms)
    within = float(np.sum(group_pairs(x, atoms) * x.corr))
    v = x.mean_q * max(1.0 - within, 0.0) * full / max(full - 1, 1)
    kinds, which = np.unique(counts, return_inverse=True)
    sums = np.array([log_sum_of(x, v, round(n)) for n in kinds.tolist()])
    total, spread = (sums[which, i].reshape(counts.shape) for i in (0, 1))
    out = reduced(x, dim, keepdim, mean=True)
    if seen is None:
        out = shifted(out, float(total[0]))
        q = out.q + max(float(spread[0]) - v / full, 0.0)
    else:  # rows of fewer keys have smaller sums
        mean = out.mean + total
        q = np.square(mean) + (out.q - np.square(out.mean)) + np.maximum(spread - v / counts, 0.0)
        out = replace(out, mean=mean, source=None, values=None)
    return replace(out, q=q, corr=correlations(out.mean_q * moments(out), q), terms=(), tag=tag, ident=next_id())


def _evenly(x: Signal) -> Signal:
    """Fields that have one value as one number."""
    one = (1,) * len(x.atoms)
    fields = {k: f for k, f in (("mean", x.mean), ("q", x.q)) if float(np.ptp(f)) <= 1e-9 * float(np.abs(f).max())}
    return replace(x, **{k: np.full(one, f.flat[0]) for k, f in fields.items()})


def _visible_entries(seen: NDArray[np.bool_], x: Signal, atoms: Sequence[int]) -> Array:
    """How many entries of each row are visible, over some atoms; a field of the others."""
    full = prod(x.atoms[a] for a in atoms if seen.shape[a] == 1)
    counted: Array = np.maximum(seen.sum(axis=tuple(atoms)) * float(full), 1.0)
    return counted


def _log_of_sum(call: Call, x: Signal, dim: Any, keepdim: bool) -> Signal:
    top = float(x.mean.max())  # so that e^x does not overflow
    e = apply(call, shifted(x, -top), Pointwise(np.exp, np.exp))
    s = reduced(e, dim, keepdim, mean=False)
    m, q = s.mean, np.maximum(s.q, np.square(s.mean))
    s2 = np.log(np.maximum(q / np.square(m), 1.0))
    log_mean = top + np.log(m) - 0.5 * s2
    total = np.square(log_mean) + s2
    # Logits that are large scatter from draw to draw as their length does; the noise of e^x has no mean then.
    return replace(s, mean=log_mean, q=total, corr=np.clip(s.corr, -1, 1), noise=x.noise, ident=next_id())


@logsumexp.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: Any, keepdim: bool = False) -> Grads:
    del out
    axes = axes_of(input, dim)
    if len(axes) > 1:
        return gradients_of(logsumexp_over, call, grad, input=input, dim=dim, keepdim=keepdim)
    p = soft(call, input, axes[0])
    wide = spread_over(whole(grad), input, dim, keepdim, 1.0)
    return {"input": Cotangent(product(wide, p))}
