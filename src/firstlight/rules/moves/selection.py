"""Rules that take a part of a tensor: ranges, single entries, pieces, indexing."""

from __future__ import annotations

from math import prod
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from firstlight.graph.along import Along
from firstlight.graph.signal import Cotangent, Signal, next_id, replace
from firstlight.rules.gradients.along import of_parts
from firstlight.rules.gradients.gradient import moved, whole
from firstlight.rules.gradients.rows import added
from firstlight.rules.moves.concatenation import join
from firstlight.rules.moves.ranges import drop_axis, put_range, take_index, take_range, unsqueezed
from firstlight.rules.moves.structural import Sizes, from_sample, like_shape
from firstlight.rules.registry import Call, Grads, listed, rule, several
from firstlight.rules.state import pieces
from firstlight.rules.state.empirical import uniform
from firstlight.rules.state.layout import axis_atoms, reshape

_UNLIKE, _UNEVEN = 0.05, 0.05  # in a correlation, and relative in a mean square, that is worth a word


@rule("narrow", example="x.narrow(1, 8, 32)")
def narrow(call: Call, input: Signal, dim: int, start: int, length: int) -> Signal:
    """A range of an axis."""
    del call
    return take_range(input, dim, start, start + length, 1)


@narrow.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: int, start: int, length: int) -> Grads:
    del call
    known = of_parts([(grad, out)], input, dim % input.ndim == input.ndim - 1)
    return {"input": Cotangent(put_range(whole(grad), input, dim, start, start + length, 1), along=known)}


@rule("select", example="x.select(1, 3)")
def select(call: Call, input: Signal, dim: int, index: int) -> Signal:
    """One index of an axis."""
    del call
    return drop_axis(take_range(input, dim, index, index + 1 or input.shape[dim], 1), dim)


@select.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: int, index: int) -> Grads:
    del call, out
    dim %= input.ndim
    g = whole(grad)
    g = replace(g, groups=(*g.groups[:dim], (), *g.groups[dim:]))
    return {"input": Cotangent(put_range(g, input, dim, index, index + 1 or input.shape[dim], 1))}


