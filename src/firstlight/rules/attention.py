"""Softmax and attention: averaging over keys divides what values have not in common by the number of keys."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from firstlight.graph.along import Along
from firstlight.graph.keyed import Keyed
from firstlight.graph.signal import INFINITY, SILENT, Array, Cotangent, Signal, next_id, replace
from firstlight.rules import selfsame
from firstlight.rules.affine import pair_einsum as einsum
from firstlight.rules.along import of_rows
from firstlight.rules.attending import FOURTH, SQUARE, forms, moments, row_law, sharpness
from firstlight.rules.bent_logits import participation_of
from firstlight.rules.contraction import INNER
from firstlight.rules.empirical import constant
from firstlight.rules.forms import combine
from firstlight.rules.gradient import scale, whole
from firstlight.rules.heads import gather, repeat
from firstlight.rules.hiding import HIDDEN
from firstlight.rules.layout import align, axis_atoms, merge_axis, offset
from firstlight.rules.leaning import at_rows, at_values, known_share, passing
from firstlight.rules.merge import plus, reduce_to
from firstlight.rules.noise import sample_correlation
from firstlight.rules.registry import BACKWARD_INDEPENDENT, GAUSSIAN_INPUT, Call, Grads, rule
from firstlight.rules.shares import behind_softmax
from firstlight.rules.softmax import jacobian, participation, straying
from firstlight.rules.windows import with_atom

_FEW_DIMENSIONS, _MANY_KEYS, _SHARP_LOGITS = 0.03, 32, 3.0
_COMMON = 0.3  # correlation of the gradients of two rows of a softmax from which their sum at the keys is uncertain
_FULL = 256  # longest sequence whose masks are followed entry by entry


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
    x = merge_axis(x, dim) if len(x.groups[dim]) > 1 else x
    at, size = offset(x, dim), x.shape[dim]
    mean, q = np.broadcast_arrays(x.mean, x.q)
    seen = mean > HIDDEN
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
    level = float(q[seen].mean()) if seen.any() else 0.0
    if scatter <= 1e-12 * level:  # a mean that all logits share is among what they have in common
        variance = level
    # correlations of the centred logits; a masked tensor's cube is still that of its visible entries
    second = max(variance, 0.0)
    same = np.take(x.corr, 0, axis=at)
    other = np.take(x.corr, 1, axis=at)
    origin = (0,) * same.ndim
    v = second * max(1.0 - float(other[origin]), 0.0) + scatter
    if x.wander > _FEW_DIMENSIONS and float(count.max()) >= _MANY_KEYS:
        call.caveat(
            f"many keys in about {1 / x.wander:.0f} independent dimensions: what like keys do to each other is sampled "
            "for correlations that are random; those of neighbours on a grid are not"
        )
    if v > _SHARP_LOGITS:
        call.caveat(
            f"a sharp softmax (logits of variance {v:.1f}): single keys decide, and lengths scatter from row to row"
        )
    k: Array = np.clip(second * (same - other) + scatter, -v, v)
    if _of_pairs(x) or not seen.all():
        keyed = straying(v, count, _apart(x), *_lengths(x, at, bool(seen.all())))
        share = participation_of(x, v, count) * keyed.sharper
    else:  # units of a linear map are alike by no chance, and each row has a variance of its own
        keyed = straying(v, count, 0.0, 0.0)
        share = participation_of(x, v, count, max(x.scatter, 0.0))
    share = np.clip(share, 1.0 / count, 1.0)
    first = inside / count
    square = inside * share / count
    p2 = float(share.mean())
    levels, where = np.unique(np.round(k, 6), return_inverse=True)
    values: list[float] = levels.tolist()
    table = [
        float(participation(c, count).mean()) if c > 0 else float(np.mean(float(np.exp(c)) / count)) for c in values
    ]
    overlap = np.minimum(np.array(table)[where].reshape(k.shape), p2)
    if visible is not None:  # keys beyond the visible ones are spread over the axis
        first, square = np.full_like(count, 1.0 / size), share / size
        pairs = (size - 1.0) * p2
        keyed = dataclasses.replace(keyed, seen=count.ravel())
    else:
        pairs = float(np.mean((count - 1.0) * share))
    rest = (1.0 - overlap) / max(pairs, 1e-12)
    corr = np.clip(np.stack([overlap / p2, rest], axis=at), 0.0, 1.0)
    noise = combine([(min(v, 4.0) / (1.0 + v), x.noise)])
    return replace(
        x, mean=first, q=np.maximum(square, np.square(first)), corr=corr, source=None, values=None, noise=noise,
        scatter=keyed.uneven, data=True, cumulants=(0.0, 0.0), tag=("softmax", x.ident, keyed.alike), keyed=keyed,
        terms=(), weights=None, value=None, gaussian=False, integer=False, ident=next_id(),
    )  # fmt: skip


def _apart(x: Signal) -> float:
    """1/(dimensions in which tokens differ): each layer of n units adds 1/n to it, and (1 + 2φ)/n to `wander`.

    φ is the mean c² of samples: what they have in common makes their products stray further. Between the keys of one
    query what is common plays no part.
    """
    square = sample_correlation(x) ** 2
    return min(x.wander / (1.0 + 2.0 * (square + x.wander * (1.0 - square))), 0.5)


def _of_pairs(x: Signal, depth: int = 4) -> bool:
    """Whether logits are products of queries and keys, or sums with such: units of a linear map are not alike."""
    if x.tag is not None and x.tag[0] == INNER:
        return True
    return depth > 0 and any(_of_pairs(term, depth - 1) for _, term in x.terms)


def _lengths(x: Signal, at: int, full: bool) -> tuple[float, float]:
    """Relative variance of |query|² in one length of tokens, and of the tokens' lengths, from those of the logits."""
    own = x.tag[2] if x.tag is not None and x.tag[0] == INNER else max(x.scatter, 0.0)
    tokens = 0.5 * max(x.scatter - own, 0.0)  # queries and keys bring the same
    if full and x.q.size > 1:
        rows = x.q.mean(axis=at)
        tokens += float(rows.var()) / max(float(rows.mean()) ** 2, 1e-300)
    return own, tokens


