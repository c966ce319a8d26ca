"""The largest of several entries: its law, the share of the gradient it takes, and the rule of max and min."""

from __future__ import annotations

import functools
from math import factorial, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.signal import Array, Cotangent, Signal, Source, next_id, replace
from firstlight.rules.attention.hiding import count_of, seen_of, visible
from firstlight.rules.chains.source import as_source, spread
from firstlight.rules.gradients.gradient import scale, times, whole
from firstlight.rules.pointwise.choice import extreme, extreme_back
from firstlight.rules.reductions.reduction import axes_of, reduced, spread_over
from firstlight.rules.registry import EXCHANGEABLE, GAUSSIAN_INPUT, Call, Grads, first_of, rule
from firstlight.rules.state.forms import combine, joint
from firstlight.rules.state.layout import axis_atoms, state_weights
from firstlight.rules.state.quadrature import reading
from firstlight.rules.state.windows import pair_average
from firstlight.theory import special
from firstlight.theory.gaussian import gauss_nodes

_DRAWN, _VALUES, _MANY = 4096, 64, 128  # groups drawn for the law of the largest deviation, its values, entries

_FAR, _ALONE = 4.0, 0.05  # where sources lie; correlation from which entries are not independent


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
    """Moments of the largest of k entries with correlation ρ of their source.

    Of a map that rises (falls) it is at the largest (smallest) of the sources. Of any other map (|u|) P(f <= v)^k is
    the law of the largest of independent entries.
    """
    source, values = as_source(x)
    z, w = _largest(int(k), float(np.clip(rho, 0.0, 1.0)))
    first, second = np.empty(len(source.sd)), np.empty(len(source.sd))
    for row, way in enumerate(_ways(values)):
        line: Array = values[row]
        v: Array = np.interp(way * z, source.grid.z, line)
        top = w
        if _bent(source, line, way):
            order, below = _ranks(source, line)
            v, top = line[order], np.diff(below ** int(k), prepend=0.0)
            if rho > _ALONE:
                call.caveat("the largest entry of a function that rises and falls: taken as one of independent ones")
        first[row], second[row] = float(top @ v), float(top @ np.square(v))
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


def _ways(values: Array) -> list[float]:
    """Of each row of values 1 where they rise with their source, -1 where they fall (the least is largest then)."""
    return [-1.0 if float(line[-1]) < float(line[0]) else 1.0 for line in values]


def _bent(source: Source, line: Array, way: float) -> bool:
    """Whether a map goes back by more than a tenth of what it spans (a GELU's dip is less), where its source lies."""
    near = line[np.abs(source.grid.z) < _FAR]
    return float(-np.minimum(way * np.diff(near), 0.0).sum()) > 0.1 * float(np.ptp(near))


def _ranks(source: Source, line: Array) -> tuple[NDArray[np.intp], Array]:
    """Nodes in the order of their values, and P(f is not above) at each."""
    order = np.argsort(line)
    return order, np.minimum(np.cumsum(source.grid.weights[order]), 1.0)


def chosen(source: Source, values: Array, k: int, rho: float, sign: float = 1.0) -> Array:
    """√P(an entry is the largest of k | its source), on the source's nodes, for a function of it.

    With the sign -1: the smallest.
    """
    rho = float(np.clip(rho, 0.0, 0.999))
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    found = dict[float, Array]()
    for way in {sign * way for way in _ways(values)}:
        z = way * source.grid.z
        common = rho**0.5 * z[:, None] + (1.0 - rho) ** 0.5 * nodes[None, :]
        inside = special.ndtr((z[:, None] - rho**0.5 * common) / (1.0 - rho) ** 0.5) ** (k - 1)
        found[way] = np.sqrt(inside @ (weights / weights.sum()))
    rows = [found[sign * way] for way in _ways(values)]
    for row, way in enumerate(_ways(values)):
        line: Array = sign * values[row]
        if _bent(source, line, sign * way):
            order, below = _ranks(source, line)
            rows[row] = np.empty_like(rows[row])
            rows[row][order] = (0.5 * (below + np.append(0.0, below[:-1]))) ** (0.5 * (k - 1))
    return np.stack(rows)


def at_chosen(g: Signal, x: Signal, source: Source, factor: Array) -> Cotangent:
    """A gradient of the chosen entries of x, spread over all, as a function √P(chosen | u) of each one's source.

    In every draw one entry in k is chosen, however long they are: what the length of u would do to such a function is
    taken out of the noise, and of the mean square.
    """
    law, level = reading(source, factor)
    length = combine([(law.inherited[0], source.noise)])
    noise = combine([(1.0, g.noise), (-1.0, length)])
    q = g.q / max(law.total * level * level, 1e-12) / joint(noise, length)
    return times(Cotangent(replace(g, q=q, noise=noise, ident=next_id())), x, source, factor)


