"""What weights whose rows sum to zero see of their input."""

from __future__ import annotations

import numpy as np

from firstlight.graph.signal import Signal, next_id, replace
from firstlight.rules.chains.source import from_values
from firstlight.rules.state.layout import axis_atoms, correlations, moments


def seen(x: Signal, weight: Signal, axis: int) -> Signal:
    """The input of a contraction over `axis`: without what its entries have in common, where the rows sum to zero.

    With w = v - v̄ and independent v_k of variance σ²·n/(n-1), Σ_k w_k x_k = Σ_k v_k (x_k - x̄), whose mean square
    is n σ²·(E x² - E x_k x_l), k ≠ l: independent weights of w's own variance σ² on a tensor of pair moments
    E x x' - E x_k x'_l (huang2017centred).

    Args:
        x: The input.
        weight: A parameter, or any other signal, which leaves x as it is.
        axis: Axis of x that is summed over.
    """
    atoms = axis_atoms(x, axis)
    if weight.weights is None or weight.weights.structure != "centred" or not atoms:
        return x
    raw = moments(x)
    apart = tuple(slice(1, 2) if i in atoms else slice(None) for i in range(raw.ndim))
    raw = raw - raw[apart]
    left = max(float(raw[(0,) * raw.ndim]), 0.0)
    level = all(f.shape[i] == 1 for f in (x.mean, x.q) for i in atoms)
    if x.source is not None and x.values is not None and level:
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
