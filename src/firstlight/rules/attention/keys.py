"""Means over keys with the weights of a softmax: what keys have in common, and what like keys do to each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace as replaced
from math import prod

import numpy as np

from firstlight.graph.keyed import PLAIN, Keyed
from firstlight.graph.signal import Array, Signal, replace
from firstlight.rules.attention.turning import out_of_step
from firstlight.rules.state.layout import axis_atoms, moments
from firstlight.rules.state.noise import sample_correlation


def is_weights(p: Signal) -> bool:
    """Whether a tensor is the weights of a softmax; the gradient of its logits has its tag, too, but no mean."""
    return p.tag is not None and p.tag[0] == "softmax" and bool(p.mean.any())


def shared(x: Signal, w: Signal) -> float:
    """Correlation of w between two different keys, which are x's last axis."""
    at = len(x.groups[-1])
    for axis, group in enumerate(w.groups):
        if group == x.groups[-1] and at:
            first = sum(len(g) for g in w.groups[:axis])
            return float(w.corr[tuple(1 if first <= i < first + at else 0 for i in range(w.corr.ndim))])
    return 0.0


def in_step(p: Signal, w: Signal) -> float:
    """Share of what correlations stray by that is left of a mean over keys with the weights p: Σp² + (1 - Σp²)·c²."""
    share = min(p.mean_q * p.shape[-1], 1.0)
    return share + (1.0 - share) * shared(p, w) ** 2


def straying(x: Signal) -> float:
    """1/(dimensions in which tokens differ): each layer of n units adds 1/n to it, and (1 + 2φ)/n to `wander`.

    φ is the mean c² of samples: what they have in common makes their products stray further. Between the keys of one
    query what is common plays no part. φ has grown with `wander`, from 0: the mean of 1/(1 + 2φ) is ln(1 + 2φ)/2φ.
    """
    square = sample_correlation(x) ** 2
    twice = 2.0 * (square + x.wander * (1.0 - square))
    return min(x.wander * (math.log1p(twice) / twice if twice > 1e-9 else 1.0), 0.5)


def uncommon(out: Signal, p: Signal, w: Signal) -> float:
    """Share of a weighted mean's energy that depends on the weights p, Σ p = 1: what keys have in common does not."""
    level = out.mean_q
    return float(np.clip(1.0 - max(shared(p, w), 0.0) * w.mean_q / level, 0.0, 1.0)) if level > 0.0 else 1.0


def split_of_rows(p: Signal, values: Signal) -> tuple[float, float] | None:
    """`Signal.split` of a mean over keys with the weights p, None if that of the values is not known.

    What Σ p_j p_k v_j·v_k scatters by from row to row has the lengths of tokens in it (`straying.straying`).
    A sample that is longer as a whole by a factor s has logits of s² the variance, and so s·s^2γ the energy,
    γ = d ln Σp²/d ln v.
    """
    if values.split is None or p.keyed is None:
        return None
    return values.split[0] * (1.0 + 2.0 * p.keyed.growth) ** 2, max(p.scatter, 0.0)


def at_keys(dl: Signal, left: str, queries: Signal, summed: Sequence[str]) -> float:
    """Factor of the keys' gradients Σ_t dℓ_tj q_t, over that of queries independent of the weights of their rows.

    Of two rows' Σ_{t≠t'} dℓ_tj dℓ_t'j q_t·q_t' only what all queries have in common is there without it: queries that
    are alike by chance pull like keys, so that rows which get one gradient (in front of a mean over positions) add up.

    Args:
        dl: The logits' gradient.
        left: A letter for each of its axes.
        queries: The queries.
        summed: Letters that are summed over, those of the rows.
    """
    keyed = dl.keyed
    if keyed is None:
        return 1.0
    rows = [a for i, letter in enumerate(left) if letter in summed for a in axis_atoms(dl, i)]
    others = moments(dl)[tuple(1 if a in rows and dl.corr.shape[a] > 1 else 0 for a in range(dl.corr.ndim))]
    pairs = float(others) * (prod(dl.atoms[a] for a in rows) - 1.0)
    common = _common_of_places(queries)
    return keyed.rows + keyed.together * (1.0 - common) * pairs / max(1.0 + pairs * common, 0.1)


