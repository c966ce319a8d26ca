"""Mean squares of sites, worked out at sampled sites from their recipes (`graph.sites`).

Each independent source of scatter has the quantiles of its law at the sampled sites, in an order of its own that
follows from its seed: its means are exact, those of products of two sources of relative variance v are off by about
v/√SAMPLED, and two tensors that follow from one see the same. Nothing is drawn anew from one prediction to the next.
Where the places of a sample have laws of their own there is a row of V for each.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.signal import Array
from firstlight.graph.sites import Sites, Units
from firstlight.theory import special

SAMPLED = 4096  # sites
ALONE = np.ones(1)  # factor of what is independent
PLACES = 64  # places up to which their laws are told apart
_MEANS = 1024  # means over units that are drawn for the law of an uneven product
_VALUES = 32  # values of the law of a unit
_SEARCHED = 256  # recipes in which a common ancestor is sought
_LEAST = 1e-3  # relative variance below which nothing scatters


def seed(*parts: object) -> int:
    """A number for a source of scatter, the same in every run."""
    return zlib.crc32(repr(parts).encode())


def _in_middle(count: int) -> Array:
    return (np.arange(count) + 0.5) / count


@functools.lru_cache(maxsize=256)
def _mean_of_squares(own: float) -> Array:
    """Quantiles of χ²_n/n of relative variance 2/n."""
    out = own * special.gammaincinv(1.0 / own, _in_middle(SAMPLED))
    return out / out.mean()


@functools.lru_cache(maxsize=64)
def _angle(n: int, common: float = 0.0) -> Array:
    """Quantiles of (√s + √(1 - s)·√n·cos)², cos² ~ Beta(½, (n - 1)/2), with a share s that every site has."""
    out = n * special.betaincinv(0.5, 0.5 * (n - 1.0), _in_middle(SAMPLED))
    out = out / out.mean()
    if common > 0.0:
        both = np.multiply.outer([1.0, -1.0], np.sqrt((1.0 - common) * out)) + common**0.5
        out = np.sort(np.square(both).ravel()).reshape(SAMPLED, 2).mean(axis=1)
    return out / out.mean()


@functools.lru_cache(maxsize=64)
def _uneven(one: Units, two: Units, units: int) -> Array:
    """Quantiles of n·Σa²b²/(Σa²·Σb²) over n units; their mean is 1, since E Σa²b²/n = E a²·E b²."""
    rng = np.random.default_rng(units)
    a, b = (_squares(u)[rng.integers(0, _VALUES, (_MEANS, units))] for u in (one, two))
    ratio = np.sort((a * b).mean(axis=1) / (a.mean(axis=1) * b.mean(axis=1)))
    out = np.interp(_in_middle(SAMPLED), _in_middle(_MEANS), ratio)
    return out / out.mean()


def _squares(u: Units) -> Array:
    """Equally likely values of x², of mean 1, each the mean over its share of the law."""
    if u.values is None or u.share is None or u.weights is None:
        return _normal_squares()
    return _binned(np.square(u.values).ravel(), np.multiply.outer(u.share, u.weights).ravel())


@functools.lru_cache(maxsize=1)
def _normal_squares() -> Array:
    return _binned(np.square(special.ndtri(_in_middle(SAMPLED))), np.full(SAMPLED, 1.0 / SAMPLED))


def _binned(values: Array, weights: Array) -> Array:
    order = np.argsort(values)
    at: Array = np.cumsum(weights[order])
    total: Array = np.cumsum((values * weights)[order])
    edges = np.linspace(0.0, float(at[-1]), _VALUES + 1)
    steps: Array = np.diff(np.interp(edges, np.append(0.0, at), np.append(0.0, total)))
    mean = float(steps.mean())
    return steps / mean if mean > 0.0 else np.ones(_VALUES)


@functools.lru_cache(maxsize=512)
def _order(start: int) -> NDArray[np.intp]:
    """An order of the sampled sites, of its own for each source."""
    return np.random.default_rng(start).permutation(SAMPLED)


def levels(x: Sites) -> Array:
    """V at the sampled sites, of mean 1 at each place, shape (places, SAMPLED)."""
    known = x.level
    if known is None:
        out = np.maximum(_combined(x), 1e-30)
        if x.own < 0.0:
            x.own = _beside(x)
        if x.own > _LEAST:
            if x.pair is not None:
                own = _uneven(*x.pair, x.units)
            else:
                own = _angle(x.angle, x.common) if x.angle else _mean_of_squares(float(f"{x.own:.3g}"))
            out = out * own[_order(x.seed)]
        known = x.level = np.clip(out / out.mean(axis=1, keepdims=True), 1e-30, 1e30).astype(np.float32)
    return known.astype(np.float64)


def _beside(x: Sites) -> float:
    """Relative variance of what n units of f(u) have beside V_u^s: (κ_f - 1 - (κ_u - 1)s²)/n, κ the kurtoses."""
    if x.inner is None or not isinstance(x.weights[0], float):
        return 0.0
    of, inner = _kurtosis(x.factors[0]), _kurtosis(x.inner)
    return max(of - 1.0 - (inner - 1.0) * x.weights[0] ** 2, 0.0) / max(x.units, 1)


def _kurtosis(u: Units) -> float:
    """E x⁴/(E x²)² of a law; that of nothing has no scatter to take away."""
    if u.values is None or u.share is None or u.weights is None:
        return 3.0
    square = np.square(u.values)
    return float(u.share @ (np.square(square) @ u.weights)) / max(float(u.share @ (square @ u.weights)) ** 2, 1e-300)


def _combined(x: Sites) -> Array:
    if x.kind == "sum":
        return terms_of(x, angle=True)[3] if x.together > 0.0 else _crossed(x, terms_of(x))
    values = [levels(k) for k in x.of]
    if x.kind == "row":
        return values[0][int(x.weights[0]) % len(values[0])][None]
    if x.kind == "mixture":
        return np.concatenate([v[:1] for v in values]) if x.places == len(values) else values[0]
    out = np.ones((x.places, SAMPLED))
    for w, v in zip(x.weights, values, strict=True):
        out = out * (v if isinstance(w, float) and w == 1.0 else v**w)
    return out


def _crossed(x: Sites, terms: list[Array]) -> Array:
    """A sum at its sampled sites: by the law of cosines where two terms are independent directions."""
    out = np.zeros((x.places, SAMPLED)) + sum(terms)
    if x.crossed <= _LEAST / 4.0:
        return out
    cosine = np.sqrt(x.crossed * _angle(x.units))[_order(seed(x.seed, "angle"))]  # √n·cos around zero
    sign = np.where(_order(seed(x.seed, "sign")) % 2, 1.0, -1.0)
    return out + 2.0 * sign * cosine * np.sqrt(terms[0] * terms[1])


def terms_of(x: Sites, angle: bool = False) -> list[Array]:
    """The terms of a sum at its sampled sites, each in its share of the mean sum.

    With an angle, of two terms that go along each other: what goes along of the one, the other, the sign of the cosine
    and the sum by the law of cosines.
    """
    parts = [np.asarray(w).reshape(-1, 1) * levels(k) for w, k in zip(x.weights, x.of, strict=True)]
    if not angle:
        return parts
    sign = np.where(_order(x.toward[2]) % 2, 1.0, -1.0)
    mine = 0 if x.of[0].toward[0] == x.of[1].seed else 1
    apart = np.reshape(x.of[mine].apart, (-1, 1))
    if len(apart) not in (1, x.places):
        apart = apart.mean(keepdims=True)
    along, other = (1.0 - apart) * parts[mine], parts[1 - mine]
    # what came from elsewhere has a law like it, at other sites
    total = np.zeros((x.places, SAMPLED)) + along + apart * np.roll(parts[mine], SAMPLED // 3, axis=1) + other
    return [along, other, sign, total + 2.0 * sign * np.sqrt(x.together * along * other)]


def at_places(field: Array, known: int = 1, few: Collection[int] = ()) -> Array:
    """A field at the places that have laws of their own: along its one axis, or that of a known number of places.

    Axes of `few` entries are those of vectors that each site has (`Sites.row`), and no places.
    """
    axes = [i for i, n in enumerate(field.shape) if n > 1 and (n == known or n not in few)]
    if len(axes) > 1:
        axes = [i for i in axes if field.shape[i] == known]
    if len(axes) != 1 or field.shape[axes[0]] > PLACES or known not in (1, field.shape[axes[0]]):
        return np.full(1, field.mean())
    return field.mean(axis=tuple([i for i in range(field.ndim) if i != axes[0]]))


def times(q: Array, both: Array) -> Array:
    """A field times a number for each place, or their mean where the field has no such places."""
    if both is ALONE:
        return q
    axes = [i for i, n in enumerate(q.shape) if n == both.size > 1]
    if not axes:
        return q * both.mean()
    return q * both.reshape((1,) * axes[-1] + (-1,) + (1,) * (q.ndim - axes[-1] - 1))


def met(x: Sites) -> Array:
    """E V of a sum at each place in units of what its terms add up to: not 1 where they are long when they agree.

    That is so for gradients: a tensor y + x is short, and the gradient behind a norm long, where y goes against x.
    """
    if not (x.together > 0.0 and x.heavy):
        return ALONE
    v = _combined(x)
    mean = v.mean(axis=1)
    error = v.std(axis=1) / SAMPLED**0.5
    return np.where(np.abs(mean - 1.0) > 4.0 * error, mean, 1.0)


def scatter(x: Sites) -> float:
    """Relative variance of V."""
    return float(np.square(levels(x)).mean()) - 1.0


def of_entries(x: Sites, excess: float = 0.0) -> float:
    """τ² of the entries, whose kurtosis is 3(1 + τ²) + excess: V of n independent ones scatters by itself.

    E V² = E x_i²x_j² + (E x⁴ - E x_i²x_j²)/n = (1 + τ²)(1 + 2/n) + excess/n.
    """
    n = max(x.units, 1)
    return (1.0 + scatter(x) - excess / n) / (1.0 + 2.0 / n) - 1.0 if x.units else scatter(x)


def together(of: Sequence[Sites]) -> Array:
    """E Π V at each place; 1 where the recipes have no source in common."""
    sources = [_sources(x) for x in of]
    if sum(map(len, sources)) == len(set[int]().union(*sources)):
        return ALONE
    out = levels(of[0])
    for x in of[1:]:
        out = out * levels(x)
    return out.mean(axis=1)


def _sources(x: Sites) -> set[int]:
    """Seeds of the sources of scatter in a recipe."""
    seen, found, waiting = set[int](), set[int](), [x]
    while waiting and len(seen) < _SEARCHED:
        k = waiting.pop()
        if id(k) not in seen:
            seen.add(id(k))
            if k.own > _LEAST or k.own < 0.0:
                found.add(k.seed)
            waiting += k.of
    return found
