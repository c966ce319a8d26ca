"""Softmax: its weights, and what it lets through of their gradient."""

from __future__ import annotations

import dataclasses

import numpy as np

from firstlight.graph.keyed import Keyed
from firstlight.graph.signal import SILENT, Array, Cotangent, Noise, Signal, next_id, replace
from firstlight.rules.attention import keys
from firstlight.rules.attention.attending import row_law, sharpness
from firstlight.rules.attention.bent_logits import log_sum_of, participation_of
from firstlight.rules.attention.biased import biased, shares, without
from firstlight.rules.attention.causal import causal, logits_back, rows_of, tempered, variances
from firstlight.rules.attention.hiding import HIDDEN, hidden_in
from firstlight.rules.attention.overlap import of_gradients, overlap
from firstlight.rules.attention.participation import jacobian, let_through
from firstlight.rules.attention.shares import behind_softmax
from firstlight.rules.attention.straying import coherence, straying, together
from firstlight.rules.chains.grids import on_grid
from firstlight.rules.chains.source import affine_of, as_source, from_values, on_source
from firstlight.rules.gradients.gradient import joined, parts_of, scale, whole
from firstlight.rules.gradients.leaning import known_share, passing
from firstlight.rules.linear.contraction import INNER
from firstlight.rules.registry import GAUSSIAN_INPUT, Call, Grads, rule
from firstlight.rules.state.forms import combine
from firstlight.rules.state.layout import align, merge_axis, offset, profile

_FEW_DIMENSIONS, _MANY_KEYS, _SHARP_LOGITS, _SCATTERED, _STRAYING = 0.03, 32, 3.0, 0.02, 0.01
_LITTLE, _SHARED = 0.15, 0.1  # (E √E[p²|u])² over (E p)² - 1, and what gradients may have in common over the keys


