"""Gates, writes and routing: operations whose indices depend on the signal are taken as random samples."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.attention.hiding import HIDDEN, hides
from firstlight.rules.gradients.along import behind_map
from firstlight.rules.gradients.gradient import alone, scaled, whole
from firstlight.rules.gradients.rows import ADDED, shared
from firstlight.rules.linear.affine import pair_einsum as einsum
from firstlight.rules.moves.concatenation import join
from firstlight.rules.moves.ranges import take_range
from firstlight.rules.moves.selection import Step, place, plan_index, taken, where_taken
from firstlight.rules.moves.structural import like_shape
from firstlight.rules.pointwise.choice import masked, seen_through
from firstlight.rules.pointwise.elementwise import apply, back, of
from firstlight.rules.pointwise.merge import unit
from firstlight.rules.pointwise.products import multiply, times_factor
from firstlight.rules.registry import INDEPENDENT_FACTORS, Call, Grads, first_of, rule
from firstlight.rules.state.cross import add
from firstlight.rules.state.empirical import uniform
from firstlight.rules.state.layout import axis_atoms, offset
from firstlight.rules.state.windows import pair_average
from firstlight.theory.activations import get


@rule("glu", assumes=(INDEPENDENT_FACTORS,), refs=("dauphin2016",), example="F.glu(x)")
def glu(call: Call, input: Signal, dim: int = -1) -> Signal:
    """a·σ(b) of the two halves of an axis."""
    a, b = _halves(input, dim)
    return multiply(call, a, apply(call, b, of(get("sigmoid"))))


def _halves(x: Signal, dim: int) -> tuple[Signal, Signal]:
    n = x.shape[dim] // 2
    return take_range(x, dim, 0, n, 1), take_range(x, dim, n, 2 * n, 1)


@glu.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: int = -1) -> Grads:
    a, b = _halves(input, dim)
    gate = apply(call, b, of(get("sigmoid")))
    da = times_factor(grad, out, a, gate)
    db = back(times_factor(grad, out, gate, a), gate, b, of(get("sigmoid")))
    return {"input": Cotangent(join([whole(da), whole(db)], dim))}


@rule(
    "setitem",
    assumes=("entries written at indices that depend on the signal are a random part of the tensor",),
    example="(y := x.clone(), y.__setitem__((slice(None), slice(0, 8)), 0.5 * x[:, 8:16]), y)[2]",
)
def setitem(call: Call, input: Signal, index: Any, value: Any) -> Signal:
    """A part of the tensor overwritten: old and new entries each in their place, a mixture for unknown indices."""
    steps = plan_index(input, index)
    if steps is not None:
        return _written(input, steps, value)
    call.caveat("written at indices that are tensors: taken as a mixture of old and new entries")
    if not isinstance(value, Signal):
        return input
    share = min(1.0, value.numel / max(input.numel, 1))
    new = like_shape(value, input.shape)
    one = (1,) * len(new.atoms)
    m = (1 - share) * input.mean_mean + share * new.mean_mean
    q = (1 - share) * input.mean_q + share * new.mean_q
    return replace(new, mean=np.full(one, m), q=np.full(one, max(q, m * m)), terms=(), ident=next_id())


def _written(x: Signal, steps: list[Step], value: Any) -> Signal:
    kept = _blank(x, steps)
    part = taken(replace(x, value=None), steps)
    if isinstance(value, Signal):
        fits = value.shape == part.shape
        new = value if fits else like_shape(value, part.shape)
    else:
        new = unit(part, float(value))
    new = replace(new, value=None, weights=None, integer=False)
    return replace(add(kept, place(new, x, steps)), gaussian=x.gaussian and new.gaussian, terms=())


def _blank(x: Signal, steps: list[Step]) -> Signal:
    """x with zeros where the index points."""
    taken = where_taken(x.shape, steps)
    varied = [np.ones(1) if t.all() else t for t in taken]
    mask = varied[0]
    for t in varied[1:]:
        mask = mask[..., None] * t
    return masked(replace(x, value=None), _field(x, mask), 0.0)


def _field(x: Signal, mask: Array) -> Signal:
    """A mask given by axis, with 1 where an axis does not matter, as a signal of x's shape."""
    groups = tuple((n,) if n > 1 else () for n in x.shape)
    flat = mask.reshape(tuple(mask.shape[i] for i, g in enumerate(groups) if g))
    n = flat.ndim
    return Signal(groups, flat, flat, np.ones((2,) * n), (False,) * n)


