"""Cross moments of tensors that the same weights made of different ones: E f(h)_i f(h')_j.

A network that uses weights twice (two views of an image through one encoder, the stages of a Runge-Kutta step, a
transformer whose blocks are one block) gives tensors that are as alike as what they were made of, like two samples of
one batch. Each tensor behind shared weights remembers how it was made (`graph.made`), and a cross moment of two is
followed back to what their inputs have in common:

* an affine map f = A + b: 2·E f(h)f(h') = E f(h)² + E f(h')² - E (A(h - h'))², with the map's own rule; so what two
  tensors that are nearly one differ by keeps its relative accuracy; a norm is such a map, but for the two lengths;
* a map that is linear in each of several inputs, attention among them (of logits ℓ and ℓ' as well: E e^ℓ e^ℓ' is e^cov
  times what either has): E f(a, b)f(a', b') = E f(c, d)² of the c and d that a and a', b and b' have in common;
* functions of Gaussian tensors: E f(u)g(v) = Σ_k a_k b_k c^k, c the correlation of u and v (Mehler);
* products of independent factors: E a a'·E b b';
* sums: term by term;
* anything else lies between E x·E x' and E x², as its inputs are alike.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import numpy as np

from firstlight.graph.made import Made, Way
from firstlight.graph.signal import Array, Signal, average, next_id, replace
from firstlight.rules.state.empirical import cube_of, thin
from firstlight.rules.state.functions import Cross, Moment, of_functions
from firstlight.rules.state.layout import align, correlations, fit_states, moments

Add = Callable[[Signal, Signal, float], Signal]

_FRAMES = 100_000  # nested calls that a pair may take
_INSIDE = 3  # steps of linear combinations inside one operation
_SAME = 1e-9  # 1 - similarity below which two inputs are one


def known(x: Signal) -> Made | None:
    """How a tensor was made, if it lies behind shared weights (or is data that others may be like)."""
    return x.made[1] if x.made is not None and x.made[0] == x.ident else None


def is_mapped(x: Signal) -> bool:
    """Whether shared weights made a tensor: it meets others whole, and its terms (weights and bias) say nothing."""
    made = known(x)
    return made is not None and made.way is Way.AFFINE


def followed(x: Signal, depth: int = _INSIDE) -> Made | None:
    """`known`, and of a step inside an operation what its terms say."""
    made = known(x)
    if made is not None or not x.terms or depth == 0:
        return made
    return Made(Way.TERMS) if any(followed(t, depth - 1) is not None for _, t in x.terms) else None


def with_way(x: Signal, made: Made) -> Signal:
    """The tensor with how it was made."""
    return replace(x, made=(x.ident, made))


def given(x: Signal, entries: Array) -> Signal:
    """An input of the network with its entries, which another input's may be like."""
    squeezed = entries.reshape(tuple(n for n in entries.shape if n > 1))
    return with_way(x, Made(Way.DATA, ("data", entries.shape), data=thin(squeezed)))


def inherited(out: Signal, *parts: Signal) -> Signal:
    """A linear combination of tensors, some behind shared weights: what it has in common with others its terms say."""
    return with_way(out, Made(Way.TERMS)) if any(known(p) is not None for p in parts) else out


def around(out: Signal, mean: Signal) -> Signal:
    """A factor that is another one on average: what it has in common with others that one has."""
    return with_way(out, Made(Way.AROUND, inputs=(mean,)))


def of_product(out: Signal, x: Signal, y: Signal) -> Signal:
    """The product of independent tensors, some behind shared weights."""
    if known(x) is None and known(y) is None:
        return out
    return with_way(out, Made(Way.PRODUCT, ("product", x.shape, y.shape), (x, y)))


_inside = threading.local()  # whether this thread follows a pair already
_lock, _limits = threading.Lock(), list[int]()  # the limit before, once for each thread that follows one


@contextmanager
def _deep() -> Generator[None]:
    """Python's limit of nested calls raised, until the last thread that needs it is done."""
    with _lock:
        _limits.append(_limits[0] if _limits else sys.getrecursionlimit())
        sys.setrecursionlimit(max(_limits[0], _FRAMES))
    try:
        yield
    finally:
        with _lock:
            before = _limits.pop()
            if not _limits:
                sys.setrecursionlimit(before)


