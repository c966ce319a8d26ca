"""Convolutions and their transposes: contractions over channels and the taps that fall inside."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, next_id, replace
from firstlight.rules.convolutions import borders, grouped, steep
from firstlight.rules.convolutions.sway import UNSTRAYED, sway
from firstlight.rules.convolutions.taps import Taps, carried, matrix, turned
from firstlight.rules.gradients import images, places
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.linear.affine import LETTERS, with_bias
from firstlight.rules.linear.centring import seen, taken
from firstlight.rules.linear.contraction import contract
from firstlight.rules.linear.past_weights import past_weights
from firstlight.rules.registry import BACKWARD_INDEPENDENT, WEIGHTS_IID, Call, Grads, rule, several
from firstlight.rules.state import placed, sites, unitwise
from firstlight.rules.state.forms import combine
from firstlight.rules.state.layout import axis_atoms, correlations, expand, merge_axis, moments, offset
from firstlight.rules.state.noise import angle, of_weights, stray
from firstlight.rules.state.summation import sum_atoms
from firstlight.rules.state.windows import along, drop_single, pair_average, single, with_atom


def numbers(value: Any, n: int) -> tuple[int, ...]:
    """One integer per spatial axis."""
    if several(value):
        return tuple(int(v) for v in value) if len(value) == n else (int(value[0]),) * n
    return (int(value),) * n


def _padding(value: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    if value == "same":
        return tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    if value == "valid":
        return (0,) * len(kernel)
    return numbers(value, len(kernel))


def _channel_field(field: Array, at: int, size: int, groups: int, outs: int) -> Array:
    """Mean over the input channels of each group, for each output channel."""
    if field.shape[at] == 1:
        return field
    if groups == 1:
        return field.mean(axis=at, keepdims=True)
    shape = (*field.shape[:at], groups, size // groups, *field.shape[at + 1 :])
    return np.repeat(field.reshape(shape).mean(axis=at + 1), outs // groups, axis=at)


def convolve(x: Signal, weight: Signal, groups: int, maps: dict[int, Taps], outs: int, fan: int) -> Signal:
    """Sum over channels of a group and over taps with independent weights; channel axis = first map axis - 1."""
    channel = min(maps) - 1
    places = [i for axis in maps for i in axis_atoms(x, axis)]
    stretch, swaying = sway(x, places, x.shape[channel], fan) if groups == 1 else UNSTRAYED
    given = x
    x = single(replace(x, source=None, values=None, value=None), [channel, *maps])
    for axis in [channel, *maps]:
        x = with_atom(x, axis)
    whole_law = given if given.groups == x.groups else x
    counts = {axis_atoms(x, axis)[0]: matrix(taps).sum(axis=0) for axis, taps in maps.items()}
    x = placed.read(x, placed.known(given), counts)
    at = offset(x, channel)
    taps = [axis_atoms(x, a)[0] for a in maps]
    off = pair_average(x, [at, *taps])
    q, mean, y = _windows(x, maps)
    per = x.shape[channel] // groups
    square = float(weight.q.mean())
    average = weight.mean_mean
    q = _channel_field(q, at, x.shape[channel], groups, outs) * per
    mean = _channel_field(mean, at, x.shape[channel], groups, outs) * per * average
    total = q * square
    shared = 0.0
    if average != 0.0:
        extra = average**2 * (fan - 1.0) * off
        total = total + q * extra
        shared = (average**2 + extra) / (square + extra)
    if weight.q.size > 1 and weight.q.shape[0] > 1:
        rows = weight.q.mean(axis=tuple(range(1, weight.q.ndim)))
        if len(rows) == outs:
            total = total * (rows / rows.mean()).reshape((1,) * at + (-1,) + (1,) * (total.ndim - at - 1))
    kept = [0] * min(total.shape[at], 2)  # channels of their own size, each of which meets itself alone
    same = correlations(np.take(y.corr, kept, axis=at), total)
    same = _stretched(np.take(same, 0, axis=at), [t - (t > at) for t in taps], stretch)
    corr = np.stack([same, same * shared], axis=at)
    new = list(y.groups)
    new[channel] = (outs,)
    out = replace(
        y, groups=tuple(new), mean=mean, q=np.maximum(total, np.square(mean)), corr=corr, source=None, values=None,
        gaussian=True, terms=(), weights=None, cumulants=(0.0, 0.0), ident=next_id(),
    )  # fmt: skip
    out = replace(drop_single(out), wander=x.wander * _taps_in_step(x, taps, fan / max(per, 1)))
    count = fan / max(per, 1)
    lengths = grouped.lengths(x if groups == 1 else whole_law, at, taps, maps.values(), count, groups)
    out = replace(out, sway=swaying._replace(channels=(channel, outs, out.ndim)))
    added, drift = of_weights(out, fan, _unit_atom(out, channel))
    noise = combine([(1.0, x.noise)], max(added - swaying.owed, 0.0), drift)
    out = replace(out, sway=out.sway._replace(owed=max(swaying.owed - added, 0.0)))
    strayed = stray(out, fan * groups)
    known = sites.behind_weights(None, weight.weights.name, outs) if weight.weights is not None else None
    out = replace(
        unitwise.with_laws(out),
        noise=noise,
        scatter=lengths.scatter,
        reach=lengths.reach,
        wander=strayed,
        angle=angle(out, strayed, fan * groups),
        data=False,
        sites=known,
    )
    if groups > 1 and not x.data:
        out = grouped.heavy(out, whole_law, weight, lengths.own, fan)
        if (
            known is not None and out.mean_q > 0.0
        ):  # channels with windows of their own: a site is a mean of heavy squares
            known.own = max(2.0 + out.cumulants[1] / out.mean_q**2, 0.0) / outs
    if not x.data:
        own = grouped.alone(whole_law, weight, at, taps, count, groups, lengths.old)
        out = replace(out, alone=(out.ident, own))
    if average != 0.0 or len(out.atoms) != len(y.atoms):
        return out
    return replace(out, border=(out.ident, borders.border(x, at, maps, x.mean_q * per * square)))


def _stretched(cube: Array, places: Sequence[int], factor: float) -> Array:
    """1 - c times a factor wherever only positions differ."""
    if factor == 1.0:
        return cube
    only = tuple(slice(None) if i in places else slice(0, 1) for i in range(cube.ndim))
    out = np.array(cube)
    out[only] = 1.0 - (1.0 - out[only]) * factor
    return np.clip(out, -1.0, 1.0)


def _windows(x: Signal, maps: dict[int, Taps]) -> tuple[Array, Array, Signal]:
    """Σ over taps of the mean square and of the mean, and the windows' mean pair moments, for independent taps."""
    mean, q, corr = x.mean, x.q, np.broadcast_to(moments(x), x.corr.shape)
    groups = list(x.groups)
    for axis, taps in maps.items():
        at = offset(x, axis)
        mean, q = along(mean, at, matrix(taps)), along(q, at, matrix(taps))
        corr = carried(corr, at, taps)
        groups[axis] = (taps.out,)
    return q, mean, replace(x, groups=tuple(groups), corr=corr)


