"""Operations that only move entries: another shape, another order of axes, repeats; exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, replace
from firstlight.rules.gradients import images
from firstlight.rules.gradients.along import of_view
from firstlight.rules.gradients.gradient import moved, whole, whole_shape
from firstlight.rules.linear.contraction import ROWS
from firstlight.rules.pointwise.merge import reduce_to
from firstlight.rules.registry import Call, Grads, listed, rule, several
from firstlight.rules.state import mapped, pieces
from firstlight.rules.state.layout import axis_atoms, expand, merge_axis, offset, permute, reshape, transform
from firstlight.rules.state.summation import sum_atoms

Sizes = Sequence[int]

_LONG = 256  # entries of an axis up to which what a tensor has in common with itself moved on is followed


def sizes_of(given: Any, rest: Any = ()) -> tuple[int, ...]:
    """Sizes given as one tuple or as several integers."""
    if several(given):
        return tuple(int(n) for n in given)
    return (int(given), *(int(n) for n in rest))


def resolve(x: Signal, shape: Sizes) -> tuple[int, ...]:
    """Replace a -1 among the sizes."""
    if -1 in shape:
        known = prod(n for n in shape if n != -1)
        return tuple(x.numel // known if n == -1 else n for n in shape)
    return tuple(shape)


def unshape(grad: Cotangent, like: Signal) -> Cotangent:
    """Bring a gradient back to the shape (and atoms) of the input."""
    units = whole_shape(grad)[-1:]

    def back(g: Signal) -> Signal:
        g = reshape(g, like.shape)
        if g.lean and like.shape and units > like.shape[-1:]:  # |x|² of one of H heads is 1/H of that of the site
            g = replace(g, lean=g.lean * like.shape[-1] / units[0])
        return g

    return replace(moved(grad, back), along=of_view(grad, like))


def _backward_shape(call: Call, grad: Cotangent, out: Signal, input: Signal, *_: Any, **__: Any) -> Grads:
    del call, out
    return {"input": unshape(grad, input)}


@rule("identity", "contiguous", "clone", "to", "detach", "requires_grad", "alias", example="x.clone()")
def identity(call: Call, input: Signal, dtype: Any = None) -> Signal:
    """The same entries; a cast to integers keeps the statistics and says so."""
    return input


@identity.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dtype: Any = None) -> Grads:
    del dtype
    return {} if call.node.op == "detach" else {"input": grad}


def like_shape(x: Signal, shape: Sizes) -> Signal:
    """The statistics of x for a tensor of another size, with unlike positions taken as uncorrelated."""
    if prod(shape) == x.numel:
        return reshape(x, shape)
    groups = tuple((n,) if n > 1 else () for n in shape)
    n = sum(len(g) for g in groups)
    q = x.mean_q
    corr = np.full((2,) * n, x.mean_mean**2 / q if q > 0 else 1.0)
    corr[(0,) * n] = 1.0
    one = (1,) * n
    out = Signal(groups, np.full(one, x.mean_mean), np.full(one, q), corr, (False,) * n, noise=x.noise)
    if x.shape[-1:] != shape[-1:]:
        return out
    return replace(out, scatter=x.scatter, lean=x.lean, beside=x.beside)  # whole rows, of the lengths that rows have


def from_sample(grad: Cotangent, out: Signal, input: Signal) -> Signal:
    """The gradient of a tensor of which `out` was a random sample: as many entries as were taken, among zeros."""
    g = like_shape(whole(grad), input.shape)
    ratio = out.numel / max(input.numel, 1)
    return replace(g, q=g.q * ratio, mean=g.mean * ratio)


@rule("view", "reshape", example="x.view(-1, 8, 8).tanh()")
def view(call: Call, input: Signal, shape: Any = ()) -> Signal:
    """Another shape."""
    if isinstance(shape, str):
        return input
    return _viewed(input, call.node.outputs[0].shape if call.node.outputs else resolve(input, sizes_of(shape)))


view.adjoint(_backward_shape)


def _viewed(x: Signal, shape: Sizes) -> Signal:
    """A view; heads that come side by side in one site scatter each for itself, so that sites do so by 1/H of it."""
    out = pieces.viewed(reshape(x, shape), x)
    if x.tag is None or x.tag[0] != ROWS or not x.ndim or not out.ndim or out.shape[-1] == x.shape[-1]:
        return out
    gone = x.tag[2] * (1.0 - x.shape[-1] / max(out.shape[-1], x.shape[-1]))
    split = None if out.split is None else (out.split[0], max(out.split[1] - gone, 0.0))
    return replace(out, scatter=out.scatter - gone, split=split, tag=None)


def _by_recorded_shape(call: Call, input: Signal, **_: Any) -> Signal:
    return _viewed(input, call.node.outputs[0].shape)


@rule("flatten", "unflatten", "squeeze", "unsqueeze", "ravel", example="x.unsqueeze(1).flatten(1)")
def by_shape(call: Call, input: Signal, *_: Any) -> Signal:
    """Merge, split, drop or insert axes: the recorded output shape says which."""
    return _viewed(input, call.node.outputs[0].shape)


by_shape.parameters = ("input", "a", "b", "c")


by_shape.forward = _by_recorded_shape


by_shape.adjoint(_backward_shape)


def _transposed(x: Signal, dims: Sizes) -> Signal:
    return pieces.permuted(permute(x, dims), x, dims)


@rule("permute", example="x.view(-1, 8, 8).permute(0, 2, 1).relu()")
def permute_(call: Call, input: Signal, dims: Any) -> Signal:
    """Reorder axes."""
    del call
    return _transposed(input, sizes_of(dims))


@permute_.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dims: Any) -> Grads:
    del call, out
    order = [d % input.ndim for d in sizes_of(dims)]
    return {"input": _permuted(grad, input, [order.index(i) for i in range(len(order))])}


def _permuted(grad: Cotangent, input: Signal, order: list[int]) -> Cotangent:
    """The gradient of a tensor whose axes were put in another order, which `order` undoes."""
    known = grad.along if order[-1:] == [input.ndim - 1] else None
    return replace(moved(grad, lambda g: permute(g, order)), along=known)


def _swapped(rank: int, a: int, b: int) -> list[int]:
    order = list(range(rank))
    order[a % rank], order[b % rank] = order[b % rank], order[a % rank]
    return order


@rule("transpose", "t", example="x.transpose(0, 1).relu().t()")
def transpose(call: Call, input: Signal, dim0: int = -2, dim1: int = -1) -> Signal:
    """Swap two axes."""
    del call
    return input if input.ndim < 2 else _transposed(input, _swapped(input.ndim, dim0, dim1))


@transpose.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim0: int = -2, dim1: int = -1) -> Grads:
    del call, out
    if input.ndim < 2:
        return {"input": grad}
    return {"input": _permuted(grad, input, _swapped(input.ndim, dim0, dim1))}


def _moved(rank: int, source: Any, destination: Any) -> list[int]:
    src = [s % rank for s in sizes_of(source)]
    dst = [d % rank for d in sizes_of(destination)]
    rest = iter([a for a in range(rank) if a not in src])
    return [src[dst.index(i)] if i in dst else next(rest) for i in range(rank)]


@rule("movedim", example="x.view(-1, 8, 8).movedim(1, 2)")
def movedim(call: Call, input: Signal, source: Any, destination: Any) -> Signal:
    """Move axes."""
    del call
    return _transposed(input, _moved(input.ndim, source, destination))


@movedim.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, source: Any, destination: Any) -> Grads:
    del call, out
    order = _moved(input.ndim, source, destination)
    return {"input": _permuted(grad, input, [order.index(i) for i in range(len(order))])}


@rule("expand", "expand_as", "broadcast_to", example="x[:, :1].expand(-1, 64)")
def expand_(call: Call, input: Signal, size: Any = ()) -> Signal:
    """Repeat along axes of size 1 without copying."""
    return _as_wide(input, call.node.outputs[0].shape if call.node.outputs else sizes_of(size))


def _as_wide(x: Signal, shape: Sequence[int]) -> Signal:
    if x.shape == tuple(shape):
        return x
    groups: list[tuple[int, ...]] = [(n,) if n > 1 else () for n in shape]
    lead = len(shape) - x.ndim
    for axis in range(x.ndim):
        if x.groups[axis]:
            groups[lead + axis] = x.groups[axis]
    return expand(x, tuple(groups))


@expand_.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, size: Any = ()) -> Grads:
    del call, size
    return {"input": images.repeated(reduce_to(Cotangent(whole(grad)), input), grad, input, out)}


@rule("broadcast_tensors", variadic=True, example="torch.broadcast_tensors(x[:, :1], x)[0]")
def broadcast_tensors(call: Call, tensors: tuple[Signal, ...]) -> tuple[Signal, ...]:
    """Each repeated along the axes that the others have."""
    del call
    shape = np.broadcast_shapes(*[t.shape for t in tensors])
    return tuple([_as_wide(t, shape) for t in tensors])


@broadcast_tensors.adjoint
def _(call: Call, grads: tuple[Cotangent | None, ...], out: tuple[Signal, ...], tensors: tuple[Signal, ...]) -> Grads:
    del call, out
    pairs = zip(listed(grads), tensors, strict=True)
    return {"tensors": tuple([None if g is None else reduce_to(g, t) for g, t in pairs])}


@rule("repeat", "tile", example="x.repeat(2, 3)")
def repeat(call: Call, input: Signal, repeats: Any) -> Signal:
    """Repeat whole axes: an outer atom along which the tensor is the same."""
    del call
    times = sizes_of(repeats)
    lead = max(0, len(times) - input.ndim)
    x = replace(input, groups=((),) * lead + input.groups, value=None)
    times = (1,) * (x.ndim - len(times)) + times
    for axis, n in enumerate(times):
        if n > 1:
            wide = replace(x, groups=(*x.groups[:axis], (), *x.groups[axis:]))
            wide = expand(wide, (*wide.groups[:axis], (n,), *wide.groups[axis + 1 :]))
            x = replace(wide, groups=(*wide.groups[:axis], (n, *wide.groups[axis + 1]), *wide.groups[axis + 2 :]))
    return replace(x, terms=())


@repeat.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, repeats: Any) -> Grads:
    del call
    g = whole(grad)
    times = sizes_of(repeats)
    lead = max(0, len(times) - input.ndim)
    times = (1,) * (out.ndim - len(times)) + times
    wide: list[int] = []
    for axis, n in enumerate(times):
        wide += [n, out.shape[axis] // n]
    g = reshape(g, wide)
    gone = [a for axis in range(len(times)) for a in axis_atoms(g, 2 * axis)]
    g = sum_atoms(g, gone)
    return {
        "input": Cotangent(reshape(replace(g, groups=g.groups), input.shape) if lead == 0 else reshape(g, input.shape))
    }


def _reordered(
    x: Signal, tag: str, steps: Sequence[tuple[int, int]], move: Callable[[Array, int, int], Array]
) -> Signal:
    """The entries of axes in another order (roll, flip): fields move, pair statistics stay.

    Args:
        x: Any signal.
        tag: Of the operation: with the steps it says which tensor comes out.
        steps: (axis, how far).
        move: Of a field, from an axis of it and how far.
    """
    for dim, step in steps:
        dim %= x.ndim
        if len(x.groups[dim]) > 1 and any(f.shape[a] > 1 for f in (x.mean, x.q) for a in axis_atoms(x, dim)):
            x = merge_axis(x, dim)
        at = offset(x, dim)

        def on_field(f: Array, at: int = at, step: int = step, one: bool = len(x.groups[dim]) == 1) -> Array:
            return move(f, step, at) if one and f.shape[at] > 1 else f

        x = transform(x, x.groups, x.batch, on_field, lambda c: c, (tag, dim, step))
    return replace(x, value=None)


def _roll(call: Call, input: Signal, shifts: Any, dims: Any = None) -> Signal:
    del call
    if dims is None:  # of all entries in a row
        whole_row = reshape(input, (input.numel,))
        return reshape(_reordered(whole_row, "roll", [(0, sizes_of(shifts)[0])], np.roll), input.shape)
    steps = [(dim % input.ndim, n) for dim, n in zip(sizes_of(dims), sizes_of(shifts), strict=True)]
    out, sizes = _reordered(input, "roll", steps, np.roll), {dim: input.shape[dim] for dim, _ in steps}
    if max(sizes.values()) > _LONG or any(n == 1 for n in sizes.values()) or len(sizes) < len(steps):
        return out
    return mapped.remember(out, input, {dim: np.roll(np.eye(sizes[dim]), n, axis=0) for dim, n in steps})


def _unroll(call: Call, grad: Cotangent, out: Signal, input: Signal, shifts: Any, dims: Any = None) -> Grads:
    del out, input
    return {"input": moved(grad, lambda g: _roll(call, g, tuple(-n for n in sizes_of(shifts)), dims))}


rule("roll", example="x.roll(3, 1)")(_roll).adjoint(_unroll)


def _flip(call: Call, input: Signal, dims: Any) -> Signal:
    del call
    return _reordered(input, "flip", [(d, 1) for d in sizes_of(dims)], lambda f, _, at: np.flip(f, at))


def _unflip(call: Call, grad: Cotangent, out: Signal, input: Signal, dims: Any) -> Grads:
    del out, input
    return {"input": moved(grad, lambda g: _flip(call, g, dims))}


rule("flip", example="x.flip((1,))")(_flip).adjoint(_unflip)