def _through_values(g: Signal) -> float:
    """Share of a softmax's gradient that came through products with values; returned weights have their own."""
    if not g.terms or g.mean_q <= 0.0:
        return 1.0
    parts = [a * a * x.mean_q for a, x in g.terms if x.tag is not None and x.tag[0] == INNER]
    return min(sum(parts) / g.mean_q, 1.0) if parts else 1.0


def _mixed(keyed: Keyed, share: float) -> Keyed:
    """What like keys do to a gradient of which a share is linear in their values, and the rest in nothing of theirs."""
    if share == 1.0:
        return keyed
    less = 1.0 + share * (keyed.less - 1.0)
    coherent = (share * keyed.less * keyed.coherent + 1.0 - share) / less
    return dataclasses.replace(keyed, less=less, coherent=coherent)


def soft_back(g: Signal, p: Signal, dim: int, known: float = 1.0) -> Signal:
    """p·(g - Σ p g): what g has in common over the keys goes; E over independent g of p²(1 - 2p + Σp²) g².

    Args:
        g: The gradient of p.
        p: The weights.
        dim: Axis of the keys.
        known: E (Σ p g)² over that of independent g and p.
    """
    g, p = align(g, p)
    dim %= p.ndim
    if p.shape[dim] == 1:
        return replace(g, q=np.zeros_like(g.q), mean=np.zeros_like(g.mean), source=None, values=None, ident=next_id())
    at = offset(p, dim)
    n = p.shape[dim]
    square, seen = row_law(p, dim)
    g_same, g_other = np.take(g.corr, 0, axis=at), np.take(g.corr, 1, axis=at)
    free = np.maximum(g_same - g_other, 0.0)
    origin = (0,) * free.ndim
    own = float(free[origin])
    keyed = _mixed(p.keyed or straying(0.0, seen, 0.0, 0.0), _through_values(g))
    passed = jacobian(square, seen) * (keyed.less * passing(p, dim, g.lean, known)[0])
    q = p.q / np.maximum(square, 1e-300) * g.q * own * passed
    ratio = free / own if own > 0 else np.zeros_like(free)
    same = np.clip(np.take(p.corr, 0, axis=at) * ratio, -1.0, 1.0)
    corr = np.stack([same, -same / max(n - 1.0, 1.0)], axis=at)
    noise = combine([(1.0, g.noise)])
    return replace(
        g, mean=np.zeros_like(g.mean), q=q, corr=corr, source=None, values=None, noise=noise, terms=(),
        weights=None, tag=("softmax", p.ident, keyed.coherent - 1.0), keyed=keyed, lean=0.0, ident=next_id(),
    )  # fmt: skip


@rule("softmax", assumes=(GAUSSIAN_INPUT,), refs=("vaswani2017",), example="x.softmax(-1)")
def softmax(call: Call, input: Signal, dim: int = -1) -> Signal:
    """softmax over an axis."""
    return soft(call, input, dim)