def _pieces(x: Signal, op: str, how: Any, dim: int) -> list[tuple[int, int]]:
    n = x.shape[dim]
    if several(how):
        sizes = [int(k) for k in how]
    elif op == "chunk":
        size = -(-n // int(how))
        sizes = [min(size, n - k) for k in range(0, n, size)]
    else:
        sizes = [min(int(how), n - k) for k in range(0, n, int(how))]
    out: list[tuple[int, int]] = []
    start = 0
    for size in sizes:
        out.append((start, start + size))
        start += size
    return out


@rule("chunk", "split", "tensor_split", example="x.chunk(2, -1)[0] * x.chunk(2, -1)[1].sigmoid()")
def chunk(call: Call, input: Signal, how: Any = 1, dim: int = 0) -> tuple[Signal, ...]:
    """Pieces of an axis; as many independent tensors, since units are."""
    shapes = [o.shape[dim] for o in call.node.outputs]
    pieces = _borders(shapes) if shapes else _pieces(input, call.node.op, how, dim)
    return tuple(take_range(input, dim, a, b, 1) for a, b in pieces)


chunk.parameters = ("input", "how", "dim")


def _borders(sizes: Sizes) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    start = 0
    for n in sizes:
        out.append((start, start + n))
        start += n
    return out


@chunk.adjoint
def _(
    call: Call, grads: tuple[Cotangent | None, ...], out: tuple[Signal, ...], input: Signal, how: Any = 1, dim: int = 0
) -> Grads:
    del call, how
    return {"input": gathered(listed(grads), listed(out), input, dim)}


def gathered(grads: tuple[Cotangent | None, ...], out: tuple[Signal, ...], like: Signal, dim: int) -> Cotangent:
    """Gradients of the pieces of an axis, put side by side (zero where none arrived)."""
    parts: list[Signal] = []
    for g, o in zip(grads, out, strict=True):
        if g is not None:
            parts.append(whole(g))
        else:
            n = (1,) * len(o.atoms)
            parts.append(
                replace(o, mean=np.zeros(n), q=np.zeros(n), source=None, values=None, value=None, weights=None)
            )
    known = of_parts(
        [(g, o) for g, o in zip(grads, out, strict=True) if g is not None], like, dim % like.ndim == like.ndim - 1
    )
    return Cotangent(join(parts, dim), along=known)


@rule("unbind", example="x.view(-1, 2, 32).unbind(1)[0]")
def unbind(call: Call, input: Signal, dim: int = 0) -> tuple[Signal, ...]:
    """One tensor per index of an axis."""
    del call
    return tuple(drop_axis(take_range(input, dim, i, i + 1, 1), dim) for i in range(input.shape[dim]))


@unbind.adjoint
def _(call: Call, grads: tuple[Cotangent | None, ...], out: tuple[Signal, ...], input: Signal, dim: int = 0) -> Grads:
    del call
    dim %= input.ndim
    wide = [None if g is None else Cotangent(unsqueezed(whole(g), dim), along=g.along) for g in listed(grads)]
    return {"input": gathered(tuple(wide), tuple(unsqueezed(o, dim) for o in listed(out)), input, dim)}


Step = tuple[str, int, tuple[Any, ...]]


def _is_slice(item: Any) -> TypeGuard[tuple[Any, ...]]:
    """Whether an index is ("slice", start, stop, step)."""
    return several(item) and len(item) == 4 and item[0] == "slice"


def plan_index(x: Signal, index: Any) -> list[Step] | None:
    """An index as steps on axes: slices, evenly spaced lists, single indices, new axes; None for other tensors."""
    items: list[Any] = list(index) if several(index) and not _is_slice(index) else [index]
    lists = sum(isinstance(i, Signal) or (several(i) and not _is_slice(i)) for i in items)
    alone = lists == 1 and not any(isinstance(i, int) for i in items)  # several are taken together, entry by entry
    used = sum(1 for i in items if i is not None and i != "..." and not isinstance(i, bool))
    steps: list[Step] = []
    axis = 0
    for item in items:
        if isinstance(item, str) and item == "...":
            axis += x.ndim - used
        elif item is None:
            steps.append(("new", axis, ()))
            axis += 1
            x = unsqueezed(x, axis - 1)
        elif _is_slice(item):
            start, stop, step = (None if s is None else s for s in item[1:])
            if isinstance(start, Signal) or isinstance(stop, Signal):
                return None
            a, b, c = slice(start, stop, step).indices(x.shape[axis])
            steps.append(("range", axis, (a, b, c)))
            axis += 1
        elif isinstance(item, int) and not isinstance(item, bool):
            i = int(item) % max(x.shape[axis], 1)
            steps.append(("one", axis, (i,)))
            x = drop_axis(replace(x, groups=(*x.groups[:axis], (), *x.groups[axis + 1 :]), value=None), axis)
        elif alone and (even := _even(item, x.shape[axis])) is not None:  # x[..., [-2], :]
            steps.append(("range", axis, even))
            axis += 1
        else:
            return None
    return steps


def _even(index: Any, size: int) -> tuple[int, int, int] | None:
    """An index list of even ascending steps as a range; None for any other."""
    given = index.value if isinstance(index, Signal) else index
    if given is None or (several(given) and not all(isinstance(i, int) for i in given)):
        return None
    ids = np.asarray(given)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not ids.size or not size:
        return None
    ids = ids.astype(np.int64) % size
    gaps = np.diff(ids)
    if gaps.size and (int(gaps.min()) < 1 or int(gaps.min()) != int(gaps.max())):
        return None
    return int(ids[0]), int(ids[-1]) + 1, int(gaps[0]) if gaps.size else 1


def taken(x: Signal, steps: list[Step]) -> Signal:
    """x[index] for an index planned as steps."""
    for kind, axis, given in steps:
        if kind == "new":
            x = reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))
        elif kind == "range":
            x = take_range(x, axis, *given)
        else:
            x = drop_axis(take_range(x, axis, given[0], given[0] + 1, 1), axis)
    return x


def place(g: Signal, input: Signal, steps: list[Step]) -> Signal:
    """The part put where the index took it from, zeros elsewhere."""
    seen = [input]
    for kind, axis, given in steps:
        x = seen[-1]
        if kind == "new":
            seen.append(unsqueezed(x, axis))
        elif kind == "range":
            seen.append(take_range(replace(x, value=None), axis, *given))
        else:
            seen.append(drop_axis(take_range(replace(x, value=None), axis, given[0], given[0] + 1, 1), axis))
    for (kind, axis, given), like in zip(reversed(steps), reversed(seen[:-1]), strict=True):
        if kind == "new":
            g = reshape(g, like.shape)
        elif kind == "range":
            g = put_range(g, like, axis, *given)
        else:
            g = replace(g, groups=(*g.groups[:axis], (), *g.groups[axis:]), terms=(), ident=next_id())
            g = put_range(g, like, axis, given[0], given[0] + 1, 1)
    return g


