"""What a softmax over keys does whose pairs are correlated at random: sampled once for many layers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from firstlight.graph.keyed import Keyed
from firstlight.graph.signal import Array
from firstlight.rules.attention.participation import at_counts, jacobian, mean_over_rows, participation
from firstlight.theory import special

_SAMPLED = 1 << 19  # entries of the Gram matrices that one sampled expectation may take,
_SETS, _QUERIES = 256, 32  # sets of keys at most, and queries each
_UNLIKE, _EVEN = 2e-3, 0.02  # random correlations of keys, and scatter of the logits' variance, that change nothing
_FINE, _COARSE = 24, 8  # levels of a decade: where the nearest one is taken, and where it is interpolated


def _level_of(x: float) -> float:
    """The nearest level, so that expectations of nearly equal softmaxes are sampled once."""
    return 10.0 ** (round(_FINE * math.log10(x)) / _FINE)


def _triangles(rng: np.random.Generator, count: int, n: int, dims: float) -> Array:
    """n random vectors of N(0, 1) in so many dimensions, at least n, turned so that each adds one dimension.

    That is Bartlett's triangle of a Wishart matrix: what is beside the vectors before is as long as a χ of the
    dimensions that are left.
    """
    x: Array = np.tril(rng.standard_normal((count, n, n)))
    x[:, range(n), range(n)] = np.sqrt(rng.chisquare(np.maximum(dims - np.arange(n), 1.0), (count, n)))
    return x


def _directions(rng: np.random.Generator, count: int, n: int, units: float) -> Array:
    """Sets of n random directions in so many dimensions; of at least n, turned into n of them."""
    wide = round(min(units, n))
    x = _triangles(rng, count, n, units) if wide == n else rng.standard_normal((count, n, wide))
    x /= np.sqrt(np.square(x).sum(axis=-1, keepdims=True))
    return x


def _heads(rng: np.random.Generator, count: int, keys: int, queries: int, dims: int) -> tuple[Array, Array]:
    """Random maps of so many directions of keys, and of queries, to a head of so many dimensions.

    Only products of what they give are asked for: of more dimensions than directions, a head is turned so that the
    keys lie in its first ones, and what is left of each query adds one.
    """
    if dims <= keys + queries:
        return rng.standard_normal((count, keys, dims)), rng.standard_normal((count, queries, dims))
    one, beside = _triangles(rng, count, keys, dims), _triangles(rng, count, queries, dims - keys)
    two: Array = np.concatenate([rng.standard_normal((count, queries, keys)), beside], axis=2)
    return np.concatenate([one, np.zeros((count, keys, queries))], axis=2), two


def _sets(n: int) -> int:
    """How many sets of n keys are sampled."""
    return min(max(_SAMPLED // (n * n), 16), _SETS)


@functools.lru_cache(maxsize=512)
def _strayed(v: float, n: int, units: float, dims: float, uneven: float, common: float) -> tuple[float, ...]:
    """What random keys change, against independent logits; see `straying`."""
    rng = np.random.default_rng((n, round(units)))
    narrow = round(min(dims, 512.0))
    count = _sets(n)
    x = _directions(rng, count, n, units)
    asked = np.ones((count, _QUERIES, 1))
    if uneven > 0.0:
        x *= np.sqrt(rng.gamma(1.0 / uneven, uneven, (count, n, 1)))
        asked = np.sqrt(rng.gamma(1.0 / uneven, uneven, asked.shape))
    if common > 0.0:
        middle = (np.arange(count) + 0.5) / count  # one of each slice of the law: or chance alone makes some per cent
        whole = np.sqrt(common * special.gammaincinv(1.0 / common, middle))[:, None, None]
        x, asked = x * whole, asked * whole
    gram, energy = x @ x.transpose(0, 2, 1), np.square(x).sum(axis=2)
    # queries are images of unlike tokens under one map: two of them are alike by 1/units + 1/dims
    tokens = _directions(rng, count, _QUERIES, units)
    to_keys, to_queries = _heads(rng, count, x.shape[-1], tokens.shape[-1], narrow)
    keys, queries = x @ to_keys / narrow**0.5, asked * (tokens @ to_queries)
    near = keys @ keys.transpose(0, 2, 1)
    logits = v**0.5 * queries @ keys.transpose(0, 2, 1)
    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    square = np.square(p).sum(axis=2)
    seen, close = p @ gram, p @ near
    together, nearby = (p * seen).sum(axis=2), (p * close).sum(axis=2)  # pᵀCp
    # dl = M dp, M = diag(p)(I - 1pᵀ), dp ~ N(0, C): E |dl|² = tr MCMᵀ and E dlᵀC' dl = tr MCMᵀC'
    each = np.square(p) * (energy[:, None, :] - 2.0 * seen + together[:, :, None])
    own = each.sum(axis=2)
    coherent = (p * (p @ (gram * near))).sum(axis=2) - 2.0 * (p * seen * close).sum(axis=2) + together * nearby
    # of dp ~ N(0, I), free of the values: E |dl|² = tr MMᵀ and E dlᵀC'dl = tr MMᵀC'
    sizes, free = np.square(keys).sum(axis=2)[:, None, :], 1.0 - 2.0 * p + square[:, :, None]
    alone = (np.square(p) * free).sum(axis=2)
    apart = (np.square(p) * (sizes - 2.0 * close + nearby[:, :, None])).sum(axis=2)
    length = np.square(queries).sum(axis=2) / narrow
    # of two rows that get the same dp: E dl_j dl'_j = p_j p'_j(C_jj - (Cp)_j - (Cp')_j + pᵀCp')
    met, turned = p @ p.transpose(0, 2, 1), p.transpose(0, 2, 1)
    pulled = (p * seen) @ turned
    pair = (p * energy[:, None, :]) @ turned - pulled - pulled.transpose(0, 2, 1) + met * (seen @ turned)
    others = ~np.eye(_QUERIES, dtype=bool)
    alike = (queries @ queries.transpose(0, 2, 1))[:, others] / narrow
    base, share = float(participation(v, np.array(n))), max(float(square.mean()), 1.0 / n)
    plain = float(jacobian(np.array([share]), np.array([n]))[0])
    return (
        float((together - square).mean()),
        float(own.mean()) / max(plain, 1e-300),
        float(coherent.mean() / own.mean()),
        share / base,
        float(together.var() / together.mean() ** 2),
        float((own * length).mean() / own.mean()),
        float(apart.mean() / alone.mean()),
        float((pair[:, others] * alike).mean() / (pair[:, others].mean() * length.mean())),
        float((each * sizes).sum(axis=2).mean() / own.mean()),
    )


_PLAIN = (0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0)


def straying(v: float, n: Array, wander: float, scatter: float, uneven: float = 0.0, common: float = 0.0) -> Keyed:
    """What a softmax over keys does whose pairs are correlated at random, by ±√wander around zero (E c² = wander).

    Logits, values and their gradients are linear in the same tokens and so share their correlations c_jk and their
    lengths: tokens alike get like weights, long ones large weights. Keys and queries have few dimensions of their own
    besides: keys are alike by another 1/d, and long queries have sharp rows, which their keys' gradients meet again.
    So do queries that are alike: their rows have like weights, and if they get like gradients these add up at the keys.
    Sampled, with a fixed seed, for tokens in 1/wander dimensions, of which random maps make keys in d = 2/scatter
    dimensions, and for Gaussian queries.

    Args:
        v: Variance of the logits.
        n: Numbers of keys.
        wander: E c² of two tokens beyond c̄².
        scatter: Relative variance of |query|² for tokens of one length.
        uneven: Relative variance of the tokens' |x|².
        common: The same of what all tokens of a sample have in common, which its queries have, too.
    """
    law = _straying(v, wander, scatter, uneven, common)
    return Keyed(*_PLAIN) if law is None else Keyed(*mean_over_rows(law, n).tolist())


def coherence(
    v: float, n: Array, wander: float, scatter: float, uneven: float = 0.0, common: float = 0.0
) -> tuple[Array, Array]:
    """`Keyed.coherent` and `Keyed.lone` of rows that see n keys, for ascending n; else as `straying`."""
    law = _straying(v, wander, scatter, uneven, common)
    if law is None:
        return np.ones_like(n), np.ones_like(n)
    found = at_counts(law, n)
    return found[2], found[8]


def together(wander: float, common: float) -> float:
    """What it adds to `Keyed.coherent` that keys have something in common, c.

    Behind n units a correlation strays by (1 - c²)²/n, relative to (1 - c)² by (1 + c)²/n, with all keys of a row: long
    differences stay long. Of c that has grown evenly over the layers that is 1 + c + c²/3 times what unlike keys have.
    """
    c = min(max(common, 0.0), 1.0)
    return wander * (c + c * c / 3.0)


def _straying(
    v: float, wander: float, scatter: float, uneven: float, common: float
) -> Callable[[int], tuple[float, ...]] | None:
    if wander < _UNLIKE and scatter + uneven + common < _EVEN:
        return None
    units, dims = _level_of(max(1.0 / max(wander, 1e-4), 2.0)), _level_of(max(2.0 / max(scatter, 1e-4), 1.0))
    own, whole = (_level_of(min(s, 2.0)) if s > 1e-2 else 0.0 for s in (uneven, common))
    place, low = math.modf(_COARSE * (math.log10(min(max(v, 1e-6), 100.0)) + 6.0))
    below, above = (10.0 ** ((low + step) / _COARSE - 6.0) for step in (0.0, 1.0))

    def law(k: int) -> tuple[float, ...]:  # linear in ln v: the layers of a network share a few samples
        if k <= 1:
            return _PLAIN
        ends = (_strayed(level, min(k, 256), units, dims, own, whole) for level in (below, above))
        return tuple(a + place * (b - a) for a, b in zip(*ends, strict=True))

    return law
