"""What random keys do to a softmax over them: a record that its weights and the gradient of its logits carry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstlight.graph.course import Rows
from firstlight.graph.noise import Noise


@dataclass(frozen=True, slots=True)
class Keyed:
    """What random keys do to a softmax over them, against independent logits; p its weights, dℓ the logits' gradient.

    Attributes:
        alike: Σ_{j≠k} p_j p_k c_jk over keys with the correlations c_jk.
        less: Factor on E |dℓ|².
        coherent: E Σ dℓ_j dℓ_k c_jk / E |dℓ|².
        sharper: Factor on E Σ p².
        uneven: Relative variance of Σ p_j p_k c_jk from row to row.
        rows: E |dℓ|²|q|² / (E |dℓ|²·E |q|²) for the query q of a row.
        apart: `coherent` of a gradient of the weights that is independent from key to key.
        together: E Σ_j dℓ_j dℓ'_j q·q' / E Σ_j dℓ_j dℓ'_j |q|² of two rows that get the same gradient.
        lone: `coherent` of keys of which no two are alike: long ones get large weights.
        growth: d ln E Σp²/d ln v, v the variance of a row's logits.
        split: `Signal.split` of the keys; None where it is not known.
        causal: What rows have in common that each see the keys up to their own; None where they do not.
        seen: Number of keys that each row sees, in order, where the weights' fields do not say it; None where they do.
        queries: How alike the queries of two rows are, a cube over the atoms of the logits without that of the keys.
        noise: Log-norm noise of the variance of a row of logits; None where it is taken to be that of the logits.
        turned: Where keys are turned by their positions, how far two of them are in step in each unit: all of them, and
            those that a row of each bin sees under a causal mask. None where they are not turned.
    """

    alike: float
    less: float
    coherent: float
    sharper: float
    uneven: float
    rows: float
    apart: float = 1.0
    together: float = 0.0
    lone: float = 1.0
    growth: float = 0.0
    split: tuple[float, float] | None = None
    causal: Rows | None = None
    seen: npt.NDArray[np.float64] | None = None
    queries: npt.NDArray[np.float64] | None = None
    noise: Noise | None = None
    turned: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None


PLAIN = Keyed(0.0, 1.0, 1.0, 1.0, 0.0, 1.0)  # independent logits
