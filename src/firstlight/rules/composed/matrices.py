"""Products and sums of matrices and vectors, as formulas of einsum, matmul and sums."""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any

import numpy as np

from firstlight.graph.signal import Signal
from firstlight.rules.composed.composed import composed, each
from firstlight.rules.composed.tape import Tape
from firstlight.rules.state.empirical import constant


@composed("inner", example="torch.inner(x, torch.randn(8, 64) / 8)")
def inner(tape: Tape, input: Signal, other: Signal) -> Signal:
    """Σ_k x_k y_k over the last axes, for all pairs of the others."""
    if not input.ndim or not other.ndim:
        return tape("mul", input, other)
    left, right = ascii_lowercase[: input.ndim - 1], ascii_lowercase[input.ndim - 1 : input.ndim + other.ndim - 2]
    return tape("einsum", f"{left}z,{right}z->{left}{right}", input, other)


@composed("linalg_vecdot", example="torch.linalg.vecdot(x, torch.randn(16, 64))")
def vecdot(tape: Tape, input: Signal, other: Signal, dim: int = -1) -> Signal:
    """Σ x y along an axis."""
    return tape("sum", tape("mul", input, other), dim)


@composed("tensordot", example="torch.tensordot(x.view(-1, 8, 8), torch.randn(8, 8, 4) / 8, dims=([1, 2], [0, 1]))")
def tensordot(tape: Tape, a: Signal, b: Signal, dims: Any = 2) -> Signal:
    """Sum over pairs of axes, given by their number (last of a, first of b) or as two lists."""
    if isinstance(dims, Signal):
        dims = np.asarray(dims.value).tolist()
    pairs = [list(range(a.ndim - dims, a.ndim)), list(range(dims))] if isinstance(dims, int) else _axes(dims)
    left, right = list(ascii_lowercase[: a.ndim]), list(ascii_lowercase[a.ndim : a.ndim + b.ndim])
    for i, j in zip(pairs[0], pairs[1], strict=True):
        right[j] = left[i]
    gone = {left[i] for i in pairs[0]}
    out = [c for c in (*left, *right) if c not in gone]
    return tape("einsum", f"{''.join(left)},{''.join(right)}->{''.join(out)}", a, b)


def _axes(dims: Any) -> list[list[int]]:
    """Two lists of axes, or one axis of each."""
    return [[int(i) for i in np.atleast_1d(np.asarray(d))] for d in dims]


@composed("addbmm", example="torch.addbmm(torch.randn(8, 4), x.view(-1, 8, 8), torch.randn(16, 8, 4) / 8, beta=0.5)")
def addbmm(tape: Tape, input: Signal, batch1: Signal, batch2: Signal, beta: float = 1, alpha: float = 1) -> Signal:
    """β·A + α·Σ_b X_b Y_b."""
    product = tape("sum", tape("matmul", batch1, batch2), 0)
    return tape("add", tape("mul", input, float(beta)), tape("mul", product, float(alpha)))


@composed(
    "linalg_multi_dot",
    "chain_matmul",
    example="torch.linalg.multi_dot([x, torch.randn(64, 32) / 8, torch.randn(32, 8)])",
    variadic=True,
)
def multi_dot(tape: Tape, tensors: Any) -> Signal:
    """One matrix product after the other."""
    out = tensors[0]
    for other in tensors[1:]:
        out = tape("matmul", out, other)
    return out


@composed("linalg_matrix_power", "matrix_power", example="torch.linalg.matrix_power(torch.randn(64, 64) / 8, 1) @ x.mT")
def matrix_power(tape: Tape, input: Signal, n: int) -> Signal:
    """A·A·…: of random matrices as if its factors were independent."""
    if n < 1:
        tape.call.caveat("a power below 1 of a matrix: the matrix itself is taken")
        return tape("view", input, input.shape)
    out = tape("view", input, input.shape)
    for _ in range(n - 1):
        out = tape("matmul", out, input)
    return out


@composed("kron", example="torch.kron(x[:4, :8].contiguous(), torch.randn(2, 4))")
def kron(tape: Tape, input: Signal, other: Signal) -> Signal:
    """Kronecker's product: blocks x_ij·Y."""
    n = max(input.ndim, other.ndim)
    one, two = ((*(1,) * (n - x.ndim), *x.shape) for x in (input, other))
    left = tape("view", input, tuple(k for size in one for k in (size, 1)))
    right = tape("view", other, tuple(k for size in two for k in (1, size)))
    return tape("view", tape("mul", left, right), tuple(a * b for a, b in zip(one, two, strict=True)))


@composed("addr", example="torch.addr(torch.randn(64, 8), x.sum(0), torch.randn(8))")
def addr(tape: Tape, input: Signal, vec1: Signal, vec2: Signal, beta: float = 1, alpha: float = 1) -> Signal:
    """β·A + α·x yᵀ."""
    product = tape("mul", tape("view", vec1, (*vec1.shape, 1)), tape("view", vec2, (1, *vec2.shape)))
    return tape("add", tape("mul", input, float(beta)), tape("mul", product, float(alpha)))


