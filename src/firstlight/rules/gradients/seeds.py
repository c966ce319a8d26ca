"""Cotangents with which an adjoint pass begins."""

from __future__ import annotations

import numpy as np

from firstlight.graph.signal import Signal


def random_direction(out: Signal, q: float = 1.0) -> Signal:
    """The default cotangent: independent entries of mean square 1, as `measure` draws them."""
    n = len(out.atoms)
    corr = np.zeros(out.corr.shape)
    corr[(0,) * n] = 1.0
    one = (1,) * n
    return Signal(out.groups, np.zeros(one), np.full(one, q), corr, out.batch, gaussian=True)


def ones(out: Signal) -> Signal:
    """The cotangent 1 of every entry: torch's default for the gradient of one number."""
    one = (1,) * len(out.atoms)
    return Signal(out.groups, np.ones(one), np.ones(one), np.ones(out.corr.shape), out.batch)