@softmax.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: int = -1) -> Grads:
    del input
    g = whole(grad)
    _warn_common(call, g, dim % out.ndim)
    back = soft_back(g, out, dim, known_share(grad, out) if dim % out.ndim == out.ndim - 1 else 1.0)
    return {"input": behind_softmax(g, back, out) or Cotangent(back)}


def _warn_common(call: Call, g: Signal, dim: int) -> None:
    """Say so where rows of a softmax have much of their gradient in common: it adds up at the keys."""
    for axis in range(g.ndim):
        for atom in axis_atoms(g, axis):
            at = tuple(1 if i == atom else 0 for i in range(g.corr.ndim))
            if axis == dim or g.batch[atom] or float(g.corr[at]) <= _COMMON:
                continue
            call.caveat(
                f"the rows of this softmax have {100 * float(g.corr[at]):.0f} % of their gradient in common: what the "
                "keys get is a sum over rows whose weights are taken as independent, and can come out too small"
            )
            return


@rule("log_softmax", assumes=(GAUSSIAN_INPUT,), example="x.log_softmax(-1)")
def log_softmax(call: Call, input: Signal, dim: int = -1) -> Signal:
    """x - ln Σ e^x: the shared part goes, -(ln n + v/2) comes."""
    dim %= input.ndim
    x = merge_axis(input, dim) if len(input.groups[dim]) > 1 else input
    if not x.groups[dim]:
        return scale(x, 0.0)
    at, n = offset(x, dim), x.shape[dim]
    v = x.mean_q * max(1.0 - float(np.take(x.corr, 1, axis=at)[(0,) * (x.corr.ndim - 1)]), 0.0)
    centred = np.take(x.corr, [1], axis=at)
    raw = (x.corr - centred) * x.mean_q
    # ln of a mean of e^ℓ over n keys, between v/2 (many keys) and the largest logit
    shift = -(np.log(n) + 0.5 * v if v < np.log(n) else np.sqrt(2.0 * v * np.log(n)))
    q = v + shift * shift
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
    total = 1.0 + (n - 1.0) * float(np.take(g.corr, 1, axis=at)[(0,) * (g.corr.ndim - 1)])
    kept = max(1.0 - 2.0 / n + total * n * p.mean_q / n, 0.0)
    return {"input": Cotangent(replace(g, q=g.q * kept, source=None, values=None, ident=next_id()))}


def _letters(x: Signal) -> str:
    return "abcdefgh"[: x.ndim - 2]


def _weights(call: Call, query: Signal, key: Signal, mask: Any, causal: bool, factor: float) -> Signal:
    lead = _letters(query)
    logits = scale(einsum(query, lead + "td", key, lead + "sd", lead + "ts"), factor)
    t, s = query.shape[-2], key.shape[-2]
    visible: Array | None = None
    if causal and max(t, s) > 1:
        if max(t, s) <= _FULL:
            hidden = np.triu(np.ones((t, s), dtype=bool), 1)
            logits = _mask(call, logits, hidden)
        else:
            rows = np.minimum(np.arange(t) + 1.0, float(s))
            logits = with_atom(logits, logits.ndim - 2)
            at = offset(logits, logits.ndim - 2)
            visible = rows.reshape((1,) * at + (-1,) + (1,) * (len(logits.atoms) - at - 1))
    elif isinstance(mask, Signal):
        if mask.value is not None and np.asarray(mask.value).dtype == bool:
            logits = _mask(call, logits, ~np.asarray(mask.value))
        elif mask.value is not None:
            logits = plus(call, logits, constant(np.nan_to_num(np.asarray(mask.value, float), neginf=-INFINITY)))
        elif not mask.integer:
            logits = plus(call, logits, mask)
    return soft(call, logits, -1, visible)


def _mask(call: Call, x: Signal, hidden: Any) -> Signal:
    from firstlight.rules.choice import masked

    del call
    return masked(x, constant(hidden), -INFINITY)