@composed("linalg_cross", "cross", example="torch.linalg.cross(x[:, :60].reshape(-1, 3), torch.randn(320, 3))")
def cross(tape: Tape, input: Signal, other: Signal, dim: Any = None) -> Signal:
    """x × y: x_{i+1} y_{i+2} - x_{i+2} y_{i+1}."""
    axis = -1 if dim is None else int(dim)
    x, y = ([tape("roll", v, -k, axis if v.ndim > 1 else -1) for k in (1, 2)] for v in (input, other))
    return tape("sub", tape("mul", x[0], y[1]), tape("mul", x[1], y[0]))


@composed("trace", example="(x.mT @ torch.randn(16, 64)).trace()")
def trace(tape: Tape, input: Signal) -> Signal:
    """Σ_i x_ii."""
    return tape("sum", tape("diagonal", input, 0, 0, 1))


@composed("diag", example="x[:, :16].diag()")
def diag(tape: Tape, input: Signal, diagonal: int = 0) -> Signal:
    """The diagonal of a matrix, or a matrix of zeros with that diagonal."""
    if input.ndim > 1:
        return tape("diagonal", input, diagonal, 0, 1)
    made = tape("diag_embed", input)
    before, after = max(-diagonal, 0), max(diagonal, 0)
    return tape("pad", made, (after, before, before, after)) if diagonal else made


@composed("block_diag", example="torch.block_diag(x[:, :8], x[:, 8:16])", variadic=True)
def block_diag(tape: Tape, tensors: Any) -> Signal:
    """Matrices along a diagonal, zeros beside them."""
    wide = [x if x.ndim == 2 else tape("view", x, (1, x.numel)) for x in tensors]
    width, before, rows = sum(x.shape[1] for x in wide), 0, list[Signal]()
    for x in wide:
        rows.append(tape("pad", x, (before, width - before - x.shape[1])))
        before += x.shape[1]
    return tape("cat", tuple(rows), 0)


@composed("meshgrid", example="torch.meshgrid(x[0], x[1], indexing='ij')[0]", variadic=True)
def meshgrid(tape: Tape, tensors: Any) -> tuple[Signal, ...]:
    """Each vector along an axis of its own, repeated along those of the others."""
    return _grid(tape, tensors, swapped=tape.call.node.options.get("indexing") == "xy")


@composed("cartesian_prod", example="torch.cartesian_prod(x[0], x[1])", variadic=True)
def cartesian_prod(tape: Tape, tensors: Any) -> Signal:
    """All tuples of their entries, as rows."""
    if len(tensors) == 1:
        return tape("view", tensors[0], tensors[0].shape)
    return tape("stack", tuple(tape("view", g, (g.numel,)) for g in _grid(tape, tensors)), 1)


def _grid(tape: Tape, tensors: Any, *, swapped: bool = False) -> tuple[Signal, ...]:
    """The vectors of a grid; `swapped` lets the second one run along the first axis."""
    axes = list(range(len(tensors)))
    if swapped and len(axes) > 1:
        axes[0], axes[1] = 1, 0
    sizes = tuple(tensors[axes.index(i)].numel for i in range(len(axes)))
    lines = [
        tape("view", x, tuple(n if i == axis else 1 for i, n in enumerate(sizes)))
        for x, axis in zip(tensors, axes, strict=True)
    ]
    return tuple(tape("expand", line, sizes) for line in lines)


@composed("fold", example="F.fold(x.view(-1, 16, 4), (4, 4), (2, 2), stride=2)")
def fold(
    tape: Tape, input: Signal, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Signal:
    """Columns of windows added up where they lie in an image: along each axis the product with a matrix of 0 and 1."""
    sizes, kernel, spread, border, by = (each(v, 2) for v in (output_size, kernel_size, dilation, padding, stride))
    counts = [(sizes[i] + 2 * border[i] - spread[i] * (kernel[i] - 1) - 1) // by[i] + 1 for i in range(2)]
    lead = input.shape[:-2]
    c = input.shape[-2] // (kernel[0] * kernel[1])
    n = lead[0] if lead else 1
    x = tape("view", input, (n, c, *kernel, *counts))
    x = tape("permute", x, (0, 1, 2, 4, 3, 5))
    x = tape("view", x, (n, c, kernel[0] * counts[0], kernel[1] * counts[1]))
    rows, columns = (_places(kernel[i], counts[i], spread[i], by[i], sizes[i], border[i]) for i in range(2))
    out = tape("matmul", tape("matmul", constant(rows), x), constant(columns.T.copy()))
    return out if lead else tape("view", out, out.shape[1:])


def _places(kernel: int, count: int, spread: int, by: int, size: int, border: int) -> Any:
    """Which place of an axis each tap of each window lies at, shape (size, kernel·count)."""
    places = (np.arange(kernel)[:, None] * spread + np.arange(count)[None, :] * by - border).ravel()
    return (np.arange(size)[:, None] == places[None, :]) * 1.0
