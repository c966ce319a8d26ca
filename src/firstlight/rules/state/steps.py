"""Differences of a running sum's entries: C_i - C_j is the sum of the i - j terms between, and 0 where i = j."""

from __future__ import annotations

import numpy as np

from firstlight.graph.signal import Array, Signal, replace
from firstlight.graph.signs import Steps
from firstlight.rules.state.layout import axis_atoms


def between(out: Signal, entries: Signal, steps: Steps) -> Signal:
    """C_i - C_j with the mean and mean square of a running sum of |i - j| terms; `out` is what independence gives.

    Args:
        out: The difference, over the axes `steps.first` and `steps.second`, or minus the last entry along the second.
        entries: C_j along `steps.second`.
        steps: Which axes.

    Assumes that the terms have one law along the axis, so that any k neighbours sum up to the law of C_{k-1}.
    """
    second = axis_atoms(entries, steps.second)
    first = axis_atoms(out, steps.first) if steps.first is not None else ()
    if len(second) != 1 or len(first) > 1 or (steps.first is not None and not first):
        return out
    n = entries.atoms[second[0]]
    at = axis_atoms(out, steps.second)
    j = np.arange(n).reshape([-1 if k == at[0] else 1 for k in range(len(out.atoms))])
    i = np.arange(n).reshape([-1 if k == first[0] else 1 for k in range(len(out.atoms))]) if first else np.array(n - 1)
    count = np.abs(i - j)
    q, mean = _over_counts(entries, entries.q, second[0]), _over_counts(entries, entries.mean, second[0])
    return replace(out, q=q[count], mean=np.sign(i - j) * mean[count], source=None, values=None)


def _over_counts(x: Signal, field: Array, atom: int) -> Array:
    """The field of the running sum by the number of its terms: 0, 1, ... n - 1."""
    others = tuple(k for k in range(field.ndim) if k != atom)
    line = np.broadcast_to(field.mean(axis=others), (x.atoms[atom],))
    return np.concatenate([[0.0], line[:-1]])
