"""How the windows of a convolution scatter: together, and each for itself, above all those of channels in groups.

A dense convolution gives all channels of a site the energy V = mean x² of one window, so that they are long together
(`Signal.scatter`). Of G groups each has a window of its own; what their energies have not in common makes no site
long, but the law of the entries heavy: with independent weights of kurtosis κ, given the window,

    E y⁴ = s⁴·[3 (Σ x²)² + (κ - 3) Σ x⁴],   E y⁴/(E y²)² - 3 = 3 Var V/(E V)² + (κ - 3)·E x⁴/(fan·(E x²)²).

A norm over the sites of a channel divides by its own v = wᵀΣw, with Σ the covariance of the window's entries. That
takes what the channels' weights differ in out of the law: for isotropic Σ v goes like |w|², of relative variance
(κ - 1)/fan, and E (y - ȳ)⁴/v² is that of centred x over 1 + (κ - 1)/fan. A channel of nine taps behind ReLU has 3.7
instead of 4.5, and is more often open than a law with such tails would be.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from firstlight.graph.alone import Alone
from firstlight.graph.signal import Signal, replace
from firstlight.rules.convolutions.taps import Taps
from firstlight.rules.linear.contraction import energy_cube
from firstlight.rules.state.layout import axis_atoms


@dataclass(frozen=True, slots=True)
class Lengths:
    """Relative variance of the energies V of windows.

    Attributes:
        scatter: What all channels of a site have in common.
        old: Of that, what had scattered before.
        own: What those of a group have beyond that.
        reach: `Signal.reach` of the scatter.
    """

    scatter: float
    old: float
    own: float
    reach: float


def lengths(
    x: Signal, channel: int, taps: Sequence[int], windows: Collection[Taps], count: float, groups: int
) -> Lengths:
    """How the energies of windows scatter: pairs of entries of a group's channels and of `count` taps.

    Taps are as correlated as neighbours. Of what the entries' lengths scatter by already a window of t taps has
    (1 + (t - 1)·reach)/t. Two windows have in common what they read in common, and of the rest what their entries have.

    Args:
        x: What the windows read.
        channel: Atom of the channels.
        taps: Atoms of the positions.
        windows: Of each axis.
        count: Taps inside a window.
        groups: Of channels.
    """
    if x.data:
        near = tuple(x.corr.shape[i] - 1 if i in taps else 0 for i in range(x.corr.ndim))
        square = float(x.corr[near]) ** 2
        old = max(x.scatter * (1.0 + (count - 1.0) * square) / max(count, 1.0), 0.0)
        return Lengths(old, old, 0.0, x.reach)
    common, own, alike = energies(x, channel, taps, count, groups)
    old = x.scatter * (1.0 + x.reach * (count - 1.0)) / count
    overlap = overlapping(windows)
    apart = [overlap + (1.0 - overlap) * part for part in (alike, x.reach)]
    scatter = common + old
    reach = (common * apart[0] + max(old, 0.0) * apart[1]) / scatter if scatter > 0.0 else x.reach
    return Lengths(max(scatter, 0.0), old, own, min(max(reach, 0.0), 1.0))


def overlapping(windows: Collection[Taps]) -> float:
    """Share of its inputs that a window has in common with another one, mean over pairs of neighbours within a window.

    Along an axis Σ_d (k - |d|)/k² · (1 - s|d|/k)₊ over the displacements d of k places, for windows that are s apart.
    """
    every, count = 1.0, 1.0
    for t in windows:
        d = np.abs(np.arange(1 - t.kernel, t.kernel))
        step = 1.0 if t.transposed else float(t.stride)
        every *= float(((t.kernel - d) @ np.maximum(1.0 - step * d / t.kernel, 0.0)) / t.kernel**2)
        count *= t.kernel
    return max((every - 1.0 / count) / (1.0 - 1.0 / count), 0.0) if count > 1.0 else 0.0


def energies(x: Signal, channel: int, taps: Sequence[int], count: float, groups: int) -> tuple[float, float, float]:
    """Of fresh lengths: what all channels have in common, a group's own, and what two places have of the first."""
    cube = energy_cube(x, one_draw=groups > 1)  # lengths that scatter already are handed on as such
    n = max(x.atoms[channel] // groups, 1)
    near = tuple(x.corr.shape[i] - 1 if i in taps else 0 for i in range(x.corr.ndim))
    other = tuple(1 if i == channel else 0 for i in range(cube.ndim))
    both = tuple(1 if i == channel else k for i, k in enumerate(near))
    here, apart = float(cube[(0,) * cube.ndim]), float(cube[near])
    between, far = float(cube[other]), float(cube[both])
    one, two = here + (n - 1.0) * between, apart + (n - 1.0) * far
    own = (one + (count - 1.0) * two) / (n * count)
    common = (between + (count - 1.0) * far) / count if groups > 1 else own
    common = own / groups + (1.0 - 1.0 / groups) * common
    return max(common, 0.0), max(own - common, 0.0), min(max(two / one, 0.0), 1.0) if one > 0.0 else 0.0


def alone(x: Signal, weight: Signal, channel: int, taps: Sequence[int], count: float, groups: int, old: float) -> Alone:
    """What the channels of y = w*x have each for themselves; `old` is what lengths scattered by before."""
    fan = count * max(x.atoms[channel] // groups, 1)
    kurtosis = 3.0 if weight.weights is None else weight.weights.kurtosis
    if x.source is not None and x.values is not None:
        x = replace(x, values=x.values - x.mean_mean)
    common, own, _ = energies(x, channel, taps, count, groups)
    fourth = 1.0 + float(energy_cube(x, one_draw=True).flat[0])
    return Alone(old + common + own, (kurtosis - 3.0) * fourth / fan, (kurtosis - 1.0) / fan)


def free(weight: Signal) -> float:
    """Normal entries n whose Σ w² has the relative variance 2/n of that of a row's weights."""
    kurtosis = 3.0 if weight.weights is None else weight.weights.kurtosis
    return 2.0 * prod(weight.shape[1:]) / max(kurtosis - 1.0, 1e-6)


def heavy(y: Signal, x: Signal, weight: Signal, own: float, fan: float) -> Signal:
    """The output with the fourth cumulant that its channels' windows bring."""
    kurtosis = 3.0 if weight.weights is None else weight.weights.kurtosis
    fourth = 1.0 + float(energy_cube(x, one_draw=True).flat[0])
    return replace(y, cumulants=(0.0, (3.0 * own + (kurtosis - 3.0) * fourth / fan) * y.mean_q**2))


def known(x: Signal) -> Alone | None:
    """The record of a signal, if it comes out of a convolution in groups."""
    return x.alone[1] if x.alone is not None and x.alone[0] == x.ident else None


def normalised(out: Signal, x: Signal, atoms: Sequence[int]) -> tuple[Signal, float]:
    """A normalised tensor x̂ with its channels' own law, and what their v scatters by through their own weights.

    Args:
        out: x̂, its scatter not yet taken out of its kurtosis.
        x: The tensor.
        atoms: Of the group.
    """
    record = known(x)
    if record is None or not atoms or any(a in atoms for a in axis_atoms(x, 1)):
        return out, 0.0
    kurtosis = (3.0 * (1.0 + max(record.scatter - x.noise.variance, 0.0)) + record.flat) / (1.0 + record.spread)
    return replace(out, cumulants=(0.0, (kurtosis - 3.0) * out.mean_q**2)), record.spread


def scattered(out: Signal, own: float, scatter: float) -> Signal:
    """x̂ with what the lengths of its sites scatter by, which is part of the law that `normalised` gave it."""
    if own == 0.0:
        return replace(out, scatter=scatter)
    third, fourth = out.cumulants
    return replace(out, scatter=scatter, cumulants=(third, fourth - 3.0 * scatter * out.mean_q**2))
