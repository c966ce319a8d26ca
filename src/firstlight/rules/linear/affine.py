"""Affine maps: linear and matrix products, as contractions with independent entries (`einsum` has its own file)."""

from __future__ import annotations

import string
import zlib
from typing import Any

import numpy as np

from firstlight.graph.ir import Ref
from firstlight.graph.signal import Cotangent, Signal, next_id, replace
from firstlight.rules.attention.keys import is_weights
from firstlight.rules.gradients.along import ITSELF, begun, behind_map, on_weights
from firstlight.rules.gradients.gradient import alone, moved, scale, scaled, whole
from firstlight.rules.gradients.leaning import at_rows, at_values, of_keys, of_rows
from firstlight.rules.linear import gram
from firstlight.rules.linear.centring import seen, taken
from firstlight.rules.linear.contraction import contract, outer_sum
from firstlight.rules.linear.past_weights import past_weights
from firstlight.rules.linear.tied import own_rows
from firstlight.rules.moves.ranges import same_entries
from firstlight.rules.pointwise.merge import plus, reduce_to
from firstlight.rules.registry import BACKWARD_INDEPENDENT, WEIGHTS_IID, Call, Grads, rule
from firstlight.rules.state import pieces
from firstlight.rules.state.layout import axis_atoms, expand, permute
from firstlight.rules.state.noise import chi_square_log, combine
from firstlight.rules.state.summation import sum_atoms

_RARE = 0.5  # variance of a log-norm from which mean squares are those of rare draws
LETTERS = string.ascii_letters


@rule(
    "linear",
    assumes=(WEIGHTS_IID, BACKWARD_INDEPENDENT),
    refs=("poole2016", "schoenholz2016"),
    example="F.linear(x, torch.randn(32, 64) / 8, torch.randn(32))",
)
def linear(call: Call, input: Signal, weight: Signal, bias: Signal | None = None) -> Signal:
    """y = xWᵀ + b: q' = fan_in·E w²·q + E b²; correlations between sites are the input's; units are independent."""
    letters = LETTERS[: input.ndim]
    out = contract(
        seen(input, taken(weight), -1) if weight.weights is not None else input,
        letters,
        weight,
        ("Z" if weight.ndim > 1 else "") + letters[-1],
        letters[:-1] + ("Z" if weight.ndim > 1 else ""),
    )
    known = own_rows(input, weight)
    out = out if known == 1.0 else replace(out, q=out.q * known)
    out = pieces.mapped(out, input)
    if input.noise.variance <= _RARE < out.noise.variance:
        call.caveat(
            f"ln|x|² has a standard deviation of {out.noise.variance**0.5:.1f} over draws from here on: mean squares "
            "are carried by rare long draws, and those of a few dozen draws fall short of them"
        )
    return out if bias is None else with_bias(call, out, bias)


def with_bias(call: Call, y: Signal, bias: Signal) -> Signal:
    """Add one entry per unit, the same for every site."""
    out = plus(call, y, bias)
    return replace(out, gaussian=True)


@linear.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, weight: Signal, bias: Signal | None = None) -> Grads:
    g = whole(grad)
    letters = LETTERS[: input.ndim]
    o = "Z" if weight.ndim > 1 else ""
    if grad.along is None and own_rows(input, weight) != 1.0:
        grad = replace(grad, along=begun(grad, out))
    fan, sites = input.shape[-1], input.numel // max(input.shape[-1], 1) - 1
    dx = past_weights(contract(g, letters[:-1] + o, weight, o + letters[-1], letters), g, fan, sites)
    grads: dict[str, Any] = {
        "input": behind_map(dx, input, grad, out, bias) if o else Cotangent(dx),
        "weight": Cotangent(
            outer_sum(g, input, weight) if o else contract(g, letters[:-1] + o, input, letters, o + letters[-1])
        ),
    }
    if o and any(isinstance(a, Ref) for a in call.node.args[1:2]):  # a matrix that was made from another
        tag = (ITSELF, 0, on_weights(grad, out, bias))
        grads["weight"] = Cotangent(replace(grads["weight"].base, tag=tag))
    if bias is not None:
        grads["bias"] = reduce_to(Cotangent(g), bias)
    return grads