def _taps_in_step(x: Signal, taps: Sequence[int], count: float) -> float:
    """Share that `count` taps leave of what correlations stray by: a mean over taps, c² of neighbours in step."""
    near = tuple(x.corr.shape[i] - 1 if i in taps else 0 for i in range(x.corr.ndim))
    return (1.0 + (count - 1.0) * float(x.corr[near]) ** 2) / max(count, 1.0)


def _unit_atom(x: Signal, axis: int) -> int | None:
    atoms = axis_atoms(x, axis)
    return atoms[0] if atoms else None


def _geometry(
    x: Signal, weight: Signal, stride: Any, padding: Any, dilation: Any
) -> tuple[list[int], list[tuple[int, int, int, int]]]:
    n = weight.ndim - 2
    axes = list(range(x.ndim - n, x.ndim))
    kernel = weight.shape[2:]
    dil = numbers(dilation, n)
    pads = _padding(padding, kernel, dil)
    return axes, list(zip(kernel, numbers(stride, n), pads, dil, strict=True))


def _maps(
    axes: Sequence[int], geometry: Sequence[tuple[int, int, int, int]], ins: Sequence[int], outs: Sequence[int]
) -> dict[int, Taps]:
    return {axis: Taps(i, o, *g) for axis, g, i, o in zip(axes, geometry, ins, outs, strict=True)}


