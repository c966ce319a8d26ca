"""Gradients at right angles to what they are the gradient of, site by site (selective state spaces in front of a norm).

Behind a norm Σ g·x = 0 at every site, and of a sum x = a + b the gradient has E (g·a)² = |g|²·|a|²·ρ/n, ρ = V_b/V_x
(`rules.gradients.along`, there in the mean). Linear maps and gates hand that on. Where V_a scatters by orders of
magnitude, so does ρ, and just where a is long, and what comes back through it large, ρ is small.

In y_c = Σ_n h_cn C_n, with h_cn = a_c·B_n but for what is older, the gradients of C and B are B·(g·a) and C·(g·a).
Behind the sum z = y + x, in which a goes along x, a is near the direction of z, with a cosine c that the law of cosines
gives (`Sites.together`), and of g·a there is left |g|²·|a|²·(1 - c²·(1 - ρ))/n.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from firstlight.graph.signal import Array
from firstlight.graph.sites import Sites
from firstlight.rules.state.lengths import ALONE, levels, terms_of

Field = NDArray[np.float32]


def of_term(g: Sites | None, known: float | None, out: Sites | None, term: Sites | None) -> Sites | None:
    """The recipe of the gradient of one term of a heavy sum; None where nothing is known of its angle.

    Args:
        g: Recipe of the sum's gradient.
        known: E (Σ g·z)² of the sum z over that of independent g and z; None where it is not known.
        out: Recipe of the sum.
        term: Recipe of the term.
    """
    if g is None or out is None or term is None or not (g.heavy and out.heavy) or len(out.of) != 2:
        return None
    if out.together > 0.0:
        rho = known if g.across is None else g.across
        return None if rho is None else dataclasses.replace(g, left=_left(out, rho))
    mine = next((i for i, s in enumerate(out.of) if s is term), None)
    if known is None or mine is None or out.kind != "sum":
        return None
    parts = terms_of(out)
    rho = (known * parts[mine] + parts[1 - mine]) / np.maximum(parts[0] + parts[1], 1e-30)
    return dataclasses.replace(g, across=rho.astype(np.float32))


def _left(z: Sites, rho: Field | float) -> Field:
    """1 - c²·(1 - ρ), c the cosine between z = y + x and the part of y that goes along x."""
    along, other, sign, total = terms_of(z, angle=True)
    cosine = np.sqrt(along) + sign * np.sqrt(z.together * other)
    square = np.clip(np.square(cosine) / np.maximum(total, 1e-30), 0.0, 1.0)
    return (1.0 - square * (1.0 - rho)).astype(np.float32)


def through(made: Sites, of: tuple[Sites, ...], weights: bool = False) -> None:
    """Hand on what the recipe of a gradient knows, behind a map of weights or a product with another tensor."""
    known = [s for s in of if s.across is not None or s.left is not None]
    if len(known) == 1:
        made.across, made.left = known[0].across, None if weights else known[0].left


def gathered(made: Sites, of: tuple[Sites, ...], shares: Sequence[Array], disjoint: bool) -> None:
    """The same of a sum of gradients: of places side by side each its own, of one place its newest."""
    known = [s for s in of if s.left is not None]
    if not known:
        return
    if not disjoint:
        made.left = known[-1].left if len(known) == 1 or of[-1].left is None else of[-1].left
        return
    rows = np.ones((max(w.size for w in shares), 1), dtype=np.float32)
    for w, s in zip(shares, of, strict=True):
        if s.left is not None:
            mine = w.reshape(-1, 1) > 0.5
            rows = np.where(mine, s.left if len(s.left) in (1, len(rows)) else s.left.mean(axis=0, keepdims=True), rows)
    made.left = rows.astype(np.float32)


def inner(x: Sites) -> Array:
    """What a sum Σ_c over the units of a gradient times its tensor is, against units that are independent."""
    if x.left is None or not x.heavy:
        return ALONE
    v, apart = levels(x), np.reshape(x.apart, (-1, 1))
    if len(apart) not in (1, len(v)):
        apart = apart.mean(keepdims=True)
    return (v * (apart + (1.0 - apart) * x.left)).mean(axis=1)
