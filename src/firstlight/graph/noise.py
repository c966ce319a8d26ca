"""Fluctuation of a log-norm over weight draws, a linear form over numbered independent sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Form:
    """A linear form over a row of numbered independent sources; many noises share one.

    Attributes:
        first: Number of the first source.
        loads: Coefficient times standard deviation of each source from the first on, shape (sources,).
        lost: Variance of what came from sources before `first` that are no longer told apart.
        variance: |loads|² + lost.
    """

    first: int
    loads: Array
    lost: float
    variance: float


@dataclass(slots=True, eq=False)
class Noise:
    """Fluctuation over weight draws of a tensor's log-norm, as a linear form over independent sources.

    ln|x|² = ln E|x|² + drift + scale·form + Σ_k load_k·(standard normal source k).

    Attributes:
        drift: E ln|x|² - ln E|x|².
        variance: Total variance of ln|x|².
        form: What is inherited from earlier noises, but for the latest sources; None without any.
        scale: Factor of the form.
        tail: (number, load) of sources that are not in the form, in order.
    """

    drift: float = 0.0
    variance: float = 0.0
    form: Form | None = None
    scale: float = 1.0
    tail: tuple[tuple[int, float], ...] = ()


SILENT = Noise()
