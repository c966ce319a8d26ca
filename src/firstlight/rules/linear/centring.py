"""What weights whose rows sum to zero see of their input: drawn so, or made so on the way (weight standardization)."""

from __future__ import annotations

import numpy as np

from firstlight.graph.signal import Signal, next_id, replace
from firstlight.rules.chains.source import from_values
from firstlight.rules.state.layout import axis_atoms, correlations, moments
from firstlight.rules.state.windows import pair_average


def taken(weight: Signal) -> float:
    """Share of what the entries of its input have in common that a row of weights does not see.

    E (Σ_k w_k x_k)² = n·E w²·(E x² + (n-1)·r·E x_k x_l), r = E w_k w_l/E w² within a row: 1 where rows sum to zero,
    r = -1/(n-1), as drawn by `centred` or made so in front of a convolution, (w - w̄)/s (qiao2019).
    What a mean of all weights adds is left to the contraction.

    Args:
        weight: A matrix or kernel, one row per index of the first axis.
    """
    if weight.weights is not None:
        return float(weight.weights.structure == "centred")
    rows = [a for k in range(1, weight.ndim) for a in axis_atoms(weight, k)]
    n = weight.numel // max(weight.shape[0], 1)
    level = weight.mean_q
    if not rows or n < 2 or level <= 0.0:
        return 0.0
    pairs = pair_average(weight, rows, moments(weight))
    return min(-(n - 1) * (pairs - weight.mean_mean**2 / level), 1.0)


def seen(x: Signal, share: float, axis: int) -> Signal:
    """The input of a contraction over `axis`, without a share of what its entries have in common.

    With w = v - v̄ and independent v_k of variance σ²·n/(n-1), Σ_k w_k x_k = Σ_k v_k (x_k - x̄), whose mean square
    is n σ²·(E x² - E x_k x_l), k ≠ l: independent weights of w's own variance σ² on a tensor of pair moments
    E x x' - E x_k x'_l (huang2017centred).

    Args:
        x: The input.
        share: Of what entries have in common, see `taken`: 1 where rows of weights sum to zero.
        axis: Axis of x that is summed over.
    """
    atoms = axis_atoms(x, axis)
    if not share or not atoms:
        return x
    raw = moments(x)
    apart = tuple(slice(1, 2) if i in atoms else slice(None) for i in range(raw.ndim))
    raw = raw - share * raw[apart]
    left = max(float(raw[(0,) * raw.ndim]), 0.0)
    level = all(f.shape[i] == 1 for f in (x.mean, x.q) for i in atoms)
    if share == 1.0 and x.source is not None and x.values is not None and level:
        means = x.values @ x.source.grid.weights
        values = x.values - means[:, None]
        variance = float(x.source.share @ (np.square(values) @ x.source.grid.weights))
        # the entries of one site have E² of that site's length in common, on average more than the square of its mean
        scale = (left * x.mean_q / variance) ** 0.5 if variance > 0.0 else 0.0
        return from_values(x, x.source, scale * values)
    q = x.q.mean(axis=atoms, keepdims=True) * left
    corr = correlations(raw, q) if left > 0.0 else np.ones_like(raw)
    return replace(
        x, mean=np.zeros((1,) * len(x.atoms)), q=q, corr=corr, source=None, values=None, value=None, terms=(),
        tag=None, cumulants=(0.0, 0.0), ident=next_id(),
    )  # fmt: skip
