"""Orthogonal weights, scaled so that the expected length is kept at the layer's actual shape."""

from __future__ import annotations

import math

import torch

from firstlight.errors import InputError
from firstlight.graph.ir import Law
from firstlight.schemes.context import Context, Draw, Target
from firstlight.schemes.draws import Stream
from firstlight.schemes.gains import chosen_activation, keep_mean
from firstlight.schemes.haar import haar_maps
from firstlight.schemes.registry import scheme


def haar_law(target: Target, gain: float, fan: float) -> tuple[Law, float, int]:
    """Law of a Haar matrix of entry variance gain²/fan, the scale that gives it, and its longer side.

    Unit vectors of dimension n = max(rows, columns) have entries of variance 1/n and kurtosis 3n/(n+2).
    Orthonormal columns alone would lose q by n_in/n_out where n_out > n_in; the entry variance gain²/fan_in
    does not.
    """
    n_in, n_out = _sides(target)
    longer = max(n_in, n_out, 1)
    scale = gain * math.sqrt(longer / fan) if fan > 0 else 0.0
    law = Law(0.0, scale**2 / longer, 3.0 * longer / (longer + 2.0), structure="orthogonal")
    return law, scale, longer


def _sides(target: Target) -> tuple[int, int]:
    inputs = 1
    for axis in target.in_axes:
        inputs *= target.shape[axis] // (target.split if axis == 0 else 1)
    return inputs, target.numel // max(1, target.split * inputs)


@scheme(
    "orthogonal",
    refs=("saxe2013", "mezzadri2007"),
    note="Haar-orthogonal maps scaled to g²/fan_in: keeps the mean length at any shape",
    keeps="mean",
)
def orthogonal(target: Target, context: Context, *, gain: float = 0.0, activation: str = "auto") -> Draw:
    """Orthonormal rows or columns times g; each gate, head group or convolution group is a map of its own.

    `gain` replaces the activation's gain; 0, the default, means: take the activation's.
    """
    if gain < 0.0:
        raise InputError("scheme 'orthogonal', gain", got=repr(gain), expected="a number > 0")
    if gain > 0.0:
        reason = "gain as asked"
    else:
        gain, reason = keep_mean(context, activation, assume="linear")
    fan = target.fan_in or 0.0
    law, scale, _ = haar_law(target, gain, fan)

    def build(stream: Stream, dtype: torch.dtype) -> torch.Tensor:
        return haar_maps(stream, target.shape, target.split, target.in_axes, dtype).mul_(scale)

    return Draw(law, build=build, gain=gain, reason=reason)


@scheme(
    "delta-orthogonal",
    refs=("xiao2018",),
    note="zero kernel but for an orthogonal centre tap; orthogonal for all other layers",
    keeps="mean",
)
def delta_orthogonal(target: Target, context: Context, *, activation: str = "auto") -> Draw:
    """A convolution acts on its centre as one orthogonal map: isometric at any depth.

    Strided and transposed convolutions are drawn so too; there the kept length is that of the positions that
    are read at all.
    """
    if not target.kernel_axes:
        return orthogonal(target, context, activation=activation)
    gain, reason = keep_mean(context, activation, assume="linear")
    taps = math.prod(target.shape[a] for a in target.kernel_axes)
    shape = tuple(n for a, n in enumerate(target.shape) if a not in target.kernel_axes)
    n_in, n_out = target.channels or (shape[1], shape[0] // target.split)
    longer = max(n_in, n_out, 1)
    scale = gain * math.sqrt(longer / n_in) if n_in else 0.0
    # Mixture: an entry is a Haar entry with probability 1/taps, else 0.
    law = Law(0.0, scale**2 / longer / taps, taps * 3.0 * longer / (longer + 2.0), structure="delta-orthogonal")

    def build(stream: Stream, dtype: torch.dtype) -> torch.Tensor:
        weight = torch.zeros(target.shape, dtype=dtype)
        centre = tuple(
            target.shape[a] // 2 if a in target.kernel_axes else slice(None) for a in range(len(target.shape))
        )
        weight[centre] = haar_maps(stream, shape, target.split, target.in_axes[:1], dtype).mul_(scale)
        return weight

    return Draw(law, build=build, gain=gain, reason=f"{reason}; centre tap only")


@scheme(
    "looks-linear",
    refs=("balduzzi2017", "burkholz2018"),
    note="mirrored blocks [[W,-W],[-W,W]]: a relu network starts out linear and isometric",
)
def looks_linear(target: Target, context: Context) -> Draw:
    """Mirrored orthogonal blocks: relu(z) - relu(-z) = z passes through relu layers unchanged.

    The layer before the first relu gets [W; -W], those between relus [[W, -W], [-W, W]], the one after the
    last [W, -W]. A layer whose mirrored side is of odd size, or that touches no relu, is plain orthogonal.
    """
    record, _ = chosen_activation(context, "auto")
    relu = record is not None and record.slopes is not None and record.slopes[0] != -record.slopes[1]
    n_in, n_out = _sides(target)
    reads = relu and context.activation_side != "after"
    writes = relu and (context.feeds_activation or not context.neighbours)
    channels_in, channels_out = target.channels or (n_in, n_out)
    fits = not (reads and channels_in % 2) and not (writes and channels_out % 2)
    if record is None or not relu or not fits or target.split != 1 or 0 in target.in_axes:
        plain = orthogonal(target, context)
        why = "odd size, plain orthogonal" if relu else "no relu to mirror"
        return Draw(plain.law, build=plain.build, gain=plain.gain, reason=why)
    assert record.slopes is not None
    above, below = record.slopes  # φ(u) - φ(-u) = (above + below)·u
    rows, columns = (2 if writes else 1), (2 if reads else 1)
    core = (target.shape[0] // rows, target.shape[1] // columns, *target.shape[2:])
    n_core, m_core = n_in // columns, n_out // rows
    longer = max(n_core, m_core, 1)
    scale = math.sqrt(longer / n_core) / ((above + below) if reads else 1.0) if n_core else 0.0
    law = Law(0.0, scale**2 / longer, 3.0 * longer / (longer + 2.0), structure="looks-linear")

    def build(stream: Stream, dtype: torch.dtype) -> torch.Tensor:
        w = haar_maps(stream, core, 1, target.in_axes, dtype).mul_(scale)
        if reads:
            w = torch.cat([w, -w], dim=1)
        if writes:
            w = torch.cat([w, -w], dim=0)
        return w

    side = {(True, True): "between", (True, False): "after", (False, True): "before"}.get((reads, writes), "by")
    return Draw(law, build=build, gain=1.0, reason=f"mirrored, {side} {record.name}")
