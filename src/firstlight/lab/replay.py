"""CUDA graphs: a fixed sequence of kernels, captured once and launched as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def replayable(work: Callable[[], object], device: torch.device, keep: Sequence[Tensor] = ()) -> Callable[[], object]:
    """`work` itself on a CPU; on CUDA a launcher of its captured graph.

    Args:
        work: Reads and writes preallocated buffers only, and never looks at a value on the host.
        device: Where the buffers are.
        keep: Tensors that `work` changes; the warm-up runs before capture are undone on them.
    """
    if device.type != "cuda":
        return work
    before = [t.clone() for t in keep]
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    for tensor, old in zip(keep, before, strict=True):
        tensor.copy_(old)
    return graph.replay
