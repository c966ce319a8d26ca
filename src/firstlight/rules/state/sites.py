"""The mean square of a site under products, sums and norms: tensors with a common ancestor are long together.

Of two factors made from one tensor E (xy)² is not E x²·E y²: where the ancestor is long, both are. Site by site, with
the mean squares V over the units, the units themselves are independent, and E (xy)² = E V_x V_y. So a tensor carries
the recipe of its V (`graph.sites`): a map of independent weights onto n units has V' = V·χ²_n/n, a pointwise function
V^s with the sensitivity s and what its units add, a sum its shares, a product V_x·V_y and Σx²y²·n/(Σx²·Σy²) over the
units. It is worked out at sampled sites (`rules.state.lengths`).

**Inner products of two activations** (selective state spaces, y_c = Σ_n h_cn C_n with h_cn = a_c·B_n): all units c of a
site share the one number B·C, so that V_y = V_a·(B·C)²: n·cos² of two directions in n dimensions times both lengths.
That is the square of a number around zero. V scatters by orders of magnitude, and a norm behind divides by it: E 1/V is
no 1/E V, and the gradient behind is large just where the tensor is short. And where a goes along a tensor x with the
cosine κ, so does y, with the sign of B·C: of x + y, V = V_x + V_y ± 2κ√(V_x V_y) comes near zero.

Factors E V_x V_y are taken where such a product is met or stands behind; elsewhere the noises of log-norms say as much.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstlight.graph.signal import Array, Signal, Source, Weights, next_id, replace
from firstlight.graph.sites import Sites, Units
from firstlight.rules.gradients import across
from firstlight.rules.state.layout import axis_atoms, correlations, moments
from firstlight.rules.state.lengths import ALONE, PLACES, at_places, levels, of_entries, scatter, seed, times, together
from firstlight.theory import special

_UNITS = 512  # units of a site beyond which products are even
_FACTORS = 4  # of the units of a tensor that are told apart
_ALONE = 1e-6  # of a place's mean square: of another place
_ROWS = 8  # vectors that are told apart as factors of a tensor: a loop that multiplies has twice as many at each turn
_DEEP = 200  # recipes below one; then it starts anew


def _recipe(kind: str, of: Sequence[Sites], weights: Sequence[float | Array], start: int, units: int = 0) -> Sites:
    """A recipe from others; one that has become too long starts anew."""
    depth, heavy, places, alike = 0, False, 1, True
    for k in of:
        depth, heavy = max(depth, k.depth), heavy or k.heavy
        if k.places != 1:
            alike = alike and places in (1, k.places)
            places = k.places
    depth += 1
    if depth > _DEEP:
        of, weights, depth, places = (), (), 0, 1
    if not alike:  # places of different kinds
        of, weights, places = (), (), 1
    return Sites(kind, tuple(of), tuple(weights), seed=start, units=units, depth=depth, heavy=heavy, places=places)


def behind_weights(x: Sites | None, name: str, units: int) -> Sites:
    """V' = V·χ²_n/n behind independent weights of a name onto n units."""
    start = seed(name, x.seed if x is not None else 0)
    out = _recipe("product", () if x is None else (x,), () if x is None else (1.0,), start, units)
    out.own = 2.0 / max(units, 1)
    out.factors = (Units(start),)
    across.through(out, out.of, weights=True)
    return out


def of_row(weights: Weights | None, mean: float, units: int) -> Sites | None:
    """V of a row of independent weights around zero, relative variance (κ - 1)/n: a look-up, a bias; None where not."""
    if weights is None or mean != 0.0 or weights.structure == "constant" or units < 1:
        return None
    start = seed(weights.name)
    return Sites(own=(weights.kurtosis - 1.0) / units, seed=start, units=units, factors=(Units(start),))


def behind_function(source: Source, values: Array, sensitivity: float, total: float) -> Sites | None:
    """V' = V^s for a function of a source, times what its units have beside that.

    Args:
        source: Of u.
        values: f(u) on its nodes.
        sensitivity: s = d ln E f²/d ln E u².
        total: E f².
    """
    u = source.sites
    if u is None or not total > 0.0:
        return None
    out = _recipe("product", (u,), (sensitivity,), seed("f", u.seed), u.units)
    if u.units:
        out.own = -1.0  # worked out where it is needed
        out.factors = (Units(out.seed, values, source.share, source.grid.weights),)
        out.inner = Units(u.seed, source.values, source.share, source.grid.weights)
    return out