def _matmul_letters(x: Signal, y: Signal) -> tuple[str, str, str]:
    """Einsum letters of torch.matmul for the two ranks."""
    if x.ndim == 1 and y.ndim == 1:
        return "k", "k", ""
    rank = max(x.ndim, y.ndim) - 2 if min(x.ndim, y.ndim) > 1 else max(x.ndim, y.ndim) - 1
    lead = LETTERS[:rank]
    if x.ndim == 1:
        return "X", lead[: y.ndim - 2] + "XZ", lead[: y.ndim - 2] + "Z"
    if y.ndim == 1:
        return lead[: x.ndim - 1] + "X", "X", lead[: x.ndim - 1]
    return lead[len(lead) - (x.ndim - 2) :] + "YX", lead[len(lead) - (y.ndim - 2) :] + "XZ", lead + "YZ"


def _wide(x: Signal, letters: str, sizes: dict[str, tuple[int, ...]]) -> Signal:
    """Repeat axes of size 1 that the other operand has."""
    groups = tuple(g or sizes.get(a, ()) for g, a in zip(x.groups, letters, strict=True))
    return expand(x, groups) if groups != x.groups else x


def pair_einsum(x: Signal, left: str, y: Signal, right: str, out: str) -> Signal:
    """Einsum of two independent signals by their letters, axes of size 1 repeated where the other has more."""
    sizes: dict[str, tuple[int, ...]] = {}
    for s, letters in ((x, left), (y, right)):
        for g, a in zip(s.groups, letters, strict=True):
            if g and a not in sizes:
                sizes[a] = g
    return contract(_wide(x, left, sizes), left, _wide(y, right, sizes), right, out)


def product_of(call: Call, of: gram.Product) -> Signal:
    """A product of two signals, and what they have in common (`linear.gram`), or a word about it."""
    alone = pair_einsum(*of)
    result = gram.met(alone, of)
    if result is alone:
        warn_shared(call, of.x, of.y)
    return result


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot", assumes=(WEIGHTS_IID,), example="x @ (torch.randn(64, 32) / 8)")
def matmul(call: Call, input: Signal, other: Signal) -> Signal:
    """Matrix product, of activations and weights alike; v·pᵀ is (p·vᵀ)ᵀ, rows p of attention from the right as well."""
    if _from_the_right(input, other):
        return _turned(matmul.forward(call, _turned(other), _turned(input)))
    left, right, out = _matmul_letters(input, other)
    result = product_of(call, gram.Product(input, left, other, right, out))
    if result.ndim == 0 and input.tag is not None and other.tag is not None and input.tag[0] == other.tag[0] == "image":
        return _singular(result, input.tag, other.tag)
    return _image(result, input, other) if input.ndim == 2 and other.ndim == 1 else result


def _turned(x: Signal) -> Signal:
    """The last two axes exchanged."""
    return permute(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _from_the_right(v: Signal, p: Signal) -> bool:
    """Whether p is the transposed weights of a softmax, whose keys are then its second to last axis."""
    swap = ("permute", (*range(p.ndim - 2), p.ndim - 1, p.ndim - 2))
    plain = v.weights is None and not is_weights(v) and min(v.ndim, p.ndim) > 1
    return plain and is_weights(p) and p.viewed[1] == (swap,)


def _image(out: Signal, w: Signal, v: Signal) -> Signal:
    """W v where v may be an image of the same W: power iteration, from the law of a Gaussian matrix.

    For W of n rows and m columns of variance s², an independent unit v and u = Wv/|Wv|: turned so that v and u are
    first axes, W has |Wv| in the corner, zeros below it and independent entries z beside it, so that
    |Wᵀu|² = |Wv|² + |z|² is s²·χ² of k = n + m - 1. Once more, of v' = Wᵀu/|Wᵀu|, the n - 1 rows below add
    χ²_{n-1}·|z|²/|Wᵀu|²: E |Wv'|² = s²(k + (n - 1)(m - 1)/k).
    """
    if w.weights is None or w.q.size != 1 or w.mean.any():
        return out
    key = zlib.crc32(w.weights.name.encode()) * 8
    times = v.tag[1] - key if v.tag is not None and v.tag[0] == "image" else 0
    if times not in (1, 2) or v.tag is None:
        return replace(out, tag=("image", key + 1, 0.0, 0.0))
    n, m = w.shape
    k = n + m - 1.0
    if times == 1:
        return replace(out, q=out.q * (k / n), tag=("image", key + 2, float(w.q.reshape(-1)[0]) * k, k))
    factor = (k + (n - 1.0) * (m - 1.0) / k) / n
    return replace(out, q=out.q * factor, tag=("image", key + 3, *v.tag[2:]))


def _singular(out: Signal, one: tuple[Any, ...], other: tuple[Any, ...]) -> Signal:
    """σ = uᵀWv of a power iteration that ends with v = Wᵀu/|Wᵀu|: |Wᵀu|, of law s·χ_k, (E σ)² = (1 - 1/2k)·E σ²."""
    if one[1] // 8 != other[1] // 8 or one[1] == other[1]:
        return out
    level, k = max(one[2:], other[2:])
    mean = (level * (1.0 - 0.5 / k)) ** 0.5
    noise = combine([], *chi_square_log(0.5 * k))
    return replace(out, mean=np.full_like(out.q, mean), q=np.full_like(out.q, level), noise=noise, ident=next_id())


def warn_shared(call: Call, x: Signal, y: Signal) -> None:
    """Say that a product of a tensor with itself counts as one of independent tensors."""
    one_source = x.source is not None and y.source is not None and x.source.key == y.source.key
    if one_source or same_entries(x, y):
        call.caveat("both factors come from one tensor: their dependence is left out")


@matmul.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, other: Signal) -> Grads:
    if _from_the_right(input, other):
        back = replace(moved(grad, _turned), along=grad.along)
        found = _matmul_back(call, back, _turned(out), _turned(other), _turned(input))
        return {"input": moved(found["other"], _turned), "other": moved(found["input"], _turned)}
    return _matmul_back(call, grad, out, input, other)


