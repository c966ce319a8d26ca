"""Where the largest entry of an image lies, right behind a convolution with zeros around its image.

y_s = Σ_t w_t x_ts over the taps t of a window with independent weights: what x has in common over the places, c, makes
√c·Σ_t T_t of the taps that lie inside, T_t one number a channel. Where the missing ones are negative, all places of a
border are larger than those inside, the more surely the more alike the places are. Of one axis, c = 1 and three taps
the ends have the largest entry in three channels of four, and windows there read, and send back, a third less.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from math import prod

import numpy as np

from firstlight.graph.signal import Array, Signal
from firstlight.rules.convolutions.borders import known
from firstlight.rules.state.layout import state_weights
from firstlight.theory import special

_KINDS = 64  # kinds of places that are told apart
_SAMPLED = 8192  # channels that one sampled expectation takes


def share(x: Signal, atoms: Sequence[int]) -> Array | None:
    """Chance of each place of a convolution's output to have the largest entry of all, over the mean one; a field.

    None where zeros around the image are not known to make places unlike.

    Args:
        x: The output.
        atoms: Those of its places.
    """
    b = known(x)
    if b is None or set(b.windows) != set(atoms):
        return None
    order = sorted(atoms)
    found = [np.unique(np.round(b.windows[i], 2), axis=0, return_inverse=True) for i in order]
    if not 1 < prod(len(kinds) for kinds, _ in found) <= _KINDS:
        return None
    common, places = b.corr, prod(x.atoms[i] for i in order)
    for i, states in enumerate(b.corr.shape):
        w = state_weights(x.atoms[i], states) / x.atoms[i] if i in order else np.eye(1, states)[0]
        common = (common * w.reshape((1,) * i + (-1,) + (1,) * (common.ndim - i - 1))).sum(axis=i, keepdims=True)
    c = min(max((float(common.sum()) * places - 1.0) / max(places - 1.0, 1.0), 0.0), 1.0)
    index = [place.ravel() for _, place in found]
    windows = np.array(
        [functools.reduce(np.multiply.outer, w).ravel() for w in itertools.product(*(f[0] for f in found))]
    )
    sizes = functools.reduce(np.multiply.outer, [np.bincount(place) for place in index]).ravel()
    chance = _chances(windows.tobytes(), tuple(sizes.tolist()), float(f"{c:.3f}"))
    field = (np.array(chance) / sizes * places).reshape([len(kinds) for kinds, _ in found])[np.ix_(*index)]
    shape = [1] * len(x.atoms)
    for i, n in zip(order, field.shape, strict=True):
        shape[i] = n
    return field.reshape(shape)


@functools.lru_cache(maxsize=64)
def _chances(windows: bytes, sizes: tuple[int, ...], c: float) -> tuple[float, ...]:
    """Chance of each kind of places to have the largest entry, sampled with a fixed seed.

    Args:
        windows: What each tap reads, shape (kinds, taps).
        sizes: Places of each kind.
        c: What places have in common.
    """
    w = np.frombuffer(windows).reshape(len(sizes), -1)
    rng = np.random.default_rng(len(sizes))
    common = rng.standard_normal((_SAMPLED, w.shape[1])) @ w.T
    # the largest of n normals is Φ⁻¹(U^(1/n))
    own = special.ndtri(rng.random((_SAMPLED, len(sizes))) ** (1.0 / np.array(sizes))) * np.sqrt(
        np.square(w).sum(axis=1)
    )
    first = np.argmax(c**0.5 * common + (1.0 - c) ** 0.5 * own, axis=1)
    return tuple((np.bincount(first, minlength=len(sizes)) / _SAMPLED).tolist())
