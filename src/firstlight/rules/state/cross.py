"""Cross moments of two signals: what a sum needs to know of its operands beyond their own statistics."""

from __future__ import annotations

import heapq

import numpy as np

from firstlight.graph.signal import Array, Signal, next_id, replace, vanishes
from firstlight.rules.chains.grids import finer, on_grid
from firstlight.rules.chains.source import from_values, mehler, on_source, spread
from firstlight.rules.linear.contraction import pair_mean
from firstlight.rules.state import course, lengths, mapped, pieces, sites, twins, unitwise
from firstlight.rules.state.forms import combine, covariance
from firstlight.rules.state.layout import align, correlations, fit_states, moments
from firstlight.rules.state.noise import mixed_wander, sample_correlation
from firstlight.rules.state.split import of_entries, of_sum
from firstlight.rules.state.summation import TOTAL, rooted
from firstlight.rules.state.views import eldest, same_view

_FAINT = 0.05  # share of its terms' energy below which a sum is what is left of them
_NOTHING = 1e-13  # share of it that is a rounding error
_STEPS, _PARTS = 16, 8  # sums that are taken apart to see it, and terms that may be left


def cross(x: Signal, y: Signal) -> tuple[Array, Array]:
    """E x_i y_j of two aligned signals: a field at equal indices and a cube of means over pairs."""
    if (windows := mapped.shared(x, y)) is not None:
        return windows
    return _cross(x, y) if x.made is None or y.made is None else TWINS.cross(x, y)


def _cross(x: Signal, y: Signal) -> tuple[Array, Array]:
    """By linear combinations and common sources.

    The later signal is expanded into the linear combination that made it, until the two meet: then the moment is
    the common signal's own. What came through fresh zero-mean weights, or stands on another Gaussian source, is
    independent: E x E y.
    """
    field = np.zeros((1,) * len(x.atoms))
    cube = np.zeros_like(x.corr)
    if x.ident != y.ident and same_view(x, y):
        y = x
    left, right = {x.ident: (1.0, x)}, {y.ident: (1.0, y)}
    heap = [-x.ident, -y.ident]
    heapq.heapify(heap)
    done: set[int] = set()
    while heap and left and right:
        ident = -heapq.heappop(heap)
        if ident in done:
            continue
        done.add(ident)
        mine, other = left.pop(ident, None), right.pop(ident, None)
        for item, side, rest in ((mine, left, right), (other, right, left)):
            if item is None:
                continue
            if item[1].terms:
                for coefficient, term in item[1].terms:
                    old = side.get(term.ident)
                    side[term.ident] = (item[0] * coefficient + (old[0] if old else 0.0), term)
                    heapq.heappush(heap, -term.ident)
            elif (
                item[1].values is not None or not vanishes(item[1].mean) or _is_total(item[1]) or mapped.known(item[1])
            ):
                # else E x y = E x E y = 0 with all earlier ones
                for scale, partner in rest.values():
                    f, c = _leaf(item[1], partner)
                    field = field + item[0] * scale * f
                    cube = cube + item[0] * scale * fit_states(c, x.corr.shape)
        if mine is not None and other is not None and not mine[1].terms:
            own = mine[1]
            field = field + mine[0] * other[0] * own.q
            cube = cube + mine[0] * other[0] * own.mean_q * fit_states(moments(own), x.corr.shape)
    return field, cube


def _is_total(x: Signal) -> bool:
    """Whether a signal is a sum of an earlier one's entries, and has been repeated at most."""
    return (
        x.tag is not None
        and x.tag[0] in (TOTAL, "sum", "mean square")
        and all(isinstance(s, tuple) and s[0] in ("expand", "reshape") for s in x.viewed[1])
    )


def _leaf(later: Signal, earlier: Signal) -> tuple[Array, Array]:
    """Cross moment where the later signal is no linear combination, or the sum of the earlier one's entries."""
    if later.tag is not None and later.tag[0] == "mean square":
        if earlier.tag is not None and earlier.tag[0] == "square" and earlier.tag[1] == later.tag[1]:
            return later.q, later.mean_q * moments(later)
    elif later.tag is not None and _is_total(later):
        factor, root = (1.0, earlier.ident) if earlier.ident == later.tag[1] else rooted(earlier)
        if root == later.tag[1]:
            weight = factor * later.tag[2]
            return weight * later.q, weight * later.mean_q * moments(later)
    if (windows := mapped.shared(later, earlier)) is not None:
        return windows
    a = later.source
    if a is not None and later.values is not None and later.atoms == earlier.atoms:
        values = on_source(earlier, a)  # also if it is the Gaussian itself on which the later one stands
        if values is not None:
            per_row = (later.values * values) @ a.grid.weights
            total = float(a.share @ per_row)
            return spread(a, per_row, len(later.atoms)), mehler(later.values, a, total, values)
        # 1 + s - m² of an e^s: term by term, as far as u may be in it
        if earlier.terms and earlier.ident > eldest(a.key):
            field, cube = np.zeros((1,) * len(later.atoms)), np.zeros_like(later.corr)
            for coefficient, term in earlier.terms:
                f, c = _leaf(later, term)
                field, cube = field + coefficient * f, cube + coefficient * c
            return field, cube
    field = later.mean * earlier.mean
    return field, np.full(later.corr.shape, float(field.mean()))