@setitem.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, index: Any, value: Any) -> Grads:
    del call, out
    steps = plan_index(input, index)
    if steps is not None:
        return _written_back(grad, steps, value)
    g = whole(grad)
    if not isinstance(value, Signal):
        return {"input": alone(grad)}
    share = min(1.0, value.numel / max(input.numel, 1))
    return {
        "input": Cotangent(replace(g, q=g.q * (1.0 - share), ident=next_id())),
        "value": Cotangent(like_shape(g, value.shape)),
    }


def _written_back(grad: Cotangent, steps: list[Step], value: Any) -> dict[str, Any]:
    g = whole(grad)
    grads: dict[str, Any] = {"input": Cotangent(_blank(g, steps))}
    if isinstance(value, Signal):
        part = taken(g, steps)
        grads["value"] = Cotangent(part if part.shape == value.shape else like_shape(part, value.shape))
    return grads


@rule("view_write", example="(y := x.clone(), y[:, :8].mul_(0.5), y)[2]")
def view_write(call: Call, base: Signal, part: Signal, index: Any = None) -> Signal:
    """A tensor of which a view was changed: new entries in their place; a mixture where the place is not a slice."""
    steps = None if index is None else plan_index(base, index)
    if steps is not None:
        return _written(base, steps, part)
    share = min(1.0, part.numel / max(base.numel, 1))
    call.caveat("a part of this tensor was written in place: taken as a mixture of old and new entries")
    new = like_shape(part, base.shape)
    q, r = (1 - share) * base.mean_q + share * new.mean_q, (1 - share) * base.mean_mean + share * new.mean_mean
    out = like_shape(new, base.shape)
    one = (1,) * len(out.atoms)
    return replace(out, mean=np.full(one, r), q=np.full(one, max(q, r * r)), ident=next_id())


@view_write.adjoint
def _(call: Call, grad: Cotangent, out: Signal, base: Signal, part: Signal, index: Any = None) -> Grads:
    steps = None if index is None else plan_index(base, index)
    if steps is not None:
        grads = _written_back(grad, steps, part)
        return {"base": grads["input"], "part": grads["value"]}
    del call, out
    share = min(1.0, part.numel / max(base.numel, 1))
    g = whole(grad)
    return {
        "base": Cotangent(replace(g, q=g.q * (1.0 - share), ident=next_id())),
        "part": Cotangent(like_shape(g, part.shape)),
    }


@rule("reread", example="(y := x.clone(), z := y[:, :8], y.mul_(0.5), z)[3]")
def reread(call: Call, input: Signal, index: Any = None) -> Signal:
    """A view of memory that was changed: what its index takes, or a sample of the whole where that is not a slice."""
    steps = None if index is None else plan_index(input, index)
    if steps is not None:
        return taken(input, steps)
    if call.node.outputs and call.node.outputs[0].shape != input.shape:
        call.caveat("a view of memory that was changed: taken as a sample of the whole tensor")
        return like_shape(input, call.node.outputs[0].shape)
    return input


@reread.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, index: Any = None) -> Grads:
    del call
    steps = None if index is None else plan_index(input, index)
    if steps is not None:
        return {"input": Cotangent(place(whole(grad), input, steps))}
    if out.shape != input.shape:
        return {"input": Cotangent(like_shape(whole(grad), input.shape))}
    return {"input": alone(grad)}


