"""Complex numbers and Fourier transforms.

A complex tensor z carries E|z|² as its mean square, Re E z z̄' as its pair moments and Re E z as its mean. Products and
sums over products then obey the rules of real tensors, since E|zw|² = E|z|² E|w|² for independent z and w. Around its
mean z is taken as circular: real and imaginary part have half of the variance each and no correlation.

The transform of an axis is a fixed map F = C - iS, so that E|Fx|² = E(Cx)² + E(Sx)²: for entries of mean square q and
pair moment r frequency 0 has n·q + n(n-1)·r and every other one n·(q - r).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.chains.source import as_source, from_values
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.linear.contraction import product
from firstlight.rules.moves.structural import sizes_of
from firstlight.rules.pointwise.elementwise import apply, back, of
from firstlight.rules.registry import GAUSSIAN_INPUT, Call, Grads, rule, several
from firstlight.rules.state.empirical import uniform
from firstlight.rules.state.layout import axis_atoms, merge_axis
from firstlight.rules.state.windows import fixed_map
from firstlight.theory import special
from firstlight.theory.activations import get

CIRCULAR = "around its mean a complex tensor is circular"
Pair = tuple[Array, Array]


def _sum(a: Signal, b: Signal) -> Signal:
    """The complex tensor a - ib (or the real one a + b) of uncorrelated a and b; the mean is a's."""
    level = a.mean_q + b.mean_q
    corr = (a.corr * a.mean_q + b.corr * b.mean_q) / level if level > 0.0 else np.ones_like(a.corr)
    return replace(a, q=a.q + b.q, corr=corr, ident=next_id())


def part(x: Signal, share: float) -> Signal:
    """Real part (share 1) or imaginary part (share 0), of a circular tensor where they are not known one by one."""
    if x.cartesian is not None and x.cartesian[0] == x.ident and share in (0.0, 1.0):
        return x.cartesian[1] if share else x.cartesian[2]
    m, q = x.mean_mean, x.mean_q
    square = np.square(x.mean)
    field = 0.5 * np.maximum(x.q - square, 0.0) + share * square
    level = 0.5 * (q - m * m) + share * m * m
    raw = 0.5 * (x.corr * q - m * m) + share * m * m
    corr = np.clip(raw / level, -1.0, 1.0) if level > 0.0 else np.ones_like(x.corr)
    return replace(
        x, mean=share * x.mean, q=field, corr=corr, source=None, values=None, value=None, terms=(), weights=None,
        complex=False, ident=next_id(),
    )  # fmt: skip


def _waves(frequencies: int, places: int, n: int) -> Pair:
    """cos and sin of 2πkt/n, shape (frequencies, places); places beyond n are cut off, missing ones count as zero."""
    angles = 2.0 * pi * np.outer(np.arange(frequencies), np.arange(places)) / n
    inside = (np.arange(places) < n).astype(np.float64)
    return np.cos(angles) * inside, np.sin(angles) * inside


def _scale(norm: Any, n: int, inverse: bool) -> float:
    kind = norm or "backward"
    return 1.0 / sqrt(n) if kind == "ortho" else 1.0 / n if (kind == "forward") != inverse else 1.0


def _mapped(x: Signal, axis: int, maps: Pair, *, real: bool = False) -> Signal:
    """C x - i S x; of a complex x with `real` the real tensor C Re x - S Im x."""
    parts = (part(x, 1.0), part(x, 0.0)) if real else (x, x)
    return _sum(*(fixed_map(p, {axis: m}) for p, m in zip(parts, maps, strict=True)))