def _turned(maps: dict[int, Taps]) -> dict[int, Taps]:
    return {axis: turned(taps) for axis, taps in maps.items()}


@rule(
    "conv1d", "conv2d", "conv3d", "convolution",
    assumes=(WEIGHTS_IID, BACKWARD_INDEPENDENT), refs=("xiao2018", "hanin2018"),
    example="F.conv2d(x.view(-1, 4, 4, 4), torch.randn(8, 4, 3, 3) / 6, padding=1)",
)  # fmt: skip
def conv(
    call: Call, input: Signal, weight: Signal, bias: Signal | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Signal:  # fmt: skip
    """Convolution: mean squares are summed over the taps inside the image, so zero padding loses its share."""
    axes, geometry = _geometry(input, weight, stride, padding, dilation)
    outs = call.node.outputs[0].shape[-len(axes) :]
    maps = _maps(axes, geometry, input.shape[-len(axes) :], outs)
    x = seen(input, taken(weight), axes[0] - 1)
    y = convolve(x, weight, groups, maps, weight.shape[0], weight.shape[1] * prod(weight.shape[2:]))
    return y if bias is None else _biased(call, y, _channelwise(bias, len(axes)))


def _biased(call: Call, y: Signal, bias: Signal) -> Signal:
    out = with_bias(call, y, bias)
    known, own = borders.known(y), grouped.known(y)
    out = out if known is None else replace(out, border=(out.ident, known.raised(bias.mean_q)))
    return out if own is None else replace(out, alone=(out.ident, own))


def _channelwise(bias: Signal, n: int) -> Signal:
    return replace(bias, groups=(*bias.groups, *((),) * n), value=None)


@conv.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, weight: Signal, bias: Signal | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Grads:  # fmt: skip
    del call
    g = whole(grad)
    axes, geometry = _geometry(input, weight, stride, padding, dilation)
    outs = out.shape[-len(axes) :]
    maps = _maps(axes, geometry, input.shape[-len(axes) :], outs)
    fan = max(weight.shape[0] // groups * prod(weight.shape[2:]) // prod(t.stride for t in maps.values()), 1)
    flipped = replace(weight, q=np.full_like(weight.q, float(weight.q.mean())))
    dx = convolve(g, flipped, groups, _turned(maps), input.shape[axes[0] - 1], fan)
    shift = None if bias is None else _channelwise(bias, len(axes))
    count = prod(float(matrix(t).sum()) / t.out for t in maps.values())
    bent, _ = steep.known(grad, out)
    lean = images.lean_of(grad, out) if images.known(grad, out) else bent
    lean = places.in_window(lean, input, count, weight.shape[1], steep.own_share(weight, count))
    found = images.convolved(
        past_weights(dx, g, grouped.free(weight)), input, grad, out, axes[0] - 1, groups, shift, lean
    )
    found = steep.behind(found, input, weight, grad, out, [a for axis in axes for a in axis_atoms(input, axis)], count)
    grads: dict[str, Any] = {
        "input": found,
        "weight": Cotangent(_kernel_gradient(g, input, weight, axes, maps, groups)),
    }
    if bias is not None:
        grads["bias"] = Cotangent(_per_channel(g, axes[0] - 1))
    return grads


def _per_channel(g: Signal, channel: int) -> Signal:
    gone = [a for k in range(g.ndim) if k != channel for a in axis_atoms(g, k)]
    return replace(s := sum_atoms(g, gone), groups=(s.groups[channel],))


def _kernel_gradient(
    g: Signal, x: Signal, weight: Signal, axes: Sequence[int], maps: dict[int, Taps], groups: int
) -> Signal:
    """Σ over samples and positions of g·x at each tap: pairs of sites count with the product of both correlations."""
    n = len(axes)
    g, x = _coarse(g), _coarse(x)
    inside = prod(float(matrix(t).sum()) / (t.out * t.kernel) for t in maps.values())
    shaped = list(x.groups)
    for a in axes:
        shaped[a] = g.groups[a]
    x = _resized(x, tuple(shaped))
    letters = LETTERS[: g.ndim]
    channel = letters[axes[0] - 1]
    out = contract(g, letters, x, letters.replace(channel, "Z"), channel + "Z")
    per = weight.shape[1]
    wide = replace(out, q=out.q * inside, mean=out.mean * inside)
    if groups > 1 and wide.groups[1]:
        keep = sum_atoms(replace(wide, mean=wide.mean * 0.0), [axis_atoms(wide, 1)[0]], mean=True)
        wide = replace(keep, q=np.full_like(keep.q, wide.mean_q))
        wide = expand(wide, (wide.groups[0], (per,) if per > 1 else ()))
    groups_out = (*wide.groups, *((),) * n)
    tapped = expand(
        replace(wide, groups=groups_out), (*wide.groups, *((k,) if k > 1 else () for k in weight.shape[2:]))
    )
    return replace(tapped, terms=(), ident=next_id())


def _coarse(x: Signal) -> Signal:
    """Uniform fields and one atom per axis."""
    for axis in range(x.ndim):
        if len(x.groups[axis]) > 1:
            x = merge_axis(x, axis)
    one = (1,) * len(x.atoms)
    corr = x.corr
    for i in range(corr.ndim):
        if corr.shape[i] == 3:
            corr = np.take(corr, [0, 1], axis=i)
    return replace(
        x, mean=np.full(one, x.mean_mean), q=np.full(one, x.mean_q), corr=corr, source=None, values=None, value=None
    )


def _resized(x: Signal, groups: tuple[tuple[int, ...], ...]) -> Signal:
    """The same statistics on axes of other sizes."""
    for axis in range(x.ndim):
        if groups[axis] and not x.groups[axis]:
            x = with_atom(x, axis)
    x = replace(x, groups=tuple(g if g else (1,) * len(o) for g, o in zip(groups, x.groups, strict=True)))
    return drop_single(x)


@rule(
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    assumes=(WEIGHTS_IID, BACKWARD_INDEPENDENT), refs=("xiao2018",),
    example="F.conv_transpose2d(x.view(-1, 4, 4, 4), torch.randn(4, 8, 2, 2) / 3, stride=2)",
)  # fmt: skip
def conv_transpose(
    call: Call, input: Signal, weight: Signal, bias: Signal | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Signal:  # fmt: skip
    """Transposed convolution: the windows of a convolution read backward."""
    del output_padding
    axes, geometry = _geometry(input, weight, stride, padding, dilation)
    outs = call.node.outputs[0].shape[-len(axes) :]
    maps = _turned(_maps(axes, geometry, outs, input.shape[-len(axes) :]))
    fan = max(weight.shape[0] // groups * prod(weight.shape[2:]) // prod(g[1] for g in geometry), 1)
    flat = replace(weight, q=np.full_like(weight.q, float(weight.q.mean())))
    y = convolve(input, flat, groups, maps, weight.shape[1] * groups, fan)
    return y if bias is None else _biased(call, y, _channelwise(bias, len(axes)))


@conv_transpose.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, weight: Signal, bias: Signal | None = None,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Grads:  # fmt: skip
    del call, output_padding
    g = whole(grad)
    axes, geometry = _geometry(input, weight, stride, padding, dilation)
    maps = _maps(axes, geometry, out.shape[-len(axes) :], input.shape[-len(axes) :])
    fan = weight.shape[1] * prod(weight.shape[2:])
    flat = replace(weight, q=np.full_like(weight.q, float(weight.q.mean())))
    dx = convolve(g, flat, groups, maps, input.shape[axes[0] - 1], fan)
    grads: dict[str, Any] = {
        "input": Cotangent(dx),
        "weight": Cotangent(_kernel_gradient(input, g, weight, axes, maps, groups)),
    }
    if bias is not None:
        grads["bias"] = Cotangent(_per_channel(g, axes[0] - 1))
    return grads
