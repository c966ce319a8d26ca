"""Reductions and windows: means divide what entries have not in common, maxima follow the law of the largest."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, Source, next_id, replace
from firstlight.rules.affine import numbers
from firstlight.rules.contraction import energy_cube, sum_atoms
from firstlight.rules.elementwise import Pointwise, apply, back
from firstlight.rules.gradient import scale, times, whole
from firstlight.rules.layout import axis_atoms, expand
from firstlight.rules.normalization import group_pairs, shared_cube
from firstlight.rules.registry import EXCHANGEABLE, GAUSSIAN_INPUT, Call, Grads, rule
from firstlight.rules.source import as_source
from firstlight.rules.windows import along, drop_single, fixed_map, pair_average, single, window, with_atom
from firstlight.theory import special
from firstlight.theory.gaussian import gauss_nodes


def _axes(x: Signal, dim: Any) -> list[int]:
    if dim is None or dim == ():
        return list(range(x.ndim))
    return [int(d) % x.ndim for d in (dim if isinstance(dim, tuple) else (dim,))]


def _reduced(x: Signal, dim: Any, keepdim: bool, *, mean: bool) -> Signal:
    axes = _axes(x, dim)
    out = sum_atoms(replace(x, source=None, values=None), [a for k in axes for a in axis_atoms(x, k)], mean=mean)
    if not keepdim:
        out = replace(out, groups=tuple(g for k, g in enumerate(out.groups) if k not in axes))
    return replace(out, noise=x.noise, ident=next_id())


def _spread(g: Signal, x: Signal, dim: Any, keepdim: bool, factor: float) -> Signal:
    axes = _axes(x, dim)
    groups = list(g.groups)
    if not keepdim:
        for k in sorted(axes):
            groups.insert(k, ())
    wide = replace(g, groups=tuple(groups), source=None, values=None, value=None)
    labels = [tuple(x.batch[a] for a in axis_atoms(x, k)) for k in range(x.ndim)]
    target = tuple(x.groups[k] if k in axes else wide.groups[k] for k in range(x.ndim))
    full = expand(wide, target, [lab if k in axes else (False,) * len(target[k]) for k, lab in enumerate(labels)])
    return scale(full, factor)


@rule("mean", "nanmean", assumes=(EXCHANGEABLE,), example="x.mean(1, keepdim=True) + x")
def mean(call: Call, input: Signal, dim: Any = None, keepdim: bool = False) -> Signal:
    """q' = q/k + (1 - 1/k) r over k entries."""
    del call
    out = _reduced(input, dim, keepdim, mean=True)
    if input.tag is not None and input.tag[0] == "square":
        return replace(out, tag=("mean square", input.tag[1], out.mean_mean))
    return out


@mean.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: Any = None, keepdim: bool = False) -> Grads:
    del call
    return {"input": Cotangent(_spread(whole(grad), input, dim, keepdim, out.numel / input.numel))}


@rule("sum", "nansum", assumes=(EXCHANGEABLE,), example="x.view(-1, 8, 8).sum(1)")
def sum_(call: Call, input: Signal, dim: Any = None, keepdim: bool = False) -> Signal:
    """q' = k q + k(k-1) r."""
    del call
    return _reduced(input, dim, keepdim, mean=False)


@sum_.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: Any = None, keepdim: bool = False) -> Grads:
    del call, out
    return {"input": Cotangent(_spread(whole(grad), input, dim, keepdim, 1.0))}


def _variance(x: Signal, dim: Any, keepdim: bool, unbiased: bool) -> Signal:
    """Mean v = q - r̄ over the axes, fluctuating like a mean of squares."""
    axes = _axes(x, dim)
    atoms = [a for k in axes for a in axis_atoms(x, k)]
    n = prod(x.atoms[a] for a in atoms)
    shared = shared_cube(x, atoms)
    common = float(shared[(0,) * shared.ndim])
    v = np.maximum(x.q.mean(axis=tuple(atoms), keepdims=True) * (1.0 - common), 0.0)
    if unbiased and n > 1:
        v = v * (n / (n - 1.0))
    relative = float(np.sum(group_pairs(x, atoms) * np.maximum(energy_cube(x), 0.0)))
    return _positive(x, axes, keepdim, v, relative)


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
    return _power_of(v, 0.5)