def _steps(call: Call, x: Signal, sizes: Any, dim: Any, norm: Any) -> list[tuple[int, Pair, bool]]:
    """(axis, maps, whether its result is real) of each axis in the order of the forward pass."""
    op = call.node.op.removeprefix("fft_")
    inverse, real = op.startswith("i"), "rfft" in op
    given = None if sizes is None else sizes_of(sizes)
    if dim is not None:
        axes: Sequence[int] = sizes_of(dim)
    elif op.endswith("2"):
        axes = (-2, -1)
    elif op.endswith("n"):
        axes = range(-(x.ndim if given is None else len(given)), 0)
    else:
        axes = (-1,)
    axes = [a % x.ndim for a in axes]
    half = axes[-1] if real else None
    out: list[tuple[int, Pair, bool]] = []
    for i, axis in enumerate(axes):
        have = x.shape[axis]
        n = given[i] if given is not None and given[i] != -1 else have
        if axis == half and inverse:
            n = n if given is not None and given[i] != -1 else 2 * (have - 1)
            cos, sin = _waves(n, have, n)
            twice = np.full(have, 2.0)
            twice[0] = 1.0
            twice[n // 2 + 1 :] = 0.0
            if n % 2 == 0 and n // 2 < have:
                twice[n // 2] = 1.0
            cos, sin = cos * twice, sin * twice
        else:
            cos, sin = _waves(n // 2 + 1 if axis == half else n, have, n)
        s = _scale(norm, n, inverse)
        out.append((axis, (s * cos, s * sin), axis == half and inverse))
    return out if inverse else out[::-1]


def _together(out: Signal, x: Signal, maps: dict[int, Pair]) -> Signal:
    """`out` with the mean squares of all axes' maps F at once.

    E|y_k|² = q Σ_d corr[d] Π_axis Σ F_kt F̄_kt' over the pairs (t, t') that differ as d says. One axis
    after the other forgets which frequencies of the first one hold what positions have in common.
    """
    for axis in maps:
        x = merge_axis(x, axis)
    at = {axis_atoms(x, axis)[0]: m for axis, m in maps.items() if x.groups[axis]}
    if len(at) < 2 or x.q.size > 1 or len(out.atoms) != len(x.atoms):
        return out
    field = x.corr[tuple(slice(None) if i in at else slice(0, 1) for i in range(x.corr.ndim))]
    for i, (cos, sin) in at.items():
        wave = cos - 1j * sin
        same = np.square(np.abs(wave)).sum(1)
        near = 2.0 * (wave[:, 1:] * wave[:, :-1].conj()).real.sum(1)
        every = np.square(np.abs(wave.sum(1)))
        pairs = [same, every - same] if field.shape[i] == 2 else [same, every - same - near, near]
        field = np.moveaxis(np.tensordot(np.stack(pairs, axis=1), field, axes=([1], [i])), 0, i)
    q = np.maximum(x.mean_q * field, np.square(out.mean))
    return replace(out, q=q, ident=next_id())


@rule(
    "fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2", "fft_fftn",
    "fft_ifftn", "fft_rfftn", "fft_irfftn", assumes=(CIRCULAR,),
    example="torch.fft.irfft(torch.fft.rfft(x) * torch.view_as_complex(torch.randn(33, 2)), n=64)",
)  # fmt: skip
def transform(call: Call, input: Signal, n: Any = None, dim: Any = None, norm: Any = None, s: Any = None) -> Signal:
    """A discrete Fourier transform over some axes."""
    steps = _steps(call, input, n if n is not None else s, dim, norm)
    x = input
    for axis, maps, real in steps:
        x = _mapped(x, axis, maps, real=real)
    return x if any(real for *_, real in steps) else _together(x, input, {axis: maps for axis, maps, _ in steps})


@transform.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, n: Any = None, dim: Any = None, norm: Any = None,
    s: Any = None,
) -> Grads:  # fmt: skip
    """Fᴴg; of it a real input has the real part."""
    del out
    g = whole(grad)
    for axis, (cos, sin), _ in _steps(call, input, n if n is not None else s, dim, norm)[::-1]:
        g = _mapped(g, axis, (np.ascontiguousarray(cos.T), np.ascontiguousarray(sin.T)))
    return {"input": Cotangent(g if input.complex else part(g, 1.0))}


def _pair_of(z: Signal) -> Signal:
    """Real and imaginary part side by side on a last axis of two."""
    re, im = part(z, 1.0), part(z, 0.0)
    at = len(z.atoms)
    corr = np.stack([(re.corr + im.corr) / 2.0, np.zeros_like(re.corr)], axis=at)
    total = np.stack(np.broadcast_arrays(re.q, im.q), axis=at)
    mean = np.stack(np.broadcast_arrays(re.mean, im.mean), axis=at)
    return replace(re, groups=(*z.groups, (2,)), batch=(*z.batch, False), q=total, mean=mean, corr=corr)


def _complex_of(x: Signal) -> Signal:
    """x[..., 0] + i·x[..., 1]."""
    x = merge_axis(x, x.ndim - 1)
    at = axis_atoms(x, x.ndim - 1)[0]

    def both(field: Array) -> Array:
        return 2.0 * field.mean(axis=at)

    mean = np.take(x.mean, 0, axis=at)
    corr = np.take(x.corr, 0, axis=at)
    return replace(
        x, groups=x.groups[:-1], batch=x.batch[:at], q=both(x.q), mean=mean, corr=corr, source=None, values=None,
        value=None, terms=(), weights=None, complex=True, ident=next_id(),
    )  # fmt: skip


@rule(
    "view_as_real",
    assumes=(CIRCULAR,),
    example="torch.view_as_real(torch.view_as_complex(x.view(-1, 32, 2)) * torch.tensor(1j)).flatten(1)",
)
def view_as_real(call: Call, input: Signal) -> Signal:
    """(Re z, Im z) on a last axis."""
    del call
    return _pair_of(input)


@view_as_real.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal) -> Grads:
    del call, out, input
    return {"input": Cotangent(_complex_of(whole(grad)))}


@rule("view_as_complex", example="torch.view_as_complex(x.view(-1, 32, 2)).abs()")
def view_as_complex(call: Call, input: Signal) -> Signal:
    """Pairs on the last axis as complex numbers."""
    del call
    return _complex_of(input)


@view_as_complex.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal) -> Grads:
    del call, out, input
    return {"input": Cotangent(_pair_of(whole(grad)))}


