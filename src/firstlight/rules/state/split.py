"""What the lengths of positions scatter by, in parts: of the whole sample, of a position, of a row of attention.

A sum z = x + y takes over a²·τ_x² + b²·τ_y² of what its terms' lengths scatter by, a and b their shares of the energy,
and 2ab times what belongs together. The lengths of whole samples do, and those of one position in x and f(x); what
single rows of attention got from the keys that they met has nothing to do with the stream that they are added to.
"""

from __future__ import annotations

import numpy as np

from firstlight.graph.signal import Signal
from firstlight.rules.linear.contraction import energy_cube
from firstlight.rules.state.layout import axis_atoms
from firstlight.rules.state.noise import summed_pairs

Split = tuple[float, float] | None


def of_entries(x: Signal, y: Signal) -> float:
    """`Signal.scatter` of a term x of a sum x + y.

    That of data is what their mean squares were seen to scatter by. Beside a term that is drawn the entries count as
    drawn as well: n of the variance V bring o = 2/n of it, E (mean x²)² = E V²·(1 + o), so that s = (1 + τ²)(1 + o) - 1
    was seen. Of a single entry a site τ² is what makes 3(1 + τ²) its kurtosis, 1 + s.
    """
    if not x.data or y.data or not x.gaussian or x.scatter <= 0.0 or not 1 < x.ndim < 4 or any(x.batch[1:]):
        return x.scatter
    if x.ndim > 2 and x.shape[-1] == 1:  # a series of numbers: its scatter is that of the mean square over time
        return x.scatter
    cube = energy_cube(x)
    own = float(np.vdot(summed_pairs(x.atoms, cube.shape, tuple(axis_atoms(x, x.ndim - 1))), cube))
    return (x.scatter - own) / (1.0 + own)


def of_sum(first: tuple[float, float, Split], second: tuple[float, float, Split], joint: float) -> tuple[float, Split]:
    """What the scatter of a sum has because its terms are long together, and its `Signal.split`.

    Args:
        first: Share of a term in the energy of the sum, its scatter, its split.
        second: The same of the other term.
        joint: Correlation of the logarithms of the terms' lengths.
    """
    (a, one, mine), (b, two, other) = first, second
    one, two, both = max(one, 0.0), max(two, 0.0), 2.0 * a * b * joint
    if mine is None or other is None:
        known, share, level = (mine, a, one) if mine is not None else (other, b, two)
        scatter = both * (one * two) ** 0.5
        if known is None:
            return scatter, None
        total = a * a * one + b * b * two + scatter
        return scatter, (total * min(known[0] / max(level, 1e-300), 1.0), share * share * known[1])
    whole = both * (mine[0] * other[0]) ** 0.5
    own = both * (max(one - sum(mine), 0.0) * max(two - sum(other), 0.0)) ** 0.5
    return whole + own, (a * a * mine[0] + b * b * other[0] + whole, a * a * mine[1] + b * b * other[1])
