"""Operations written as formulas of other operations, whose rules are applied one after the other (`tape`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from firstlight.graph.signal import Signal
from firstlight.rules.composed.tape import Tape
from firstlight.rules.registry import Call, Grads, Rule, rule, several
from firstlight.rules.state.empirical import constant

Formula = Callable[..., Any]


def composed(*names: str, example: str, variadic: bool = False) -> Callable[[Formula], Rule]:
    """Register an operation by its formula: a function of a tape and the operation's arguments.

    Args:
        names: Canonical operations.
        example: An expression for the conformance test.
        variadic: Whether the last argument is a list that may be given piece by piece.
    """

    def register(formula: Formula) -> Rule:
        def forward(call: Call, **bound: Any) -> Any:
            return formula(Tape(call), **bound)

        def backward(call: Call, grads: Any, out: Any, **bound: Any) -> Grads:
            del out
            return gradients_of(formula, call, grads, **bound)

        entry = rule(*names, example=example, variadic=variadic)(forward)
        entry.parameters = tuple(inspect.signature(formula).parameters)[1:]
        entry.adjoint(backward)
        return entry

    return register


def gradients_of(formula: Formula, call: Call, grads: Any, **bound: Any) -> Grads:
    """The gradients of a formula's arguments: it runs once more, and the adjoints of its steps in reverse."""
    tape = Tape(call)
    made = formula(tape, **bound)
    ends = made if several(made) else (made,)
    given = grads if several(grads) else (grads,)
    of = tape.back({end.ident: [g] for end, g in zip(ends, given, strict=False) if g is not None})
    met = set[int]()

    def once(x: Any) -> Any:
        """The gradient of a signal, which holds all that it gets: nothing where it is given a second time."""
        if not isinstance(x, Signal) or x.ident in met:
            return None
        met.add(x.ident)
        return of(x)

    lists = {n: xs for n, xs in bound.items() if several(xs) and any(isinstance(x, Signal) for x in xs)}
    found: dict[str, Any] = {n: once(x) for n, x in bound.items() if isinstance(x, Signal)}
    return found | {n: tuple(once(x) for x in xs) for n, xs in lists.items()}


def _axis(shape: Sequence[int], axis: int, *sizes: int) -> tuple[int, ...]:
    """The shape with one axis split into several (or dropped)."""
    axis %= len(shape)
    return (*shape[:axis], *sizes, *shape[axis + 1 :])


@composed("outer", "ger", example="torch.outer(x.flatten(), torch.randn(8))")
def outer(tape: Tape, input: Signal, vec2: Signal) -> Signal:
    """x_i y_j."""
    return tape("mul", tape("view", input, (*input.shape, 1)), tape("view", vec2, (1, *vec2.shape)))


