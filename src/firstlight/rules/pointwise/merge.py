"""Sums of two tensors: add, subtract, mix; terms on one Gaussian source are followed node by node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from firstlight.graph.along import Along, Image
from firstlight.graph.signal import Cotangent, Signal, replace, vanishes
from firstlight.rules.attention.hiding import hide, seen_of, visible
from firstlight.rules.chains.grids import Bend
from firstlight.rules.chains.operands import through_sum
from firstlight.rules.chains.source import as_source, on_source
from firstlight.rules.composed.tape import Tape
from firstlight.rules.gradients import images
from firstlight.rules.gradients.across import of_term
from firstlight.rules.gradients.along import energy, of_shifted, of_sum
from firstlight.rules.gradients.gradient import scale, scaled, whole, whole_shape
from firstlight.rules.gradients.leaning import shared
from firstlight.rules.pointwise.elementwise import GUARD, apply
from firstlight.rules.pointwise.homogeneous import Pointwise
from firstlight.rules.registry import Call, Grads, find, rule
from firstlight.rules.state import sites
from firstlight.rules.state.cross import add
from firstlight.rules.state.layout import align, axis_atoms
from firstlight.rules.state.steps import between
from firstlight.rules.state.summation import sum_atoms
from firstlight.rules.state.views import same_view

Number = int | float
_EVEN = 1e-9  # relative variance up to which entries are one number
_FOLLOWED = 3  # summands of a gradient behind which the masks of a stream are known together only


def is_number(x: Any) -> bool:
    """A Python number (not a signal)."""
    return isinstance(x, int | float) and not isinstance(x, Signal)


def number_of(x: Signal, like: Signal | None = None) -> float | None:
    """The number that all entries of a known tensor are (`ones_like`), if it makes nothing of `like`'s shape larger."""
    if x.value is None or x.integer or x.complex or x.mean.size > 1 or x.q.size > 1:
        return None
    if like is not None and (x.ndim > like.ndim or any(n not in (1, m) for n, m in _matched(x, like))):
        return None
    value = x.mean.item()
    return value if abs(x.q.item() - value * value) <= _EVEN * x.q.item() else None


def _matched(x: Signal, like: Signal) -> Iterator[tuple[int, int]]:
    return zip(reversed(x.shape), reversed(like.shape), strict=False)


def unit(like: Signal, value: float = 1.0) -> Signal:
    """A constant, repeated over the layout of another signal."""
    n = len(like.atoms)
    one = (1,) * n
    return Signal(
        like.groups, np.full(one, value), np.full(one, value * value), np.ones_like(like.corr), like.batch, ident=0
    )


def shifted(x: Signal, b: float) -> Signal:
    """x + b for a number b."""
    if b == 0.0:
        return x
    values = None if x.values is None else x.values + b
    out = add(x, unit(x), b)  # numbers share one identity: a multiple of one, so that (x + 1) + b has 1 + b of it
    value = None if x.value is None else x.value + b
    source = x.source
    if x.tag is not None and x.tag[0] in ("mean square", "rms"):
        out = replace(out, tag=(x.tag[0], x.tag[1], x.tag[2] + b))
        if x.sites is not None and x.tag[0] == "mean square":
            made = sites.of_sum([(x.mean, x.mean_mean, x.sites), (np.full((1,) * x.mean.ndim, b), b, None)])
            out = replace(out, sites=made)
    elif x.tag is not None and x.tag[0] == "sum" and abs(b) <= GUARD * x.mean_mean:
        out = replace(out, tag=x.tag)
    return replace(out, source=source, values=values, value=value, gaussian=x.gaussian)


def reduce_to(g: Cotangent, like: Signal) -> Cotangent:
    """Sum a gradient over the axes along which an operand was repeated."""
    shape, wanted = whole_shape(g), like.shape
    if shape == wanted:
        return g
    base = whole(g)
    lead = base.ndim - len(wanted)
    for axis in range(base.ndim):
        mine = wanted[axis - lead] if axis >= lead else 1
        if mine == 1 and base.groups[axis]:
            base = sum_atoms(base, list(axis_atoms(base, axis)))
    return Cotangent(replace(base, groups=base.groups[lead:]))


