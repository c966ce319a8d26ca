"""What the page shows of layers, as numbers: sizes, shares of zero, saturated and equal units, histograms.

Layers of one shape are measured together, because a page looks twenty times a second and a small tensor costs as much
as a larger one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from firstlight.playground.layers import Layer
from firstlight.theory import activations

Array = npt.NDArray[np.float32]
# a mean square counts as a length above this; zeros have none
_TINY = 1e-300
LOG10_LOW, LOG10_HIGH, BINS = -10.0, 5.0, 30
SAMPLE = 2048
# Samples that are compared first: where no two units agree on them, none do on all.
_FEW = 8
# Entries beyond which layers of one shape are looked at one after the other, so that nothing large is copied.
_TOGETHER = 1 << 22

Stacks = list[tuple[list[int], Tensor]]


def stacks(tensors: Sequence[Tensor | None]) -> Stacks:
    """Tensors of one shape behind each other: numbers of the layers, (layers, *shape). Missing ones are left out."""
    groups: dict[Any, list[int]] = {}
    for number, tensor in enumerate(tensors):
        if tensor is not None and tensor.numel():
            alone = number if tensor.numel() > _TOGETHER // max(1, len(tensors)) else -1
            groups.setdefault((tensor.shape, tensor.dtype, alone), []).append(number)
    found: Stacks = []
    for numbers in groups.values():
        members = [t.detach() for n in numbers if (t := tensors[n]) is not None]
        found.append((numbers, torch.stack(members) if len(members) > 1 else members[0][None]))
    return found


def gathered(stacked: Stacks, count: int, measure: Callable[[Tensor], Tensor], fill: float = np.nan) -> Array:
    """One number a layer: `measure` maps (layers, *shape) to (layers,); `fill` where a layer has no tensor."""
    result = np.full(count, fill, dtype=np.float32)
    for numbers, tensor in stacked:
        result[numbers] = measure(tensor).numpy()
    return result


def log_lengths(stacked: Stacks, count: int, *, alone: bool) -> Array:
    """Ln of the mean square, in double precision; -inf for zeros, NaN for a missing or undefined tensor.

    Args:
        stacked: The tensors.
        count: How many layers there are.
        alone: Only the first sample, or the mean square over all of them.
    """
    result = np.full(count, np.nan)
    for numbers, tensor in stacked:
        chosen = tensor[:, :1] if alone else tensor
        result[numbers] = chosen.flatten(1).double().square().mean(dim=1).numpy()
    with np.errstate(divide="ignore"):
        return np.where(result > _TINY, np.log(result), np.where(np.isnan(result), np.nan, -np.inf)).astype(np.float32)


def walks(z: Stacks, delta: Stacks, count: int, *, alone: bool) -> dict[str, Array]:
    """Ln length layer by layer: "forward" of z, "backward" of ∂cost/∂z counted from the last layer."""
    backward = log_lengths(delta, count, alone=alone)
    if len(backward) and np.isfinite(backward[-1]):
        backward = backward - backward[-1]
    return {"forward": log_lengths(z, count, alone=alone), "backward": backward}


def walks_of(found: Sequence[Layer], *, alone: bool) -> dict[str, Array]:
    """`walks` of the layers of one pass."""
    return walks(stacks([x.z for x in found]), stacks([x.delta for x in found]), len(found), alone=alone)


def zero_units(h: Tensor) -> Tensor:
    """Share of units whose output is exactly zero for every sample and position; (layers, *shape) ↦ (layers,)."""
    axis = _unit_axis(h)
    rest = [a for a in range(1, h.ndim) if a != axis]
    # largest and smallest entry instead of all(h == 0), which reduces many times slower
    zero = (h.amax(dim=rest) == 0) & (h.amin(dim=rest) == 0) if rest else h == 0
    return zero.float().flatten(1).mean(dim=1)


def same_units(z: Tensor) -> Tensor:
    """Share of units that give the same as the first one for every sample, of layers with more than one unit.

    A layer that is zero everywhere counts as one in which all are the same.
    """
    axis = _unit_axis(z)
    rest = [a for a in range(1, z.ndim) if a != axis]
    if z.shape[axis] < 2 or not rest:
        return torch.zeros(len(z))
    few = z.narrow(rest[0], 0, min(_FEW, z.shape[rest[0]]))
    if not _equal_units(few, axis).all(dim=rest).any():
        return torch.zeros(len(z))
    return _equal_units(z, axis).all(dim=rest).float().mean(dim=1)


def _equal_units(z: Tensor, axis: int) -> Tensor:
    """Entries that are those of the first unit."""
    return z.narrow(axis, 1, z.shape[axis] - 1) == z.narrow(axis, 0, 1)


def saturated(found: Sequence[Layer], z: Stacks) -> Array:
    """Share of entries on a flat piece of a bounded nonlinearity; NaN where the nonlinearity has none."""
    pieces = [_flat_pieces(layer.phi) for layer in found]
    result = np.full(len(found), np.nan, dtype=np.float32)
    for numbers, tensor in z:
        bounded = [i for i, n in enumerate(numbers) if np.isfinite(pieces[n]).all()]
        if not bounded:
            continue
        flat = tensor[bounded].flatten(1)
        low, high = (torch.tensor([[pieces[numbers[i]][end]] for i in bounded], dtype=flat.dtype) for end in (0, 1))
        result[[numbers[i] for i in bounded]] = ((flat < low) | (flat > high)).float().mean(dim=1).numpy()
    return result


@functools.cache
def _flat_pieces(phi: str) -> tuple[float, float]:
    """Below the first and above the second pre-activation a nonlinearity is flat; infinite where it never is."""
    return activations.get(phi).saturation if phi else (-np.inf, np.inf)


def histograms(stacked: Stacks, count: int) -> dict[str, Any]:
    """Sizes of the entries of every layer, NaN and infinity counted apart.

    Returns:
        "shares": (layers, `BINS`), shares of |entries| in bins of equal width in log10, sizes beyond the ends in the
        last bins; "zero": share of zeros; "bad": how many are NaN or infinite. At most `SAMPLE` entries of a layer,
        evenly spread, are looked at; shares and counts are of those.
    """
    shares = np.zeros((count, BINS), dtype=np.float32)
    zero = np.zeros(count, dtype=np.float32)
    bad = np.zeros(count, dtype=np.int32)
    for numbers, tensor in stacked:
        flat = tensor.flatten(1)
        values = flat[:, :: -(-flat.shape[1] // SAMPLE)].float().abs()
        finite, none = values.isfinite(), values == 0
        place = (values.log10().clamp(LOG10_LOW, LOG10_HIGH) - LOG10_LOW) * (BINS / (LOG10_HIGH - LOG10_LOW))
        # one bin more for what has no size; its entries are counted apart
        place = torch.where(finite & ~none, place.clamp(max=BINS - 1), float(BINS)).long()
        place += torch.arange(len(values))[:, None] * (BINS + 1)
        counts = torch.bincount(place.flatten(), minlength=len(values) * (BINS + 1)).view(len(values), BINS + 1)
        shares[numbers] = counts[:, :BINS].numpy() / values.shape[1]
        zero[numbers] = none.float().mean(dim=1).numpy()
        bad[numbers] = (~finite).sum(dim=1).numpy()
    return {"shares": shares, "zero": zero, "bad": bad}


def _unit_axis(stacked: Tensor) -> int:
    """The axis of units of (layers, *shape): channels of images, features of everything else."""
    return 2 if stacked.ndim >= 5 else stacked.ndim - 1