@rule("real", "imag", assumes=(CIRCULAR,), example="torch.fft.fft(x).real")
def real(call: Call, input: Signal) -> Signal:
    """One of the two parts."""
    if not input.complex:
        return input
    return part(input, 1.0 if call.node.op == "real" else 0.0)


@real.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal) -> Grads:
    del call, out, input
    return {"input": grad}


@rule("conj", "resolve_conj", "conj_physical", example="(torch.fft.fft(x).conj() / 8).abs()")
def conj(call: Call, input: Signal) -> Signal:
    """The conjugate has the same moments."""
    del call
    return input


@conj.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal) -> Grads:
    del call, out, input
    return {"input": grad}


def _modulus(z: Signal) -> Signal:
    """|z|: of a circular Gaussian E|z| = √(π E|z|²)/2 (Rayleigh), and |z|² is correlated by c²."""
    if not z.mean.any() and z.q.any():
        return _rayleigh(z)
    square = np.square(z.mean)
    mean = np.sqrt(pi / 4.0 * np.maximum(z.q - square, 0.0) + square)
    share = float(np.square(mean).mean()) / max(z.mean_q, 1e-300)
    corr = share + (1.0 - share) * np.square(np.clip(z.corr, -1.0, 1.0))
    return replace(
        z, mean=mean, corr=corr, source=None, values=None, value=None, terms=(), weights=None, gaussian=False,
        complex=False, ident=next_id(),
    )  # fmt: skip


def _rayleigh(z: Signal) -> Signal:
    """The same with its law, √E|z|²·√(-ln Φ(-u)) of a standard normal u, for what comes behind (ln|z|)."""
    like = replace(
        z, corr=np.square(np.clip(z.corr, -1.0, 1.0)), source=None, values=None, value=None, terms=(), weights=None,
        gaussian=True, complex=False, cartesian=None, cumulants=(0.0, 0.0), scatter=0.0, ident=next_id(),
    )  # fmt: skip
    source, _ = as_source(like)
    law = np.sqrt(-special.log_ndtr(-source.grid.z))
    source = replace(source, key=("modulus", like.ident), quantiles=law, table=None, skew=0.0, excess=0.0)
    return replace(from_values(like, source, source.values), gaussian=False)


_SIZE = of(get("abs"))


@rule("abs", assumes=(GAUSSIAN_INPUT, CIRCULAR), example="x.abs()")
def abs_(call: Call, input: Signal) -> Signal:
    """|x|, of complex numbers too."""
    return _modulus(input) if input.complex else apply(call, input, _SIZE)


@abs_.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal) -> Grads:
    """g·z/|z|: the phase is uniform on the circle."""
    if not input.complex:
        return {"input": back(grad, out, input, _SIZE, call)}
    g = whole(grad)
    return {"input": Cotangent(product(g, uniform(g.shape, 0.0, 1.0)))}


@rule("fft_fftshift", "fft_ifftshift", example="torch.fft.fftshift(x, dim=1)")
def shift(call: Call, input: Signal, dim: Any = None) -> Signal:
    """Another order of the indices of some axes."""
    return _shifted(call, input, dim, 1 if call.node.op == "fft_fftshift" else -1)


def _shifted(call: Call, x: Signal, dim: Any, way: int) -> Signal:
    axes = range(x.ndim) if dim is None else sizes_of(dim) if several(dim) else (int(dim),)
    mean, q = x.mean, x.q
    for axis in axes:
        x = merge_axis(x, axis % x.ndim)
        for at in axis_atoms(x, axis % x.ndim):
            n = x.atoms[at]
            by = n // 2 if way > 0 else -(n // 2)
            mean = np.roll(x.mean, by, axis=at) if x.mean.shape[at] > 1 else x.mean
            q = np.roll(x.q, by, axis=at) if x.q.shape[at] > 1 else x.q
            x = replace(x, mean=mean, q=q, source=None, values=None, value=None, terms=(), ident=next_id())
    del call
    return x


@shift.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: Any = None) -> Grads:
    del out, input
    return {"input": Cotangent(_shifted(call, whole(grad), dim, -1 if call.node.op == "fft_fftshift" else 1))}


__all__ = ["part", "transform"]
