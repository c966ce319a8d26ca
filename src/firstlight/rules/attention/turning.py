"""Keys that are turned by angles that grow with their position (rotary embeddings).

Tokens that are alike by chance have like keys, and like gradients of their weights, so that these add up at the query
(`Keyed.coherent`, beyond `Keyed.lone`). Keys k·cos + k̃·sin of two positions are alike in a pair of units only as far as
the angles between them are small: E y_j y_k = Σ_A A_j A_k·E k_j k_k over the known tables A. So the gradients of
queries have less of it in the units that turn fast, and these are those that x̃·sin meets.
"""

from __future__ import annotations

from math import prod

import numpy as np

from firstlight.graph.course import bins
from firstlight.graph.keyed import Keyed
from firstlight.graph.signal import Array, Signal, once
from firstlight.rules.state.layout import axis_atoms


def turned(keys: Signal) -> tuple[Array, Array] | None:
    """Mean of Σ_A A_j A_k over pairs of keys Σ_A A ⊙ k_A, over that of Σ_A A_j², unit by unit.

    Of all pairs, and of those that a row of each bin sees under a causal mask. None unless the tables A are known, over
    positions and units, which come last.
    """
    x, shape = keys if keys.view is None else keys.view[1], keys.shape[-2:]
    own, every, causal = np.zeros(1), np.zeros(1), np.zeros(1)
    for a, term in x.terms:
        tables = [] if term.factors is None else [f for f in term.factors[1:] if f.value is not None]
        if len(tables) != 1 or tables[0].shape[-2:] != shape or tables[0].numel != prod(shape) or min(shape) < 2:
            return None
        one, two, three = _pairs(tables[0])
        own, every, causal = own + a * a * one, every + a * a * two, causal + a * a * three
    if len(x.terms) < 2 or not own.all():
        return None
    return every / own, causal / own


def _pairs(table: Signal) -> tuple[Array, Array, Array]:
    """Means of A², and of A_j A_k over pairs of rows j ≠ k, all of them and those up to a row of each bin, by units."""

    def means() -> tuple[Array, Array, Array]:
        a = np.asarray(table.value, dtype=np.float64).reshape(table.shape[-2:])
        square, total = np.cumsum(np.square(a), axis=0), np.cumsum(a, axis=0)
        n = np.maximum(np.round(bins(len(a)).seen).astype(np.intp), 2)
        rows = np.append(n, len(a))
        pairs = (np.square(total[rows - 1]) - square[rows - 1]) / (rows * (rows - 1.0))[:, None]
        return square[-1] / len(a), pairs[-1], pairs[:-1]

    return once(table, "_pairs", table.q, means)


def out_of_step(out: Signal, keyed: Keyed | None) -> float | Array:
    """Factor of a query's gradient where keys are turned, a field over its units; 1 where they are not."""
    units = axis_atoms(out, out.ndim - 1)
    if keyed is None or keyed.turned is None or len(units) != 1 or out.shape[-1] != len(keyed.turned[0]):
        return 1.0
    more, rows = keyed.coherent - keyed.lone, keyed.causal
    if rows is None:
        lost = more / keyed.coherent * (1.0 - keyed.turned[0])
    else:
        at, b = axis_atoms(out, out.ndim - 2)[0], rows.bins
        line = out.q.mean(axis=tuple(i for i in range(out.q.ndim) if i != at))
        energy = b.means(np.broadcast_to(line, (out.shape[-2],))) * b.width
        beside = keyed.coherent - float(b.line(rows.coherent).mean())  # what else adds up, of rows of any length
        share = energy * (rows.coherent - rows.lone) / np.maximum(rows.coherent + beside, 1.0)
        lost = share @ (1.0 - keyed.turned[1]) / max(float(energy.sum()), 1e-300)
    return (1.0 - lost).reshape([-1 if i == units[0] else 1 for i in range(len(out.atoms))])