def _over(x: Signal, big: Signal, source: Source, atoms: list[int], rho: float) -> Array:
    """Correlations of the largest of k entries, the same for each of the k.

    From the mean correlation of the entries of two groups, and that of entries of the same index (`alike`).
    """
    k = prod(x.atoms[a] for a in atoms)
    if k < 2 or big.mean_q <= 0.0:
        return big.corr
    free = np.clip(source.corr, -1.0, 1.0)
    mean = free
    for a in atoms:
        w = state_weights(x.atoms[a], free.shape[a]) / x.atoms[a]
        mean = (mean * w.reshape((1,) * a + (-1,) + (1,) * (free.ndim - a - 1))).sum(axis=a, keepdims=True)
    same = free[tuple(slice(0, 1) if i in atoms else slice(None) for i in range(free.ndim))]
    return np.broadcast_to(alike(big, x, k, rho, mean, same), big.corr.shape)


@functools.lru_cache(maxsize=4096)
def shared_deviation(k: float, common: float) -> float:
    """How far the largest deviations of two groups of k independent entries agree that share O of them.

    P(max ≤ a, max' ≤ b) is Φ(a ∨ b)^(k - O)·Φ(a ∧ b)^k, and Cov(max, max') the integral of that less the product of
    both laws (Hoeffding). Of it the means of both groups have O/k², of the variance 1/k; the rest is here.
    """
    z = np.linspace(-6.0, 7.0, 401)
    p, step = special.ndtr(z), z[1] - z[0]
    low, high = np.minimum.outer(p, p) ** k, np.maximum.outer(p, p)
    apart = np.multiply.outer(p**k, p**k)
    covariance = float((low * high ** (k - common) - apart).sum()) * step * step
    variance = float((low - apart).sum()) * step * step
    return min(max((covariance - common / k**2) / max(variance - 1.0 / k, 1e-12), 0.0), 1.0)


def alike(big: Signal, x: Signal, k: int, rho: float, mean: Array, same: Array, overlap: Array | None = None) -> Array:
    """Correlations of the largest of groups of k entries.

    The largest of exchangeable Gaussians is their mean a plus the largest deviation D from it, which is independent
    of a. So E max·max' of two groups is E F(a)F(a') with F(a) = E f(a + D), for the correlation of the two means, and
    what is left of the variance times how far deviations of the same index agree, squared. That is exact where they
    do not and where they do wholly; between, to .01 against simulation.

    Args:
        big: The largest, with its mean square.
        x: The entries.
        k: Number of entries of a group.
        rho: Their correlation.
        mean: Mean correlation of the entries of two groups, a cube; of a group and itself (1 + (k - 1)ρ)/k.
        same: Correlation of entries of the same index in two groups, a cube.
        overlap: How far deviations agree because groups share entries, a cube.
    """
    source, values = as_source(x)
    total, level = big.mean_q, float(mean.flat[0])
    nodes, weights, polynomials = _MEANS
    deviation = max(1.0 - rho, 0.0) ** 0.5 * _deviation(k)
    at: Array = max(level, 0.0) ** 0.5 * nodes[:, None] + deviation[None, :]
    power = np.zeros(polynomials.shape[1])
    for row, way in enumerate(_ways(values)):
        line: Array = values[row]
        means: Array = np.mean(np.interp(way * at, source.grid.z, line), axis=1)
        power += source.share[row] * np.square((means * weights) @ polynomials)
    beyond = np.clip((same - mean) / max(1.0 - level, 1e-12), 0.0, 1.0)
    raw = np.polynomial.polynomial.polyval(np.clip(mean / max(level, 1e-12), -1.0, 1.0), power)
    agree = np.square(beyond)
    if overlap is not None:  # what deviations at one place agree in, as far as entries are the same
        here = tuple(slice(0, 1) if n > 1 else slice(None) for n in overlap.shape)
        agree = np.maximum(agree, agree[here] * overlap)
    return np.clip((raw + max(total - float(power.sum()), 0.0) * agree) / total, -1.0, 1.0)


