"""Haar-distributed matrices with orthonormal rows or columns."""

from __future__ import annotations

import torch

from firstlight.schemes.draws import Stream


def haar(normal: torch.Tensor) -> torch.Tensor:
    """Make standard normal matrices Haar-distributed: A = QR with R's diagonal positive; Q is returned.

    Without fixing the signs of R's diagonal Q is not Haar (Mezzadri 2007).

    Args:
        normal: (batch, rows, cols), independent N(0,1) entries.

    Returns:
        The same shape and type, with orthonormal columns (rows, where rows < cols).
    """
    wide = normal.shape[-2] < normal.shape[-1]
    q, r = torch.linalg.qr(normal.mT if wide else normal)
    signs = r.diagonal(dim1=-2, dim2=-1).sgn()
    q = q * torch.where(signs == 0.0, 1.0, signs).unsqueeze(-2)
    return q.mT if wide else q


def haar_maps(
    stream: Stream, shape: tuple[int, ...], split: int, in_axes: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """A tensor whose `split` stacked maps are each a Haar matrix (outputs × inputs), unscaled.

    Args:
        stream: Random numbers.
        shape: Shape of the whole parameter.
        split: Number of maps stacked along axis 0.
        in_axes: Axes of `shape` that are summed over.
        dtype: float32 or float64.
    """
    blocks = (split, shape[0] // split, *shape[1:])
    inputs = [axis + 1 for axis in in_axes]
    outputs = [a for a in range(1, len(blocks)) if a not in inputs]
    order = [0, *outputs, *inputs]
    permuted = [blocks[a] for a in order]
    rows = 1
    for axis in outputs:
        rows *= blocks[axis]
    columns = 1
    for axis in inputs:
        columns *= blocks[axis]
    normal = stream.normal((split, rows, columns)).to(dtype)
    back = [order.index(a) for a in range(len(order))]
    return haar(normal).reshape(permuted).permute(back).reshape(shape)
