"""How the length of a mean over keys strays from draw to draw: that of what tokens have in common, and of the rest.

Tokens x_j = x̄ + r_j have |x|² = |x̄|² + |r|² on average over the n of them. A mean over keys with weights of Σp = 1
keeps x̄ whole and (nΣp² - 1)/(n - 1) of |r|²: behind a softmax that is almost flat only what tokens have in common is
left, and it strays much more than they do. What a row of logits has in common does not matter to a softmax; what its
variance strays by is that of the query's length and of |r|² of the keys.

|x̄|² and |r|² of jointly Gaussian tokens are independent. With their shares m and 1 - m of |x|² and the means k and k'
of the squared correlations of pairs (about 1/(n - 1) for r, and more where tokens stand in few dimensions), their
relative variances are s·k and s·k', and Var ln|x|² = s(m²k + (1 - m)²k') gives s: 2 for fresh Gaussian entries, more
for tokens that have a past (a residual stream), whose parts are taken to be independent, too. A random direction of
fixed length has a random part in common all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, prod

import numpy as np

from firstlight.graph.signal import Array, Noise, Signal, replace
from firstlight.rules.attention.keys import is_weights, straying
from firstlight.rules.state.forms import combine, covariance
from firstlight.rules.state.layout import axis_atoms
from firstlight.rules.state.noise import pair_shares

_LEAST = 1e-6  # shares of energy below which there is no such part


@dataclass(frozen=True, slots=True)
class Parts:
    """Tokens as what they have in common and what they differ in.

    Attributes:
        size: Number of tokens, n.
        common: Share of |x̄|² in the mean |x|².
        pull: d ln|x̄|²/d ln|x|², by regression.
        rest: The same of |r|².
        of_common: Var ln|x̄|².
        of_rest: Var ln|r|².
        drawn: What it is of fresh Gaussian entries.
    """

    size: int
    common: float
    pull: float
    rest: float
    of_common: float
    of_rest: float
    drawn: float


def parts(x: Signal, axis: int) -> Parts | None:
    """The parts of a tensor's tokens, which an axis counts; None where there is one, or they are all alike."""
    tokens = axis_atoms(x, axis)
    size = prod([x.atoms[a] for a in tokens])
    if size < 2:
        return None
    near, far = x.corr, x.corr
    for a in tokens:
        near, far = np.take(near, [0], axis=a), np.take(far, [min(1, far.shape[a] - 1)], axis=a)
    differ: Array = near - far
    alike: Array = far + differ / size
    own, m = float(differ.flat[0]), float(alike.flat[0])
    if own <= _LEAST or m <= _LEAST:
        return None
    weight: Array = pair_shares(x, x.corr.shape).sum(axis=tokens, keepdims=True)
    whole: Array = np.square(alike / m)
    rest: Array = np.square(differ / own) / (size - 1.0)
    here = tuple(slice(None) if b else slice(0, 1) for b in x.batch)  # a unit's own places, which stray
    for square in (whole, rest):
        square[here] += straying(x) * (1.0 - square[here])
    whole[(0,) * whole.ndim] = 1.0
    k, apart = float(np.vdot(weight, whole)), float(np.vdot(weight, rest))
    unit = m * m * k + (1.0 - m) ** 2 * apart
    s = max(x.noise.variance / unit, 2.0 if x.gaussian and not x.data else 0.0)  # 2 for fresh Gaussian entries
    return Parts(size, m, m * k / unit, (1.0 - m) * apart / unit, s * k, s * apart, 2.0 * apart)


def mean_of(x: Signal, left: str, w: Signal, right: str, summed: Sequence[str]) -> tuple[Signal, Signal, Parts] | None:
    """The weights, tokens and their parts of a mean over keys or rows, of a softmax whose rows all see the same keys.

    Args:
        x: First operand of a contraction; the weights are one of the two.
        left: A letter for each of its axes.
        w: Second operand.
        right: Its letters.
        summed: Letters that are summed over.
    """
    for p, of_p, tokens, of_tokens in ((x, left, w, right), (w, right, x, left)):
        if not is_weights(p) or p.mean.size > 1 or tokens.weights or len(summed) != 1 or summed[0] not in of_p[-2:]:
            continue
        if not tokens.mean_q > 0.0:  # no gradient comes back: the next norm's gains are zero
            return None
        if p.keyed is None or (p.keyed.causal is None and p.keyed.seen is None):
            found = parts(tokens, of_tokens.index(summed[0]))
            return None if found is None else (p, tokens, found)
    return None


def apart(keys: Signal, axis: int) -> Signal:
    """Keys with the noise of what they differ in: all that a sum over them with weights of Σ = 0 sees."""
    found = parts(keys, axis)
    if found is None:
        return keys
    own = found.of_rest - found.rest**2 * keys.noise.variance
    return replace(keys, noise=_log_normal([(found.rest, keys.noise)], own))


def of_mean(y: Signal, p: Signal, w: Signal, found: Parts) -> tuple[float, Noise]:
    """Factor on the energy of a mean y of the tokens w with the weights p, and its log-norm noise.

    The factor is over independent p and |r|². What w have in common passes whole, also in a mean over rows: what all
    keys get of it adds up to what all rows have.
    """
    n, level = found.size, y.mean_q / w.mean_q
    kept = min(found.common, level)
    c = min(max((found.common * n - 1.0) / (n - 1.0), 0.0), level)  # what is there for independent p = 1/n
    both = exp(min(max(found.rest * covariance(p.noise, w.noise), -1.0), 1.0))
    energy = c + (level - c) * both
    a, b = kept / energy, (energy - kept) / energy
    inherited = a * found.pull + b * found.rest
    own = a * a * found.of_common + b * b * found.of_rest - inherited**2 * w.noise.variance
    return energy / level, _log_normal([((level - c) * both / energy, p.noise), (inherited, w.noise)], own)


def of_logits(logits: Signal, queries: Signal, keys: Signal, axis: int) -> Noise | None:
    """Log-norm noise of the variance of a row of logits q·k, for the axis of k that counts keys."""
    of_rows = parts(logits, logits.ndim - 1)
    if of_rows is None:
        return None
    return _log_normal([(1.0, queries.noise), (1.0, apart(keys, axis).noise)], of_rows.drawn)


def _log_normal(terms: list[tuple[float, Noise]], own: float) -> Noise:
    """Noise of Π x_k^s_k times a factor of its own, of the mean that it is given: E ln = ln E - Var/2."""
    linear, own = combine(terms), max(own, 0.0)
    gain = 0.5 * (sum(s * n.variance for s, n in terms) - linear.variance)
    return combine(terms, own, gain - 0.5 * own)
