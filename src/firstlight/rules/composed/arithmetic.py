"""Arithmetic that networks seldom use, as formulas of what they use often."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.graph.signal import Signal
from firstlight.rules.composed.composed import composed, each
from firstlight.rules.composed.tape import Tape
from firstlight.rules.state.empirical import constant, uniform

_STRONG = 0.05  # share of the norm's constant from which what it divides by is more than a constant


@composed("softmin", example="F.softmin(x, -1)")
def softmin(tape: Tape, input: Signal, dim: int = -1) -> Signal:
    """softmax(-x)."""
    return tape("softmax", tape("neg", input), dim)


@composed("diff", example="x.diff(dim=1)")
def diff(tape: Tape, input: Signal, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Signal:
    """x_{i+1} - x_i, n times."""
    x = tape("view", input, input.shape)
    if prepend is not None or append is not None:
        x = tape("cat", tuple(v for v in (prepend, x, append) if v is not None), dim)
    for _ in range(n):
        size = x.shape[dim]
        x = tape("sub", tape("narrow", x, dim, 1, size - 1), tape("narrow", x, dim, 0, size - 1))
    return x


@composed("trapezoid", "trapz", example="torch.trapezoid(x, dx=0.5, dim=-1)")
def trapezoid(tape: Tape, y: Signal, x: Any = None, dx: float = 1.0, dim: int = -1) -> Signal:
    """Σ ½(y_i + y_{i+1})·(x_{i+1} - x_i): one weight for each y."""
    return tape("matmul", _last(tape, y, dim), constant(_trapezoids(tape, y, x, dx, dim)[-1]))


@composed("cumulative_trapezoid", example="torch.cumulative_trapezoid(x, dim=-1)")
def cumulative_trapezoid(tape: Tape, y: Signal, x: Any = None, dx: float = 1.0, dim: int = -1) -> Signal:
    """The running sums of the same."""
    sums = tape("matmul", _last(tape, y, dim), constant(_trapezoids(tape, y, x, dx, dim).T.copy()))
    return tape("movedim", sums, -1, dim) if dim % y.ndim < y.ndim - 1 else sums


def _last(tape: Tape, y: Signal, dim: int) -> Signal:
    return tape("movedim", y, dim, -1) if dim % y.ndim < y.ndim - 1 else y


def _trapezoids(tape: Tape, y: Signal, x: Any, dx: float, dim: int) -> Any:
    """The weight of each y in each running sum, shape (n - 1, n)."""
    n = y.shape[dim]
    step = np.full(n - 1, float(dx))
    if isinstance(x, Signal):
        if x.value is not None and np.ndim(x.value) == 1:
            step = np.diff(np.asarray(x.value, dtype=np.float64))
        else:
            tape.call.caveat("the places of the trapezoids are not known: taken as evenly spread")
    pairs = 0.5 * step[:, None] * (np.eye(n - 1, n) + np.eye(n - 1, n, 1))
    return np.cumsum(pairs, axis=0)


@composed("hypot", example="torch.hypot(x, torch.randn(16, 64))")
def hypot(tape: Tape, input: Signal, other: Signal) -> Signal:
    """√(x² + y²)."""
    return tape("sqrt", tape("add", tape("square", input), tape("square", other)))


@composed("xlogy", "special_xlog1py", example="torch.xlogy(x, x.roll(1, 1).abs() + 1.0)")
def xlogy(tape: Tape, input: Any, other: Any) -> Signal:
    """x·ln y, or x·ln(1 + y)."""
    name = "log1p" if tape.call.node.op == "special_xlog1py" else "log"
    if not isinstance(other, Signal):
        return tape("mul", input, float(getattr(np, name)(float(other))))
    return tape("mul", tape(name, other), input)


@composed("logaddexp2", example="torch.logaddexp2(x, x.roll(1, 1))")
def logaddexp2(tape: Tape, input: Signal, other: Signal) -> Signal:
    """log2(2^x + 2^y)."""
    unit = float(np.log(2.0))
    return tape("div", tape("logaddexp", tape("mul", input, unit), tape("mul", other, unit)), unit)


@composed("addcdiv", example="torch.addcdiv(x, x.roll(1, 1), torch.randn(16, 64).abs() + 1.0, value=0.5)")
def addcdiv(tape: Tape, input: Signal, tensor1: Signal, tensor2: Signal, value: float = 1) -> Signal:
    """x + v·a/b."""
    return tape("add", input, tape("mul", tape("div", tensor1, tensor2), float(value)))


@composed("copysign", example="torch.copysign(x, x.roll(1, 1))")
def copysign(tape: Tape, input: Signal, other: Any) -> Signal:
    """|x| with the sign of y."""
    size = tape("abs", input)
    if not isinstance(other, Signal):
        return tape("mul", size, float(np.copysign(1.0, float(other))))
    return tape("mul", size, tape("sign", other))


@composed("ldexp", example="torch.ldexp(x, torch.tensor(2))")
def ldexp(tape: Tape, input: Signal, other: Signal) -> Signal:
    """x·2^y."""
    if other.value is not None:
        return tape("mul", input, constant(np.exp2(np.asarray(other.value, dtype=np.float64))))
    return tape("mul", input, tape("exp2", other))


@composed("fmax", "fmin", example="torch.fmax(x, x.roll(1, 1))")
def fmax(tape: Tape, input: Signal, other: Signal) -> Signal:
    """The larger (smaller) of two numbers."""
    return tape("maximum" if tape.call.node.op == "fmax" else "minimum", input, other)


@composed("aminmax", example="x.aminmax(dim=-1)[0]")
def aminmax(tape: Tape, input: Signal, dim: Any = None, keepdim: bool = False) -> tuple[Signal, Signal]:
    """The smallest and the largest entry."""
    axes = tuple(range(input.ndim)) if dim is None else dim
    return tape("amin", input, axes, keepdim), tape("amax", input, axes, keepdim)


@composed("std_mean", "var_mean", example="torch.std_mean(x, -1)[0]")
def std_mean(
    tape: Tape, input: Signal, dim: Any = None, unbiased: Any = True, keepdim: bool = False, correction: Any = None
) -> tuple[Signal, Signal]:
    """The deviation (or the variance) and the mean over some axes."""
    axes = tuple(range(input.ndim)) if dim is None else dim
    spread = tape(tape.call.node.op.removesuffix("_mean"), input, axes, unbiased, keepdim, correction)
    return spread, tape("mean", input, axes, keepdim)


@composed("dist", example="torch.dist(x, torch.randn(16, 64))")
def dist(tape: Tape, input: Signal, other: Signal, p: float = 2.0) -> Signal:
    """|x - y| over all entries."""
    return tape("linalg_vector_norm", tape("sub", input, other), p, tuple(range(input.ndim)))


@composed("polar", example="torch.view_as_real(torch.polar(x.abs(), torch.randn(16, 64)))")
def polar(tape: Tape, abs: Signal, angle: Signal) -> Signal:
    """r·e^{iφ}."""
    return tape("complex", tape("mul", tape("cos", angle), abs), tape("mul", tape("sin", angle), abs))


@composed("rot90", example="x.view(-1, 8, 8).rot90(1, (1, 2))")
def rot90(tape: Tape, input: Signal, k: int = 1, dims: Any = (0, 1)) -> Signal:
    """Turned by quarters, from the first axis towards the second."""
    a, b = (int(d) for d in dims)
    if k % 2 == 0:
        return tape("flip", input, (a, b)) if k % 4 else tape("view", input, input.shape)
    turned = tape("transpose", input, a, b)
    return tape("flip", turned, (a,) if k % 4 == 1 else (b,))


@composed("rrelu", example="F.rrelu(x, 0.1, 0.3, training=True)")
def rrelu(tape: Tape, input: Signal, lower: float = 0.125, upper: float = 1.0 / 3.0, training: bool = False) -> Signal:
    """A slope drawn from [l, u] for each entry below zero; their mean where nothing is trained (Xu et al. 2015)."""
    mean = 0.5 * (lower + upper)
    if not training:
        return tape("leaky_relu", input, mean)
    spread = uniform(input.shape, 0.0, (upper - lower) ** 2 / 12.0)  # around the mean, independent of all else
    return tape("add", tape("leaky_relu", input, mean), tape("mul", tape("clamp", input, None, 0.0), spread))


@composed("lp_pool1d", "lp_pool2d", "lp_pool3d", example="F.lp_pool1d(x.view(16, 4, 16), 2, 4)")
def lp_pool(
    tape: Tape, input: Signal, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Signal:
    """(Σ x^p over a window)^(1/p)."""
    axes = int(tape.call.node.op[-2])
    if ceil_mode:
        tape.call.caveat("windows that reach over the border are left out")
    kernel = each(kernel_size, axes)
    steps = kernel if stride is None else each(stride, axes)
    x = tape("view", input, input.shape)
    for i, axis in enumerate(range(input.ndim - axes, input.ndim)):
        x = tape("unfold", x, axis, kernel[i], steps[i])
    return tape("linalg_vector_norm", x, float(norm_type), tuple(range(-axes, 0)))


@composed("local_response_norm", example="F.local_response_norm(x.view(16, 8, 8), 3, 0.02)")
def local_response_norm(
    tape: Tape, input: Signal, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Signal:
    """x/(k + α·mean of x² over neighbouring channels)^β (Krizhevsky et al. 2012)."""
    if alpha * input.mean_q > _STRONG * k:
        tape.call.caveat("an entry and the mean of squares that it is part of are taken as independent")
    channels = input.shape[1]
    apart = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    near = (apart >= -(size // 2)) & (apart <= (size - 1) // 2)
    flat = tape("view", tape("square", input), (input.shape[0], channels, -1))
    mean = tape("view", tape("matmul", constant(near / float(size)), flat), input.shape)
    return tape("mul", input, tape("pow", tape("add", tape("mul", mean, alpha), k), -beta))


@composed("select_scatter", example="torch.select_scatter(x, x[:, 1], 1, 0)")
def select_scatter(tape: Tape, input: Signal, src: Signal, dim: int, index: int) -> Signal:
    """A copy in which one index of an axis is overwritten."""
    return tape("setitem", input, (*_everything(dim % input.ndim), int(index)), src)


@composed("slice_scatter", example="torch.slice_scatter(x, x[:, 8:16], 1, 0, 8)")
def slice_scatter(
    tape: Tape, input: Signal, src: Signal, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Signal:
    """A copy in which a slice of an axis is overwritten."""
    return tape("setitem", input, (*_everything(dim % input.ndim), ("slice", start, end, step)), src)


@composed("index_fill", example="x.index_fill(1, torch.arange(8), 0.0)")
def index_fill(tape: Tape, input: Signal, dim: int, index: Signal, value: Any) -> Signal:
    """A copy in which some indices of an axis are overwritten with a number; of unknown ones that many of the first."""
    number = value.mean_mean if isinstance(value, Signal) else float(value)
    axis = dim % input.ndim
    kept = np.ones(input.shape[axis])
    if index.value is not None:
        kept[np.asarray(index.value).astype(int).ravel()] = 0.0
    else:
        tape.call.caveat("written at indices that are not known: taken as the first ones")
        kept[: index.numel] = 0.0
    line = kept.reshape([-1 if i == axis else 1 for i in range(input.ndim)])
    out = tape("mul", input, constant(line))
    return tape("add", out, constant(number * (1.0 - line))) if number else out


def _everything(axes: int) -> tuple[Any, ...]:
    return (("slice", None, None, None),) * axes