@rule(
    "scaled_dot_product_attention",
    assumes=(GAUSSIAN_INPUT, BACKWARD_INDEPENDENT), refs=("vaswani2017", "dong2021"),
    example="F.scaled_dot_product_attention(*(F.linear(x.view(-1, 8, 64), torch.randn(64, 64) / 8) for _ in range(3)))",
)  # fmt: skip
def sdpa(
    call: Call, query: Signal, key: Signal, value: Signal, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Signal:  # fmt: skip
    """softmax(QKᵀ/√d)·V: q' = q_V·Σp² + r_V·(1 - Σp²) over the keys."""
    if enable_gqa:
        key, value = repeat(key, query), repeat(value, query)
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    how = selfsame.asked(query, key, value, attn_mask, is_causal, factor, dropout_p)
    if how is not None and (made := selfsame.attend(call, query, value, how)) is not None:
        return made
    p = _dropped(_weights(call, query, key, attn_mask, is_causal, factor), dropout_p)
    lead = _letters(query)
    return einsum(p, lead + "ts", value, lead + "sd", lead + "td")


def _dropped(p: Signal, rate: float) -> Signal:
    """Weights under masks of their own: Σ p² of a row scatters by rate/(1 - rate)·Σp⁴/(Σp²)² more."""
    if not rate:
        return p
    corr = p.corr * (1.0 - rate)
    corr[(0,) * corr.ndim] = 1.0
    square, seen = row_law(p, p.ndim - 1)
    found = moments(sharpness(square, seen), seen)
    lost = rate / (1.0 - rate) * float(found[FOURTH] / found[SQUARE])
    scatter = (1.0 + max(p.scatter, 0.0)) * (1.0 + lost) - 1.0
    return replace(p, q=p.q / (1.0 - rate), corr=corr, scatter=scatter, ident=next_id())


@sdpa.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, query: Signal, key: Signal, value: Signal, attn_mask: Any = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Grads:  # fmt: skip
    from firstlight.rules.gradient import scale as times_number

    g = whole(grad)
    wide_key, wide_value = (repeat(key, query), repeat(value, query)) if enable_gqa else (key, value)
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    how = selfsame.asked(query, wide_key, wide_value, attn_mask, is_causal, factor, dropout_p)
    if how is not None and (both := selfsame.attend_back(call, grad, g, query, wide_value, how)) is not None:
        return {"query": both[0], "value": both[1]}
    p = _weights(call, query, wide_key, attn_mask, is_causal, factor)
    lead = _letters(query)
    g = at_rows(g, out, p, wide_value)
    dv = at_values(einsum(_dropped(p, dropout_p), lead + "ts", g, lead + "td", lead + "sd"), g, p)
    dp = einsum(g, lead + "td", wide_value, lead + "sd", lead + "ts")
    free = g.mean_q * out.mean_q * value.shape[-1]
    one_head = 1.0 if grad.along is None or free <= 0.0 else grad.along.variance / free
    through = soft_back(dp, p, -1, min(one_head, 1.0))
    dl = times_number(through, factor)
    dq = einsum(dl, lead + "ts", wide_key, lead + "sd", lead + "td")
    dk = einsum(dl, lead + "ts", query, lead + "td", lead + "sd")
    grads = {"query": dq, "key": dk, "value": dv}
    if isinstance(attn_mask, Signal) and attn_mask.value is None and not attn_mask.integer:
        grads["attn_mask"] = whole(reduce_to(Cotangent(through), attn_mask))
    heads = query.shape[-3] if query.ndim > 3 else 1
    ratio = max(1.0 - heads * (1.0 - one_head), 0.0)
    passed, along = passing(p, p.ndim - 1, g.lean, min(one_head, 1.0))
    known = _along(p, through, dv, wide_value, heads, ratio, attn_mask, along / max(passed, 1e-12))
    if enable_gqa:
        for name, small in (("key", key), ("value", value)):
            grads[name] = gather(grads[name], small)
            known = {**known, name: of_rows(known.get(name), query.shape[-3] / max(small.shape[-3], 1))}
    return {name: Cotangent(s, along=known.get(name)) for name, s in grads.items()}


def _along(
    p: Signal, through: Signal, dv: Signal, value: Signal, heads: int, ratio: float, mask: Any, query: float
) -> dict[str, Along | None]:
    """How far the gradients of queries, keys and values go along them, from that of the logits."""
    rows, keys = p.shape[-2], p.shape[-1]
    if keys < 2:
        return {}
    square, seen = row_law(p, p.ndim - 1)
    values = dv.mean_q * value.mean_q * value.shape[-1]
    v, part = sharpness(square, seen), 1.0
    if isinstance(mask, Signal) and mask.value is None and not mask.integer and v > 0.0:
        shared = float(np.take(mask.corr, 1, axis=-1).flat[0]) if mask.groups and mask.groups[-1] else 1.0
        mean, q = np.broadcast_arrays(mask.mean, mask.q)
        seen_bias = (q - np.square(mean))[mean > HIDDEN]
        bias = float(seen_bias.mean()) if seen_bias.size else 0.0
        part = min(max(1.0 - bias * (1.0 - shared) / v, 0.0), 1.0)
    found = forms(v, seen, through.mean_q * keys, values, rows, keys, heads, ratio, part, query)
    return {} if found is None else dict(zip(("query", "key", "value"), found, strict=True))
