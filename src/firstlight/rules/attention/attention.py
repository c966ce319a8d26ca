"""Attention: averaging over keys divides what values have not in common by the number of keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.along import Along
from firstlight.graph.signal import INFINITY, Array, Cotangent, Signal, next_id, replace
from firstlight.rules.attention import selfsame
from firstlight.rules.attention.attending import FOURTH, SQUARE, forms, moments, row_law, sharpness
from firstlight.rules.attention.heads import gather, repeat, shared
from firstlight.rules.attention.hiding import HIDDEN
from firstlight.rules.attention.softmax import soft, soft_back
from firstlight.rules.gradients.along import of_rows
from firstlight.rules.gradients.gradient import scale, whole
from firstlight.rules.gradients.leaning import at_rows, at_values, of_keys, passing
from firstlight.rules.gradients.leaning import of_rows as of_queries
from firstlight.rules.linear.affine import pair_einsum as einsum
from firstlight.rules.pointwise.merge import plus, reduce_to
from firstlight.rules.registry import BACKWARD_INDEPENDENT, GAUSSIAN_INPUT, Call, Grads, rule
from firstlight.rules.state import course, pieces
from firstlight.rules.state.empirical import constant
from firstlight.rules.state.layout import offset
from firstlight.rules.state.windows import with_atom

_FULL = 256  # longest sequence whose masks are followed entry by entry


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
    from firstlight.rules.pointwise.choice import masked

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
    if shared(query, key):
        key, value = repeat(key, query), repeat(value, query)
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    how = selfsame.asked(call, query, key, value, attn_mask, is_causal, factor, dropout_p)
    if how is not None and (made := selfsame.attend(call, query, value, how)) is not None:
        return made
    lead = _letters(query)

    def seen_by(p: Signal) -> Signal:
        return einsum(_dropped(p, dropout_p), lead + "ts", value, lead + "sd", lead + "td")

    def attend(query: Signal) -> Signal:
        return seen_by(_weights(call, query, key, attn_mask, is_causal, factor))

    call.kept = _weights(call, query, key, attn_mask, is_causal, factor)
    return pieces.by_rows(seen_by(call.kept), query, attend)


def _through_masks(x: Signal, rate: float) -> Signal:
    """Entries under masks of their own: what two of them have in common is 1 - rate of it."""
    if not rate:
        return x
    corr = x.corr * (1.0 - rate)
    corr[(0,) * corr.ndim] = 1.0
    ident = next_id()
    return replace(x, q=x.q / (1.0 - rate), corr=corr, courses=course.kept(x, ident), ident=ident)


def _dropped(p: Signal, rate: float) -> Signal:
    """Weights under masks of their own: Σ p² of a row scatters by rate/(1 - rate)·Σp⁴/(Σp²)² more."""
    if not rate:
        return p
    square, seen = row_law(p, p.ndim - 1)
    found = moments(sharpness(square, seen), seen)
    lost = rate / (1.0 - rate) * float(found[FOURTH] / found[SQUARE])
    scatter = (1.0 + max(p.scatter, 0.0)) * (1.0 + lost) - 1.0
    return replace(_through_masks(p, rate), scatter=scatter)


@sdpa.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, query: Signal, key: Signal, value: Signal, attn_mask: Any = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Grads:  # fmt: skip
    from firstlight.rules.gradients.gradient import scale as times_number

    g = whole(grad)
    wide_key, wide_value = (repeat(key, query), repeat(value, query)) if shared(query, key) else (key, value)
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    how = selfsame.asked(call, query, wide_key, wide_value, attn_mask, is_causal, factor, dropout_p)
    if how is not None and (both := selfsame.attend_back(call, grad, g, query, wide_value, how)) is not None:
        return {"query": both[0], "value": both[1]}
    p: Signal = call.kept or _weights(call, query, wide_key, attn_mask, is_causal, factor)
    lead = _letters(query)
    g = at_rows(g, out, p, wide_value)
    dv = at_values(einsum(_dropped(p, dropout_p), lead + "ts", g, lead + "td", lead + "sd"), g, p, dropout_p)
    dp = _through_masks(einsum(g, lead + "td", wide_value, lead + "sd", lead + "ts"), dropout_p)
    free = g.mean_q * out.mean_q * value.shape[-1]
    one_head = 1.0 if grad.along is None or free <= 0.0 else grad.along.variance / free
    through = soft_back(dp, p, -1, min(one_head, 1.0), dropout_p)
    dl = times_number(through, factor)
    dq = einsum(dl, lead + "ts", wide_key, lead + "sd", lead + "td")
    dk = einsum(dl, lead + "ts", query, lead + "td", lead + "sd")
    grads = {"query": of_queries(dq, g), "key": of_keys(dk, g, dl), "value": of_keys(dv, g, p, g)}
    if isinstance(attn_mask, Signal) and attn_mask.value is None and not attn_mask.integer:
        grads["attn_mask"] = whole(reduce_to(Cotangent(through), attn_mask))
    known: dict[str, Along | None] = {}
    if not call.moments and p.shape[-1] > 1:
        heads = query.shape[-3] if query.ndim > 3 else 1
        ratio = max(1.0 - heads * (1.0 - one_head), 0.0)
        passed, along = passing(p, p.ndim - 1, g.lean, min(one_head, 1.0), dropout_p)
        known = _along(p, through, dv, wide_value, heads, ratio, attn_mask, along / max(passed, 1e-12))
    if shared(query, key):
        for name, small in (("key", key), ("value", value)):
            grads[name] = gather(grads[name], small)
            known = {**known, name: of_rows(known.get(name), query.shape[-3] / max(small.shape[-3], 1))}
    return {name: Cotangent(s, along=known.get(name)) for name, s in grads.items()}


def _along(
    p: Signal, through: Signal, dv: Signal, value: Signal, heads: int, ratio: float, mask: Any, query: float
) -> dict[str, Along | None]:
    """How far the gradients of queries, keys and values go along them, from that of the logits."""
    rows, keys = p.shape[-2], p.shape[-1]
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