def _matmul_back(call: Call, grad: Cotangent, out: Signal, input: Signal, other: Signal) -> Grads:
    """Gradients g·yᵀ and xᵀ·g of x·y."""
    del call
    g = whole(grad)
    left, right, result = _matmul_letters(input, other)
    rows = is_weights(input) and other.weights is None
    g = at_rows(g, out, input, other) if rows else g
    of = gram.Product(input, left, other, right, result)
    dx = gram.gradient(pair_einsum(g, result, other, right, _kept(left, result, right)), g, of)
    dy = gram.gradient(pair_einsum(g, result, input, left, _kept(right, result, left)), g, of)
    if rows:
        dx, dy = of_rows(dx, g), of_keys(at_values(dy, g, input), g, input, g)
    elif g.tag is not None and g.tag[0] == "softmax":
        dx, dy = of_rows(dx, g), of_keys(dy, g, g)
    dx = _as(dx, _kept(left, result, right), left)
    fixed = other.weights is not None and other.ndim == 2
    first = behind_map(dx, input, grad, out, None) if fixed else reduce_to(Cotangent(dx), input)
    return {
        "input": replace(first, along=grad.along) if rows else first,  # Σ_j p_j·dp_j = Σ g·y
        "other": reduce_to(Cotangent(_as(dy, _kept(right, result, left), right)), other),
    }


def _kept(wanted: str, *others: str) -> str:
    """Letters of an operand's gradient, with the broadcast letters of the result in front."""
    result = others[0]
    extra = "".join(a for a in result if a not in wanted and a not in "XYZ" and a not in others[1])
    return extra + wanted


def _as(x: Signal, have: str, want: str) -> Signal:
    """Sum letters that the operand does not have."""
    gone = [a for k, letter in enumerate(have) if letter not in want for a in axis_atoms(x, k)]
    x = sum_atoms(x, gone)
    return replace(x, groups=tuple(g for g, a in zip(x.groups, have, strict=True) if a in want))


@rule(
    "addmm",
    "baddbmm",
    "addmv",
    assumes=(WEIGHTS_IID,),
    example="torch.addmm(torch.randn(32), x, torch.randn(64, 32) / 8)",
)
def addmm(call: Call, input: Signal, mat1: Signal, mat2: Signal, beta: float = 1.0, alpha: float = 1.0) -> Signal:
    """β·b + α·(x @ W)."""
    left, right, out = _matmul_letters(mat1, mat2)
    y = scale(pair_einsum(mat1, left, mat2, right, out), alpha)
    return with_bias(call, y, scale(input, beta)) if beta else y


@addmm.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, mat1: Signal, mat2: Signal, beta: float = 1.0,
    alpha: float = 1.0,
) -> Grads:  # fmt: skip
    del call
    g = Cotangent(scale(whole(grad), alpha))
    left, right, result = _matmul_letters(mat1, mat2)
    dx = pair_einsum(whole(g), result, mat2, right, left)
    fixed = mat2.weights is not None and mat2.ndim == 2
    return {
        "input": reduce_to(alone(scaled(grad, beta)), input),
        "mat1": behind_map(dx, mat1, grad, out, scale(input, beta)) if fixed else Cotangent(dx),
        "mat2": Cotangent(pair_einsum(whole(g), result, mat1, left, right)),
    }