@rule(
    "index_add",
    "scatter_add",
    "index_copy",
    "scatter",
    assumes=("the indices are spread evenly",),
    example="torch.zeros(x.shape[0], 32).index_add(1, torch.arange(64) % 32, x)",
)
def index_add(call: Call, input: Signal, dim: int, index: Signal, source: Signal, alpha: float = 1.0) -> Signal:
    """Entries of one tensor added at indices of another: n of them that meet have n·q + n(n - 1)·r.

    Where they are written and not added, what was there goes.
    """
    if call.node.op == "scatter" and (hiding := _hiding(input, dim, index, source)) is not None:
        call.caveat("entries hidden at indices that depend on the signal: taken as independent of them")
        return masked(input, hiding, HIDDEN)
    source = _to_write(index, source)
    counts = _counts(input, dim, index)
    if (share := _shown(call, input, source)) is not None:
        return _chosen(call, input, source, share)
    if counts is None:
        call.caveat("added at indices that depend on the signal: taken as spread evenly")
        counts = np.array([source.shape[dim] / max(input.shape[dim], 1)])
    elif counts.max() > 1.0:
        call.caveat("entries that meet at one index are taken to be as alike as any two")
    alike = pair_average(source, axis_atoms(source, dim)) if "add" in call.node.op else 0.0
    square = counts + np.maximum(counts * (counts - 1.0), 0.0) * alike
    base = like_shape(source, input.shape)
    shape = [1] * len(base.atoms)
    if len(counts) > 1 and base.groups[dim % base.ndim]:
        shape[offset(base, dim)] = len(counts)
    else:
        counts, square = counts.mean(keepdims=True), square.mean(keepdims=True)
    old = 1.0
    if "add" not in call.node.op:
        counts, square = np.minimum(counts, 1.0), np.minimum(square, 1.0)
        old = 1.0 - counts.reshape(shape)
    m = old * input.mean_mean + alpha * source.mean_mean * counts.reshape(shape)
    q = old * input.mean_q + alpha**2 * source.mean_q * square.reshape(shape)
    tag = (ADDED, 0, 0.0) if "add" in call.node.op else None
    scatter = _scattered(input, alpha**2 * source.mean_q * float(counts.mean()), source.scatter, float(counts.mean()))
    return replace(base, mean=m, q=np.maximum(q, np.square(m)), terms=(), tag=tag, scatter=scatter, ident=next_id())


def _shown(call: Call, x: Signal, source: Signal) -> float | None:
    """Share of the entries that are written over a number which hides all others, as a router's chosen scores are."""
    hides = x.mean.size == 1 and float(x.mean_mean) <= HIDDEN and x.mean_q <= (1.0 + 1e-9) * x.mean_mean**2
    if call.node.op != "scatter" or not hides or source.numel >= x.numel:
        return None
    return source.numel / x.numel


def _chosen(call: Call, x: Signal, source: Signal, share: float) -> Signal:
    """Each entry hidden, or one that was written."""
    call.caveat("scores written over a number that hides the others: which are chosen is taken as independent of them")
    hiding = uniform(x.shape, 1.0 - share, 1.0 - share)
    return replace(masked(like_shape(source, x.shape), hiding, x.mean_mean), tag=None)


def _hiding(x: Signal, dim: int, index: Signal, source: Any) -> Signal | None:
    """The probability that an entry is hidden, where a number that hides is written over some along the last axis."""
    if index.value is not None or dim % x.ndim != x.ndim - 1 or index.shape[-1] >= x.shape[-1]:
        return None
    number: Any = source
    if isinstance(number, Signal) or not hides(float(number)):
        return None
    share = index.shape[-1] / x.shape[-1]
    return uniform(x.shape, share, share)


def _scattered(x: Signal, level: float, scatter: float, count: float) -> float:
    """Scatter of a tensor to which so many rows a site were added, each with a scatter of its own.

    How many rows a site has when all are there is the same for all, so that only their own lengths scatter.
    """
    total = x.mean_q + level
    return (x.mean_q**2 * x.scatter + level**2 * scatter / max(count, 1e-3)) / total**2 if total > 0.0 else 0.0


def _counts(x: Signal, dim: int, index: Signal) -> Array | None:
    """How many entries come to each index of the axis, where that is known."""
    if index.value is None:
        return None
    at = np.asarray(index.value)
    while at.ndim > 1:  # `scatter` takes an index for every entry: one line of them
        at = np.moveaxis(at, dim if at.ndim == x.ndim else 0, 0)[..., 0]
    return np.bincount(at.astype(np.int64).ravel(), minlength=x.shape[dim]).astype(np.float64)


def _where_added(g: Signal, x: Signal, dim: int, index: Signal) -> float:
    """E g² where something is added, over that everywhere: what is divided by an empty sum has no source."""
    counts, dim = _counts(x, dim, index), dim % x.ndim
    if counts is None or g.ndim != x.ndim or len(g.groups[dim]) != 1 or g.mean_q <= 0.0:
        return 1.0
    at = offset(g, dim)
    if g.q.shape[at] != len(counts) or not counts.any():
        return 1.0
    rows = g.q.mean(axis=tuple(i for i in range(g.q.ndim) if i != at))
    return float(rows @ counts) / float(counts.sum()) / g.mean_q


def _to_write(index: Signal, source: Any) -> Signal:
    """What is written: a tensor, or one number at each index."""
    return source if isinstance(source, Signal) else uniform(index.shape, float(source), float(source) ** 2)


