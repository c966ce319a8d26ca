"""The largest entries of an axis by their rank, and integers made from a signal."""

from __future__ import annotations

import functools
from math import prod
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.moves.structural import like_shape
from firstlight.rules.registry import Call, Grads, first_of, rule
from firstlight.rules.state.empirical import uniform
from firstlight.rules.state.layout import axis_atoms

TOP_SHARES = (
    "top shares"  # tag of the largest of n softmax weights, with n²·E p²; of the gradient of k of them, k and E Σ p²g²
)


@rule("topk", "sort", assumes=("the order statistics of Gaussian entries",), example="x.topk(3, -1)[0]")
def topk(call: Call, input: Signal, k: Any = None, dim: int = -1) -> tuple[Signal, ...]:
    """The largest entries of an axis (all of them when sorted); their indices are unknown integers."""
    call.caveat("the largest entries are taken as order statistics of Gaussians, whichever they are")
    del k
    n = input.shape[dim]
    count = call.node.outputs[0].shape[dim]
    shape = call.node.outputs[0].shape
    if count < n:
        soft = input.tag is not None and input.tag[0] == "softmax"
        v = max(input.mean_q - input.mean_mean**2, 0.0)
        level = float(f"{input.mean_q * n * n:.3g}")
        first, second = _top_shares(n, count, level) if soft else _top_normals(n, count, input.mean_mean, v**0.5)
        values = _ranked(shape, dim % len(shape), first, second, input)
        values = replace(values, tag=(TOP_SHARES, n, level)) if soft else values
    else:
        values = uniform(shape, input.mean_mean, input.mean_q, noise=input.noise)
    last = n - 1.0
    indices = uniform(call.node.outputs[-1].shape, 0.5 * last, last * (2.0 * last + 1.0) / 6.0, integer=True)
    return (values, indices) if len(call.node.outputs) > 1 else (values,)


def _ranked(shape: tuple[int, ...], dim: int, first: Array, second: Array, x: Signal) -> Signal:
    """The largest entries, by their rank: their means and the mean products of each two at one site.

    Args:
        shape: Of the tensor.
        dim: Its axis of ranks.
        first: Mean of each rank, shape (k,).
        second: Mean products, shape (k, k).
        x: What they were taken from; its sites are followed no further than that they share the means.
    """
    k = len(first)
    out = uniform(shape, float(first.mean()), float(np.trace(second)) / k, noise=x.noise)
    if k < 2:
        return out
    at = axis_atoms(out, dim)[0]
    line = (1,) * at + (-1,) + (1,) * (len(out.atoms) - at - 1)
    q = np.diag(second).reshape(line)
    root = np.sqrt(np.diag(second))
    pairs = float(root.sum()) ** 2 - float(np.square(root).sum())
    corr = np.empty(out.corr.shape)
    products = np.multiply.outer(first, first)
    for here, moments in ((False, products), (True, second)):
        where: list[Any] = [slice(None)] * corr.ndim
        if here:
            where = [slice(0, 1)] * corr.ndim
        where[at] = 0
        corr[tuple(where)] = float(np.trace(moments)) / float(q.sum())
        where[at] = 1
        corr[tuple(where)] = (float(moments.sum()) - float(np.trace(moments))) / pairs
    return replace(out, mean=first.reshape(line), q=q, corr=np.clip(corr, -1.0, 1.0))


@functools.lru_cache(maxsize=64)
def _normals(n: int) -> Array:
    """Sorted rows of n normals, the same in every call, the largest first."""
    return np.sort(np.random.default_rng(0).standard_normal((max(1 << 18, 64 * n) // n, n)), axis=1)[:, ::-1]


def _moments(top: Array) -> tuple[Array, Array]:
    return top.mean(axis=0), top.T @ top / len(top)


def _top_normals(n: int, count: int, mean: float, sd: float) -> tuple[Array, Array]:
    """Means and mean products of the `count` largest of n normals."""
    return _moments(mean + sd * _normals(n)[:, :count])


@functools.lru_cache(maxsize=256)
def _top_shares(n: int, count: int, level: float) -> tuple[Array, Array]:
    """The same of a softmax over n normal logits whose spread gives n²·E p² = level."""
    return _moments(sampled(n, level)[0][:, :count])


@functools.lru_cache(maxsize=64)
def sampled(n: int, level: float) -> tuple[Array, Array]:
    """Rows of softmax weights, the largest first, with n²·E p² = level, and their logits."""
    z = _normals(n)[:16384]
    low, high = 0.0, 50.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if float(np.square(_shares(z, middle)).mean()) * n * n < level else (low, middle)
    return _shares(z, low), low * z


def _shares(z: Array, sd: float) -> Array:
    e: Array = np.exp(sd * (z - z[:, :1]))
    return e / e.sum(axis=1, keepdims=True)


topk.parameters = ("input", "k", "dim")


@topk.adjoint
def _(call: Call, grads: Any, out: Any, input: Signal, k: Any = None, dim: int = -1) -> Grads:
    del call, k
    g = first_of(grads)
    if g is None:
        return {}
    first = first_of(out)
    share = first.shape[dim] / max(input.shape[dim], 1)
    known = whole(g)
    spread = like_shape(known, input.shape)
    tag = known.tag if known.tag is not None and known.tag[0] == TOP_SHARES else None
    return {"input": Cotangent(replace(spread, q=spread.q * share, tag=tag, ident=next_id()))}


@rule(
    "argsort",
    "argmax",
    "argmin",
    "histc",
    "bincount",
    "floor_divide",
    "nonzero",
    "argwhere",
    "isinf",
    "isposinf",
    "isneginf",
    "isreal",
    "isclose",
    "isin",
    "signbit",
    "unique_consecutive",
    "bucketize",
    "count_nonzero",
    "isfinite",
    "isnan",
    "unique",
    "searchsorted",
    "any",
    "all",
    example="",
)
def indices(call: Call, input: Any = None, other: Any = None) -> tuple[Signal, ...]:
    """Integers or booleans made from the signal: of unknown value, without gradient; counts by their mean."""
    del other
    if call.node.op in ("histc", "bincount") and isinstance(input, Signal):
        return tuple(_counts(input.numel, o.shape) for o in call.node.outputs)
    return tuple(uniform(o.shape, 0.5, 0.5, integer=True) for o in call.node.outputs)


def _counts(entries: int, shape: tuple[int, ...]) -> Signal:
    """Entries that fall into each of several equally likely bins: binomial."""
    bins = max(prod(shape), 1)
    mean = entries / bins
    return uniform(shape, mean, mean * mean + mean * (1.0 - 1.0 / bins), integer=True)