def soft(call: Call, x: Signal, dim: int, visible: Array | None = None) -> Signal:
    """softmax over an axis of Gaussian logits.

    p has mean 1/n over the n visible keys and E Σp² = P(v, n); the logits' shared part does not matter. Two rows
    whose logits have covariance k instead of v overlap by about P(k, n) (exact while e^v is small beside n).

    Args:
        call: The application.
        x: Logits; entries whose mean is at most -`FILLER` are masked.
        dim: Axis of the keys.
        visible: Number of visible keys per row (a field with size 1 on the axis), where it is known.
    """
    dim %= x.ndim
    if x.shape[dim] == 1:
        one = (1,) * len(x.atoms)
        return replace(
            x, mean=np.ones(one), q=np.ones(one), corr=np.ones_like(x.corr), source=None, values=None, noise=SILENT,
            terms=(), value=None, weights=None, ident=next_id(),
        )  # fmt: skip
    units = _of_units(x, dim)
    x = merge_axis(x, dim) if len(x.groups[dim]) > 1 else x
    at, size = offset(x, dim), x.shape[dim]
    mean, q = np.broadcast_arrays(x.mean, x.q)
    seen = (mean > HIDDEN) & ~hidden_in(x)
    if seen.all():
        count = np.full_like(mean.sum(axis=at, keepdims=True), float(size))
        variance = float((q - np.square(mean)).mean())
        scatter = float(np.var(mean, axis=at).mean()) if mean.shape[at] > 1 else 0.0
        inside = np.ones((1,) * mean.ndim)
    else:
        wide = np.broadcast_to(seen, (*seen.shape[:at], size, *seen.shape[at + 1 :])) if seen.shape[at] == 1 else seen
        count = np.maximum(wide.sum(axis=at, keepdims=True).astype(np.float64), 1.0)
        variance = float((q - np.square(mean))[seen].mean())
        scatter = float(np.var(mean[seen]))
        inside = seen.astype(np.float64)
    if visible is not None:
        count = np.asarray(visible, dtype=np.float64)
    known = None if visible is not None else biased(mean, seen, at, x.corr)
    if known is not None:
        call.caveat(
            "logits with known biases: what keys that are alike by chance do to sums over keys is left out "
            "(queries' gradients come out up to a quarter too small)"
        )
        x, scatter = without(x, max(variance, 0.0), seen), 0.0
    level = float(q[seen].mean()) if seen.any() else 0.0
    if known is None and scatter <= 1e-12 * level:  # a mean that all logits share is among what they have in common
        variance = level
    # correlations of the centred logits; a masked tensor's cube is still that of its visible entries
    second = max(variance, 0.0)
    same = np.take(x.corr, 0, axis=at)
    other = np.take(x.corr, 1, axis=at)
    origin = (0,) * same.ndim
    v = second * max(1.0 - float(other[origin]), 0.0) + scatter
    units = units and bool(seen.all())
    if not units and x.wander > _FEW_DIMENSIONS and float(count.max()) >= _MANY_KEYS:
        call.caveat(
            f"many keys in about {1 / x.wander:.0f} independent dimensions: what like keys do to each other is sampled "
            "for correlations that are random; those of neighbours on a grid are not"
        )
    masked = known is None and causal(count, at, size)
    drawn = masked and together(x.wander, float(other[origin])) > _SCATTERED
    if drawn:
        call.caveat(
            "causal attention in few units, to positions that are much alike: by how much they differ scatters from "
            "draw to draw, more than it does from pair to pair; all pairs are taken to be alike as they are on average"
        )
    elif masked and together(x.wander, float(other[origin])) > _STRAYING:
        call.caveat(
            "causal attention in few units: by how much positions differ strays from draw to draw, and keys and values "
            "do so together; gradients of queries and keys can be off by tens of per cent"
        )
    if v > _SHARP_LOGITS:
        call.caveat(
            f"a sharp softmax (logits of variance {v:.1f}): single keys decide, and lengths scatter from row to row"
        )
    k: Array = np.clip(second * (same - other) + scatter, -v, v)
    strayed = (0.0, 0.0, 0.0, 0.0) if units else (keys.straying(x), *_lengths(x, at, bool(seen.all())))
    keyed = straying(v, count, *strayed)
    more = together(strayed[0], float(other[origin]))
    keyed = dataclasses.replace(
        keyed, coherent=keyed.coherent + more, lone=keyed.lone + more,
        queries=None if x.keyed is None else x.keyed.queries, turned=None if x.keyed is None else x.keyed.turned,
    )  # fmt: skip
    if known is not None:
        less = np.floor(known.keys)
        share = shares(known, participation_of(x, v, less + 1.0), participation_of(x, v, less)) * keyed.sharper
    elif not units:
        share = participation_of(x, v, count) * keyed.sharper
    else:  # units of a linear map are alike by no chance, and each row has a variance of its own
        share = participation_of(x, v, count, max(x.scatter, 0.0))
    rows = variances(x, at, v, size) if masked and not units and not drawn else None
    share = np.clip(share if rows is None else tempered(share, at, v, rows, size), 1.0 / count, 1.0)
    first = inside / count if known is None else known.weights
    square = inside * share / count if known is None else share * np.square(known.weights) * known.keys
    p2 = float(share.mean())
    levels, where = np.unique(np.round(k, 6), return_inverse=True)
    values: list[float] = levels.tolist()
    table = [float(overlap(v, c, count).mean()) if c > 0 else float(np.mean(float(np.exp(c)) / count)) for c in values]
    more = 1.0 + (keyed.sharper - 1.0) * np.clip(k / v, 0.0, 1.0) if v > 0.0 else 1.0  # of what makes one row sharper
    met = 1.0 if known is None else known.meet * float(np.mean(1.0 / count)) ** -1.0
    both = np.array(np.minimum(np.array(table)[where].reshape(k.shape) * more * met, p2))
    both[origin] = p2
    if visible is not None:  # keys beyond the visible ones are spread over the axis
        first, square = np.full_like(count, 1.0 / size), share / size
        pairs = (size - 1.0) * p2
        keyed = dataclasses.replace(keyed, seen=count.ravel())
    else:
        pairs = float(np.mean((count - 1.0) * share))
    rest = (1.0 - both) / max(pairs, 1e-12)
    corr = np.clip(np.stack([both / p2, rest], axis=at), 0.0, 1.0)
    if rows is not None:
        found = rows_of(x, share, at, rows, size, lambda n: coherence(v, n, *strayed), strayed[0], k)
        keyed = dataclasses.replace(keyed, causal=found)
    growth = _sensitivity(x, v, count)
    noise = combine([(growth, _noise_of_rows(x))])
    keyed = dataclasses.replace(keyed, growth=growth)
    return replace(
        x, mean=first, q=np.maximum(square, np.square(first)), corr=corr, source=None, values=None, noise=noise,
        scatter=keyed.uneven, split=None, data=True, cumulants=(0.0, 0.0), tag=("softmax", x.ident, keyed.alike),
        keyed=keyed, terms=(), weights=None, value=None, gaussian=False, integer=False, ident=next_id(),
    )  # fmt: skip