class Twins:
    """Cross moments of tensors behind shared weights.

    Args:
        plain: Cross moments by linear combinations and common sources alone (`cross`).
        add: x + α·y.
    """

    def __init__(self, plain: Cross, add: Add) -> None:
        self._plain, self._add = plain, add

    def cross(self, x: Signal, y: Signal) -> Moment:
        """E x_i y_j of two aligned tensors, both behind shared weights or data.

        Two views meet at the end of a network for the first time, and are followed back through all of it: calls of
        Python functions alone, which take no other stack than Python's own, whose limit is raised as long as it takes.
        """
        if getattr(_inside, "following", False):
            return self._known(x, y)
        _inside.following = True
        try:
            with _deep():
                return self._known(x, y)
        finally:
            _inside.following = False

    def _known(self, x: Signal, y: Signal) -> Moment:
        later, earlier = (x, y) if x.ident >= y.ident else (y, x)
        memory, pair = later.__dict__.setdefault("_met", {}), (later.ident, earlier.ident, later.atoms)
        if pair not in memory:
            memory[pair] = self._followed(later, earlier)
        field, cube = memory[pair]
        if cube.ndim != x.corr.ndim:  # they met in another layout
            field = x.mean * y.mean
            return field, np.full(x.corr.shape, float(field.mean()))
        return field, fit_states(cube, x.corr.shape)

    def _followed(self, later: Signal, earlier: Signal) -> Moment:
        if later.ident == earlier.ident:
            return later.q, later.mean_q * moments(later)
        one, other = followed(later), followed(earlier)
        both = (later, one, earlier), (earlier, other, later)
        for _, made, partner in both:
            if made is not None and made.way is Way.AROUND:
                return self.cross(made.inputs[0], partner)
        for x, made, partner in both:
            expanded = not x.gaussian or (x is later and other is not None)  # else a function of it may be met whole
            if made is not None and made.way is Way.TERMS and x.terms and expanded:
                return self._combined(x.terms, partner)
        if (found := of_functions(later, earlier, self.cross)) is not None:
            return found
        if one is None or other is None:
            return self._plain(later, earlier)
        if one.key is not None and one.key == other.key and later.atoms == earlier.atoms:
            found = self._twins(later, earlier, one, other)
            if found is not None:
                return found
        for wholes in ((Way.AFFINE, Way.LENGTH), (Way.AFFINE,)):
            for x, made, partner in both:
                if x.terms and made is not None and made.way not in wholes:
                    return self._combined(x.terms, partner)
        return self._plain(later, earlier)

    def _combined(self, terms: Sequence[tuple[float, Signal]], other: Signal) -> Moment:
        field, cube = np.zeros((1,) * len(other.atoms)), np.zeros_like(other.corr)
        for coefficient, term in terms:
            if coefficient and len(term.atoms) == len(other.atoms):
                f, c = self.cross(term, other)
                field, cube = field + coefficient * f, cube + coefficient * fit_states(c, other.corr.shape)
        return field, cube

    def _twins(self, x: Signal, y: Signal, one: Made, other: Made) -> Moment | None:
        """Of two values of one map."""
        if one.way is Way.DATA and one.data is not None and other.data is not None:
            return _of_data(x, y, one.data, other.data)
        if len(one.inputs) != len(other.inputs) or any(
            a.shape != b.shape for a, b in zip(one.inputs, other.inputs, strict=True)
        ):
            return None
        if x.corr.shape != y.corr.shape:  # neighbours are told from other places in one of the two
            y = replace(y, corr=fit_states(y.corr, x.corr.shape))
        pairs = [align(a, b) for a, b in zip(one.inputs, other.inputs, strict=True)]
        if one.way is Way.KEPT:
            return self.cross(*pairs[0]) if pairs[0][0].atoms == x.atoms else None
        if one.way is Way.PRODUCT:
            return self._product(x, pairs)
        if one.gain is not None and len(pairs) == 1:
            found = self._dense(x, y, one.gain, *pairs[0])
            if found is not None:
                return found
        alike = [self.similarity(a, b) for a, b in pairs]
        apart = [i for i, s in enumerate(alike) if 1.0 - s > _SAME]
        if not apart:
            return _of_one(x, y, 1.0)
        found, differing = None, [p if i in apart else None for i, p in enumerate(pairs)]
        if one.way is Way.EACH or (one.way is Way.AFFINE and len(apart) > 1):
            found = self._each(x, y, one, differing)
        elif one.way in (Way.JOINT, Way.LENGTH, Way.AFFINE):
            found = self._affine(x, y, one, differing)
        if found is not None:
            return found
        return _of_one(x, y, float(np.prod(np.clip(alike, -1.0, 1.0))))

    def _dense(self, x: Signal, y: Signal, gain: float, a: Signal, b: Signal) -> Moment | None:
        """E (Wa + c)_i (Wb + c)_i = gain·E a b + E c²; another unit has other weights."""
        if a.atoms[:-1] != x.atoms[:-1] or len(a.groups[-1]) != 1 or len(x.groups[-1]) != 1:
            return None
        field, cube = self.cross(a, b)
        field = gain * field.mean(axis=-1, keepdims=True)
        pairs = np.zeros((*cube.shape[:-1], x.corr.shape[-1]))
        pairs[..., 0] = gain * cube[..., 0]
        for w, term in x.terms:
            if term.weights is not None:
                q, m = w * w * term.mean_q, w * w * moments(term) * term.mean_q
                field, pairs = field + q, pairs + fit_states(m, pairs.shape)
        return _possible(field, fit_states(pairs, x.corr.shape), x, y)

    def similarity(self, x: Signal, y: Signal) -> float:
        """E x_i y_i/√(E x²·E y²) at equal indices."""
        level = (x.mean_q * y.mean_q) ** 0.5
        return average(self.cross(x, y)[0]) / level if level > 0.0 and x.ident != y.ident else 1.0

    def _affine(self, x: Signal, y: Signal, made: Made, apart: Sequence[tuple[Signal, Signal] | None]) -> Moment | None:
        """½(E f(a)² + E f(b)² - E (A(a - b))²)."""
        assert made.again is not None
        scale, ratio = 1.0, 1.0
        if made.way is Way.LENGTH:
            (both,) = [p for p in apart if p is not None]
            one, other = (f.mean_q / max(made.again((h,)).mean_q, 1e-300) for f, h in zip((x, y), both, strict=True))
            if not one * other > 0.0:
                return None
            scale, ratio = one, (other / one) ** 0.5
        given = [h if p is None else self._difference(*p, ratio) for h, p in zip(made.inputs, apart, strict=True)]
        found = self._moments(made, given, x)
        if found is None:
            return None
        field = 0.5 * (x.q + y.q - scale * found[0])
        cube = 0.5 * (x.mean_q * moments(x) + y.mean_q * moments(y) - scale * found[1])
        return _possible(field, cube, x, y)

    def _each(self, x: Signal, y: Signal, made: Made, apart: Sequence[tuple[Signal, Signal] | None]) -> Moment | None:
        """E f(c)² of what the inputs have in common: a = c + d, b = c + e of independent c, d and e."""
        common = [h if p is None else self._common(*p) for h, p in zip(made.inputs, apart, strict=True)]
        given = [c for c in common if c is not None]
        found = self._moments(made, given, x) if len(given) == len(common) else None
        return None if found is None else _possible(*found, x, y)

    def _common(self, a: Signal, b: Signal) -> Signal | None:
        """c with E c_i c_j = E a_i b_j."""
        field, cube = self.cross(a, b)
        if not cube.flat[0] > 0.0:
            return None
        memory, pair = a.__dict__.setdefault("_common", {}), b.ident
        if pair not in memory:
            mean = np.sqrt(np.maximum(a.mean * b.mean, 0.0))
            q = np.maximum(field, np.square(mean))
            memory[pair] = replace(
                a, mean=mean, q=q, corr=correlations(cube, q), source=None, values=None, terms=(), ident=next_id()
            )
        return memory[pair]

    def _moments(self, made: Made, inputs: Sequence[Signal], x: Signal) -> Moment | None:
        """Those of a map's value at other inputs, in the layout of x."""
        assert made.again is not None
        out = made.again(tuple(inputs))
        if out.shape != x.shape:
            return None
        out, _ = align(out, x)
        return (out.q, out.mean_q * fit_states(moments(out), x.corr.shape)) if out.atoms == x.atoms else None

    def _difference(self, a: Signal, b: Signal, ratio: float = 1.0) -> Signal:
        """a - ratio·b with what they have in common, also where no shared weights are in front of one of them."""
        one, other = (x if known(x) is not None else with_way(x, Made(Way.ANY)) for x in (a, b))
        return self._add(one, other, -ratio)

    def _product(self, x: Signal, pairs: Sequence[tuple[Signal, Signal]]) -> Moment | None:
        field, cube = np.ones((1,) * len(x.atoms)), np.ones_like(x.corr)
        for a, b in pairs:
            a, _ = align(a, x)
            b, _ = align(b, x)
            if a.atoms != x.atoms or b.atoms != x.atoms:
                return None
            f, c = self.cross(a, b)
            field, cube = field * f, cube * fit_states(c, x.corr.shape)
        return field, cube