def plus(call: Call, x: Any, y: Any, alpha: float = 1.0) -> Any:
    """x + α·y for signals or numbers."""
    if is_number(x) and is_number(y):
        return x + alpha * y
    if is_number(y):
        return shifted(x, alpha * float(y))
    if is_number(x):
        return shifted(scale(y, alpha) if alpha != 1.0 else y, float(x))
    if alpha == -1.0 and (short := _short_of(call, x, y)) is not None:
        return short
    x, y = on_common_source(x, y)
    del call
    if x.numel > 1 and y.numel == 1 and y.value is not None:
        return shifted(x, alpha * float(y.value.reshape(-1)[0]))
    if x.value is None and (number := number_of(y, x)) is not None:
        return shifted(x, alpha * number)
    if y.value is None and (number := number_of(x, y)) is not None:
        return shifted(scale(y, alpha), number)
    for one, other, factor in ((x, y, 1.0), (y, x, alpha)):  # a branch that a gain of zero closes
        if vanishes(other.q) and one.value is None and one.shape == np.broadcast_shapes(x.shape, y.shape):
            return one if factor == 1.0 else scale(one, factor)
    out = _under_masks(x, y, alpha)
    known = (x.value is not None or x.weights is not None) or (y.value is not None or y.weights is not None)
    if known and (x.gaussian or y.gaussian):
        # a position table or a bias added to a Gaussian tensor: still (close to) Gaussian
        out = replace(out, gaussian=True)
    return out


def _short_of(call: Call, x: Signal, y: Signal) -> Signal | None:
    """x - max(x, z) = min(x - z, 0): never above 0, so that its exponential is at most 1 (running maxima of logits)."""
    if y.chosen is None or y.chosen[0] != y.ident:
        return None
    _, one, other, difference, sign = y.chosen
    if _same_sum(x, one):
        return apply(call, difference, _LESS if sign > 0.0 else _MORE)
    if _same_sum(x, other):
        return scale(apply(call, difference, _MORE if sign > 0.0 else _LESS), -1.0)
    return None


def _same_sum(x: Signal, y: Signal) -> bool:
    """Whether two tensors are one, or have been added up from the same ones."""
    made = [[(a, t.viewed) for a, t in s.terms] for s in (x, y)]
    return x.ident == y.ident or (bool(made[0]) and made[0] == made[1])


_LESS = Pointwise(lambda v: np.minimum(v, 0.0), lambda v: np.where(v < 0.0, 1.0, 0.0), Bend((0.0,)))
_MORE = Pointwise(lambda v: np.maximum(v, 0.0), lambda v: np.where(v > 0.0, 1.0, 0.0), Bend((0.0,)))


def _under_masks(x: Signal, y: Signal, alpha: float) -> Signal:
    """x + α·y, where what a mask hides of either is hidden and tells nothing of the rest."""
    one, two = seen_of(x, y), seen_of(y, x) if alpha > 0.0 else None
    if one is None and two is None:
        return add(x, y, alpha)
    x, y = align(x, y)
    left, right = (
        s if (s := seen_of(t, u)) is not None else np.ones((1,) * t.mean.ndim, dtype=bool) for t, u in ((x, y), (y, x))
    )
    if two is None:
        right = np.ones_like(right)
    out = add(visible(x, left), visible(y, right), alpha)
    return hide(out, left & right, x.mean + alpha * y.mean)


def on_common_source(x: Signal, y: Signal) -> tuple[Signal, Signal]:
    """If one stands on the Gaussian that the other is, put both on it."""
    if x.shape != y.shape:
        return x, y
    if x.source is None and y.source is not None and (values := on_source(x, y.source)) is not None:
        x = replace(x, source=y.source, values=values)
    elif y.source is None and x.source is not None and (values := on_source(y, x.source)) is not None:
        y = replace(y, source=x.source, values=values)
    elif (x.ident == y.ident or same_view(x, y)) and x.source is None and x.value is None:
        source, values = as_source(x)
        x = replace(x, source=source, values=values)
        y = x
    return x, y


@rule("add", example="x + F.linear(x, torch.randn(64, 64) / 8)")
def add_(call: Call, input: Any, other: Any, alpha: float = 1.0) -> Any:
    """x + α·y."""
    return plus(call, input, other, alpha)


@add_.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Any, other: Any, alpha: float = 1.0) -> Grads:
    return _split(grad, input, other, 1.0, alpha, out, call)


def _split(
    grad: Cotangent, x: Any, y: Any, a: float, b: float, out: Signal, call: Call | None = None
) -> dict[str, Any]:
    grads: dict[str, Any] = {}
    both = isinstance(x, Signal) and isinstance(y, Signal)
    if both and call is not None and len(grad.rest) >= _FOLLOWED and x.source is not None and y.source is None:
        call.caveat(
            "a sum inside a long stream of nonlinearities: a unit open here was open before and will be again; "
            "this is followed from sum to sum, and gradients far back can come out some per cent a sum too small"
        )
    forms = _along(grad, x, y, a, b, out)
    mine = _share(x, y, a, b, out)
    image: tuple[Image | None, Image | None] = (None, None)
    one = other = grad
    if isinstance(x, Signal) and isinstance(y, Signal):
        one, other = through_sum(grad, out, x, y, a, b), through_sum(grad, out, y, x, b, a)
        image = images.of_sum(grad, out, (a, x, one), (b, y, other))
    if isinstance(x, Signal):
        g = shared(one, mine, y if both else None)
        g = _angled(g, grad, out, x) if both else g
        grads["input"] = replace(
            reduce_to(scaled(g, a), x), along=forms[0] if x.shape == out.shape else None, image=image[0]
        )
    if isinstance(y, Signal):
        g = shared(other, 1.0 - mine if both else 1.0, x if both else None)
        g = _angled(g, grad, out, y) if both else g
        grads["other"] = replace(
            reduce_to(scaled(g, b), y), along=forms[1] if y.shape == out.shape else None, image=image[1]
        )
    return grads