@index_add.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, dim: int, index: Signal, source: Signal, alpha: float = 1.0
) -> Grads:
    if call.node.op == "scatter" and (hiding := _hiding(input, dim, index, source)) is not None:
        return {"input": Cotangent(seen_through(whole(grad), hiding, HIDDEN))}
    g, source = whole(grad), _to_write(index, source)
    if (share := _shown(call, input, source)) is not None:  # hidden entries get none
        chosen = like_shape(g, source.shape)
        return {"source": Cotangent(replace(chosen, q=chosen.q / share, tag=None, ident=next_id()))}
    level = _where_added(g, input, dim, index)
    spread = like_shape(g, source.shape)
    spread = replace(spread, q=spread.q * level)
    kept, form = alone(grad), None
    if "add" not in call.node.op:
        counts = _counts(input, dim, index)
        share = (
            source.shape[dim] / max(input.shape[dim], 1) if counts is None else float(np.minimum(counts, 1.0).mean())
        )
        kept = scaled(kept, max(1.0 - share, 0.0) ** 0.5)
    if "add" in call.node.op and dim % input.ndim < input.ndim - 1 and source.ndim == input.ndim:
        even = level == 1.0  # `scaled` by anything forgets how far a gradient goes along its tensor
        kept, form = shared(grad if even else scaled(grad, level**0.5), out, input, alpha**2 * source.mean_q)
        kept = kept if even or level <= 0.0 else scaled(kept, level**-0.5)
    added = Cotangent(replace(spread, q=spread.q * alpha**2, tag=None, ident=next_id()), along=form)
    return {"input": kept, "source": added}


@rule(
    "grouped_mm",
    assumes=("rows are spread over the groups",),
    example="torch._grouped_mm(x, torch.randn(2, 64, 32) / 8, torch.tensor([8, 16], dtype=torch.int32))",
)
def grouped_mm(call: Call, input: Signal, mat2: Signal, offs: Any = None) -> Signal:
    """Rows times the matrix of their group: independent draws of one law."""
    del call, offs
    w = _one_group(mat2)
    return einsum(input, "ab", w, "bc", "ac")


def _one_group(w: Signal) -> Signal:
    """The matrix of one group."""
    if w.ndim == 2:
        return w
    return replace(s := take_range(w, 0, 0, 1, 1), groups=s.groups[1:])


@grouped_mm.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, mat2: Signal, offs: Any = None) -> Grads:
    del call, offs
    g = whole(grad)
    w = _one_group(mat2)
    dx = einsum(g, "ac", w, "bc", "ab")
    per = mat2.shape[0] if mat2.ndim == 3 else 1
    dw = einsum(g, "ac", input, "ab", "bc")
    level = dw.mean_q / per
    return {"input": behind_map(dx, input, grad, out, None), "mat2": Cotangent(uniform(mat2.shape, 0.0, level))}


@rule(
    "weight_norm", refs=("salimans2016",), example="x @ torch._weight_norm(torch.randn(64, 32), torch.ones(64, 1), 0)"
)
def weight_norm(call: Call, v: Signal, g: Signal, dim: int = 0) -> Any:
    """g·v/|v|: each slice along `dim` has the norm g."""
    rest = prod(n for i, n in enumerate(v.shape) if i != dim % v.ndim)
    one = (1,) * len(v.atoms)
    # a scheme declares the law of the weight that comes out, for both of its originals
    q = g.mean_q if g.mean_mean**2 < 0.5 * g.mean_q else g.mean_q / rest
    mean = v.mean_mean / max(v.mean_q, 1e-300) ** 0.5 * q**0.5
    out = replace(
        v, mean=np.full(one, mean), q=np.full(one, q), gaussian=v.gaussian, terms=(), ident=next_id(), weights=v.weights
    )
    return (out, g) if len(call.node.outputs) > 1 else out


weight_norm.parameters = ("v", "g", "dim")


@weight_norm.adjoint
def _(call: Call, grad: Any, out: Any, v: Signal, g: Signal, dim: int = 0) -> Grads:
    del call
    cot = first_of(grad)
    if cot is None:
        return {}
    first = first_of(out)
    w = whole(cot)
    ratio = first.mean_q / max(v.mean_q, 1e-300)
    rest = prod(n for i, n in enumerate(v.shape) if i != dim % v.ndim)
    dv = replace(w, q=w.q * ratio * max(1.0 - 1.0 / max(rest, 1), 0.0), ident=next_id())
    level = w.mean_q * v.mean_q * rest / max(v.mean_q * rest, 1e-300)

    return {"v": Cotangent(dv), "g": Cotangent(uniform(g.shape, 0.0, level))}