def of_product(x: Signal, y: Signal) -> tuple[Sites | None, Array]:
    """The recipe of x·y, and E (xy)²/(E x²·E y²) at each place."""
    one, two = x.sites, y.sites
    known = x.weights or y.weights or x.value is not None or y.value is not None
    if one is None or two is None or known:
        return (one or two), ALONE
    wide = one if one.units >= two.units else two
    row, factors, own = tuple(sorted(one.row + two.row)), wide.factors, list[Sites]()
    flat, toward = 0.0, one.toward if one.toward[1] else two.toward
    if _is_outer(x, y):  # units times a few numbers a site
        many, few = (x, y) if x.numel > y.numel else (y, x)
        assert few.sites is not None
        assert many.sites is not None
        wide, factors = many.sites, many.sites.factors
        row = tuple(sorted((*row, (few.sites.seed, _entries_beside(few, many), _common(few)))))
        flat = _common(many)
        toward = (many.sites.seed, 1.0, 0)  # units go along that tensor
    elif one.row and _is_row(x, y, one.row[0][1]):
        row = tuple(sorted((*row, (two.seed, one.row[0][1], _common(y)))))
    elif two.row and _is_row(y, x, two.row[0][1]):
        row = tuple(sorted((*row, (one.seed, two.row[0][1], _common(x)))))
    elif one.flat > 0.0 and not two.row:
        toward, factors = (two.seed, one.flat, 0), two.factors
    elif two.flat > 0.0 and not one.row:
        toward, factors = (one.seed, two.flat, 0), one.factors
    elif two.flat > 0.0 and one.row and one.toward[1]:
        toward, factors = (one.toward[0], one.toward[1] * two.flat, 0), one.factors
    elif one.flat > 0.0 and two.row and two.toward[1]:
        toward, factors = (two.toward[0], two.toward[1] * one.flat, 0), two.factors
    elif one.units == two.units and one.units:
        own, factors = _uneven(one, two), one.factors + two.factors
    of = (one, two, *own)
    out = _recipe("product", of, (1.0,) * len(of), seed(one.seed, two.seed), wide.units)
    out.factors, out.row, out.flat, out.toward = factors[:_FACTORS], row[:_ROWS], flat, toward
    out.apart = one.apart if one.toward[1] or one.flat else two.apart
    across.through(out, (one, two))
    return out, together(of) if out.heavy or row else ALONE


def _common(x: Signal) -> float:
    """(E x)²/E x²."""
    return min(x.mean_mean**2 / x.mean_q, 1.0) if x.mean_q > 0.0 else 0.0


def _is_outer(x: Signal, y: Signal) -> bool:
    """Whether each of two factors has an axis that the other has not."""
    if x.groups == y.groups:
        return False
    pairs = {(bool(a), bool(b)) for a, b in zip(x.groups[::-1], y.groups[::-1], strict=False)}
    return {(True, False), (False, True)} <= pairs


def _entries_beside(few: Signal, many: Signal) -> int:
    """Entries of the axis that one operand of an outer product has and the other has not."""
    rank = min(few.ndim, many.ndim)
    return max(few.shape[-k] for k in range(1, rank + 1) if few.groups[-k] and not many.groups[-k])


def _is_row(x: Signal, y: Signal, entries: int) -> bool:
    """Whether y has one number for each of so many entries, the same for all units of x."""
    mine = [n for k, n in enumerate(y.shape) if not any(y.batch[a] for a in axis_atoms(y, k))]
    return entries in mine and any(a and not b for a, b in zip(x.groups[::-1], y.groups[::-1], strict=False))


def _uneven(x: Sites, y: Sites) -> list[Sites]:
    """What the mean of x²y² over the units has beside V_x V_y, for each pair of factors."""
    if x.units > _UNITS:
        return []
    pairs = [(a, b) if a.seed < b.seed else (b, a) for a in x.factors for b in y.factors if a.seed != b.seed]
    return [Sites(own=1.0, pair=p, seed=seed(p[0].seed, p[1].seed), units=x.units) for p in pairs]


