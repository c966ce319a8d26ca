"""What the zeros around an image do to the output of a convolution: pair moments differ from place to place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Border:
    """E y_s y_s' = offset + level·Σ_d corr[d]·Π_a K_a[d_a](s, s') of two outputs s, s' of one channel.

    K_a[d] is what the windows of two outputs along axis a read in common, of inputs that differ as d says.

    Attributes:
        corr: Correlations of the input, a cube like that of the output, of size 1 for channels.
        rows: Mean of K_a[d](s, s') over s', by the atom of the axis, shape (states, outputs).
        squares: Mean of K_a[d](s, s')² over s and s', by the atom of the axis, shape (states,).
        windows: Root mean square of what each tap of a window along axis a reads, 0 outside the image, by the atom of
            the axis, shape (outputs, taps).
        level: Mean square of an input entry times fan times that of the weights.
        offset: What a bias adds.
    """

    corr: Array
    rows: dict[int, Array]
    squares: dict[int, Array]
    windows: dict[int, Array]
    level: float
    offset: float = 0.0

    def raised(self, offset: float) -> Border:
        """That of y plus a constant of each channel, of mean square `offset`."""
        return dataclasses.replace(self, offset=self.offset + offset)
