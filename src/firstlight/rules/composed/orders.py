"""Formulas that rules of the common case hand on to: norms of another order, tensors as bounds and as exponents."""

from __future__ import annotations

from math import inf
from typing import Any

from firstlight.graph.signal import Cotangent, Signal
from firstlight.rules.composed.tape import Tape
from firstlight.rules.registry import Call, Grads, several


def _axes(x: Signal, dim: Any) -> tuple[int, ...]:
    if dim is None or dim == ():
        return tuple(range(x.ndim))
    return tuple(sorted(int(d) % x.ndim for d in (dim if several(dim) else (dim,))))


def norm_of_order(tape: Tape, input: Signal, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Signal:
    """(Σ |x|^p)^(1/p), the largest |x| for ∞, the smallest for -∞."""
    size, axes, order = tape("abs", input), _axes(input, dim), float(p)
    if abs(order) == inf:
        return tape("amax" if order > 0.0 else "amin", size, axes, keepdim)
    if order == 1.0:
        return tape("sum", size, axes, keepdim)
    return tape("pow", tape("sum", tape("pow", size, order), axes, keepdim), 1.0 / order)


def matrix_order(x: Signal, order: Any, dim: Any, *, vector: bool) -> bool:
    """Whether a norm is one of matrices other than Frobenius'.

    Args:
        x: What it is taken of.
        order: "nuc", 1, -2, ...; None, "fro" and 2 of a vector are Euclid's.
        dim: Axes.
        vector: Whether a number without axes means the norm of all entries (torch.norm), not that of a matrix.
    """
    axes = len(_axes(x, dim))
    if isinstance(order, str):
        return order == "nuc"
    return order is not None and axes == 2 and not vector


def matrix_norm_of_order(tape: Tape, input: Signal, order: float, dim: Any = (-2, -1), keepdim: bool = False) -> Signal:
    """The largest (smallest) sum of |x| over a column for 1 (-1), over a row for ∞ (-∞)."""
    rows, columns = (int(d) % input.ndim for d in (dim if dim is not None else (-2, -1)))
    summed, left = (rows, columns) if abs(order) == 1.0 else (columns, rows)
    sums = tape("sum", tape("abs", input), summed, True)
    out = tape("amax" if order > 0.0 else "amin", sums, left, True)
    return (
        out if keepdim else tape("view", out, tuple(n for i, n in enumerate(input.shape) if i not in (rows, columns)))
    )


def of_singular_values(call: Call) -> Signal | None:
    """Norms of singular values (2, -2, "nuc") have no formula here: the real one is run on sampled matrices."""
    if call.sampler is None or call.look is None:
        return None
    call.caveat("a norm of singular values: measured on sampled matrices")
    return call.sampler.outputs(call.node, call.look)[0]


def back_to_singular_values(call: Call, grad: Cotangent) -> Grads:
    """Its gradient, likewise."""
    if call.sampler is None or call.look is None:
        return {}
    return {"input": call.sampler.gradients(call.node, call.look, (grad,)).get(call.node.args[0])}


def normalize_of_order(tape: Tape, input: Signal, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Signal:
    """x over its norm."""
    del eps
    tape.call.caveat("an entry and the norm that it is part of are taken as independent")
    return tape("div", input, norm_of_order(tape, input, float(p), dim, True))


def clamp_between(tape: Tape, input: Signal, min: Any = None, max: Any = None) -> Signal:
    """No less than one tensor (or number), no more than another."""
    out = input
    if min is not None:
        out = tape("maximum", out, min)
    return out if max is None else tape("minimum", out, max)


def pow_between(tape: Tape, input: Signal, exponent: Signal) -> Signal:
    """x^y = e^{y ln x}."""
    return tape("exp", tape("mul", tape("log", input), exponent))


def logsumexp_over(tape: Tape, input: Signal, dim: Any, keepdim: bool = False) -> Signal:
    """Over several axes, one after the other."""
    out = input
    for axis in reversed(_axes(input, dim)):
        out = tape("logsumexp", out, axis, keepdim)
    return out
