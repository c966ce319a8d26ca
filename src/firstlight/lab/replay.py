"""CUDA graphs: a fixed sequence of kernels, captured once and launched as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_REHEARSALS = 3  # runs before a capture, in which libraries choose kernels and take their memory


def replayable(work: Callable[[], object], device: torch.device, keep: Sequence[Tensor] = ()) -> Callable[[], object]:
    """`work` itself on a CPU; on CUDA a launcher of its captured graph.

    Args:
        work: Reads and writes preallocated buffers only, and never looks at a value on the host.
        device: Where the buffers are.
        keep: Every tensor that outlives a call of `work` and is changed by it; the rehearsals are undone on them.
    """
    if device.type != "cuda":
        return work
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        rehearse(work, keep)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # records and does not run
        work()
    return graph.replay


def rehearse(work: Callable[[], object], keep: Sequence[Tensor]) -> None:
    """Run `work` a few times and give the tensors `keep` back their values."""
    before = [t.clone() for t in keep]
    for _ in range(_REHEARSALS):
        work()
    for tensor, old in zip(keep, before, strict=True):
        tensor.copy_(old)
