"""Matrix products into preallocated buffers, bound once and called many times.

On a CPU the product is NumPy's (OpenBLAS) on views of the same memory: for the small products of a deep
stack it was measured up to twice as fast as torch's (benchmarks/trainer.py shows both). Elsewhere it is
torch's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

Step = Callable[[], object]


def product(a: Tensor, b: Tensor, out: Tensor, *, library: str = "numpy") -> Step:
    """A callable that writes a @ b into out; (…, n, k) @ (…, k, m) → (…, n, m), leading axes broadcast.

    Args:
        a: Left factor; any strides.
        b: Right factor.
        out: Buffer of the result's shape.
        library: "numpy" (CPU tensors only) or "torch".
    """
    if a.ndim > 2 and a.shape[:-2].numel() == b.shape[:-2].numel() == 1:
        while a.ndim > 2:
            a = a[0]
        while b.ndim > 2:
            b = b[0]
        while out.ndim > 2:
            out = out[0]
    if library == "numpy":
        left, right, into = a.numpy(), b.numpy(), out.numpy()
        if a.ndim == 2 and into.flags.c_contiguous:
            return partial(np.dot, left, right, into)
        return partial(np.matmul, left, right, into)
    if a.ndim == 2:
        return partial(torch.mm, a, b, out=out)
    a, b = (t.expand(*out.shape[:-2], *t.shape[-2:]) for t in (a, b))
    if out.ndim == 3:
        return partial(torch.bmm, a, b, out=out)
    return partial(torch.matmul, a, b, out=out)


@contextlib.contextmanager
def one_thread_setting() -> Iterator[None]:
    """Let NumPy's BLAS use as many threads as torch is set to, for the time of the block.

    Overflow is looked for by the trainer, so NumPy's own warnings about it are off inside.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=torch.get_num_threads(), user_api="blas"), np.errstate(all="ignore"):
        yield