def _sensitivity(x: Signal, v: float, count: Array) -> float:
    """d ln Σp²/d ln v."""
    if v <= 0.0:
        return 0.0
    at, above = (float(participation_of(x, k * v, count).mean()) for k in (1.0, 1.1))
    return max(np.log(above / at) / np.log(1.1), 0.0)


def _noise_of_rows(x: Signal) -> Noise:
    """Log-norm noise of the variance of logits over the keys of a row."""
    known = x.keyed.noise if x.keyed is not None and x.tag is not None and x.tag[0] == INNER else None
    return x.noise if known is None else known


def _of_units(x: Signal, dim: int) -> bool:
    """Whether logits are units of a linear map (or functions of them), not products of queries and keys."""
    return x.sites is not None and x.sites.units == x.shape[dim] and (x.tag is None or x.tag[0] != INNER)


def _lengths(x: Signal, at: int, full: bool) -> tuple[float, float, float]:
    """Relative variance of |query|² in one length of tokens, of the tokens' lengths, and of whole samples'.

    From those of the logits.
    """
    own = x.tag[2] if x.tag is not None and x.tag[0] == INNER else max(x.scatter, 0.0)
    tokens = 0.5 * max(x.scatter - own, 0.0)  # queries and keys bring the same
    if full and x.q.size > 1:
        rows = x.q.mean(axis=at)
        tokens += float(rows.var()) / max(float(rows.mean()) ** 2, 1e-300)
    split = None if x.keyed is None or x.tag is None or x.tag[0] != INNER else x.keyed.split
    common = 0.0 if split is None else min(split[0], tokens)
    return own, tokens - common, common


def _through_values(g: Signal, at: int, free: float) -> float:
    """Share of a softmax's gradient that came through products with values; returned weights have their own.

    Args:
        g: The gradient of the weights.
        at: Atom of the keys.
        free: What it has not in common over the keys, which is all that the softmax lets through.
    """
    if not g.terms or free <= 0.0:
        return 1.0
    parts = [a * a * x.mean_q * _free(x, at) for a, x in g.terms if x.tag is not None and x.tag[0] == INNER]
    return min(sum(parts) / free, 1.0) if parts else 1.0


def _free(x: Signal, at: int) -> float:
    """1 - c for the correlation c of two keys."""
    there = len(x.atoms) > at and x.corr.shape[at] > 1
    return 1.0 - float(x.corr[tuple(int(i == at) for i in range(x.corr.ndim))]) if there else 1.0


def _mixed(keyed: Keyed, share: float) -> Keyed:
    """What like keys do to a gradient of which a share is linear in their values, and the rest in nothing of theirs."""
    if share == 1.0:
        return keyed
    less = 1.0 + share * (keyed.less - 1.0)
    coherent = (share * keyed.less * keyed.coherent + (1.0 - share) * keyed.apart) / less
    lone = coherent - share * keyed.less * (keyed.coherent - keyed.lone) / less
    return dataclasses.replace(keyed, less=less, coherent=coherent, lone=lone)


