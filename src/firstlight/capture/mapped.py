"""`torch.vmap` while a network is looked at: the loop that it stands for, where each operation is an ordinary one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch._functorch.apis as functorch
from torch import Tensor
from torch._functorch.vmap import (
    _process_batched_inputs,  # pyright: ignore[reportPrivateUsage]
    vmap_impl,
)
from torch.utils._pytree import _broadcast_to_and_flatten, tree_flatten, tree_unflatten

from firstlight.capture.shared import Shared, replaced
from firstlight.errors import ModelError

#: More turns than this are not taken: each puts all operations of the function into the graph once more.
MOST = 64


@contextmanager
def written_out() -> Iterator[None]:
    """Run functions under `torch.vmap` once for each entry of the mapped axis and stack what they give.

    That is what vmap means (its documentation says so), and what it computes equals the loop but for rounding. Inside
    vmap, tensors hide their mapped axis: no statistic of theirs could be taken. Functions of integers and flags
    alone, as those that make masks, stay as they are, and so does what other threads map.
    """
    with _WRITTEN_OUT.entered():
        yield


_WRITTEN_OUT = Shared(lambda: replaced(functorch, "vmap_impl", _looped))


def _looped(
    func: Callable[..., Any],
    in_dims: Any,
    out_dims: Any,
    randomness: str,
    chunk_size: int | None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    if not _WRITTEN_OUT.is_mine():
        return vmap_impl(func, in_dims, out_dims, randomness, chunk_size, *args, **kwargs)
    size, dims, flat, spec = _process_batched_inputs(in_dims, args, func)
    if size == 0 or not any(_is_field(t) for t in tree_flatten(args)[0]):
        return _of_integers(vmap_impl, func, in_dims, out_dims, randomness, chunk_size, *args, **kwargs)
    if size > MOST:
        raise ModelError(
            "torch.vmap",
            got=f"a function mapped over {size} entries",
            expected=f"at most {MOST}: each is followed by itself",
            action="Give a smaller batch, or write the function for whole batches.",
        )
    seed = torch.get_rng_state() if randomness == "same" else None
    results: list[Any] = []
    for i in range(size):
        if seed is not None:
            torch.set_rng_state(seed)
        entries = [x if d is None else x.select(d, i) for x, d in zip(flat, dims, strict=True)]
        results.append(func(*tree_unflatten(entries, spec), **kwargs))
    return _stacked(results, out_dims)


def _is_field(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def _of_integers(mapped: Callable[..., Any], func: Callable[..., Any], *how: Any, **kwargs: Any) -> Any:
    """What vmap itself gives, unless the function looks weights up: these are hidden inside of it."""
    why: Exception | None = None
    try:
        result = mapped(func, *how, **kwargs)
        if not any(_is_field(t) and t.requires_grad for t in tree_flatten(result)[0]):
            return result
    except (RuntimeError, NotImplementedError) as error:
        why = error
    raise ModelError(
        "torch.vmap",
        got=f"a function of integers alone that computes with weights{f' ({why})' if why else ''}",
        expected="a function of integers that gives integers or a mask, or one that has real numbers as arguments",
        action="Look up the weights before vmap, as vmap(f)(embedding(ids)), or call the function on the whole batch.",
    ) from why


def _stacked(results: list[Any], out_dims: Any) -> Any:
    """The results of all turns, each tensor with a new axis where `out_dims` (a number, or a tree of them) says."""
    leaves, spec = zip(*(tree_flatten(r) for r in results), strict=True)
    if isinstance(out_dims, int):
        dims: list[Any] | None = [out_dims] * len(leaves[0])
    elif isinstance(results[0], Tensor) and isinstance(out_dims, tuple) and len(out_dims) == 1:
        dims = [out_dims[0]]
    else:
        dims = _broadcast_to_and_flatten(out_dims, spec[0])
        if dims is None:
            raise ValueError(f"vmap: out_dims {out_dims!r} do not fit what the function returns")
    if wrong := [
        type(x).__name__ for x, d in zip(leaves[0], dims, strict=True) if d is not None and not isinstance(x, Tensor)
    ]:
        raise ValueError(f"vmap: a function must only return Tensors, got {wrong[0]}; or set its out_dims to None")
    together = [
        torch.stack(each, d) if d is not None else each[0]
        for each, d in zip(zip(*leaves, strict=True), dims, strict=True)
    ]
    return tree_unflatten(together, spec[0])
