"""Parameters that are spread over several processes (DTensor): every process writes its part of the same whole."""

from __future__ import annotations

import sys

import torch


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this is a DTensor; does not import torch.distributed for models that do not use it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """The memory that this process holds: the tensor itself, detached, or its local shard."""
    detached = tensor.detach()
    return detached.to_local() if is_sharded(tensor) else detached  # pyright: ignore[reportAttributeAccessIssue]


def write_part(tensor: torch.Tensor, whole: torch.Tensor) -> None:
    """Copy this process's part of `whole`, which all processes have drawn alike, into a DTensor; no communication."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(tensor, DTensor)
    placed = whole.to(local_part(tensor).device)
    shard = distribute_tensor(placed, tensor.device_mesh, tensor.placements, src_data_rank=None)
    local_part(tensor).copy_(shard.to_local())


def norm(tensor: torch.Tensor) -> float:
    """Euclidean norm of all entries in double precision, over all processes."""
    value = torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64)
    if is_sharded(value):
        value = value.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]
    return float(value)