def _angled(g: Cotangent, grad: Cotangent, out: Signal, term: Signal) -> Cotangent:
    """The gradient of a term of a sum whose sites differ by orders of magnitude, with its angle to the term."""
    if out.sites is None or not out.sites.heavy:
        return g
    signal = whole(g)
    free = energy(grad) * out.mean_q
    known = None if grad.along is None or free <= 0.0 else min(grad.along.variance / free, 1.0)
    made = of_term(signal.sites, known, out.sites, term.sites)
    return g if made is None else Cotangent(replace(signal, sites=made))


def _share(x: Any, y: Any, a: float, b: float, out: Signal) -> float:
    """d ln|z|²/d ln|x|² of a sum z = a·x + b·y: (E (ax)² + E ax·by)/E z²."""
    level = out.mean_q
    if not (isinstance(x, Signal) and isinstance(y, Signal)) or level <= 0.0:
        return 1.0
    return min(max(0.5 + 0.5 * (a * a * x.mean_q - b * b * y.mean_q) / level, 0.0), 1.0)


def _along(grad: Cotangent, x: Any, y: Any, a: float, b: float, out: Signal) -> tuple[Along | None, Along | None]:
    """How far the gradients of the terms of a·x + b·y go along them."""
    if isinstance(x, Signal) and isinstance(y, Signal):
        return of_sum(grad, x, y, a, b)
    term, factor = (x, a) if isinstance(x, Signal) else (y, b)
    form = of_shifted(grad, scale(term, factor), out)
    return form, form


@rule("sub", example="x - 0.3 * torch.tanh(x)")
def sub(call: Call, input: Any, other: Any, alpha: float = 1.0) -> Any:
    """x - α·y; x - ln Σeˣ is the logarithm of a softmax."""
    entry, axis = find("log_softmax"), _normalized(input, other, alpha)
    if axis is not None and entry is not None:
        return entry.forward(call, input, axis)
    out = plus(call, input, other, -alpha)
    steps = call.signs.steps.get(call.node.name)
    return out if steps is None or not isinstance(other, Signal) else between(out, other, steps)


def _normalized(x: Any, y: Any, alpha: float) -> int | None:
    """The axis of y = ln Σeˣ."""
    if not isinstance(x, Signal) or not isinstance(y, Signal) or alpha != 1.0 or y.tag is None or y.ndim != x.ndim:
        return None
    return int(y.tag[2]) if y.tag[:2] == ("logsumexp", x.ident) else None


@sub.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Any, other: Any, alpha: float = 1.0) -> Grads:
    entry, axis = find("log_softmax"), _normalized(input, other, alpha)
    if axis is not None and entry is not None and entry.backward is not None:
        return entry.backward(call, grad, out, input, axis)
    return _split(grad, input, other, 1.0, -alpha, out)


@rule("lerp", example="torch.lerp(torch.tanh(x), x.roll(1, 1), torch.sigmoid(x.roll(2, 1)))")
def lerp(call: Call, input: Signal, end: Signal, weight: Any) -> Signal:
    """(1 - w)·x + w·end."""
    if not isinstance(weight, Signal):
        return plus(call, scale(input, 1.0 - float(weight)), scale(end, float(weight)))
    return _gated(Tape(call), input, end, weight)


def _gated(tape: Tape, x: Signal, end: Signal, w: Signal) -> Signal:
    return tape("add", tape("mul", tape("sub", 1.0, w), x), tape("mul", w, end))


@lerp.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, end: Signal, weight: Any) -> Grads:
    del out
    if isinstance(weight, Signal):
        tape = Tape(call)
        of = tape.back({_gated(tape, input, end, weight).ident: [grad]})
        found = {"input": of(input), "end": of(end), "weight": of(weight)}
        return {n: g for n, g in found.items() if g is not None}
    w = float(weight)
    return {"input": reduce_to(scaled(grad, 1.0 - w), input), "end": reduce_to(scaled(grad, w), end)}