def add(x: Signal, y: Signal, alpha: float = 1.0) -> Signal:
    """x + α·y: q = q_x + α²q_y + 2α E xy, and so at every index of the cube."""
    x, y = align(x, y)
    value = None if x.value is None or y.value is None else x.value + alpha * y.value
    if x.source is not None and y.source is not None and x.source.key == y.source.key:
        assert x.values is not None
        assert y.values is not None
        both = finer(x.source, y.source)
        values = on_grid(x.values, x.source, both) + alpha * on_grid(y.values, y.source, both)
        return replace(from_values(x, both, values), value=value)
    if (only := _all_but_one_cancel(x, y, alpha)) is not None:
        return only
    field, cube = cross(x, y)
    q = np.maximum(x.q + alpha**2 * y.q + 2.0 * alpha * field, 0.0)
    qx, qy = x.mean_q, y.mean_q
    raw = qx * moments(x) + alpha**2 * qy * moments(y) + 2.0 * alpha * cube
    total = float(raw[(0,) * raw.ndim])
    if total < _FAINT * (qx + alpha**2 * qy) and (left := _what_is_left(x, y, alpha)) is not None:
        return left
    corr = correlations(raw, q)
    both = float(cube[(0,) * cube.ndim]) * alpha
    noise, scatter, split = x.noise, x.scatter, x.split
    if total > _NOTHING * (qx + alpha**2 * qy):  # else zero, but for rounding errors
        first, second = (qx + both) / total, (alpha**2 * qy + both) / total
        mixed = 4.0 * alpha**2 * (qx / total) * (qy / total) * pair_mean(x, _free(x) * _free(y))
        inherited = [(first, x.noise), (second, y.noise)]
        linear = combine(inherited)  # a row of thousands of loads, made once
        # E ln Σ w e^L to second order: the means add, and half the spread that mixing removes comes back
        gain = 0.5 * (first * x.noise.variance + second * y.noise.variance - linear.variance)
        noise = combine([(1.0, linear)], mixed, gain - 0.5 * mixed)
        together = (x.noise.variance * y.noise.variance) ** 0.5
        joint = covariance(x.noise, y.noise) / together if together > 0.0 else 0.0
        # a normalised term's length is fixed: its negative scatter takes back what Gaussian entries would scatter
        one, two = of_entries(x, y), of_entries(y, x)
        fixed = first**2 * min(one, 0.0) + second**2 * min(two, 0.0)
        scatter = first**2 * max(one, 0.0) + second**2 * max(two, 0.0)
        shared, split = of_sum((first, one, x.split), (second, two, y.split), joint)
        scatter = max(scatter + shared, 0.0) + fixed
    gain, laws = unitwise.of_sum(x, y, alpha)
    if laws and both == 0.0:
        q = q * unitwise.by_row(x, gain)
    made = None
    if x.sites is not None or y.sites is not None:
        made = sites.of_two(x, y, alpha, both)
        if made is not None and made.heavy:
            fourth = (x.cumulants[1] + alpha**4 * y.cumulants[1]) / max(total * total, 1e-300)
            scatter, q = lengths.of_entries(made, fourth), lengths.times(q, lengths.met(made))
    out = replace(
        x,
        mean=x.mean + alpha * y.mean,
        q=q,
        corr=corr,
        batch=tuple(a or b for a, b in zip(x.batch, y.batch, strict=True)),
        source=None,
        values=None,
        gaussian=x.gaussian and y.gaussian,
        noise=noise,
        tag=None,
        lean=(qx * x.lean + alpha**2 * qy * y.lean) / max(qx + alpha**2 * qy, 1e-300) if x.lean or y.lean else 0.0,
        beside=x.beside if x.beside == y.beside else beside_of(qx, x, alpha**2 * qy, y),
        scatter=scatter,
        split=split,
        sites=made,
        data=x.data and y.data,
        cumulants=(
            x.cumulants[0] + alpha**3 * y.cumulants[0],
            x.cumulants[1] + alpha**4 * y.cumulants[1],
        ),
        terms=((1.0, x), (alpha, y)),
        weights=None,
        value=value,
        integer=x.integer and y.integer,
        ident=next_id(),
    )
    out = mapped.added(twins.inherited(unitwise.with_laws(out, laws), x, y), x, y, alpha)
    if x.course or y.course:
        out = course.added(out, x, y, alpha, cube)
    if x.pieces is not None or y.pieces is not None:
        out = pieces.added(out, x, y, alpha)
    if not (x.wander or y.wander):
        return out
    one, two = qx * x.wander, alpha**2 * qy * y.wander
    angle = (one * x.angle + two * y.angle) / (one + two) if one + two > 0.0 else x.angle
    return replace(out, wander=mixed_wander([(qx, x), (alpha**2 * qy, y)], sample_correlation(out)), angle=angle)