def where_taken(shape: tuple[int, ...], steps: list[Step]) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Per axis, 1 at the indices that an index takes and 0 elsewhere."""
    taken = [np.ones(n) for n in shape]
    axes: list[int | None] = list(range(len(shape)))
    for kind, axis, given in steps:
        if kind == "new":
            axes.insert(axis, None)
            continue
        original = axes[axis]
        if original is not None:
            picked = np.zeros(shape[original])
            picked[
                slice(*given) if kind == "range" and given[2] > 0 else [*range(*given)] if kind == "range" else given[0]
            ] = 1.0
            taken[original] = taken[original] * picked
        if kind == "one":
            axes.pop(axis)
    return taken


@rule("getitem", example="x[:, 8:40] * 2.0")
def getitem(call: Call, input: Signal, index: Any) -> Signal:
    """Indexing: slices, integers, None and ... exactly; masks and index tensors as samples of the entries."""
    shape = call.node.outputs[0].shape
    if 0 in shape:  # q[..., rotary:] of heads that are rotated whole: nothing, which `cat` leaves out
        return uniform(shape, 0.0, 0.0)
    steps = plan_index(input, index)
    if steps is None:
        return _advanced(call, input, index)
    out = taken(input, steps)
    _warn_of_one_place(call, input, out)
    return out


def _warn_of_one_place(call: Call, x: Signal, out: Signal) -> None:
    """Say so where a place is taken out of which less is known than of all places together."""
    if pieces.unsure(x, out) > _UNLIKE:
        call.caveat(
            "a place that is more (or less) alike in all samples than its neighbours (a class token): what was added "
            "to it, as by attention, is taken to be as alike as at the average place; so its samples can come out too "
            "different"
        )
    level = (2.0 / max(out.numel, 1)) ** 0.5
    known = x.value is not None or out.given is not None
    if x.data and x.gaussian and not known and x.q.size == 1 and out.ndim < x.ndim and level > _UNEVEN:
        call.caveat(
            f"one place of an input: its mean square is taken to be that of all places; of {out.numel} "
            f"entries it differs by about {100 * level:.0f} %"
        )


def _advanced(call: Call, x: Signal, index: Any) -> Signal:
    shape = call.node.outputs[0].shape
    known = _places(x, list(index) if several(index) else [index])
    if known is None:
        call.caveat("indexed by tensors: taken as a random sample of the entries")
        return like_shape(x, shape)
    axis, count, ids = known
    if count > 1:
        x = reshape(x, (*x.shape[:axis], prod(x.shape[axis : axis + count]), *x.shape[axis + count :]))
    return reshape(take_index(x, axis, ids), shape)


def _places(x: Signal, items: list[Any]) -> tuple[int, int, npt.NDArray[Any]] | None:
    """First axis, number of axes and flat places of known index tensors, or of a known mask, beside whole axes."""
    at = [k for k, i in enumerate(items) if isinstance(i, Signal)]
    others = [i for i in items if not isinstance(i, Signal)]
    whole_axes = all(isinstance(i, tuple) and i[1:] == (None, None, None) for i in others)
    if not at or at[-1] - at[0] + 1 != len(at) or not whole_axes or any(items[k].value is None for k in at):
        return None
    found = [np.asarray(items[k].value) for k in at]
    masked = len(found) == 1 and found[0].dtype.kind == "b"
    count = found[0].ndim if masked else len(found)
    sizes = x.shape[at[0] : at[0] + count]
    samples = {x.batch[a] for k in range(at[0], at[0] + len(sizes)) for a in axis_atoms(x, k)}
    if len(sizes) != count or len(samples) > 1:  # places of samples are no places of one axis
        return None
    if masked:
        (mask,) = found
        return (at[0], count, np.flatnonzero(mask)) if sizes == mask.shape and mask.any() else None
    if any(a.dtype.kind not in "iu" for a in found):
        return None
    ids = np.broadcast_arrays(*(a.astype(np.int64) % n for a, n in zip(found, sizes, strict=True)))
    return at[0], count, np.ravel_multi_index(tuple(ids), sizes)


@getitem.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, index: Any) -> Grads:
    del call
    steps = plan_index(input, index)
    if steps is None:
        rows = out.ndim == input.ndim > 1 and out.shape[1:] == input.shape[1:]
        entries = out.ndim == input.ndim == 2 and out.shape[1] == 1 and _by_two(index)
        form = added(grad.along, out.shape[0] / input.shape[0], disjoint=entries) if rows or entries else None
        return {"input": Cotangent(from_sample(grad, out, input), along=form)}
    found = moved(grad if out.numel == input.numel else Cotangent(whole(grad)), lambda g: place(g, input, steps))
    return {"input": replace(found, along=_along(grad, out, input, index))}


def _by_two(index: Any) -> bool:
    """Whether an index is x[rows, columns, None]: one entry of each of some rows."""
    return several(index) and len(index) == 3 and all(isinstance(i, Signal) for i in index[:2]) and index[2] is None


def _along(grad: Cotangent, out: Signal, input: Signal, index: Any) -> Along | None:
    """What is known of Σ g·x where only the last axis, or only the others, are taken apart."""
    if input.ndim < 2 or out.ndim == 0:
        return None
    if out.shape[:-1] == input.shape[:-1]:
        return of_parts([(grad, out)], input, True)
    items: tuple[Any, ...] = index if several(index) and not _is_slice(index) else (index,)
    leading = len(items) < input.ndim and "..." not in items and None not in items
    same = out.shape[-1] == input.shape[-1]
    return of_parts([(grad, out)], input, False) if leading and same else None


@rule("index_select", example="x.index_select(1, torch.tensor([0, 5, 7]))")
def index_select(call: Call, input: Signal, dim: int, index: Signal) -> Signal:
    """Entries of an axis by index."""
    if index.value is None:
        return like_shape(input, call.node.outputs[0].shape)
    return take_index(input, dim, index.value)


@index_select.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: int, index: Signal) -> Grads:
    del call, dim, index
    return {"input": Cotangent(from_sample(grad, out, input))}
