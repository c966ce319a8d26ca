"""Centring of groups whose entries are not alike: known means (tables of positions), and rows of laws of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, Signal, Source, replace
from firstlight.rules.chains.side_by_side import by_row
from firstlight.rules.chains.source import mehler
from firstlight.theory import copula

_UNLIKE = 0.01  # in a correlation, from which a chain's source gets other ones behind a norm


def by_means(x: Signal, gone: Sequence[int], common: float) -> tuple[Array, Array] | None:
    """(v, E (x - x̄)²) of groups whose entries have means of both signs, x = m + u; None of others.

    (x_s - x̄)² is (m_s - m̄)² and what centring leaves of u: of the pair moment of the groups' entries what is not m̄²
    is u's, and E u_s ū goes in proportion to √E u_s². (Of means of one sign, as those of maxima at a border, E x_s x̄
    itself goes like √E x_s².)

    Args:
        x: The tensor.
        gone: Atoms within groups.
        common: Mean pair moment of the entries of a group, relative to E x².
    """
    axes = tuple(gone)
    if not any(x.mean.shape[a] > 1 for a in axes) or not float(x.mean.min()) < 0.0 < float(x.mean.max()):
        return None
    middle = x.mean.mean(axis=axes, keepdims=True)
    known, own = np.square(x.mean - middle), np.maximum(x.q - np.square(x.mean), 0.0)
    level, root = own.mean(axis=axes, keepdims=True), np.sqrt(own)
    share = max(common * x.mean_q - float(np.square(middle).mean()), 0.0) / max(float(level.mean()), 1e-300)
    share = min(share, 1.0)
    typical = np.maximum(root.mean(axis=axes, keepdims=True), 1e-300)
    left = np.maximum(own - share * level * (2.0 * root / typical - 1.0), 0.0)
    return known.mean(axis=axes, keepdims=True) + left.mean(axis=axes, keepdims=True), known + left


def of_length(source: Source, values: Array, q: Array) -> Array:
    """Values on the nodes with the mean square that the entries of each row have.

    A norm takes away what a group has in common beside its mean, which makes no entry's law another one.
    """
    square = np.square(values) @ source.grid.weights
    return values * np.sqrt(by_row(source, q) / np.where(square > 0.0, square, 1.0))[:, None]


def centred(source: Source, values: Array, corr: Array) -> Source:
    """The source with the correlations for which its function has the given ones.

    Of what its entries have in common, centring takes what it takes of the function. (For rows of laws of their own:
    where all are alike the gradient behind meets what the source had, 1 - .11 of it in a ConvMixer's norms.)
    """
    total = source.average(np.square(values))
    if total <= 0.0 or float(np.abs(mehler(values, source, total) / total - corr).max()) <= _UNLIKE:
        return source
    power = source.share @ np.square(values @ source.grid.hermite)
    return replace(source, corr=copula.under(corr, np.sqrt(power / total)))
