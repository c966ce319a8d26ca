"""Fixed linear maps along axes: resizing, padding, running sums."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, replace
from firstlight.rules.attention.hiding import HIDDEN
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.registry import EXCHANGEABLE, Call, Grads, rule
from firstlight.rules.state.cross import add
from firstlight.rules.state.empirical import constant
from firstlight.rules.state.layout import axis_atoms, fit_states
from firstlight.rules.state.views import moved_key
from firstlight.rules.state.windows import fixed_map

_SLOPE = -0.75  # of a cubic interpolation's weights at one step


def _resize_maps(call: Call, x: Signal, mode: str, align_corners: Any) -> dict[int, Array]:
    maps: dict[int, Array] = {}
    for axis in range(2, x.ndim):
        maps[axis] = _resize(x.shape[axis], call.node.outputs[0].shape[axis], mode, bool(align_corners))
    return maps


@functools.lru_cache(maxsize=256)
def _resize(size: int, out: int, mode: str, corners: bool) -> Array:
    a = np.zeros((out, size))
    for s in range(out):
        if mode in ("nearest", "nearest-exact"):
            a[s, min(size - 1, (s * size) // out if mode == "nearest" else (2 * s + 1) * size // (2 * out))] = 1.0
            continue
        if mode == "area":
            first, beyond = (s * size) // out, -(-(s + 1) * size // out)
            a[s, first:beyond] = 1.0 / (beyond - first)
            continue
        place = s * (size - 1) / max(out - 1, 1) if corners else (s + 0.5) * size / out - 0.5
        if mode == "bicubic":
            for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
                a[s, min(max(tap, 0), size - 1)] += _cubic(abs(place - tap))
            continue
        place = max(place, 0.0)
        low = min(int(place), size - 1)
        high = min(low + 1, size - 1)
        a[s, low] += 1.0 - (place - low)
        a[s, high] += place - low
    a.setflags(write=False)
    return a


def _cubic(x: float) -> float:
    """Weight of a tap at distance x: cubic convolution (Keys 1981) with the slope -3/4 that torch takes."""
    if x <= 1.0:
        return ((2.0 + _SLOPE) * x - (3.0 + _SLOPE)) * x * x + 1.0
    return _SLOPE * (((x - 5.0) * x + 8.0) * x - 4.0) if x < 2.0 else 0.0


@rule("interpolate", "upsample", example="F.interpolate(x.view(-1, 4, 4, 4), scale_factor=2)")
def interpolate(
    call: Call, input: Signal, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: Any = None,
) -> Signal:  # fmt: skip
    """Nearest copies, means, and linear or cubic mixtures of neighbours."""
    del size, scale_factor
    return fixed_map(input, _resize_maps(call, input, mode, align_corners))


@interpolate.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, size: Any = None, scale_factor: Any = None,
    mode: str = "nearest", align_corners: Any = None,
) -> Grads:  # fmt: skip
    del out, size, scale_factor
    maps = _resize_maps(call, input, mode, align_corners)
    return {"input": Cotangent(fixed_map(whole(grad), {a: np.ascontiguousarray(m.T) for a, m in maps.items()}))}


def _pad_maps(x: Signal, pad: Sequence[int], mode: str) -> dict[int, Array]:
    maps: dict[int, Array] = {}
    for k in range(len(pad) // 2):
        axis = x.ndim - 1 - k
        left, right = int(pad[2 * k]), int(pad[2 * k + 1])
        n = x.shape[axis]
        places = np.arange(-left, n + right)
        a = np.zeros((len(places), n))
        for row, i in enumerate(places):
            if mode == "circular":
                a[row, i % n] = 1.0
            elif mode == "replicate":
                a[row, min(max(i, 0), n - 1)] = 1.0
            elif mode == "reflect":
                a[row, abs(i) if i < n else 2 * (n - 1) - i] = 1.0
            elif 0 <= i < n:
                a[row, i] = 1.0
        if left or right:
            maps[axis] = a
    return maps


@rule("pad", example="F.pad(x, (1, 2))")
def pad(call: Call, input: Signal, pad: Any, mode: str = "constant", value: Any = None) -> Signal:
    """Zeros, or copies of entries, around the tensor."""
    maps = _pad_maps(input, pad, mode)
    out = fixed_map(input, maps)
    if value and mode == "constant":
        if abs(float(value)) >= -HIDDEN:
            call.caveat("padding with what stands for infinity: the padded entries are taken as 0")
            return out
        inside = np.ones(())
        for axis, n in enumerate(input.shape):
            line = maps[axis].sum(axis=1) if axis in maps else np.ones(n)
            inside = inside[..., None] * line
        return add(out, constant(float(value) * (1.0 - inside)))
    if mode == "constant" or input.corr.ndim != out.corr.ndim:
        return out
    # Pairs of an entry and its own copy are no pair of a convolution's windows, which meet copies as the entries
    # they are: correlations stay those at a displacement.
    out = replace(out, corr=fit_states(input.corr, out.corr.shape))
    source = input.source
    if source is None or source.row is not None or input.q.size > 1:
        return out
    corr = fit_states(source.corr, out.corr.shape)
    return replace(
        out,
        source=replace(source, corr=corr, key=moved_key(source.key, ("pad", tuple(pad), mode))),
        values=input.values,
    )


@pad.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, pad: Any, mode: str = "constant", value: Any = None
) -> Grads:
    del call, out, value
    maps = {a: np.ascontiguousarray(m.T) for a, m in _pad_maps(input, pad, mode).items()}
    g = whole(grad)
    if mode != "circular":
        return {"input": Cotangent(fixed_map(g, maps))}
    # An entry and its copy on the other side see different taps of the convolution behind: their gradients add as
    # independent ones, however alike those at nearer positions are.
    apart = g.corr
    for a in maps:
        for atom in axis_atoms(g, a):
            apart = np.concatenate(
                [np.take(apart, [0], axis=atom), 0.0 * np.take(apart, range(1, apart.shape[atom]), axis=atom)],
                axis=atom,
            )
    back = fixed_map(replace(g, corr=apart), maps)
    return {"input": Cotangent(replace(back, corr=fit_states(g.corr, back.corr.shape)))}


@rule("cumsum", assumes=(EXCHANGEABLE,), example="x.cumsum(1) / 8")
def cumsum(call: Call, input: Signal, dim: int) -> Signal:
    """Running sums."""
    del call
    n = input.shape[dim]
    return fixed_map(input, {dim % input.ndim: np.tril(np.ones((n, n)))})


@cumsum.adjoint
def _(call: Call, grad: Cotangent, out: Signal, input: Signal, dim: int) -> Grads:
    del call, out
    n = input.shape[dim]
    return {"input": Cotangent(fixed_map(whole(grad), {dim % input.ndim: np.triu(np.ones((n, n)))}))}
