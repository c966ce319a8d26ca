"""Attention of a tensor to itself, without projections: queries that are their own keys, sampled.

With fresh projections between them a query's product with its own key is one among many. Without, the own logit is
a·|x_t|², which grows with the dimension, where the others are a·x_t·x_s: rows look at themselves, long tokens more so,
and the output goes along the input. No moment formula covers it from flat rows to rows that see themselves alone, so
the operation itself is run on sampled tokens (`rules.state.tokens`), forward and backward, with a fixed seed.

What comes out is handed on as β·x + (a part that is not correlated with x), so that x ± attention(x) is known, too.

Assumes: gradients are independent of the tokens; beside that what `rules.state.tokens` assumes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from firstlight.graph.along import Along
from firstlight.graph.signal import INFINITY, Array, Cotangent, Noise, Signal, next_id, replace
from firstlight.rules.gradients.along import fresh, mixed
from firstlight.rules.moves.ranges import same_entries
from firstlight.rules.registry import Call
from firstlight.rules.state.forms import combine
from firstlight.rules.state.layout import correlations, merge_axis, moments
from firstlight.rules.state.tokens import Law, Place, Shape, beside, cube, drawn, law, scattered

_ENTRIES = 1 << 19  # tokens' entries, and logits, that one sampled expectation takes
_DRAWS = 1024  # sequences at most
_LONGEST = 1024  # positions beyond which sequences are sampled as if they had this many
_SEED = 7
_STEP = 0.02  # of ln|x|², to see how much of the tokens' noise is inherited
_UNEVEN = 0.1  # relative spread of the mean squares along positions that is worth a word


class Attention(NamedTuple):
    """What is done to the tokens.

    Attributes:
        factor: Of the inner products.
        own_values: Whether the values are the tokens as well.
        bias: Added to the logits, shape (positions, positions); None without.
        rate: Of the dropout of weights.
    """

    factor: float
    own_values: bool
    bias: Array | None
    rate: float


def same(x: Signal, y: Signal) -> bool:
    """Whether two tensors are one, entry by entry."""
    if x.viewed == y.viewed:
        return x.shape == y.shape
    if x.source is None or y.source is None or x.values is None or y.values is None or x.shape != y.shape:
        return False
    return x.source.key == y.source.key and np.array_equal(x.values, y.values)


def asked(
    call: Call, query: Signal, key: Signal, value: Signal, mask: Any, causal: bool, factor: float, rate: float
) -> Attention | None:
    """What attention does to tokens that are their own keys; None where they are not, or a mask is not known."""
    if query.ndim < 2 or query.shape[-2] < 2:
        return None
    if not same(query, key):
        if same_entries(query, key):
            call.caveat("queries and keys are views of one tensor, in another order: taken as independent")
        return None
    n = query.shape[-2]
    bias: Array | None = None
    if causal:
        bias = np.where(np.triu(np.ones((n, n), dtype=bool), 1), -INFINITY, 0.0)
    elif isinstance(mask, Signal):
        if mask.value is None or mask.value.size != n * n:
            return None
        known = np.asarray(mask.value).reshape(n, n)
        bias = np.where(known, 0.0, -INFINITY) if known.dtype == bool else np.asarray(known, dtype=np.float64)
        bias = np.nan_to_num(bias, neginf=-INFINITY)
    return Attention(factor, same(query, value), bias, rate)


class _Sampled:
    """The same sequences whenever they are asked for: `how` on tokens like x and values like v."""

    def __init__(self, x: Signal, v: Signal, how: Attention) -> None:
        n = _positions(x)
        count = max(min(_ENTRIES // (n * max(n, x.shape[-1])), _DRAWS), 2)
        self.shape: Shape = (count, n, x.shape[-1])
        self.wide: Shape = (count, n, v.shape[-1])
        self._laws: tuple[Law, Law | None] = law(x), None if how.own_values else law(v)
        self._how = how if how.bias is None else how._replace(bias=how.bias[:n, :n])

    def tokens(self, at: Place = None, factor: float = 1.0) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Tokens, times a factor, and values."""
        rng, (one, other) = np.random.default_rng(_SEED), self._laws
        if other is None:
            found = tuple(factor * a for a in drawn(one, rng, self.shape, at))
            return found, found
        first, second = beside(one, other, rng, (self.shape, self.wide), at)
        return tuple(factor * a for a in first), second

    def directions(self, of: Law, at: Place = None) -> tuple[Array, ...]:
        """Gradients of the output."""
        return drawn(of, np.random.default_rng(_SEED + 1), self.wide, at)

    def forward(self, at: Place = None, factor: float = 1.0) -> tuple[Array, ...]:
        """Outputs."""
        rng = np.random.default_rng(_SEED + 2)
        found: list[Array] = []
        for x, v in zip(*self.tokens(at, factor), strict=True):
            p, kept = self._weights(x, rng)
            found.append((p * kept) @ v)
        return tuple(found)

    def backward(self, of: Law, at: Place = None, factor: float = 1.0) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Gradients of the tokens, as queries and keys (and values, where they are), and of the values."""
        rng = np.random.default_rng(_SEED + 2)
        tokens: list[Array] = []
        values: list[Array] = []
        for x, v, g in zip(*self.tokens(at, factor), self.directions(of, at), strict=True):
            p, kept = self._weights(x, rng)
            back = (g @ v.transpose(0, 2, 1)) * kept
            logits = p * (back - (p * back).sum(axis=2, keepdims=True)) * self._how.factor
            values.append((p * kept).transpose(0, 2, 1) @ g)
            both = logits @ x + logits.transpose(0, 2, 1) @ x
            tokens.append(both + values[-1] if self._how.own_values else both)
        return tuple(tokens), tuple(values)

    def _weights(self, x: Array, rng: np.random.Generator) -> tuple[Array, Array | float]:
        """Softmax weights, and the dropout's factors."""
        logits = self._how.factor * (x @ x.transpose(0, 2, 1))
        if self._how.bias is not None:
            logits += self._how.bias
        logits -= logits.max(axis=2, keepdims=True)
        p = np.exp(logits, out=logits)
        p /= p.sum(axis=2, keepdims=True)
        rate = self._how.rate
        if not rate:
            return p, 1.0
        kept: Array = np.array(rng.binomial(1, 1.0 - rate, size=p.shape), dtype=np.float64)
        return p, kept / (1.0 - rate)