def _power_of(v: Signal, p: float) -> Signal:
    """v^p for a positive tensor that fluctuates little (log-normal)."""
    s2 = np.log(np.maximum(v.q / np.maximum(np.square(v.mean), 1e-300), 1.0))
    log_mean = np.log(np.maximum(v.mean, 1e-300)) - 0.5 * s2
    m = np.exp(p * log_mean + 0.5 * p * p * s2)
    q = np.exp(2.0 * p * log_mean + 2.0 * p * p * s2)
    return replace(v, mean=m, q=q, terms=(), ident=next_id())


def _var_back(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: Any = None, **rest: Any) -> Grads:
    axes = _axes(input, dim)
    atoms = [a for k in axes for a in axis_atoms(input, k)]
    n = prod(input.atoms[a] for a in atoms)
    keepdim = bool(rest.get("keepdim", False))
    g = _spread(whole(grad), input, dim, keepdim, 2.0 / max(n - 1, 1))
    v = max(input.mean_q - input.mean_mean**2, 0.0)
    size = v if call.node.op == "var" else 0.25
    return {"input": Cotangent(replace(g, q=g.q * size, mean=g.mean * 0.0, ident=next_id()))}


var.adjoint(_var_back)
std.adjoint(_var_back)


@rule("norm", "linalg_vector_norm", "linalg_norm", assumes=(EXCHANGEABLE,), example="x.norm(dim=1, keepdim=True) + x")
def norm(call: Call, input: Signal, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Signal:
    """Euclidean norm over axes."""
    if p not in (2, 2.0, "fro", None):
        call.caveat("a norm other than the Euclidean one: taken as the Euclidean one")
    axes = _axes(input, dim)
    atoms = [a for k in axes for a in axis_atoms(input, k)]
    n = prod(input.atoms[a] for a in atoms)
    m = input.q.mean(axis=tuple(atoms), keepdims=True) * n
    relative = float(np.sum(group_pairs(input, atoms) * np.maximum(energy_cube(input), 0.0)))
    return _power_of(_positive(input, axes, keepdim, m, relative), 0.5)


@norm.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Grads:
    del call, p
    g = _spread(whole(grad), input, dim, keepdim, 1.0)
    n = input.numel / max(out.numel, 1)
    return {"input": Cotangent(replace(g, q=g.q / n, mean=g.mean * 0.0, ident=next_id()))}


@functools.lru_cache(maxsize=1024)
def _largest(k: int, rho: float) -> tuple[Array, Array]:
    """Nodes and weights of the largest of k standard Gaussians with correlation ρ: √ρ z + √(1-ρ)·max of k."""
    nodes = gauss_nodes((0.0,))
    z, w = nodes.z, nodes.weights
    top = w * k * special.ndtr(z) ** (k - 1)
    if rho <= 1e-9:
        return z, top
    coarse = np.polynomial.hermite_e.hermegauss(16)
    u = np.sqrt(rho) * coarse[0][:, None] + np.sqrt(1.0 - rho) * z[None, :]
    return u.ravel(), (coarse[1][:, None] / coarse[1].sum() * top[None, :]).ravel()


def largest(call: Call, x: Signal, k: int, rho: float) -> tuple[Signal, float]:
    """Moments of the largest of k entries with correlation ρ of their source; the map must not decrease."""
    source, values = as_source(x)
    z, w = _largest(int(k), float(np.clip(rho, 0.0, 1.0)))
    first, second = np.empty(len(source.sd)), np.empty(len(source.sd))
    falling = False
    for row in range(len(source.sd)):
        v = np.interp(z, source.grid.z, values[row])
        falling = falling or bool(values[row][-1] < values[row][0])
        first[row], second[row] = float(w @ v), float(w @ np.square(v))
    if falling or bool(np.any(np.diff(values, axis=1) < -0.2 * np.abs(values).max() / 10)):
        call.caveat("the largest entry of a function that is not increasing: taken as if it were")
    from firstlight.rules.source import spread

    n = len(x.atoms)
    m, q = spread(source, first, n), spread(source, second, n)
    total = float(source.share @ second)
    average = float(source.share @ np.square(first))
    free = np.clip(source.corr, -1.0, 1.0)
    corr = np.clip((average + (total - average) * free) / total, -1.0, 1.0) if total > 0 else np.ones_like(free)
    return replace(
        x, mean=m, q=np.maximum(q, np.square(m)), corr=corr, source=None, values=None, gaussian=False, terms=(),
        value=None, weights=None, ident=next_id(),
    ), total  # fmt: skip


def _window(call: Call, x: Signal, kernel: Any, stride: Any, padding: Any, dilation: Any, n: int) -> tuple[list[int], dict[int, Array]]:
    axes = list(range(x.ndim - n, x.ndim))
    k = numbers(kernel, n)
    s = k if stride is None or stride == () else numbers(stride, n)
    outs = call.node.outputs[0].shape[-n:]
    maps = {
        a: window(x.shape[a], o, kk, ss, pp, dd)
        for a, o, kk, ss, pp, dd in zip(axes, outs, k, s, numbers(padding, n), numbers(dilation, n), strict=True)
    }
    return axes, maps


def _max(call: Call, x: Signal, maps: dict[int, Array]) -> Signal:
    """Maximum over windows: the number of taps that fall inside, their correlation as near as neighbours."""
    x = single(x, list(maps))
    for axis in maps:
        x = with_atom(x, axis) if not x.groups[axis] else x
    k = max(1, round(prod(float(m.sum()) / m.shape[0] for m in maps.values())))
    source, _ = as_source(x)
    centred = replace(x, corr=source.corr)
    rho = _window_correlation(centred, centred.corr, maps)
    big, _ = largest(call, x, k, rho)
    mean, q, corr = big.mean, big.q, big.corr
    groups = list(big.groups)
    for axis, m in maps.items():
        at = axis_atoms(big, axis)[0]
        rows = np.maximum(m.sum(axis=1, keepdims=True), 1.0)
        mean, q = along(mean, at, m / rows), along(q, at, m / rows)
        if corr.shape[at] == 3:
            corr = np.take(corr, [0, 1], axis=at)
        groups[axis] = (m.shape[0],)
    out = replace(big, groups=tuple(groups), mean=mean, q=q, corr=corr, source=None, values=None)
    return replace(drop_single(out), noise=x.noise, ident=next_id())


def _window_correlation(x: Signal, corr: Array, maps: dict[int, Array]) -> float:
    """Mean correlation between entries of one window: neighbours along one axis or along all."""
    atoms = [a for axis in maps for a in axis_atoms(x, axis)]
    if not atoms:
        return 0.0
    index = tuple(corr.shape[i] - 1 if i in atoms else 0 for i in range(corr.ndim))
    one_axis = [tuple(corr.shape[i] - 1 if i == j else 0 for i in range(corr.ndim)) for j in atoms]
    return float(np.mean([corr[index], *(corr[i] for i in one_axis)]))


def chosen(source: Source, k: int, rho: float) -> Array:
    """√P(an entry is the largest of k | its source), on the source's nodes, for increasing functions of it."""
    rho = float(np.clip(rho, 0.0, 0.999))
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    z = source.grid.z
    common = rho**0.5 * z[:, None] + (1.0 - rho) ** 0.5 * nodes[None, :]
    inside = special.ndtr((z[:, None] - rho**0.5 * common) / (1.0 - rho) ** 0.5) ** (k - 1)
    p = inside @ (weights / weights.sum())
    return np.broadcast_to(np.sqrt(p), source.values.shape)


def _max_gradient(grad: Cotangent, x: Signal, maps: dict[int, Array]) -> Cotangent:
    """Each output's gradient goes to its largest tap: on x's source a factor √P(largest | u)."""
    g = _max_back(whole(grad), x, maps)
    k = max(1, round(prod(float(m.sum()) / m.shape[0] for m in maps.values())))
    source, _ = as_source(x)
    rho = _window_correlation(x, source.corr, maps)
    taken = prod(max(float(m.sum()) / m.shape[0], 1.0) for m in maps.values())
    factor = chosen(source, k, rho)
    share = float(source.share @ (np.square(factor) @ source.grid.weights))
    base = replace(g, q=g.q / max(share * 1.0, 1e-12), ident=next_id())
    del taken
    return times(Cotangent(base), x, source, factor)


def _max_back(g: Signal, x: Signal, maps: dict[int, Array]) -> Signal:
    """Each output's gradient goes to one of its taps."""
    taps = prod(max(float(m.sum()) / m.shape[0], 1.0) for m in maps.values())
    g = single(g, list(maps))
    for axis in maps:
        g = with_atom(g, axis) if not g.groups[axis] else g
    q, corr, groups = g.q / taps, g.corr, list(g.groups)
    for axis, m in maps.items():
        at = axis_atoms(g, axis)[0]
        q = along(q, at, np.ascontiguousarray(m.T))
        if corr.shape[at] == 3:
            corr = np.take(corr, [0, 1], axis=at)
        corr = corr.copy()
        index: list[Any] = [slice(None)] * corr.ndim
        index[at] = 1
        corr[tuple(index)] = corr[tuple(index)] / taps
        groups[axis] = (m.shape[1],)
    out = replace(
        g, groups=tuple(groups), mean=np.zeros((1,) * q.ndim), q=q, corr=corr, source=None, values=None, terms=(),
        ident=next_id(),
    )  # fmt: skip
    del x
    return drop_single(out)


def _pool_rules(n: int) -> None:
    """max_pool and avg_pool in n dimensions."""

    def max_forward(
        call: Call, input: Signal, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
    ) -> Any:
        _, maps = _window(call, input, kernel_size, stride, padding, dilation, n)
        out = _max(call, input, maps)
        return (out, out) if len(call.node.outputs) > 1 else out

    def max_backward(
        call: Call, grad: Any, out: Any, input: Signal, kernel_size: Any, stride: Any = None, padding: Any = 0,
        dilation: Any = 1,
    ) -> Grads:  # fmt: skip
        del out
        g = grad[0] if isinstance(grad, tuple) else grad
        _, maps = _window(call, input, kernel_size, stride, padding, dilation, n)
        return {"input": _max_gradient(g, input, maps)} if g is not None else {}

    def avg(call: Call, input: Signal, kernel_size: Any, stride: Any, padding: Any, count_include_pad: bool) -> dict[int, Array]:
        _, maps = _window(call, input, kernel_size, stride, padding, 1, n)
        sizes = numbers(kernel_size, n)
        return {
            a: m / (k if count_include_pad else np.maximum(m.sum(axis=1, keepdims=True), 1.0))
            for (a, m), k in zip(maps.items(), sizes, strict=True)
        }

    def avg_forward(
        call: Call, input: Signal, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Signal:  # fmt: skip
        del ceil_mode
        return fixed_map(input, avg(call, input, kernel_size, stride, padding, count_include_pad))

    def avg_backward(
        call: Call, grad: Cotangent, out: Signal, input: Signal, kernel_size: Any, stride: Any = None,
        padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    ) -> Grads:  # fmt: skip
        del ceil_mode, out
        maps = avg(call, input, kernel_size, stride, padding, count_include_pad)
        return {"input": Cotangent(fixed_map(whole(grad), {a: np.ascontiguousarray(m.T) for a, m in maps.items()}))}

    shape = {1: "-1, 8, 8", 2: "-1, 4, 4, 4", 3: "-1, 1, 4, 4, 4"}[n]
    rule(f"max_pool{n}d", assumes=(EXCHANGEABLE,), example=f"F.max_pool{n}d(x.view({shape}), 2)")(max_forward).adjoint(
        max_backward
    )
    rule(f"avg_pool{n}d", assumes=(EXCHANGEABLE,), example=f"F.avg_pool{n}d(x.view({shape}), 2)")(avg_forward).adjoint(
        avg_backward
    )

    def adaptive(call: Call, input: Signal) -> dict[int, Array]:
        axes = range(input.ndim - n, input.ndim)
        return {a: _adaptive(input.shape[a], call.node.outputs[0].shape[a]) for a in axes}

    def ad_avg(call: Call, input: Signal, output_size: Any = None) -> Signal:
        del output_size
        return fixed_map(input, adaptive(call, input))

    def ad_avg_back(call: Call, grad: Cotangent, out: Signal, input: Signal, output_size: Any = None) -> Grads:
        del output_size, out
        maps = adaptive(call, input)
        return {"input": Cotangent(fixed_map(whole(grad), {a: np.ascontiguousarray(m.T) for a, m in maps.items()}))}

    def counts(call: Call, input: Signal) -> dict[int, Array]:
        return {a: (m > 0).astype(np.float64) for a, m in adaptive(call, input).items()}

    def ad_max(call: Call, input: Signal, output_size: Any = None) -> Any:
        del output_size
        out = _max(call, input, counts(call, input))
        return (out, out) if len(call.node.outputs) > 1 else out

    def ad_max_back(call: Call, grad: Any, out: Any, input: Signal, output_size: Any = None) -> Grads:
        del output_size, out
        g = grad[0] if isinstance(grad, tuple) else grad
        return {"input": _max_gradient(g, input, counts(call, input))} if g is not None else {}

    rule(f"adaptive_avg_pool{n}d", assumes=(EXCHANGEABLE,), example=f"F.adaptive_avg_pool{n}d(x.view({shape}), 2)")(
        ad_avg
    ).adjoint(ad_avg_back)
    rule(f"adaptive_max_pool{n}d", assumes=(EXCHANGEABLE,), example=f"F.adaptive_max_pool{n}d(x.view({shape}), 2)")(
        ad_max
    ).adjoint(ad_max_back)


@functools.lru_cache(maxsize=256)
def _adaptive(size: int, out: int) -> Array:
    a = np.zeros((out, size))
    for s in range(out):
        low, high = (s * size) // out, -((-(s + 1) * size) // out)
        a[s, low:high] = 1.0 / (high - low)
    a.setflags(write=False)
    return a


for _n in (1, 2, 3):
    _pool_rules(_n)


@rule("max", "amax", "min", "amin", assumes=(EXCHANGEABLE, GAUSSIAN_INPUT), example="x.amax(1, keepdim=True) + x")
def max_(call: Call, input: Signal, dim: Any = None, keepdim: bool = False) -> Any:
    """Largest (smallest) entry over axes."""
    if isinstance(dim, Signal):
        from firstlight.rules.merge import _extreme  # pyright: ignore[reportPrivateUsage]

        return _extreme(call, input, dim, 1.0 if call.node.op == "max" else -1.0)
    axes = _axes(input, dim)
    atoms = [a for k in axes for a in axis_atoms(input, k)]
    k = prod(input.atoms[a] for a in atoms)
    source, _ = as_source(input)
    rho = pair_average(replace(input, corr=source.corr), atoms)
    sign = 1.0 if call.node.op in ("max", "amax") else -1.0
    big, _ = largest(call, scale(input, sign), k, rho)
    big = scale(big, sign)
    out = _reduced(replace(big, corr=np.ones_like(big.corr) if not atoms else big.corr), dim, keepdim, mean=True)
    one = (1,) * len(out.atoms)
    out = replace(out, mean=np.full(one, big.mean_mean), q=np.full(one, big.mean_q), ident=next_id())
    return (out, out) if len(call.node.outputs) > 1 else out


@max_.adjoint
def _(call: Call, grad: Any, out: Any, input: Signal, dim: Any = None, keepdim: bool = False) -> Grads:
    g = grad[0] if isinstance(grad, tuple) else grad
    if g is None:
        return {}
    if isinstance(dim, Signal):
        half = scale(whole(g), 0.5**0.5)
        return {"input": Cotangent(half), "dim": Cotangent(half)}
    first = out[0] if isinstance(out, tuple) else out
    del call
    return {"input": Cotangent(_spread(whole(g), input, dim, keepdim, (first.numel / input.numel) ** 0.5))}


@rule("logsumexp", example="x.logsumexp(1, keepdim=True) + x")
def logsumexp(call: Call, input: Signal, dim: Any, keepdim: bool = False) -> Signal:
    """ln Σ e^x: ln of a sum of log-normals, to second order."""
    e = apply(call, input, Pointwise(np.exp, np.exp))
    s = _reduced(e, dim, keepdim, mean=False)
    m, q = s.mean, np.maximum(s.q, np.square(s.mean))
    s2 = np.log(np.maximum(q / np.square(m), 1.0))
    log_mean = np.log(m) - 0.5 * s2
    total = np.square(log_mean) + s2
    return replace(s, mean=log_mean, q=total, corr=np.clip(s.corr, -1, 1), noise=s.noise, ident=next_id())


@logsumexp.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: Any, keepdim: bool = False) -> Grads:
    from firstlight.rules.attention import soft
    from firstlight.rules.contraction import product

    del out
    axes = _axes(input, dim)
    p = soft(call, input, axes[0])
    wide = _spread(whole(grad), input, dim, keepdim, 1.0)
    return {"input": Cotangent(product(wide, p))}


def _resize_maps(call: Call, x: Signal, mode: str, align_corners: Any) -> dict[int, Array]:
    maps: dict[int, Array] = {}
    for axis in range(2, x.ndim):
        maps[axis] = _resize(x.shape[axis], call.node.outputs[0].shape[axis], mode, bool(align_corners))
    return maps


@functools.lru_cache(maxsize=256)
def _resize(size: int, out: int, mode: str, corners: bool) -> Array:
    a = np.zeros((out, size))
    for s in range(out):
        if mode in ("nearest", "nearest-exact", "area"):
            a[s, min(size - 1, (s * size) // out)] = 1.0
            continue
        place = s * (size - 1) / max(out - 1, 1) if corners else max((s + 0.5) * size / out - 0.5, 0.0)
        low = min(int(place), size - 1)
        high = min(low + 1, size - 1)
        a[s, low] += 1.0 - (place - low)
        a[s, high] += place - low
    a.setflags(write=False)
    return a


@rule("interpolate", "upsample", example="F.interpolate(x.view(-1, 4, 4, 4), scale_factor=2)")
def interpolate(
    call: Call, input: Signal, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: Any = None,
) -> Signal:  # fmt: skip
    """Nearest copies and linear mixtures of neighbours."""
    del size, scale_factor
    if mode == "bicubic":
        call.caveat("bicubic interpolation is taken as linear")
    return fixed_map(input, _resize_maps(call, input, mode, align_corners))


@interpolate.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, size: Any = None, scale_factor: Any = None,
    mode: str = "nearest", align_corners: Any = None,
) -> Grads:  # fmt: skip
    del out, size, scale_factor
    maps = _resize_maps(call, input, mode, align_corners)
    return {"input": Cotangent(fixed_map(whole(grad), {a: np.ascontiguousarray(m.T) for a, m in maps.items()}))}


def _pad_maps(x: Signal, pad: Sequence[int], mode: str) -> dict[int, Array]:
    maps: dict[int, Array] = {}
    for k in range(len(pad) // 2):
        axis = x.ndim - 1 - k
        left, right = int(pad[2 * k]), int(pad[2 * k + 1])
        n = x.shape[axis]
        places = np.arange(-left, n + right)
        a = np.zeros((len(places), n))
        for row, i in enumerate(places):
            if mode == "circular":
                a[row, i % n] = 1.0
            elif mode == "replicate":
                a[row, min(max(i, 0), n - 1)] = 1.0
            elif mode == "reflect":
                a[row, abs(i) if i < n else 2 * (n - 1) - i] = 1.0
            elif 0 <= i < n:
                a[row, i] = 1.0
        if left or right:
            maps[axis] = a
    return maps


@rule("pad", example="F.pad(x, (1, 2))")
def pad(call: Call, input: Signal, pad: Any, mode: str = "constant", value: Any = None) -> Signal:
    """Zeros, or copies of entries, around the tensor."""
    out = fixed_map(input, _pad_maps(input, pad, mode))
    if value:
        call.caveat("padding with a number other than 0: the padded entries are taken as 0")
    return out


@pad.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, pad: Any, mode: str = "constant", value: Any = None) -> Grads:
    del call, out, value
    maps = {a: np.ascontiguousarray(m.T) for a, m in _pad_maps(input, pad, mode).items()}
    return {"input": Cotangent(fixed_map(whole(grad), maps))}


@rule("cumsum", assumes=(EXCHANGEABLE,), example="x.cumsum(1) / 8")
def cumsum(call: Call, input: Signal, dim: int) -> Signal:
    """Running sums."""
    del call
    n = input.shape[dim]
    return fixed_map(input, {dim % input.ndim: np.tril(np.ones((n, n)))})


@cumsum.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: int) -> Grads:
    del call, out
    n = input.shape[dim]
    return {"input": Cotangent(fixed_map(whole(grad), {dim % input.ndim: np.triu(np.ones((n, n)))}))}


__all__ = ["back", "largest"]