def summed(x: Sites, entries: int) -> tuple[Sites, Array]:
    """The recipe of a sum over so many entries of a site, and what it changes of E at each place.

    Σ_n a·B_n·C_n of an outer product is a·(B·C): all units share n·cos² of two directions in n dimensions, of which
    E is 1 and E n²cos⁴ is 3n/(n + 2). Where both have means, s of E cos² is there at every site: (√s + √(1-s)·√n·cos)².
    """
    if not x.row or x.row[0][1] != entries:
        return x, across.inner(x)
    of, both, toward = (x,), ALONE, x.toward
    if len(x.row) == 2 and x.row[0] != x.row[1] and x.row[1][1] == entries:
        s = _kept(entries, x.row[0][2], x.row[1][2])
        own = s * s + 6.0 * s * (1.0 - s) + 3.0 * (1.0 - s) ** 2 * entries / (entries + 2.0) - 1.0
        numbers = Sites(own=own, angle=entries, common=s, seed=seed(x.row), heavy=s < 0.5)
        of = (x, numbers)
        toward = (*x.toward[:2], numbers.seed) if s < 0.5 else (0, 0.0, 0)  # of either sign, or mostly of one
        both = together(of)
    out = _recipe("product", of, (1.0,) * len(of), seed(x.seed, len(of)), x.units)
    out.factors, out.toward, out.apart = x.factors, toward, x.apart
    return out, both


def _kept(n: int, one: float, other: float) -> float:
    """Share of E cos² of two directions in n dimensions that is the square of their mean cosine.

    A vector with the share f of its mean square in its mean entry has F = f + (1 - f)/n along the diagonal, where its
    cosine scatters by (1 - f)³/n (to first order, with the length that goes along), and the rest in n - 1 dimensions.
    """
    along = [f + (1.0 - f) / n for f in (one, other)]
    still = [a - (1.0 - f) ** 3 / n for a, f in zip(along, (one, other), strict=True)]
    square = along[0] * along[1] + (1.0 - along[0]) * (1.0 - along[1]) / max(n - 1, 1)
    return min(max(still[0] * still[1] / square, 0.0), 1.0)


def of_contraction(x: Signal, left: str, y: Signal, right: str, out: str) -> tuple[Sites | None, Array]:
    """The recipe of einsum("left,right->out") of two activations at the same sites, and E against independence.

    None where the sums are no inner products of an outer product and one vector a site, or where both have sites of
    their own (queries and keys).
    """
    if x.sites is None or y.sites is None or not (any(x.batch) and any(y.batch)):
        return None, ALONE
    sizes = {**dict(zip(right, y.shape, strict=True)), **dict(zip(left, x.shape, strict=True))}
    gone = [a for a in left if a in right and a not in out]
    apart = [max([sizes[a] for a in p if a not in q], default=1) for p, q in ((left, right), (right, left))]
    entries = max([sizes[a] for a in gone], default=1)
    if len(gone) > 1 or (min(apart) > 1 and entries > 1) or not (x.sites.row or x.sites.heavy):
        return None, ALONE
    order = [*out, *gone]
    made, both = of_product(_laid_out(x, left, order), _laid_out(y, right, order))
    if made is None or entries == 1:
        return made, both
    made, more = summed(made, entries)
    return made, both if more is ALONE else both * more


def _laid_out(x: Signal, letters: str, order: Sequence[str]) -> Signal:
    """Groups and labels of axes in the order of the letters, empty where it has none."""
    at = [letters.index(a) if a in letters else None for a in order]
    batch = [x.batch[i] for k in at if k is not None for i in axis_atoms(x, k)]
    return replace(x, groups=tuple([() if k is None else x.groups[k] for k in at]), batch=tuple(batch))


def with_sites(result: Signal, x: Signal, left: str, y: Signal, right: str, out: str) -> Signal:
    """einsum("left,right->out") with what is known of the lengths of its sites, behind weights and of activations."""
    if x.weights or y.weights:
        z, letters, matrix = (x, left, y) if y.weights else (y, right, x)
        assert matrix.weights is not None
        fresh = [a for a in out if a not in letters]
        units = result.shape[out.index(fresh[0])] if len(fresh) == 1 else 0
        return replace(result, sites=behind_weights(z.sites, matrix.weights.name, units) if units else None)
    made, both = of_contraction(x, left, y, right, out)
    if made is None:
        return result
    return replace(
        result, q=times(result.q, both), sites=made, scatter=of_entries(made) if made.heavy else result.scatter
    )