def attend(call: Call, tokens: Signal, value: Signal, how: Attention) -> Signal | None:
    """softmax(a·x xᵀ + bias)·v for v = x, or v independent of it; None where there is nothing to sample."""
    x, v = _flat(tokens), _flat(value)
    if x is None or v is None or x.groups[:-1] != v.groups[:-1]:
        return None
    _warn(call, x)
    run = _Sampled(x, v, how)
    products, out = cube(v.corr.shape, run.forward)
    if not np.isfinite(products).all():  # logits beyond the range of double precision
        return None
    given = run.tokens()[1][0]
    slope = _regression(out, given) if how.own_values else 0.0
    inherited = [(_elasticity(out, run.forward(None, _GROWN)[0]), x.noise)]
    if not how.own_values:
        inherited.append((1.0, v.noise))
    level = float(given.mean())
    mean = v.mean * (float(out.mean()) / level) if v.mean.any() and level else np.zeros_like(v.mean)
    return _made(v, v, slope, products, mean, inherited, out)


def attend_back(
    call: Call, grad: Cotangent, g: Signal, tokens: Signal, value: Signal, how: Attention
) -> tuple[Cotangent, Cotangent | None] | None:
    """Gradient of the tokens (of all that they are together), and of values that are not the tokens."""
    x, v, out = _flat(tokens), _flat(value), _flat(g)
    if x is None or v is None or out is None or x.groups[:-1] != v.groups[:-1]:
        return None
    _warn(call, x)
    run, of = _Sampled(x, v, how), law(out)
    products, found = cube(x.corr.shape, lambda at: run.backward(of, at)[0])
    if not np.isfinite(products).all():
        return None
    slope = _regression(found, run.directions(of)[0]) if how.own_values else 0.0
    inherited = [(1.0, g.noise), (_elasticity(found, run.backward(of, None, _GROWN)[0][0]), x.noise)]
    if not how.own_values:
        inherited.append((1.0, v.noise))
    zero = np.zeros((1,) * len(x.atoms))
    gradient = _made(x, out if out.groups == x.groups else x, slope, products, zero, inherited, found)
    through = Cotangent(gradient, along=_along(grad.along, run, of, found))
    if how.own_values:
        return through, None
    products, found = cube(v.corr.shape, lambda at: run.backward(of, at)[1])
    return through, Cotangent(_made(v, v, 0.0, products, zero, [(1.0, g.noise)], found))


