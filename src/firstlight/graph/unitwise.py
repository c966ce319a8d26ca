"""What a unit has in common at all places and in all samples: a record that products of slices of one tensor read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Common:
    """The law of x given w, the part of a Gaussian tensor u that does not depend on place or sample.

    Attributes:
        of: Ident of u.
        rho: Share of the variance of u that w has.
        units: Sizes of the axes along which w differs.
        first: E[x|w]/√E x² on nodes of w.
        second: E[x²|w]/E x² there.
    """

    of: int
    rho: float
    units: tuple[int, ...]
    first: Array
    second: Array
