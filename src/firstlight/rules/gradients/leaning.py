"""Gradients that go with the length of their own tensor from site to site: λ = d ln|g|²/d ln|x|² (`Signal.lean`).

Behind a norm sites that are longer than others get less gradient, by 1/|x|² (λ = -1), and so does what was added to
them, in proportion to its share of |x|². Linear maps hand λ on, since |Wx|² is |x|² but for what does not depend on x.
It shows where |x|² belongs to something that the gradient meets: behind attention |y|² goes like s = Σ p² of the row.
Sharp rows get less gradient, so that of the values', Σ p²·|g|², there is less than of independent factors; of the
logits' there is more where softmaxes are sharp, since sharp rows would hardly have let it through. With |g|² ~ s^λ
both are E f·s^λ/(E f·E s^λ), here to first order in λ.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, Source, replace
from firstlight.rules.attention.attending import row_law, sharpness
from firstlight.rules.attention.keys import uncommon
from firstlight.rules.attention.participation import SPREADS, mean_over_rows
from firstlight.rules.gradients.along import energy
from firstlight.rules.gradients.gradient import joined, parts_of
from firstlight.rules.gradients.unlike import scattered
from firstlight.rules.state.layout import axis_atoms

_ROWS, _MOST = 1 << 15, 256  # logits that one sampled expectation takes; keys beyond which rows count as this long
_LITTLE = 1e-3  # λ that changes nothing


def shared(g: Cotangent, part: float, other: Signal | None = None) -> Cotangent:
    """A gradient that goes to a tensor which makes up a part of the length that it goes with, and another the rest."""
    if all(p.base.lean == 0.0 for p in parts_of(g)):
        return g
    found: list[Cotangent] = []
    for p in parts_of(g):
        beside = p.base.beside if other is None else (other.ident, p.base.lean * (1.0 - part), 1.0 - part)
        found.append(replace(p, base=replace(p.base, lean=p.base.lean * part, beside=beside), whole=None))
    return replace(joined(found), along=g.along)


def with_length(g: Signal, x: Signal, scatter: float, power: float) -> float:
    """E |g|²V^p/(E |g|²·E V^p) of a gradient g from a sum to which a tensor x with the mean square V was added.

    |g|² ~ V^λ and V log-normal: (1 + τ²)^(λp). So it is in front of the norm of a stream x in x + f(norm x): where x
    is long, the gradient behind the norm of the sum is short, and what f hands on of it is divided by the length of x.

    Args:
        g: The gradient.
        x: The tensor.
        scatter: τ², relative variance of V.
        power: p.
    """
    if g.beside[0] != x.ident or _heavy(x):
        return 1.0
    return (1.0 + max(scatter, 0.0)) ** (g.beside[1] * power)


def along_length(g: Signal, r: Signal, source: Source, values: Array) -> Array:
    """1/r on the nodes of r = 1/|x|, as s = Σ g·x/|x| goes with it: times |x|^λ', in units of its mean square.

    s came with the sum, from what of f(x) is at right angles to z = x + f(x): s² ~ |g|²·V_x·V_f/V_z, so that
    λ' = λ + 1 - w, w the share of x in z. What came from other sites, through attention, goes with none of them: the
    site's own part of g is λ/-w, since behind the norm of z its λ was -w.
    """
    if r.tag is None or g.beside[0] != r.tag[1] or _heavy(r):
        return 1.0 / values
    lean, share = g.beside[1:]
    own = min(max(-lean / share, 0.0), 1.0) if share > 0.0 else 1.0
    more = values ** -(lean + own * (1.0 - share))
    return more / values / float((np.square(more) @ source.grid.weights).mean()) ** 0.5


def _heavy(x: Signal) -> bool:
    """Whether lengths scatter by orders of magnitude: recipes of both say how they go together then."""
    return x.sites is not None and x.sites.heavy


def divided(g: Cotangent, x: Signal) -> Cotangent:
    """A gradient of x/|x| that was divided by the length of its tensor x."""
    found: list[Cotangent] = []
    for p in parts_of(g):
        met = with_length(p.base, x, scattered(x), -1.0) if p.base.beside[0] == x.ident else 1.0
        q = p.base.q if met == 1.0 else p.base.q * met
        found.append(replace(p, base=replace(p.base, q=q, lean=-1.0, beside=(0, 0.0, 0.0)), whole=None))
    return replace(joined(found), along=g.along)


def of_rows(dx: Signal, g: Signal) -> Signal:
    """What each row of a sum over keys hands on by itself: it goes with what the row goes with."""
    return replace(dx, beside=g.beside) if g.beside[0] else dx


def of_keys(dy: Signal, g: Signal, weights: Signal, rows: Signal | None = None) -> Signal:
    """A sum over rows, Σ_i w_ij g_i, at keys j that are the rows: of it row j's own part goes with what that goes with.

    Args:
        dy: The sum.
        g: Gradient of the rows.
        weights: w, whose last two axes are rows and keys.
        rows: g, where the weights have not met it already.
    """
    if not g.beside[0] or weights.ndim < 2:
        return dy
    n = weights.shape[-1]
    at = (*axis_atoms(weights, -2), *axis_atoms(weights, -1))
    if weights.shape[-2] != n or len(at) != 2:
        return dy
    square = _along_axes(weights.q, at)
    level: Array = np.ones(1)
    if rows is not None and len(axis := axis_atoms(rows, -2)) == 1:
        level = _along_axes(rows.q, axis)
    level, all_keys = np.broadcast_to(level, (n,)), np.broadcast_to(square.sum(axis=1) * (n / square.shape[1]), (n,))
    total = float(level @ all_keys)
    own = float(level @ np.diagonal(np.broadcast_to(square, (n, n)))) / total if total > 0.0 else 0.0
    return replace(dy, beside=(g.beside[0], g.beside[1] * own, g.beside[2]))


def _along_axes(q: Array, at: Sequence[int]) -> Array:
    """A field along some of its axes, the mean over the others."""
    return q.mean(axis=tuple([i for i in range(q.ndim) if i not in at]))


@functools.lru_cache(maxsize=1024)
def _rows(v: float, n: int, rate: float) -> tuple[float, ...]:
    """Of rows of n independent logits of variance v, with s = Σp²: E f, Cov(f, ln s) and the part that goes along y.

    For f = Σp²(1 - 2p + s), what the Jacobian lets through, of which Σp⁴/s - 2Σp³ + s² has come along the output; for
    f = Σp²(ℓ - ℓ̄)², what of it goes along the query, of which (Σp²(ℓ - ℓ̄))²/s; and for f = s. Where weights are
    dropped, y = Σ m p v with m = 0 or 1/(1 - rate), c has a factor m and s = Σ(mp)²: a row that has lost its largest
    weight is short. All f times 1 - rate, which the gradient of p has already. Sampled, a fixed seed.
    """
    rng = np.random.default_rng(n)
    logits = v**0.5 * rng.standard_normal((max(_ROWS // n, 128), n))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    luck = np.asarray(rng.random(p.shape) if rate else np.ones(1), dtype=np.float64)
    kept = np.asarray(luck >= rate, dtype=np.float64) / (1.0 - rate) ** 0.5
    square = np.square(p * kept)
    s, third = square.sum(axis=1), (square * p).sum(axis=1)
    flat = np.square(p).sum(axis=1)
    there = np.maximum(s, 1e-3 * flat)  # a row of which nothing is left has no gradient at all
    passed, along = s - 2.0 * third + s * flat, np.square(square).sum(axis=1) / there - 2.0 * third + s * flat
    centred = logits - (p * logits).sum(axis=1, keepdims=True)
    query, own = (square * np.square(centred)).sum(axis=1), np.square((square * centred).sum(axis=1)) / there
    log = np.log(there)
    log -= log.mean()
    return tuple(float(f.mean()) for f in (passed, passed * log, along, query, query * log, own, s, s * log))


def _at(v: float, n: int, rate: float) -> Array:
    """`_rows` between the variances `SPREADS`."""
    i = min(int(np.searchsorted(SPREADS, v, side="right")), len(SPREADS) - 1)
    low, high = SPREADS[i - 1], SPREADS[i]
    part = min(max((v - low) / (high - low), 0.0), 1.0)
    return (1.0 - part) * np.array(_rows(low, n, rate)) + part * np.array(_rows(high, n, rate))


def _mean_row(p: Signal, dim: int, rate: float) -> Array:
    """`_rows` of a softmax over an axis, the mean over rows that see different numbers of keys."""
    square, seen = row_law(p, dim)
    v, alone = sharpness(square, seen), np.array([0.0] * 6 + [1.0, 0.0])
    return mean_over_rows(lambda n: _at(v, n, rate) if n > 1 else alone, np.minimum(seen, _MOST))


def passing(p: Signal, dim: int, lean: float, known: float, rate: float = 0.0) -> tuple[float, float]:
    """Factors of E|dℓ|² and of E (Σ dℓ·ℓ)² behind a softmax, of gradients that go with their rows and their length.

    dℓ_j = p_j(c_j - C), C = Σpc = g·y. Of c what goes along p is p_j·C/s, and adds E C²·Σp²(p_j/s - 1)²: with
    E C² = ρ·s that is (1 - ρ)·E[Σp⁴/s - 2Σp³ + s²] less than independent c have.

    Args:
        p: The weights.
        dim: Axis of the keys.
        lean: λ of the rows' gradients, of s.
        known: ρ, E (g·y)² over that of independent g and y.
        rate: Share of the weights that are dropped behind the softmax.
    """
    if abs(lean) < _LITTLE and abs(1.0 - known) < _LITTLE:
        return 1.0, 1.0
    passed, slope, along, query, other, own, _, _ = _mean_row(p, dim, rate)
    if passed <= 0.0 or query <= 0.0:
        return 1.0, 1.0
    first, second = (max(1.0 - (1.0 - known) * a / b, 0.0) for a, b in ((along, passed), (own, query)))
    return first * math.exp(lean * slope / passed), second * math.exp(lean * other / query)


def known_share(g: Cotangent, x: Signal) -> float:
    """E (Σ g·x)² over that of independent g and x, at most 1; 1 where nothing is known."""
    free = energy(g) * x.mean_q
    return 1.0 if g.along is None or free <= 0.0 else min(g.along.variance / free, 1.0)


def at_rows(g: Signal, out: Signal, p: Signal, w: Signal) -> Signal:
    """The gradient of a mean over keys: of |y|² only what depends on the weights p goes with Σp²."""
    return replace(g, lean=g.lean * uncommon(out, p, w)) if g.lean else g


def at_values(dv: Signal, g: Signal, p: Signal, rate: float = 0.0) -> Signal:
    """The values' gradient Σ p·g, for a gradient g of the rows that goes with their lengths."""
    if not g.lean:
        return dv
    *_, square, slope = _mean_row(p, p.ndim - 1, rate)
    return replace(dv, q=dv.q * math.exp(g.lean * slope / square), lean=0.0)
