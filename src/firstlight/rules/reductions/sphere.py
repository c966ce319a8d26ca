"""Functions of a source behind a norm, on a sphere: an entry's own square is among what it is divided by.

x̂_j = y_j/√v̂ with v̂ = (y_j² + S)/n, S the squares of the other n - 1 entries of the group, taken as independent. With
φ(t) = E e^(-t·y²)

    E[1/v̂ | y_j] = n·∫ e^(-t·y_j²)·φ(t)^(n-1) dt,

and E[1/v̂²|y_j] likewise. So E x̂² = 1, and a heavy tail is cut: of the squares of 32 normal entries E x̂⁴ is 7.1
(simulated 7.12), where division by a fixed length would leave 11.7. Backward, of g = φ(x̂)·b with independent b,
dy_j = (g_j - x̂_j·Σ g_k x̂_k/n)/√v̂ has, in units of E b²/E y²,

    E[dy²|y_j] = E[(φ_j²·(1 - x̂_j²/n)² + x̂_j²·(1 - x̂_j²/n)·E[φ²x̂²]/n)/v̂ | y_j],   x̂_j² = y_j²/v̂,

with φ as it is on average at y_j, so that the mean is taken from E dy² = (E φ² - E φ²x̂²/n)·E 1/v̂·E y².
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, Cotangent, Signal, Source, next_id, replace
from firstlight.rules.chains.grids import on_grid
from firstlight.rules.chains.source import from_values
from firstlight.rules.gradients.gradient import parts_of, whole
from firstlight.rules.state.layout import fit_states

_TIMES: Array = np.exp(np.linspace(-12.0, 8.0, 101))  # t, in units of 1/(n·E y²)
_STEP = 0.2 * _TIMES  # dt of the trapezoid in ln t
_LITTLE = 1e-3  # range of what a gradient has met, in units of its mean square, that makes no difference
_FEW = 1024  # entries of a group beyond which one of them makes no difference to their mean square


def is_site(x: Signal, atoms: Sequence[int]) -> bool:
    """Whether a group is one atom of a sample."""
    return len(atoms) == 1 and not x.batch[atoms[0]]


def followed(x: Signal, atoms: Sequence[int]) -> bool:
    """Whether a norm over these atoms is one of few entries."""
    return is_site(x, atoms) and 1 < x.atoms[atoms[0]] <= _FEW


def weights_of(source: Source) -> Array:
    """The share of all entries that stands on each node of each row, shape (rows, n)."""
    return source.share[:, None] * source.grid.weights


def inverse_square(y: Array, weights: Array, n: int, power: int = 1) -> Array:
    """E[(E y²/v̂)^k | y_j] on the nodes of an entry, k = 1, 2, 3.

    Args:
        y: Values on nodes, any shape.
        weights: Of the nodes, of that shape; they add up to 1.
        n: Entries of the group.
        power: k.
    """
    square = np.square(y)
    level = float(np.vdot(weights, square))
    e = np.exp(-np.multiply.outer(square / (n * level), _TIMES))
    among = np.tensordot(weights, e, axes=y.ndim) ** (n - 1) * _STEP
    start = _TIMES[0] ** power / power  # below the first t nothing has decayed yet
    return np.asarray((e @ (among * _TIMES ** (power - 1)) + start) / max(power - 1, 1), dtype=np.float64)


def on_sphere(y: Array, weights: Array, n: int, q: float, *, centre: bool) -> Array:
    """Values of x̂ with the mean square q, and the fourth moment that x̂ has: y·E[1/v̂|y]^α."""
    once, twice = (inverse_square(y, weights, n, k) for k in (1, 2))
    level = float(np.vdot(weights, np.square(y)))
    wanted = float(np.vdot(weights, np.square(np.square(y) / level) * twice))

    def bent(power: float) -> Array:
        out = np.square(y) * once**power
        return out / float(np.vdot(weights, out))

    low, high = 0.0, 1.0  # E x̂⁴ falls with the power
    for _ in range(20):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if float(np.vdot(weights, np.square(bent(middle)))) > wanted else (low, middle)
    out: Array = np.sign(y) * np.sqrt(q * bent(low))
    if not centre:
        return out
    out = out - float(np.vdot(weights, out))
    return out * (q / float(np.vdot(weights, np.square(out)))) ** 0.5


def passed_back(met: Array, y: Array, hat: Array, weights: Array, n: int) -> Array:
    """E y²·E[dy²|y_j] in units of E b².

    Args:
        met: φ, what the gradient has met, on the nodes.
        y: Values in front of the norm, around the mean that it takes away.
        hat: x̂ on the nodes, of mean square 1.
        weights: Of the nodes.
        n: Entries of the group.
    """
    passed, share = np.square(met), np.square(y) / (n * float(np.vdot(weights, np.square(y))))
    once, twice, thrice = (share ** (k - 1) * inverse_square(y, weights, n, k) for k in (1, 2, 3))
    along = float(np.vdot(weights, passed * np.square(hat))) / n
    out = passed * (once - 2.0 * twice + thrice) + n * along * (twice - thrice)
    out = np.maximum(out, 0.0)  # E (1 - s)²: far out in a tail differences of the three are rounding errors
    level = max(float(np.vdot(weights, passed)) - along, 0.0) * float(np.vdot(weights, once))
    return out * (level / max(float(np.vdot(weights, out)), 1e-300))


def on_nodes(
    grad: Cotangent, back: Signal, out: Signal, x: Signal, n: int, *, centre: bool, known: bool
) -> Cotangent | None:
    """The gradient in front of the norm of a function of a source, as what it is on the nodes times the rest.

    What it has met behind the norm it has met where x is large, and the slope of x comes next. None where that is not
    one factor on this source.

    Args:
        grad: The gradient behind the norm.
        back: In front of it, as a signal.
        out: The normalised tensor.
        x: The tensor.
        n: Entries of a group.
        centre: Whether the group's mean goes.
        known: Whether it is known how far the gradient goes along the tensor, and so how much of it is left.
    """
    source = x.source
    if source is None or x.values is None or out.source is None or out.values is None or out.source.key != source.key:
        return None
    if grad.rest or grad.stray is not None or x.q.size > 1 or back.atoms != x.atoms:
        return None
    met, level = np.ones_like(x.values), whole(grad).mean_q
    if grad.values is not None and grad.source is not None:
        if grad.source.key != source.key:
            return None
        met, level = on_grid(grad.values, grad.source, source), grad.base.mean_q
    hat = on_grid(out.values, out.source, source)
    y = x.values - (source.average(x.values) if centre else 0.0)
    passed = passed_back(met, y, hat / source.average(np.square(hat)) ** 0.5, weights_of(source), n)
    total = source.average(passed)
    if not 0.0 < total < np.inf:
        return None
    profile = np.sqrt(passed / total)
    corr = np.clip(back.corr / np.maximum(from_values(x, source, profile).corr, 1e-3), -1.0, 1.0)
    q = back.q
    if not known or grad.values is not None:  # sites of one variance V, log-normal, have (1 + τ²)/E V for E 1/V
        more = level * total * (1.0 + max(x.scatter, 0.0)) / source.average(np.square(y))
        q = q * (more / max(back.mean_q, 1e-300))
    return Cotangent(replace(back, q=q, corr=corr, terms=(), ident=next_id()), source, profile, x)


def over_places(grad: Cotangent, back: Signal, x: Signal) -> Cotangent | None:
    """The gradient in front of a batch norm over many places, with what it has met behind it as a factor on x's source.

    Of many entries none counts in what it is divided by, and a mask or slope of a function of x̂ stays where it is: the
    gradient is large where x̂ is, and that is where the slope of x is large again. None where nothing has been met.
    """
    source = x.source
    if source is None or x.values is None or back.atoms != x.atoms:
        return None
    square, level = np.zeros_like(x.values), 0.0
    for p in parts_of(grad):
        q, met = whole(p).mean_q, np.ones_like(x.values)
        if p.source is not None and p.values is not None and p.source.key == source.key:
            met = np.square(on_grid(p.values, p.source, source))
        square, level = square + q * met / max(source.average(met), 1e-300), level + q
    own = (square @ source.grid.weights)[:, None]  # what rows differ in stands in the gradient's field
    if level <= 0.0 or float(np.ptp(square - own)) <= _LITTLE * level:
        return None
    profile = np.sqrt(square / np.maximum(own, 1e-300))
    pairs = fit_states(from_values(x, source, profile).corr, back.corr.shape)
    corr = np.clip(back.corr / np.maximum(pairs, 1e-3), -1.0, 1.0)
    return Cotangent(replace(back, corr=corr, terms=(), ident=next_id()), source, profile, x)