def of_two(x: Signal, y: Signal, alpha: float, both: float) -> Sites | None:
    """The recipe of x + α·y with α·E xy = `both`.

    V_x + V_y + 2√(V_x V_y)·cos: two directions in n dimensions have E cos² = 1/n, as far as they are independent.
    """
    qx, qy = x.mean_q, alpha**2 * y.mean_q
    one, two = (s.sites or of_row(s.weights, s.mean_mean, s.shape[-1] if s.ndim else 0) for s in (x, y))
    out = of_sum([(x.q, qx, one), (alpha**2 * y.q, qy, two)])
    if out is not None and out.units > 1 and len(out.of) == 2 and not (out.together > 0.0 or out.row):
        out.crossed = max(1.0 - both * both / max(qx * qy, 1e-300), 0.0) / out.units
    return out


def of_sum(parts: Sequence[tuple[Array, float, Sites | None]]) -> Sites | None:
    """The recipe of a sum of tensors from the fields and means of their mean squares: shares place by place."""
    if all(s is None for *_, s in parts):
        return None
    of = [_EVEN if s is None else s for *_, s in parts]
    first = max(parts, key=lambda part: part[1])[2] or _EVEN
    known, few = max([s.places for s in of]), {n for s in of for _, n, _ in s.row}
    shares: list[float | Array] = []
    places = known
    if any(s.heavy for s in of):
        total = np.sum(np.broadcast_arrays(*[q for q, *_ in parts]), axis=0)
        for q, *_ in parts:
            lines = [at_places(f, known, few) for f in np.broadcast_arrays(q, total)]
            share = lines[0] / np.maximum(lines[1], 1e-300)
            shares.append(share if share.size > 1 else float(share[0]))
            places = max(places, share.size)
    else:
        level = max(sum([m for _, m, _ in parts]), 1e-300)
        shares += [m / level for _, m, _ in parts]
    out = _recipe("sum", of, shares, seed(*[s.seed for s in of]), max([s.units for s in of]))
    found = [a for a in of for b in of if a is not b and a.toward[0] == b.seed and a.toward[2]]
    if found and len(out.of) == 2:
        out.together, out.toward = found[0].toward[1], (0, 0.0, found[0].toward[2])
        out.factors = min([s.factors for s in of], key=len)
    else:
        out.toward = first.toward
        out.apart = _elsewhere(shares, of, first)
        out.factors = first.factors if first.row else (Units(out.seed),)
    out.row, out.flat, out.places = first.row, first.flat, places if out.of else 1
    if out.heavy and out.of:
        lines, disjoint = _side_by_side(shares)
        across.gathered(out, out.of, list(lines), disjoint)
    return out


def _side_by_side(shares: Sequence[float | Array]) -> tuple[Array, bool]:
    """Shares at each place, shape (terms, places), and whether each place is that of one term."""
    lines = np.stack(np.broadcast_arrays(*[np.atleast_1d(w) for w in shares]))
    return lines, lines.shape[1] > 1 and bool(np.all((lines < _ALONE) | (lines > 1.0 - _ALONE)))


def _elsewhere(shares: Sequence[float | Array], of: Sequence[Sites], first: Sites) -> tuple[float, ...]:
    """Share of a sum that does not go along with its largest part, place by place."""
    if not (first.row or first.toward[1]):
        return (0.0,)
    lines, disjoint = _side_by_side(shares)
    if disjoint:
        mine = [np.asarray(s.apart) for s in of]
        mine = [a if a.size == lines.shape[1] else np.full(lines.shape[1], a.mean()) for a in mine]
        return tuple(np.sum(lines * np.stack(mine), axis=0).tolist())
    share = np.sum(np.broadcast_arrays(*[w for w, s in zip(shares, of, strict=True) if s is first]), axis=0)
    share, apart = np.atleast_1d(share), np.asarray(first.apart)
    if share.size != apart.size and min(share.size, apart.size) > 1:  # places of different kinds
        share, apart = share.mean(keepdims=True), apart.mean(keepdims=True)
    return tuple((1.0 - share * (1.0 - apart)).tolist())