def _hermite(count: int, orders: int) -> tuple[Array, Array, Array]:
    """Gauss nodes of N(0, 1), weights, and the orthonormal Hermite polynomials on them, shape (nodes, orders)."""
    z, w = np.polynomial.hermite_e.hermegauss(count)
    scale = np.array([factorial(j) ** 0.5 for j in range(orders)])
    return z, w / w.sum(), np.polynomial.hermite_e.hermevander(z, orders - 1) / scale


_MEANS = _hermite(24, 12)


@functools.lru_cache(maxsize=256)
def _deviation(k: int) -> Array:
    """Equally likely values of the largest of k standard normals less their mean.

    Sampled with a fixed seed, with the mean and the variance that the exact law has: those of the largest, less the
    variance 1/k of the mean, which is independent of it.
    """
    z, w = _largest(k, 0.0)
    first = float(w @ z)
    variance = float(w @ np.square(z)) - first**2 - 1.0 / k
    few = min(k, _MANY)  # of more, the mean of all hardly matters for the form of the law
    drawn = np.random.default_rng(k).standard_normal((_DRAWN, few))
    out = np.sort(drawn.max(axis=1) - drawn.mean(axis=1)).reshape(_VALUES, -1).mean(axis=1)
    spread_of = float(out.std())
    return first + (out - out.mean()) * (max(variance, 0.0) ** 0.5 / max(spread_of, 1e-12))


def at_one_of(corr: Array, atoms: list[int], k: int) -> Array:
    """Correlations of what stands at one entry of each group of k, from the cube that it had if it stood at all k.

    Two entries of one group are never both chosen; those of two groups are in one case of k², 1/k of the mean square.
    """
    out = corr / max(k, 1)
    own = tuple(slice(None) if i in atoms else 0 for i in range(corr.ndim))
    out[own] = 0.0
    out[(0,) * corr.ndim] = 1.0
    return out


@rule("max", "amax", "min", "amin", assumes=(EXCHANGEABLE, GAUSSIAN_INPUT), example="x.amax(1, keepdim=True) + x")
def max_(call: Call, input: Signal, dim: Any = None, keepdim: bool = False) -> Any:
    """Largest (smallest) entry over axes."""
    if isinstance(dim, Signal):
        return extreme(call, input, dim, 1.0 if call.node.op == "max" else -1.0)
    axes = axes_of(input, dim)
    atoms = [a for k in axes for a in axis_atoms(input, k)]
    k = prod(input.atoms[a] for a in atoms)
    seen = seen_of(input) if call.node.op in ("max", "amax") else None
    if seen is not None:  # of those that a mask has left
        one = (1,) * len(input.atoms)
        whole_of = visible(input, seen)
        k = round(count_of(seen, input.atoms, atoms))
        input = replace(whole_of, mean=np.full(one, whole_of.mean_mean), q=np.full(one, whole_of.mean_q))
    source, _ = as_source(input)
    rho = pair_average(input, atoms, source.corr)
    sign = 1.0 if call.node.op in ("max", "amax") else -1.0
    turned = scale(input, sign)
    big, _ = largest(call, turned, k, rho)
    big = scale(replace(big, corr=_over(turned, big, source, atoms, rho)), sign)
    out = reduced(big, dim, keepdim, mean=True)
    one = (1,) * len(out.atoms)
    out = replace(out, mean=np.full(one, big.mean_mean), q=np.full(one, big.mean_q), ident=next_id())
    return (out, out) if len(call.node.outputs) > 1 else out


@max_.adjoint
def _(call: Call, grad: Any, out: Any, input: Signal, dim: Any = None, keepdim: bool = False) -> Grads:
    g = first_of(grad)
    if g is None:
        return {}
    if isinstance(dim, Signal):
        grads = extreme_back(call, g, input, dim, 1.0 if call.node.op == "max" else -1.0)
        return {"input": grads["input"], "dim": grads["other"]}
    first = first_of(out)
    back = spread_over(whole(g), input, dim, keepdim, (first.numel / input.numel) ** 0.5)
    atoms = [a for k in axes_of(input, dim) for a in axis_atoms(input, k)]
    k = prod(input.atoms[a] for a in atoms)
    # at one entry in n it is no sum of the entries of the gradient any more
    back = replace(back, corr=at_one_of(back.corr, atoms, k), terms=(), tag=None, ident=next_id())
    if seen_of(input) is not None:
        return {"input": Cotangent(back)}
    source, values = as_source(input)
    if k < 2:
        return {"input": Cotangent(back)}
    sign = 1.0 if call.node.op in ("max", "amax") else -1.0
    factor = chosen(source, values, k, pair_average(input, atoms, source.corr), sign)
    return {"input": at_chosen(back, input, source, factor)}