@composed("pixel_shuffle", example="F.pixel_shuffle(x.view(16, 4, 4, 4), 2)")
def pixel_shuffle(tape: Tape, input: Signal, upscale_factor: int) -> Signal:
    """Channels to space: [.., C·r², H, W] to [.., C, H·r, W·r]."""
    *lead, c, h, w = input.shape
    r, n = int(upscale_factor), len(lead)
    wide = tape("view", input, (*lead, c // r**2, r, r, h, w))
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return tape("view", tape("permute", wide, order), (*lead, c // r**2, h * r, w * r))


@composed("pixel_unshuffle", example="F.pixel_unshuffle(x.view(16, 1, 8, 8), 2)")
def pixel_unshuffle(tape: Tape, input: Signal, downscale_factor: int) -> Signal:
    """Space to channels."""
    *lead, c, h, w = input.shape
    r, n = int(downscale_factor), len(lead)
    wide = tape("view", input, (*lead, c, h // r, r, w // r, r))
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return tape("view", tape("permute", wide, order), (*lead, c * r**2, h // r, w // r))


@composed("channel_shuffle", example="F.channel_shuffle(x.view(16, 8, 8), 4)")
def channel_shuffle(tape: Tape, input: Signal, groups: int) -> Signal:
    """Channels of the groups one after the other."""
    wide = tape("view", input, _axis(input.shape, 1, groups, input.shape[1] // groups))
    return tape("view", tape("transpose", wide, 1, 2), input.shape)


@composed("tril", "triu", example="x.view(-1, 8, 8).tril()")
def tril(tape: Tape, input: Signal, diagonal: int = 0) -> Signal:
    """Zeros above (below) a diagonal."""
    make = np.tril if tape.call.node.op == "tril" else np.triu
    return tape("mul", input, constant(make(np.ones(input.shape[-2:]), diagonal)))


@composed("diagonal", "linalg_diagonal", example="x.view(-1, 8, 8).diagonal(0, 1, 2)")
def diagonal(tape: Tape, input: Signal, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Signal:
    """Entries on a diagonal: of Σ_j x_ij δ_i+k,j one is left."""
    axes = [a % input.ndim for a in (dim1, dim2)]
    rest = [a for a in range(input.ndim) if a not in axes]
    x = tape("permute", input, (*rest, *axes))
    rows, columns = x.shape[-2:]
    start = max(0, -offset)
    length = min(rows - start, columns - max(0, offset))
    x = tape("narrow", tape("narrow", x, -2, start, length), -1, max(0, offset), length)
    return tape("sum", tape("mul", x, constant(np.eye(length))), -1)


@composed("cdist", example="torch.cdist(x.view(-1, 4)[:128], x.view(-1, 4)[128:])")
def cdist(tape: Tape, x1: Signal, x2: Signal, p: float = 2.0) -> Signal:
    """|x_i - y_j|."""
    left = tape("view", x1, (*x1.shape[:-1], 1, x1.shape[-1]))
    right = tape("view", x2, (*x2.shape[:-2], 1, *x2.shape[-2:]))
    return tape("linalg_vector_norm", tape("sub", left, right), p, -1)


@composed("pairwise_distance", example="F.pairwise_distance(x.view(-1, 8)[:64], x.view(-1, 8)[64:])")
def pairwise_distance(
    tape: Tape, x1: Signal, x2: Signal, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Signal:
    """|x - y + ε|."""
    return tape("linalg_vector_norm", tape("add", tape("sub", x1, x2), eps), p, -1, keepdim)


@composed("cosine_similarity", example="F.cosine_similarity(x[:, :32], x[:, 32:], -1)")
def cosine_similarity(tape: Tape, x1: Signal, x2: Signal, dim: int = 1) -> Signal:
    """Σ x̂ ŷ."""
    return tape("sum", tape("mul", tape("normalize", x1, 2.0, dim), tape("normalize", x2, 2.0, dim)), dim)


@composed("mse_loss", example="F.mse_loss(x, 0.5 * x.roll(1, 1), reduction='none')")
def mse_loss(tape: Tape, input: Signal, target: Signal, reduction: str = "mean") -> Signal:
    """(x - y)², its mean or its sum."""
    square = tape("square", tape("sub", input, target))
    return square if reduction == "none" else tape(reduction, square)


@composed("l1_loss", example="F.l1_loss(x, 0.5 * x.roll(1, 1), reduction='none')")
def l1_loss(tape: Tape, input: Signal, target: Signal, reduction: str = "mean") -> Signal:
    """|x - y|, its mean or its sum."""
    size = tape("abs", tape("sub", input, target))
    return size if reduction == "none" else tape(reduction, size)


@composed("logaddexp", example="torch.logaddexp(x, x.roll(1, 1))")
def logaddexp(tape: Tape, input: Signal, other: Signal) -> Signal:
    """(x + y)/2 + ln 2cosh((x - y)/2): for like variances the two halves are independent."""
    half = tape("mul", tape("sub", input, other), 0.5)
    rest = tape("log", tape("mul", tape("cosh", half), 2.0))
    return tape("add", tape("mul", tape("add", input, other), 0.5), rest)


@composed("copy", "set_data", example="torch.empty_like(x).copy_(x)")
def copy(tape: Tape, input: Signal, src: Signal) -> Signal:
    """What is written over the first argument."""
    return tape("expand", src, input.shape)


@composed("bilinear", example="F.bilinear(x, x.roll(1, 1), torch.randn(8, 64, 64) / 64)")
def bilinear(tape: Tape, input1: Signal, input2: Signal, weight: Signal, bias: Signal | None = None) -> Signal:
    """Σ_ij x_i W_kij y_j + b."""
    out = tape("einsum", "...i,kij,...j->...k", input1, weight, input2)
    return out if bias is None else tape("add", out, bias)


@composed("affine_grid", example="F.affine_grid((x @ torch.randn(64, 384) / 8).view(-1, 2, 3), (1024, 1, 5, 5), False)")
def affine_grid(tape: Tape, theta: Signal, size: Any, align_corners: bool | None = False) -> Signal:
    """The points θ·(x, y, 1) of a regular grid on [-1, 1]² (or 3-d)."""
    axes = [np.linspace(-1.0, 1.0, n) * (1.0 if align_corners else (n - 1) / n) for n in size[2:]]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij")[::-1], axis=-1).reshape(-1, len(axes))
    points = constant(np.concatenate([mesh, np.ones((len(mesh), 1))], axis=1))
    found = tape("matmul", points, tape("transpose", theta, -2, -1))
    return tape("view", found, (theta.shape[0], *size[2:], len(axes)))


@composed("unfold", example="x.unfold(1, 8, 4)")
def unfold(
    tape: Tape, input: Signal, dimension: Any = None, size: int = 1, step: int = 1, kernel_size: Any = None,
    dilation: Any = 1, padding: Any = 0, stride: Any = 1,
) -> Signal:  # fmt: skip
    """Windows along an axis (``x.unfold(dimension, size, step)``), or of an image, as columns (``F.unfold``)."""
    if kernel_size is None:
        dimension %= input.ndim
        windows = _windows(tape, input, dimension, size, step, 1)
        return tape("movedim", windows, dimension + 1, input.ndim)
    kernel, spread, border, by = (each(v, 2) for v in (kernel_size, dilation, padding, stride))
    x = tape("pad", input, (border[1], border[1], border[0], border[0]))
    n, c = input.shape[:2]
    for k, axis in enumerate((2, 4)):
        x = _windows(tape, x, axis, kernel[k], by[k], spread[k])
    height, width = x.shape[2], x.shape[4]
    x = tape("permute", x, (0, 1, 3, 5, 2, 4))
    return tape("view", x, (n, c * kernel[0] * kernel[1], height * width))


def each(size: Any, axes: int) -> tuple[int, ...]:
    """One number for each axis, of one for all or one each."""
    found = tuple(int(n) for n in size) if several(size) else (int(size),)
    return found * axes if len(found) == 1 else found


def _windows(tape: Tape, x: Signal, axis: int, size: int, step: int, dilation: int) -> Signal:
    """[.., n, ..] to [.., windows, size, ..]; windows that do not overlap are a view."""
    n = x.shape[axis]
    count = (n - dilation * (size - 1) - 1) // step + 1
    if size == step and dilation == 1:
        taken = tape("narrow", x, axis, 0, count * size)
    else:
        places = np.arange(count)[:, None] * step + np.arange(size)[None, :] * dilation
        taken = tape("index_select", x, axis, constant(places.ravel()))
    return tape("view", taken, _axis(x.shape, axis, count, size))
