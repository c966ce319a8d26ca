"""Find the tensors in what a model takes and returns: tuples, dicts, dataclasses, Hugging Face outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from firstlight.graph.signal import FILLER

SPARSE_LIMIT = 2**24  # entries up to which a sparse tensor is made dense, to be looked at


def named_tensors(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (path, tensor) for every tensor in a nested value, in the order in which it stands there.

    Args:
        value: A tensor, or any nesting of sequences, mappings and dataclasses; anything else holds none.
        path: Where `value` stands: "" for the whole; entries are joined by dots ("past.0", "logits").
    """
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    for key, item in _items(value):
        yield from named_tensors(item, f"{path}.{key}" if path else str(key))


def map_tensors(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Return `value` with every tensor replaced by ``change(tensor)``; containers are rebuilt, never changed.

    Objects that are neither sequence, mapping nor dataclass are passed through as they are.
    """
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple):
        items = [map_tensors(item, change) for item in value]
        return type(value)(*items) if _is_named_tuple(value) else tuple(items)
    if isinstance(value, list):
        return [map_tensors(item, change) for item in value]
    if type(value) is dict:
        return {key: map_tensors(item, change) for key, item in value.items()}
    if any(True for _ in named_tensors(value)):
        return _rebuild(value, change)
    return value


def separate(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without what made it; a leaf that asks for a gradient as it is.

    A loss may hold such a leaf and differentiate the output there, as that of a differential equation does.
    """
    return tensor if tensor.requires_grad and tensor.is_leaf else tensor.detach()


def stored(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The strided tensors that hold a tensor's entries: itself, or the positions and values of a sparse one."""
    tensor = tensor.detach()
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return (tensor,)


def is_sparse(tensor: torch.Tensor) -> bool:
    """Whether only some entries are kept, with their positions: a graph's adjacency, in most cases."""
    return tensor.layout is not torch.strided and len(stored(tensor)) > 1


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """A strided tensor with the same entries; of a large sparse one those of evenly spaced rows, which are as all."""
    if tensor.layout is torch.strided:
        return tensor
    tensor = tensor.detach()
    if is_sparse(tensor) and tensor.numel() > SPARSE_LIMIT:
        rows = max(1, SPARSE_LIMIT // max(1, tensor.numel() // len(tensor)))
        which = torch.arange(rows, device=tensor.device) * len(tensor) // rows
        tensor = tensor.to_sparse_coo().index_select(0, which)
    return tensor.to_dense()


def is_mask(tensor: torch.Tensor) -> bool:
    """Whether a floating-point tensor with entries is an additive mask: 0 and what no softmax sees, and both.

    Unseen is minus infinity, the least number of the format, or any other at or below -`FILLER`.
    """
    if not tensor.is_floating_point() or tensor.device.type == "meta" or is_sparse(tensor):
        return False
    closed = tensor <= -FILLER
    return bool(closed.any()) and bool((closed | (tensor == 0)).all())


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple) and _is_named_tuple(value):
        yield from zip(value._fields, value, strict=True)  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            yield item.name, getattr(value, item.name, None)


def _is_named_tuple(value: tuple[Any, ...]) -> bool:
    return hasattr(value, "_fields")


def _rebuild(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    changed = {key: map_tensors(item, change) for key, item in _items(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not isinstance(value, Mapping):
        return dataclasses.replace(value, **changed)
    try:
        return type(value)(**changed)
    except TypeError:
        return changed
