"""Complex numbers whose real and imaginary parts are followed, z = a + ib: what an exponential needs to know of them.

Around its mean a complex tensor counts as circular (`spectral`). That is far from true of the exponents of linear
recurrences, z = -αt + iωt: |e^z| = e^a knows nothing of b, and e^z of a circular z of that size would overflow. What is
real-linear (layouts, sums, products with real numbers) does the same to both parts; a product of two with known parts
is (aa' - bb') + i(ab' + ba').
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from firstlight.graph.signal import Cotangent, Signal, next_id, replace
from firstlight.rules.chains.grids import Bend
from firstlight.rules.gradients.gradient import scale, whole
from firstlight.rules.linear.contraction import product
from firstlight.rules.linear.spectral import part
from firstlight.rules.pointwise.elementwise import apply
from firstlight.rules.pointwise.homogeneous import Pointwise
from firstlight.rules.pointwise.merge import is_number, plus, unit
from firstlight.rules.pointwise.products import inverse, multiply
from firstlight.rules.registry import Call, Grads, rule
from firstlight.rules.state.layout import align

Parts = tuple[Any, Any]  # signals or numbers

LAYOUTS = frozenset({
    "view", "reshape", "unsqueeze", "squeeze", "transpose", "permute", "movedim", "flatten", "unflatten", "expand",
    "expand_as", "broadcast_to", "t", "getitem", "select", "narrow", "repeat", "clone", "contiguous", "to", "neg",
})  # fmt: skip
EXP = Pointwise(np.exp, np.exp, Bend(steep=True))
_COS, _SIN = Pointwise(np.cos, lambda x: -np.sin(x)), Pointwise(np.sin, np.cos)


def parts_of(x: Any) -> Parts | None:
    """(a, b) of x = a + ib, where they are known; numbers and real tensors have b = 0."""
    if isinstance(x, complex):
        return x.real, x.imag
    if is_number(x):
        return x, 0.0
    if not isinstance(x, Signal):
        return None
    if not x.complex:
        return x, 0.0
    return x.cartesian[1:] if x.cartesian is not None and x.cartesian[0] == x.ident else None


def whole_of(a: Signal, b: Signal, like: Signal | None = None) -> Signal:
    """The complex tensor a + ib: E|z|² = E a² + E b², Re E z z̄' = E aa' + E bb', Re E z = E a."""
    a, b = align(a, b)
    level = a.mean_q + b.mean_q
    corr = (a.corr * a.mean_q + b.corr * b.mean_q) / level if level > 0.0 else np.ones_like(a.corr)
    made = a if like is None or like.atoms != a.atoms else like
    ident = next_id()
    return replace(
        made, mean=a.mean, q=a.q + b.q, corr=corr, source=None, values=None, value=None, terms=(), weights=None,
        gaussian=a.gaussian and b.gaussian, complex=True, cartesian=(ident, a, b), ident=ident,
    )  # fmt: skip


def followed(call: Call, forward: Callable[..., Any], bound: Mapping[str, Any]) -> Any:
    """What a rule gives, with the parts of complex numbers where the operation is linear in them."""
    if not [x for x in bound.values() if (x.complex if isinstance(x, Signal) else isinstance(x, complex))]:
        return forward(call, **bound)
    made = _parts(call, forward, bound)
    if made is None:
        return forward(call, **{k: abs(x) if isinstance(x, complex) else x for k, x in bound.items()})
    if not all(isinstance(bound.get(k), Signal) and bound[k].complex for k in ("input", "other")):
        return whole_of(*made)
    out = forward(call, **bound)  # |zw|² = |z|²|w|², while the terms of its parts may follow each other
    level = sum(p.mean_q for p in made)
    k = (out.mean_q / level) ** 0.5 if level > 0.0 and call.node.op in ("mul", "div") else 1.0
    return replace(out, cartesian=(out.ident, scale(made[0], k), scale(made[1], k)))


def _parts(call: Call, forward: Callable[..., Any], bound: Mapping[str, Any]) -> tuple[Signal, Signal] | None:
    op = call.node.op
    if op in LAYOUTS:
        first = next(iter(bound))
        found = parts_of(bound[first])
        return None if found is None else _both(*(forward(call, **{**bound, first: p}) for p in found))
    if op not in ("add", "sub", "mul", "div") or "input" not in bound or "other" not in bound:
        return None
    one, two = parts_of(bound["input"]), parts_of(bound["other"])
    if one is None or two is None:
        return None
    if op in ("add", "sub"):
        sign = float(bound.get("alpha", 1.0)) * (1.0 if op == "add" else -1.0)
        return _both(plus(call, one[0], two[0], sign), plus(call, one[1], two[1], sign))
    if op == "div":
        if not isinstance(two[1], Signal):
            return _both(*(forward(call, **{**bound, "input": p}) for p in one))
        two = _over(call, *two)
    (a, b), (c, d) = (_numbers(one), _numbers(two))
    re = plus(call, _times(call, a, c), _times(call, b, d), -1.0)
    return _both(re, plus(call, _times(call, a, d), _times(call, b, c)))


def reciprocal(call: Call, z: Signal) -> Signal:
    """1/z; of a circular z that of its size alone."""
    found = parts_of(z)
    return whole_of(*_over(call, *((part(z, 1.0), part(z, 0.0)) if found is None else found)))


def _over(call: Call, a: Any, b: Any) -> Parts:
    """1/(a + ib) = (a - ib)/(a² + b²)."""
    a, b = _numbers((a, b))
    size = inverse(call, plus(call, _times(call, a, a), _times(call, b, b)))
    return _times(call, a, size), _times(call, _times(call, b, -1.0), size)


def _numbers(parts: Parts) -> Parts:
    """Parts that are one number everywhere as numbers: 1 + b² stands on the source of b."""
    one, other = (
        p.mean.item()
        if isinstance(p, Signal) and p.mean.size == p.q.size == 1 and p.q <= p.mean**2 * (1 + 1e-12)
        else p
        for p in parts
    )
    return one, other


def _times(call: Call, x: Any, y: Any) -> Any:
    """x·y; the number 0 if either is."""
    return 0.0 if any(is_number(p) and p == 0.0 for p in (x, y)) else multiply(call, x, y)


def _both(a: Any, b: Any) -> tuple[Signal, Signal] | None:
    """Two parts of one layout; zeros for a part that is the number 0."""
    like = next((p for p in (a, b) if isinstance(p, Signal)), None)
    if like is None:
        return None
    one, other = (p if isinstance(p, Signal) else unit(like, float(p)) for p in (a, b))
    return one, other


@rule("complex", example="torch.complex(x, x.roll(1, 1)).abs()")
def complex_(call: Call, real: Signal, imag: Signal) -> Signal:
    """re + i·im."""
    del call
    return whole_of(real, imag)


@complex_.adjoint
def _(call: Call, grad: Cotangent, out: Signal, real: Signal, imag: Signal) -> Grads:
    del call, out, real, imag
    g = whole(grad)
    return {"real": Cotangent(part(g, 1.0)), "imag": Cotangent(part(g, 0.0))}


def exponential(call: Call, z: Signal) -> Signal:
    """e^(a + ib) = e^a·(cos b + i sin b), its two factors as if independent."""
    found = parts_of(z)
    if found is None:
        call.caveat("the exponential of complex numbers of which the real parts are not known: taken as circular")
    a, b = (part(z, 1.0), part(z, 0.0)) if found is None else found
    size, cos, sin = apply(call, a, EXP), apply(call, b, _COS), apply(call, b, _SIN)
    return whole_of(product(size, cos), product(size, sin))
