"""Sequences of tokens drawn with a signal's statistics, and the statistics of what is made of them.

Assumes: features are independent and have one law; positions are exchangeable, so that what varies along them counts
with its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from firstlight.graph.signal import Array, Signal, Source
from firstlight.rules.chains.source import central
from firstlight.rules.state.layout import promote

_ALONE = 2e-3  # E c² of two tokens' straying correlations that changes nothing

Shape = tuple[int, int, int]  # sequences, positions, features
Place = tuple[int, ...] | None  # in the cube of the axes in front of positions; None for one set of sequences alone


@dataclass(frozen=True, slots=True)
class Law:
    """Tokens of one kind: x = f(u) of independent features, u exchangeable along positions.

    Attributes:
        mean: Of u.
        sd: Of u.
        corr: Of u, centred: a cube whose last two axes are positions and features.
        latent: Dimensions of the tokens in front of the last random map, by which products of two stray; 0 for many.
        kept: Share that is left of the relative deviation of a token's |u|²; 0 for tokens of one length.
        scatter: Relative variance of the variance of u from token to token, beside what its features bring.
        function: (u, f) on nodes; None for x = u.
    """

    mean: float
    sd: float
    corr: Array
    latent: int = 0
    kept: float = 1.0
    scatter: float = 0.0
    function: tuple[Array, Array] | None = None

    def entries(self, z: Array, longer: Array) -> Array:
        """Tokens from exchangeable normal numbers, shape (…, positions, features), and one for each token's length."""
        u = self.sd * z
        if self.kept < 1.0:
            length = np.square(z).mean(axis=-1, keepdims=True)
            u *= np.power(np.maximum(length, 1e-300), 0.5 * (self.kept - 1.0))
        if self.scatter > 0.0:
            third = self.scatter / 9.0  # a gamma law by Wilson and Hilferty's cube root, which is normal
            u *= np.power(np.maximum(1.0 - third + third**0.5 * longer, 0.0), 1.5)
        u += self.mean
        return u if self.function is None else np.interp(u, *self.function)


def law(x: Signal) -> Law:
    """The law of a signal whose positions and features are one atom each."""
    source = x.source
    if source is not None and x.values is not None and len(x.values) == 1:
        chain = (source.values[0], x.values[0])
        return Law(float(source.mean[0]), float(source.sd[0]), source.corr, *_lengths(source, x.shape[-1]), chain)
    mean = float(np.square(x.mean).mean()) ** 0.5
    sd = max(x.mean_q - mean * mean, 0.0) ** 0.5
    return Law(mean, sd, central(x)[1], *_lengths(x, x.shape[-1]))


def _lengths(x: Signal | Source, features: int) -> tuple[int, float, float]:
    """Dimensions, and what is kept and added of how tokens' lengths scatter; a negative scatter is a norm's."""
    latent = max(round(1.0 / x.wander), 2) if x.wander > _ALONE else 0
    if x.scatter < 0.0:
        return latent, max(1.0 + 0.5 * features * x.scatter, 0.0) ** 0.5, 0.0
    return latent, 1.0, x.scatter if x.scatter > 1e-3 else 0.0


class _Front(NamedTuple):
    """Sequences in front of the last random map, and a normal number for the length of each token."""

    tokens: list[Array]
    longer: list[Array]


def _exchangeable(rng: np.random.Generator, shape: Shape, own: float, other: float) -> Array:
    """Normal numbers with a variance and a covariance along the middle axis."""
    z = rng.standard_normal(shape)
    middle = z.mean(axis=1, keepdims=True)
    level = max(own + (shape[1] - 1.0) * other, 0.0) ** 0.5
    return max(own - other, 0.0) ** 0.5 * (z - middle) + level * middle


def _front(of: Law, rng: np.random.Generator, shape: Shape, at: Place) -> _Front:
    other = float(of.corr[(*(0,) * (of.corr.ndim - 2), 1, 0)])
    size = (*shape[:2], of.latent or shape[2])
    longer = [rng.standard_normal((*shape[:2], 1)) for _ in range(1 if at is None else 2)]
    if at is None:
        return _Front([_exchangeable(rng, size, 1.0, other)], longer)
    near, far = float(of.corr[(*at, 0, 0)]), float(of.corr[(*at, 1, 0)])
    plus = _exchangeable(rng, size, 1.0 + near, other + far)
    minus = _exchangeable(rng, size, 1.0 - near, other - far)
    return _Front([(plus + minus) * 0.5**0.5, (plus - minus) * 0.5**0.5], longer)


def _mapped(of: Law, front: _Front, rng: np.random.Generator, features: int) -> tuple[Array, ...]:
    """Tokens; of few dimensions, behind one random map: their products stray, their variance does not."""
    z = front.tokens
    if of.latent:
        w = rng.standard_normal((len(z[0]), of.latent, features))
        z = [(a / np.sqrt(np.square(a).sum(axis=2, keepdims=True))) @ w for a in z]
    return tuple(of.entries(a, longer) for a, longer in zip(z, front.longer, strict=True))


def drawn(of: Law, rng: np.random.Generator, shape: Shape, at: Place = None) -> tuple[Array, ...]:
    """Sequences, and for a place in the cube of the leading axes their partners there."""
    return _mapped(of, _front(of, rng, shape, at), rng, shape[2])


def beside(
    one: Law, other: Law, rng: np.random.Generator, shapes: tuple[Shape, Shape], at: Place = None
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Two maps of one set of sequences, where both are in as few dimensions: like tokens are alike in both."""
    front = _front(one, rng, shapes[0], at)
    first = _mapped(one, front, rng, shapes[0][2])
    if one.latent and one.latent == other.latent:
        return first, _mapped(other, front, rng, shapes[1][2])
    return first, drawn(other, rng, shapes[1], at)


def pair(a: Array, b: Array) -> Array:
    """Mean products of the entries of two sets of tokens: (same, another position) × (same, another feature)."""
    _, n, d = a.shape
    at = float(np.einsum("cnd,cnd->", a, b))
    position = float(np.einsum("cd,cd->", a.sum(axis=1), b.sum(axis=1)))
    feature = float(np.einsum("cn,cn->", a.sum(axis=2), b.sum(axis=2)))
    both = float(a.sum(axis=(1, 2)) @ b.sum(axis=(1, 2)))
    found = np.array([[at, feature - at], [position - at, both - feature - position + at]])
    return found / (a.size * np.array([[1.0, d - 1.0], [n - 1.0, (n - 1.0) * (d - 1.0)]]))


def cube(states: tuple[int, ...], made: Callable[[Place], tuple[Array, ...]]) -> tuple[Array, Array]:
    """Mean products at each index of a cube (positions and features last), and the first set itself.

    Args:
        states: Shape of the cube.
        made: What is made of sequences, and of their partners at a place.
    """
    first = made(None)[0]
    out = np.empty((*states[:-2], 2, 2))
    for at in product(*(range(s) for s in states[:-2])):
        out[at] = pair(*made(at)) if any(at) else pair(first, first)
    return promote(out, states), first


def scattered(x: Array) -> tuple[float, float]:
    """Relative variance of a token's |x|², and of the variance of a Gaussian mixture with it (`Signal.scatter`)."""
    lengths = np.square(x).mean(axis=2)
    relative = float(lengths.var() / max(float(lengths.mean()) ** 2, 1e-300))
    own = 2.0 / x.shape[2]
    return relative, max((relative - own) / (1.0 + own), 0.0)