def soft_back(g: Signal, p: Signal, dim: int, known: float = 1.0, rate: float = 0.0) -> Signal:
    """p·(g - Σ p g): what g has in common over the keys goes; E over independent g of p²(1 - 2p + Σp²) g².

    Args:
        g: The gradient of p.
        p: The weights.
        dim: Axis of the keys.
        known: E (Σ p g)² over that of independent g and p.
        rate: Share of the weights that are dropped before they meet the values.
    """
    g, p = align(g, p)
    dim %= p.ndim
    if p.shape[dim] == 1:
        return replace(g, q=np.zeros_like(g.q), mean=np.zeros_like(g.mean), source=None, values=None, ident=next_id())
    if len(p.groups[dim]) > 1:
        g, p = merge_axis(g, dim), merge_axis(p, dim)
    at = offset(p, dim)
    n = p.shape[dim]
    square, seen = row_law(p, dim)
    g_same, g_other = np.take(g.corr, 0, axis=at), np.take(g.corr, 1, axis=at)
    free = np.maximum(g_same - g_other, 0.0)
    origin = (0,) * free.ndim
    own = float(free[origin])
    keyed = _mixed(p.keyed or straying(0.0, seen, 0.0, 0.0), _through_values(g, at, g.mean_q * own))
    passed = jacobian(square, seen) * (keyed.less * passing(p, dim, g.lean, known, rate)[0])
    q = p.q / np.maximum(square, 1e-300) * g.q * own * passed
    ratio = free / own if own > 0 else np.zeros_like(free)
    common = np.take(p.corr, 0, axis=at)
    if keyed.causal is None and float(seen.min()) == float(seen.max()):
        common = of_gradients(np.clip(common, 0.0, 1.0), sharpness(square, seen), round(float(seen.max())))
    same = np.clip(common * ratio, -1.0, 1.0)
    # every row adds up to nothing: pair moments over a row's other keys are minus those of the same key
    far = np.broadcast_to(profile(q, p.corr.shape), p.corr.shape)
    other = np.take(far, 0, axis=at) / np.maximum(np.take(far, 1, axis=at), 1e-12) / max(n - 1.0, 1.0)
    corr = np.stack([same, np.maximum(-same * other, -1.0)], axis=at)
    noise = _noise_of_rows(g)
    back = replace(
        g, mean=np.zeros_like(g.mean), q=q, corr=corr, source=None, values=None, noise=noise, terms=(),
        weights=None, tag=("softmax", p.ident, keyed.coherent - 1.0), keyed=keyed, lean=0.0, ident=next_id(),
    )  # fmt: skip
    return logits_back(back, g, p, keyed.causal, own) if keyed.causal is not None and own > 0.0 else back


@rule("softmax", assumes=(GAUSSIAN_INPUT,), refs=("vaswani2017",), example="x.softmax(-1)")
def softmax(call: Call, input: Signal, dim: int = -1) -> Signal:
    """softmax over an axis."""
    input = _uncut(input)
    return _on_logits(soft(call, input, dim), input, dim)


@softmax.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: int = -1) -> Grads:
    input = _uncut(input)
    known = known_share(grad, out) if dim % out.ndim == out.ndim - 1 else 1.0
    found = [(p, _met(p, out, dim)) for p in parts_of(grad)]
    if any(met is not None for _, met in found):
        bases = [whole(p) if met is None else p.base for p, met in found]
        parts = [
            _where_long(soft_back(g, out, dim, known), input, dim, met, g if met is not None else None)
            for g, (_, met) in zip(bases, found, strict=True)
        ]
        return {"input": joined([p for g in parts for p in parts_of(g)])}
    g = whole(grad)
    back = soft_back(g, out, dim, known)
    return {"input": behind_softmax(g, back, out) or _where_long(back, input, dim)}


def _uncut(x: Signal) -> Signal:
    """Logits behind a norm of few entries with the law of each in a group of one length.

    Where one of them is long the others are short, and e^ℓ and the rest of Σe^ℓ go against each other: entries that
    were cut and independent would have weights a fifth too even (32 of them behind ReLU).
    """
    return x if x.uncut is None or x.uncut[0] != x.ident or x.source is None else replace(x, values=x.uncut[1])


def _on_logits(p: Signal, x: Signal, dim: int) -> Signal:
    """The weights as √E[p²|u] on the source u of logits that are units, so that ℓ·p and f(p) know how they depend.

    What else decides on p, the other units of the row, is left out: where p is no more than that much of a function of
    its logit.
    """
    n, at = x.shape[dim], x.atoms
    if not (x.data or _of_units(x, dim)) or n < 2 or at != p.atoms or p.mean.size > 1 or p.q.size > 1 or x.q.size > 1:
        return p
    source, values = as_source(x)
    square, _, _ = let_through(values, source.share[:, None] * source.grid.weights, n)
    level = source.average(square)
    if not 0.0 < level < np.inf:
        return p
    root = np.sqrt(square / level * p.mean_q)
    if source.average(root) ** 2 > (1.0 + _LITTLE) * p.mean_mean**2:
        return p
    return replace(p, source=source, values=root)