def _common_of_places(x: Signal) -> float:
    """Correlation of two positions, the last axis but one."""
    atoms = axis_atoms(x, x.ndim - 2)
    return float(x.corr[tuple(1 if a in atoms else 0 for a in range(x.corr.ndim))])


def asked(x: Signal, left: str, y: Signal, right: str, out: str, atoms: Mapping[str, tuple[int, ...]]) -> Keyed | None:
    """How alike queries are, for a product x·y that has the layout of logits: the last axis is that of y's (x's) keys.

    Args:
        x: First operand, laid out by the letters of the result and then those that are summed.
        left: Its letters.
        y: Second operand, likewise.
        right: Its letters.
        out: Letters of the result.
        atoms: Of each letter.
    """
    if len(out) < 2 or (out[-1] in left) == (out[-1] in right) or len(set(left) | set(right)) != len(out) + 1:
        return None
    queries, mine = (x, left) if out[-1] in right else (y, right)
    if out[-2] not in mine:
        return None
    first = sum(len(atoms[a]) for a in out[:-1])
    keys = len(atoms[out[-1]])
    corr = queries.corr[(..., *(slice(0, 1),) * keys, *(0,) * (queries.corr.ndim - first - keys))]
    return replaced(PLAIN, queries=corr)


def alike_rows(p: Signal, left: str, out: Signal, letters: str) -> float | Array:
    """How alike the queries of two sites of a mean over keys are, a cube over its atoms; 0 where that is not known."""
    cube = None if p.keyed is None else p.keyed.queries
    if cube is None or cube.shape != np.take(p.corr, [0], axis=-1).shape or len(p.groups[-1]) != 1:
        return 0.0
    cube, order, shape = np.take(cube, 0, axis=-1), list[int](), list[int]()
    for i, letter in enumerate(letters):
        here = axis_atoms(out, i)
        if letter in left:
            order += axis_atoms(p, left.index(letter))
            shape += [cube.shape[a] for a in axis_atoms(p, left.index(letter))]
        else:
            shape += [1] * len(here)
    if len(shape) != out.corr.ndim or sorted(order) != list(range(cube.ndim)):
        return 0.0
    cube = np.transpose(cube, order).reshape(shape)
    found = np.zeros(out.corr.shape)
    here = tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)
    if found[here].shape != cube.shape:
        return 0.0
    found[here] = cube
    return found


def coherent(out: Signal, extra: float, x: Signal, w: Signal, like: float | Array = 0.0) -> Signal:
    """A mean over keys, weighted by a softmax that follows their random correlations (`straying.straying`).

    Attention adds Σ_{j≠k} p_j p_k c_jk to Σ p², both times what the values have not in common; the gradient of the
    queries is a sum over keys of |dℓ|²-times as much. To first order in the logits what attention adds is the
    covariance of the tokens times the query, mapped as keys are: it pulls the outputs of two rows, of one sample or of
    two, in one direction as far as their queries have one, E Σ p_j p'_k c_jk = ρ·E Σ p_j p_k c_jk. What the gradient
    of the queries gains belongs to one site alone.

    Args:
        out: The mean without that.
        extra: Σ_{j≠k} p_j p_k c_jk, or the gain of a gradient.
        x: The weights, or the gradient of their logits.
        w: Values, or keys.
        like: ρ, a cube over the atoms of the mean.
    """
    common = shared(x, w)
    gradient = not x.mean.any()
    turned = (1.0 + extra) * out_of_step(out, x.keyed)
    q = out.q * turned if gradient else out.q + extra * max(1.0 - common, 0.0) * w.mean_q
    level, grown = out.mean_q, float(q.mean())
    if level <= 0.0 or grown <= 0.0:
        return out
    corr = out.corr * (level / grown)
    if not gradient:
        corr = np.clip(corr + like * (1.0 - level / grown), -1.0, 1.0)
    corr[(0,) * corr.ndim] = 1.0
    return replace(out, q=q, corr=corr)