def _of_one(x: Signal, y: Signal, w: float) -> Moment:
    """Of two tensors of one law that are as alike as w: between E x·E y (0) and E x² (1)."""
    size = abs(w)
    field = (1.0 - size) * x.mean * y.mean + w * np.sqrt(x.q * y.q)
    level = float(x.mean.mean()) * float(y.mean.mean())
    cube = (1.0 - size) * level + w * (x.mean_q * y.mean_q) ** 0.5 * moments(x)
    return _possible(field, cube, x, y)


def _possible(field: Array, cube: Array, x: Signal, y: Signal) -> Moment:
    """Within what Cauchy and Schwarz allow."""
    most = np.sqrt(x.q * y.q)
    top = (x.mean_q * y.mean_q) ** 0.5
    return np.clip(field, -most, most), np.clip(cube, -top, top)


def _of_data(x: Signal, y: Signal, a: Array, b: Array) -> Moment | None:
    """Of two inputs of the network, from their entries."""
    if a.shape != b.shape or a.size == 0:
        return None
    far = (False,) * a.ndim
    cube = 0.25 * (cube_of(a + b, far) - cube_of(a - b, far))
    field = np.full((1,) * len(x.atoms), float(np.mean(a * b)))
    return _possible(field, fit_states(cube, x.corr.shape), x, y) if cube.ndim == x.corr.ndim else None