def _met(g: Cotangent, p: Signal, dim: int) -> Array | None:
    """What a summand of the weights' gradient has met on the source that they stand on, if its base is free of them."""
    if p.source is None or g.source is None or g.values is None or g.stray is not None or g.source.key != p.source.key:
        return None
    if g.base.atoms != p.atoms or abs(float(np.take(g.base.corr, 1, axis=offset(p, dim)).flat[0])) > _SHARED:
        return None
    return on_grid(g.values, g.source, p.source)


def _where_long(back: Signal, x: Signal, dim: int, met: Array | None = None, root: Signal | None = None) -> Cotangent:
    """The gradient of logits that are a function f(u), as √(E [dℓ²|u]/E dℓ²) on the nodes of u times the rest.

    It is large where the logit is, and so is the slope f' that it meets next (ReLU's is 0 where p is smallest). Of a
    gradient φ(u)·b of the weights p(1 - p)·φ·b is the entry's own, which meets b on other ways to the logit; what the
    others of the row send is a root of its own.

    Args:
        back: The gradient of the logits behind independent weights and gradients.
        x: The logits.
        dim: Axis of the keys.
        met: φ on the nodes; 1 if None.
        root: b, where φ is given.
    """
    source, n = x.source, x.shape[dim]
    if source is None and (step := affine_of(x)) is not None:
        source = step[2].source
    if source is None and met is not None:
        source, _ = as_source(x)
    values = None if source is None else on_source(x, source)
    if source is None or values is None or n < 2 or x.atoms != back.atoms:
        return Cotangent(back)
    square, own, others = let_through(values, source.share[:, None] * source.grid.weights, n, met)
    passed = own + others
    level = source.average(passed)
    gaussian = float(jacobian(np.array(n * source.average(square)), np.array(n)))
    if not (0.0 < level < np.inf and gaussian > 0.0):
        return Cotangent(back)
    if root is not None and met is not None:
        passed = others
    # where keys have unequal weights the field q says so, and the nodes what is left of each row of the source
    each = source.average(passed) if back.q.size == 1 else np.maximum(passed @ source.grid.weights, 1e-300)[:, None]
    profile = np.sqrt(passed / each)
    corr = np.clip(back.corr / np.maximum(from_values(x, source, profile).corr, 1e-3), -1.0, 1.0)
    q = back.q * (n * source.average(passed) / gaussian)  # than Gaussian logits with as uneven weights
    rest = Cotangent(replace(back, q=q, corr=corr, ident=next_id()), source, profile, x)
    if root is None or met is None:
        return rest
    return joined([Cotangent(root, source, np.sign(met) * np.sqrt(own), x), rest])


@rule("log_softmax", assumes=(GAUSSIAN_INPUT,), example="x.log_softmax(-1)")
def log_softmax(call: Call, input: Signal, dim: int = -1) -> Signal:
    """x - ln Σ e^x: the shared part goes, and the mean of -ln Σ e^x over the centred logits comes."""
    dim %= input.ndim
    x = merge_axis(input, dim) if len(input.groups[dim]) > 1 else input
    if not x.groups[dim]:
        return scale(x, 0.0)
    at, n = offset(x, dim), x.shape[dim]
    v = x.mean_q * max(1.0 - float(np.take(x.corr, 1, axis=at)[(0,) * (x.corr.ndim - 1)]), 0.0)
    centred = np.take(x.corr, [1], axis=at)
    raw = (x.corr - centred) * x.mean_q
    total, scatter = log_sum_of(x, v, n)
    shift = -total
    q = v * (1.0 - 2.0 / n) + scatter + shift * shift
    one = (1,) * len(x.atoms)
    del call
    return replace(
        x, mean=np.full(one, shift), q=np.full(one, q), corr=np.clip((raw + shift * shift) / q, -1, 1), source=None,
        values=None, terms=(), noise=SILENT, value=None, weights=None, ident=next_id(),
    )  # fmt: skip


@log_softmax.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: int = -1) -> Grads:
    del out
    p = soft(call, input, dim)
    g, p = align(whole(grad), p)
    at = offset(p, dim)
    n = p.shape[dim]
    # E (Σg)² = total·n·E g², of which each entry of g has total/n: E (g - p·Σg)²
    total = 1.0 + (n - 1.0) * float(np.take(g.corr, 1, axis=at)[(0,) * (g.corr.ndim - 1)])
    kept = max(1.0 + total * (n * p.mean_q - 2.0 / n), 0.0)
    return {"input": Cotangent(replace(g, q=g.q * kept, source=None, values=None, ident=next_id()))}
