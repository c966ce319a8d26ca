"""How correlations of the positions of an image stray over draws of a few channels' weights."""

from __future__ import annotations

from typing import NamedTuple


class Sway(NamedTuple):
    """Of one signal (docs/signal.md §4, `rules.convolutions.sway`).

    Attributes:
        variance: Of the correlation at one displacement: what taps, which move both positions together, hand on.
        covariance: Of that correlation with ln|x|².
        brief: Of the correlation of one pair of positions, what the next taps average away.
        channels: The axis of the channels of an image, how many there are, and the image's number of axes.
        owed: Variance of ln|x|² that draws with like positions have yet to give back.
    """

    variance: float = 0.0
    covariance: float = 0.0
    brief: float = 0.0
    channels: tuple[int, int, int] = (0, 0, 0)
    owed: float = 0.0


STILL = Sway()