_GROWN = float(np.exp(0.5 * _STEP))


def _flat(x: Signal) -> Signal | None:
    """Positions and features as one atom each; None where there is nothing to choose from."""
    x = merge_axis(merge_axis(x, x.ndim - 1), x.ndim - 2)
    return x if x.groups[-1] and x.groups[-2] and x.value is None and x.mean_q > 0.0 else None


def _warn(call: Call, x: Signal) -> None:
    call.caveat("queries are their own keys: sampled on tokens with independent features of one law")
    if x.shape[-2] > _positions(x):
        call.caveat(f"{x.shape[-2]} positions are sampled as {_positions(x)}")
    rows = x.q.mean(axis=-1)
    if rows.size > 1 and float(rows.std()) > _UNEVEN * float(rows.mean()):
        call.caveat("positions of different mean square count with their mean")


def _positions(x: Signal) -> int:
    """Positions that are sampled: all of them, or as many as memory has for tokens of so many features."""
    return min(x.shape[-2], _LONGEST, max(8 * _ENTRIES // x.shape[-1], 32))


def _regression(y: Array, x: Array) -> float:
    return float(np.vdot(y, x) / np.vdot(x, x))


def _elasticity(out: Array, grown: Array) -> float:
    """d ln|out|²/d ln|x|²."""
    level, other = float(np.square(out).mean()), float(np.square(grown).mean())
    return float(np.log(other / level)) / _STEP if level > 0.0 and other > 0.0 else 1.0


def _made(
    like: Signal,
    base: Signal,
    slope: float,
    products: Array,
    mean: Array,
    inherited: list[tuple[float, Noise]],
    found: Array,
) -> Signal:
    """β·base + the rest, from mean products over the cube and the sampled entries themselves."""
    one = (1,) * len(like.atoms)
    q = np.full(one, float(products.flat[0]))
    relative, scatter = scattered(found)
    own = relative / float(np.prod(like.atoms[:-1]))
    out = replace(
        like, q=np.maximum(q, np.square(mean)), mean=mean, corr=correlations(products, q), source=None, values=None,
        gaussian=False, noise=combine(inherited, own, -0.5 * own), scatter=scatter, data=False, cumulants=(0.0, 0.0),
        tag=None, keyed=None, terms=(), factors=None, weights=None, sites=None, lean=0.0, ident=next_id(),
    )  # fmt: skip
    if not slope:
        return out
    left = products - slope * slope * base.mean_q * moments(base)
    q = np.full(one, max(float(left.flat[0]), 0.0))
    rest = replace(out, q=q, mean=np.zeros(one), corr=correlations(left, q))
    return replace(out, terms=((slope, base), (1.0, rest)), ident=next_id())


def _along(form: Along | None, run: _Sampled, of: Law, found: Array) -> Along:
    """Σ dx·x of a token: κ·Σ g·out, as far as that explains it, and what is left."""
    s = (found * run.tokens()[0][0]).sum(axis=2)
    if form is None:
        return fresh(float(np.square(s).mean()))
    known = (run.directions(of)[0] * run.forward()[0]).sum(axis=2)
    slope = _regression(s, known)
    return mixed([(slope, form)], max(float(np.square(s - slope * known).mean()), 0.0))
