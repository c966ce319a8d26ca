"""What the channels of a convolution have each for themselves: a record that its output carries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alone:
    """Of y - E[y|w], y = Σ w x over a window.

    Attributes:
        scatter: Relative variance of the window's energy Σ (x - E x)².
        flat: What weights of kurtosis κ add to y's own kurtosis, (κ - 3)·E x⁴/(fan·(E x²)²).
        spread: Relative variance of a channel's variance that its own weights bring beside what pairs of sites say:
            (κ - 1)/fan in groups; all channels of a dense convolution have 2/fan of it in their pairs of sites.
        together: Of `scatter`, what all channels of a site have in common.
    """

    scatter: float
    flat: float
    spread: float
    together: float