def of_twins(out: Signal, x: Signal, y: Signal) -> Signal:
    """The product of what shared weights made of two tensors: E xy, and E x²y² = E x²·E y² + 2(E xy)² (Isserlis)."""
    if twins.known(x) is None or twins.known(y) is None or x.atoms != y.atoms:
        return out
    field, cube = cross(x, y)
    met, pairs = field - x.mean * y.mean, cube - x.mean_mean * y.mean_mean
    raw = moments(out) * out.mean_q + np.square(pairs) + float(np.square(met).mean())
    q = out.q + 2.0 * np.square(met)
    return replace(out, mean=out.mean + met, q=q, corr=correlations(raw, q), ident=next_id())


def _all_but_one_cancel(x: Signal, y: Signal, alpha: float) -> Signal | None:
    """z, if x + α·y is z entry by entry: m + z - m, the distance of what was drawn around m from m."""
    if not (x.terms and y.ident < x.ident and alpha < 0.0):
        return None
    side = {y.ident: alpha}
    found: dict[int, Signal] = {}
    todo = [(1.0, x)]
    while todo:
        coefficient, term = todo.pop()
        if term.terms and term.ident > y.ident:
            todo += [(coefficient * c, t) for c, t in term.terms]
            continue
        side[term.ident] = side.get(term.ident, 0.0) + coefficient
        found[term.ident] = term
    left = [ident for ident, c in side.items() if abs(c) > 1e-12]
    if len(left) != 1 or left[0] not in found or abs(side[left[0]] - 1.0) > 1e-12:
        return None
    only = found[left[0]]
    return only if only.groups == x.groups and only.batch == x.batch else None


def _what_is_left(x: Signal, y: Signal, alpha: float) -> Signal | None:
    """x + α·y from what it is made of beside that which both have and take from each other; None without such.

    Lengths and their noise are those of what is left: of the sum of two long tensors they would be a difference.
    """
    left: dict[int, tuple[float, Signal]] = {}
    cancelled = False

    def put(coefficient: float, term: Signal) -> bool:
        total = coefficient + (left[term.ident][0] if term.ident in left else 0.0)
        gone = term.ident in left and abs(total) <= 1e-9 * abs(coefficient)
        left.pop(term.ident, None)
        if not gone:
            left[term.ident] = total, term
        return gone

    put(1.0, x)
    put(alpha, y)
    for _ in range(_STEPS):
        made = [k for k, (_, term) in left.items() if term.terms and not twins.is_mapped(term)]
        if not made or (cancelled and len(left) > _PARTS):
            break
        coefficient, term = left.pop(max(made))
        for a, part in term.terms:
            cancelled = put(coefficient * a, part) or cancelled
    if not cancelled or not left or any(t.groups != x.groups for _, t in left.values()):
        return None
    (a, out), *more = left.values()
    out = replace(out, mean=out.mean * a, q=out.q * a * a, source=None, values=None, ident=next_id(), terms=((a, out),))
    for a, term in more:
        out = add(out, term, a)
    mean = x.mean + alpha * y.mean
    return replace(out, mean=mean, q=np.maximum(out.q, np.square(mean)))


def with_rest(out: Signal, x: Signal, a: float) -> tuple[tuple[float, Signal], ...]:
    """`Signal.terms` of what is a·x and a rest at right angles to it, of mean 0, that makes up its moments."""
    q = np.maximum(out.q - a * a * x.q, 0.0)
    if float(q.max()) <= 1e-9 * float(out.q.max()):
        return ((a, x),)
    raw = moments(out) * out.mean_q - a * a * moments(x) * x.mean_q
    rest = replace(
        out, mean=np.zeros_like(out.mean), q=q, corr=correlations(raw, q), source=None, values=None, terms=(),
        sites=None, view=None, pieces=None, courses=None, ident=next_id(),
    )  # fmt: skip
    return ((a, x), (1.0, rest))


def beside_of(qx: float, x: Signal, qy: float, y: Signal) -> tuple[int, float, float]:
    """`Signal.beside` of a sum of gradients: of one tensor the mean, of two what the larger part goes with."""
    (i, one, first), (j, other, second), part = x.beside, y.beside, qx / max(qx + qy, 1e-300)
    if i == j:
        return i, part * one + (1.0 - part) * other, part * first + (1.0 - part) * second
    return (i, part * one, first) if part * abs(one) >= (1.0 - part) * abs(other) else (j, (1.0 - part) * other, second)


def _free(x: Signal) -> Array:
    """The cube of pair moments without the part that the mean alone explains."""
    q = x.mean_q
    return x.corr - (x.mean_mean**2 / q if q > 0.0 else 0.0)


TWINS = twins.Twins(_cross, add)

__all__ = ["TWINS", "add", "covariance", "cross", "of_twins", "with_rest"]
