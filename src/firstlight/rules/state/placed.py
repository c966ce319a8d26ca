"""Correlations of two samples at the same place, place by place (`Signal.placed`).

Behind a norm over a batch of images the border is more alike than the inside: its windows have read zeros, so that they
differ from the mean that is taken from all in the same way in all samples. A convolution behind reads the inside more
often than the border, as the mean over places does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from firstlight.graph.signal import Array, Signal, replace
from firstlight.rules.state.noise import sample_correlation, two_samples


def known(x: Signal) -> Array | None:
    """The correlations by place, if they are known of this signal."""
    return x.placed[1] if x.placed is not None and x.placed[0] == x.ident else None


def given(x: Signal, found: Array | None) -> Signal:
    """A signal of which they are known, with the mean that its cube has."""
    if found is None or found.ndim != x.q.ndim or not any(x.batch) or x.mean_q <= 0.0:  # a gain of zero
        return x
    mean = float(np.mean(np.broadcast_to(x.q, np.broadcast_shapes(x.q.shape, found.shape)) * found)) / x.mean_q
    return replace(x, placed=(x.ident, np.clip(found + sample_correlation(x) - mean, -1.0, 1.0)))


def bent(out: Signal, x: Signal, alike: Callable[[Array], Array]) -> Signal:
    """A pointwise function of x, with the map of correlations."""
    found = known(x)
    return out if found is None else given(out, alike(found))


def read(x: Signal, found: Array | None, counts: Mapping[int, Array]) -> Signal:
    """x with the mean correlation of two samples as windows read it.

    Args:
        x: The input of a convolution.
        found: Its correlations by place.
        counts: How many windows read each input, by the atom of the axis.
    """
    if found is None or found.ndim != x.q.ndim:
        return x
    weights = x.q
    for at, count in counts.items():
        weights = weights * count.reshape((1,) * at + (-1,) + (1,) * (x.q.ndim - at - 1))
    total = float(weights.mean())
    if total <= 0.0:
        return x
    corr = x.corr.copy()
    corr[two_samples(x.batch, corr.shape)] = float((weights * found).mean()) / total
    return replace(x, corr=corr)