def side_by_side(parts: Sequence[Sites | None]) -> Sites | None:
    """The recipe of tensors that are different sites of one."""
    of = [p for p in parts if p is not None]
    if len(of) < len(parts):
        return None
    out = _recipe("mixture", of, (), seed(*[s.seed for s in of]), of[0].units)
    out.factors, out.apart = of[0].factors, of[0].apart
    if out.heavy and out.places == 1 and len(of) <= PLACES:
        out.places, out.apart = len(of), tuple([s.apart[0] for s in of])
    out.toward = of[0].toward if all(s.toward == of[0].toward for s in of) else (0, 0.0, 0)
    return out


def piece(x: Signal, dim: int, start: int, size: int) -> Sites | None:
    """The recipe of a part of the units, which scatters more; of one place, its own; of other parts the same."""
    s = x.sites
    if s is not None and size == 1 < s.places == x.shape[dim]:
        out = _recipe("row", (s,), (float(start),), s.seed, s.units)
        out.places, out.factors, out.row, out.flat, out.toward = 1, s.factors, s.row, s.flat, s.toward
        out.apart = s.apart[start : start + 1] if len(s.apart) > 1 else s.apart
        out.across, out.left = (
            None if f is None else f[start : start + 1] if len(f) > 1 else f for f in (s.across, s.left)
        )
        return out
    if s is None or not s.units or x.shape[dim] != s.units or size == s.units:
        return s
    out = _recipe(s.kind, s.of, s.weights, seed(s.seed, start), size)
    out.own, out.pair, out.angle, out.common, out.heavy = (
        s.own if s.own < 0.0 else s.own * s.units / max(size, 1),
        s.pair,
        s.angle,
        s.common,
        s.heavy,
    )
    out.factors = tuple([Units(seed(u.seed, start), u.values, u.share, u.weights) for u in s.factors])
    return out


def mean_squares(x: Signal, sites: Sites | None) -> Signal:
    """Mean squares of sites, E v·V, of a tensor with this recipe, where it is heavy."""
    if sites is None or not sites.heavy:
        return x
    q = np.square(x.mean) * (1.0 + scatter(sites))
    means = np.square(x.mean)
    raw = np.maximum(moments(x) * x.mean_q, moments(replace(x, q=means, corr=np.ones_like(x.corr))) * means.mean())
    raw.flat[0] = q.mean()
    return replace(x, q=q, corr=correlations(raw, q), sites=sites)


def law(x: Signal) -> tuple[Array, Array] | None:
    """Standardised quantiles of the mean squares of sites where they are heavy: (z, (V - 1)/sd on z)."""
    if x.sites is None or not x.sites.heavy or x.tag is None or x.tag[0] != "mean square":
        return None
    v = np.sort(levels(x.sites).ravel())
    sd = float(v.std())
    return (special.ndtri((np.arange(v.size) + 0.5) / v.size), (v - v.mean()) / sd) if sd > 0.0 else None


def power(out: Signal, x: Signal, exponent: float) -> Signal:
    """v^p of mean squares v = E v·V, place by place: E v^2p is no power of E v where V is heavy."""
    if x.sites is None or not x.sites.heavy or out.mean_q <= 0.0:
        return out
    mean = np.maximum(x.mean, 1e-300)
    v = levels(x.sites)
    first, square = (v**exponent).mean(axis=1), (v ** (2.0 * exponent)).mean(axis=1)
    made = _recipe("product", (x.sites,), (2.0 * exponent,), x.sites.seed)
    return replace(out, mean=times(mean**exponent, first), q=times(mean ** (2.0 * exponent), square), sites=made)


def behind_inverse_root(g: Signal, x: Signal) -> Signal | None:
    """The gradient of v = E v·V behind that of r = 1/√v, where V is heavy; None where it is not.

    The gradient of r is s/r with s = Σ g·x/|x| independent of v: E g_r² = E s²·E v, and E (g_r·r³/2)² = E s²·E v⁻²/4.
    """
    if x.sites is None or not x.sites.heavy:
        return None
    mean = np.maximum(x.mean, 1e-300)
    square = (levels(x.sites) ** -2.0).mean(axis=1)
    made = _recipe("product", (x.sites,), (-2.0,), x.sites.seed)
    q = times(g.q * mean**-3.0 / 4.0, square)
    return replace(g, q=q, ident=next_id(), terms=(), source=None, values=None, sites=made)


_EVEN = Sites()
