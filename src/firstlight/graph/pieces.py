"""What a tensor that was put together still knows of its pieces: their own correlations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Pieces that lie side by side along an axis.

    Attributes:
        axis: The tensor axis.
        sizes: Entries of each piece along it.
        cubes: Correlations of each piece, cubes like that of the tensor, of size 1 along the axis: of entries that
            do not differ along it.
        mixed: Share of the energy of each that was added by tensors whose own pieces are not known: those are taken to
            be as alike as the average one. Empty where none was.
    """

    axis: int
    sizes: tuple[int, ...]
    cubes: tuple[Array, ...]
    mixed: tuple[float, ...] = ()
