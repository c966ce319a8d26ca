"""Products and sums of signals: every contraction (linear, matmul, einsum, attention) is one formula.

For independent x and w the product's pair moments are products of pair moments, and a sum over K entries has
E y y' = Σ_k E(xw)_k(xw)'_k + Σ_{k≠l} E(xw)_k(xw)'_l. With iid weights of mean μ and variance s² this is
q' = n(s²+μ²)q + n(n-1)μ² r_f (THEORY §6, Affine); nothing in it is special to weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace as replaced
from math import expm1, prod

import numpy as np

from firstlight.graph.course import Course
from firstlight.graph.signal import SILENT, Array, Noise, Signal, next_id, number, replace, vanishes
from firstlight.rules.attention import causal, fluctuation
from firstlight.rules.attention.keys import (
    alike_rows,
    asked,
    at_keys,
    coherent,
    in_step,
    is_weights,
    shared,
    split_of_rows,
    uncommon,
)
from firstlight.rules.attention.turning import turned
from firstlight.rules.state import course, kin, lengths, sites, swaying, twins, unitwise
from firstlight.rules.state.forms import combine, joint
from firstlight.rules.state.layout import (
    align,
    axis_atoms,
    common,
    correlations,
    expand,
    moments,
    permute,
    regroup,
    state_weights,
)
from firstlight.rules.state.noise import (
    angle,
    fresh_linear,
    log_normal,
    pair_shares,
    sample_correlation,
    stray,
    strayed,
    strayed_on,
    summed_pairs,
)  # fmt: skip
from firstlight.rules.state.quadrature import reading
from firstlight.rules.state.summation import count_along, sum_atoms

_LARGEST = 1 << 18  # entries of a product's fields
INNER = "inner products"  # tag of products of signals, with the relative variance of |x|² that their few entries bring
ROWS = "rows"  # tag of means over keys, with the part of their scatter that each row and head has for itself
_HEAVY, _KNOWN = 1e4, 3.0  # relative variance of |x|² that more draws than anyone makes have; the most that is known


def energy_cube(x: Signal, *, one_draw: bool = False) -> Array:
    """Relative covariance of x_i² and x_j² over the cube: 2c² for Gaussian entries, (1 + a)(1 + b) - 1 for products.

    Args:
        x: The signal.
        one_draw: Within one draw of the weights, without what the source's variance scatters between draws.
    """
    if x.source is not None and x.values is not None:
        found, _ = reading(x.source, x.values)
        if found.total <= 0.0:
            return np.zeros_like(x.corr)
        return x.source.powers.series(*(found.energies_in_one_draw if one_draw else found.energies)) - 1.0
    if x.factors is not None and x.factors[0] == x.ident:  # independent factors: E x²x'² of each
        one, two = (energy_cube(y, one_draw=one_draw) for y in align(*x.factors[1:]))
        if one.shape == two.shape == x.corr.shape:
            return one + two + one * two
    q = x.mean_q
    mean = x.mean_mean * (x.mean_mean / q) if q > 0.0 else 0.0  # the square alone may overflow
    free = x.corr - mean if mean else x.corr
    out = np.asarray(2.0 * strayed(x, np.square(free)))
    if x.cumulants != (0.0, 0.0) and q > 0.0:
        third, fourth = x.cumulants
        out[(0,) * out.ndim] += 4.0 * (x.mean_mean / q) * (third / q) + (fourth / q) / q
    return out


def _wander(x: Signal, y: Signal, uneven: float) -> float:
    """`Signal.wander` of a product x·y, of which y is uneven from unit to unit (E y⁴/(E y²)² = 1 + uneven).

    c = c_x·c_y: of 1 - c², what c_x strays by is c_y²·(1 - c_x²). The more uneven y, the fewer units count.
    """
    c = sample_correlation(x)
    left, right = c**2, sample_correlation(y) ** 2
    if left * right >= 1.0:
        return x.wander
    wander = x.wander * right * (1.0 - left) / (1.0 - left * right)
    if y.weights is None and not y.data:
        units = prod([n for n, b in zip(x.atoms, x.batch, strict=True) if not b])
        return strayed_on(wander, c, units / uneven) if uneven > 0.0 and any(x.batch) else wander
    return min(1.0, wander)


def product(x: Signal, y: Signal, *, quiet: bool = False) -> Signal:
    """x·y entry by entry for independent signals; `quiet` leaves the noise to the caller."""
    made, both = (None, lengths.ALONE) if quiet else sites.of_product(x, y)
    alike, aligned, law = unitwise.of_product(x, y)
    x, y = align(x, y)
    value = None
    if x.value is not None and y.value is not None:
        value = x.value * y.value
    wander = x.wander
    noise = x.noise
    if not quiet:
        energies = energy_cube(x), energy_cube(y)
        own = 0.0 if x.weights or y.weights else _met_by_chance(x, y, (swaying.energies(x, energies[0]), energies[1]))
        fixed = x.weights is not None or x.value is not None  # a gain or a table: what strays is the other
        wander = _wander(y, x, energies[0].flat[0]) if fixed else _wander(x, y, energies[1].flat[0])
        noise = combine([(1.0, x.noise), (1.0, y.noise)], own, -0.5 * own)
    out = replace(
        x,
        mean=_mean_of_product(x.mean, y.mean),
        q=_times(x.q, y.q, joint(x.noise, y.noise)) if both is lengths.ALONE else lengths.times(x.q * y.q, both),
        corr=x.corr * y.corr,
        batch=tuple(a or b for a, b in zip(x.batch, y.batch, strict=True)),
        source=None,
        values=None,
        gaussian=False,
        noise=noise,
        scatter=lengths.of_entries(made) if made is not None and made.heavy else x.scatter + y.scatter,
        sites=made,
        wander=wander,
        sway=swaying.met(x, y),
        data=x.data and y.data,
        cumulants=(0.0, 0.0),
        tag=None,
        terms=(),
        weights=None,
        value=value,
        integer=x.integer and y.integer,
        ident=next_id(),
    )
    out = unitwise.with_laws(out, law)
    if alike is not aligned:
        q = np.asarray(out.q * unitwise.by_row(out, alike))
        mean = np.clip(out.mean * unitwise.by_row(out, aligned), -np.sqrt(q), np.sqrt(q))
        out = replace(out, q=q, mean=mean if out.mean.any() else out.mean)
    return course.multiplied(twins.of_product(out, x, y), x, y)


def _met_by_chance(x: Signal, y: Signal, energies: tuple[Array, Array]) -> float:
    """Variance of ln|xy|² beyond those of ln|x|² and ln|y|²: that of Σ δx²·δy², to first order.

    Of a tail so heavy that one entry decides, the relative variance of |y|² says what it would be over more draws than
    anyone makes: it counts as what is known of ln|y|².
    """
    relative, heavy = pair_mean(x, energies[0] * energies[1]), False
    if relative <= 1.0:  # nearly always, and then no tail matters
        return relative
    for factor, cube in ((x, energies[0]), (y, energies[1])):
        first = pair_mean(factor, cube)
        if first > _HEAVY and not factor.data:
            heavy = True
            relative *= min(expm1(min(factor.noise.variance, _KNOWN)) / first, 1.0)
    return log_normal(relative) if heavy else relative


def _mean_of_product(a: Array, b: Array) -> Array:
    """The product of two mean fields; one number where that is zero everywhere."""
    for one in (a, b):
        if one.size == 1 and vanishes(one):
            return np.zeros((1,) * one.ndim)
    return a * b


def _times(a: Array, b: Array, factor: float) -> Array:
    out = np.asarray(a * b)
    return out if factor == 1.0 else np.multiply(out, factor, out=out)


def pair_mean(x: Signal, cube: Array) -> float:
    """Mean of a cube over the ordered pairs of entries."""
    return float(np.vdot(pair_shares(x, cube.shape), cube))


def _by_label(x: Signal, labels: Sequence[str], order: Sequence[str], atoms: Mapping[str, tuple[int, ...]]) -> Signal:
    """Permute axes into the order of the labels and repeat along the labels that are absent."""
    x = permute(x, [labels.index(a) for a in order if a in labels])
    groups = list(x.groups)
    for i, label in enumerate(order):
        if label not in labels:
            groups.insert(i, ())
    x = replace(x, groups=tuple(groups))
    return expand(x, tuple(atoms[a] for a in order))


def contract(x: Signal, left: str, w: Signal, right: str, out: str) -> Signal:
    """einsum("left,right->out") of independent signals.

    Args:
        x: First operand.
        left: One letter per axis of x.
        w: Second operand; often a weight.
        right: One letter per axis of w.
        out: Letters of the result; the others are summed.
    """
    fresh = w.weights is not None and w.q.size == 1 and vanishes(w.mean) and left[:-1] == out[:-1] and x.groups[-1]
    if fresh and left[-1] not in out and len(right) == 2 and {left[-1], out[-1]} == set(right) and left[-1] != out[-1]:
        return _fresh_map(x, w, right.index(out[-1]))
    x = replace(x, value=None, source=None, values=None)
    w = replace(w, value=None, source=None, values=None)
    summed = [a for a in dict.fromkeys(left + right) if a not in out]
    order = [*out, *summed]
    atoms: dict[str, tuple[int, ...]] = {}
    for a in order:
        mine = x.groups[left.index(a)] if a in left else ()
        other = w.groups[right.index(a)] if a in right else ()
        if mine and other and mine != other:
            x, w = _match(x, left.index(a), w, right.index(a))
            mine = x.groups[left.index(a)]
        atoms[a] = mine or other
    of_logits = x.tag is not None and x.tag[0] == "softmax" and left[-1:] in summed and vanishes(x.mean)
    if of_logits and not w.weights and left[-1] in right:
        w = fluctuation.apart(w, right.index(left[-1]))
    one, two = _bounded(_by_label(x, left, order, atoms), _by_label(w, right, order, atoms))
    over_keys = is_weights(x) and bool(left) and left[-1] in summed
    mean = fluctuation.mean_of(x, left, w, right, summed)
    both = product(one if mean is None else replace(one, noise=SILENT), two, quiet=True)
    count = len([1 for a in out for _ in atoms[a]])
    gone = range(count, len(both.atoms))
    # gradients of a row's logits add up to nothing: what keys have in common goes, in rows of any length
    result = sum_atoms(both, list(gone), kept=max(1.0 - shared(x, w), 0.0) if of_logits and not w.weights else None)
    result = replace(result, groups=result.groups[: len(out)], gaussian=True)
    if x.keyed is not None and x.tag is not None and x.tag[0] == "softmax" and not w.weights:
        result = causal.contracted(result, x, left, w, right, out, max(1.0 - shared(x, w), 0.0))
    courses = result.course
    inherited: list[tuple[float, Noise]] = [(1.0, x.noise), (1.0, w.noise)]
    k = [a for i, label in enumerate(left) if label in summed for a in axis_atoms(x, i)]
    fan = _straying_fan(x, k)
    scattered, split = scatter_of(x, k) + (0.0 if w.weights else w.scatter), x.split if w.weights else None
    unit = None
    if w.weights:
        units = [i for i, label in enumerate(a for b in out for a in [b] * len(atoms[b])) if label not in left]
        unit = units[0] if units else None
        result = replace(result, wander=x.wander)
    if mean is not None:
        factor, noise = fluctuation.of_mean(result, *mean)
        result = replace(result, q=result.q * factor)
    else:
        if over_keys:
            inherited[0] = (uncommon(result, x, w), x.noise)
        noise = fresh_linear(result, inherited, fan, unit)
    wander = stray(result, fan) if w.weights else _of_the_looser(x, w)
    if over_keys:
        wander *= in_step(x, w)  # a mean over places strays as far as they do so in step
    if x.tag is not None and x.tag[0] == "softmax" and left and not w.weights:
        if left[-1] in summed:
            level = result.mean_q
            like = alike_rows(x, left, result, out)
            result = coherent(result, x.tag[2], x, w, like)
            courses = course.diluted(courses, level / max(result.mean_q, 1e-300), like, result.batch)
            if over_keys:
                result = replace(result, tag=(ROWS, 0, max(x.scatter, 0.0)))
                if (split := split_of_rows(x, w)) is not None:
                    scattered = sum(split)
        elif x.keyed is not None and vanishes(x.mean):  # rows of long queries are sharp, and meet their queries here
            result = replace(result, q=result.q * at_keys(x, left, w, summed))
    result = replace(
        result,
        noise=noise,
        scatter=scattered,
        split=split,
        wander=wander,
        angle=angle(replace(result, angle=x.angle), wander, fan) if w.weights else x.angle,
        lean=x.lean,
        beside=x.beside if w.weights else (0, 0.0, 0.0),
        cumulants=(0.0, 0.0),
        ident=next_id(),
    )
    if w.weights or x.weights:
        result = unitwise.with_laws(result)
    courses = courses or _courses(x, left, w, right, result, out)
    if courses:
        result = replace(result, courses=(result.ident, courses))
    result = sites.with_sites(result, x, left, w, right, out)
    if w.weights or x.weights or x.tag is not None:
        return result
    tag = (INNER, 0, max(scattered - max(x.scatter, 0.0) - w.scatter, 0.0))
    keyed = asked(one, left, two, right, out, atoms)
    if keyed is not None:
        (queries, _), (keys, mine) = ((x, left), (w, right)) if out[-1] in right else ((w, right), (x, left))
        noise = fluctuation.of_logits(result, queries, keys, mine.index(out[-1]))
        keyed = replaced(keyed, noise=noise, split=keys.split, turned=turned(keys))
    return replace(result, tag=tag, keyed=keyed)


def _of_the_looser(x: Signal, w: Signal) -> float:
    """`Signal.wander` of the one of two tensors whose c² strays further; what is the same in all samples does not."""
    return max((x, w), key=lambda s: s.wander * (1.0 - sample_correlation(s) ** 2)).wander


def _courses(x: Signal, left: str, w: Signal, right: str, result: Signal, out: str) -> tuple[Course, ...]:
    """How alike positions are of a product, along axes that one operand alone has; samples, if the other has none."""
    found, kinds = list[Course](), 1 if any(x.batch) and any(w.batch) else course.KINDS
    for s, mine, others in ((x, left, right), (w, right, left)):
        for c in s.course:
            axis = next(i for i in range(s.ndim) if c.atom in axis_atoms(s, i))
            if mine[axis] in out and mine[axis] not in others and len(s.groups[axis]) == 1:
                found.append(Course(axis_atoms(result, out.index(mine[axis]))[0], c.size, c.pairs[:kinds]))
    return tuple(found)


def _bounded(x: Signal, y: Signal) -> tuple[Signal, Signal]:
    """Fields whose product has at most `_LARGEST` entries: beyond, axes count with their means, the last ones first."""
    axes = range(len(x.atoms) - 1, -1, -1)
    while True:
        shape = [max(f.shape[i] for f in (x.q, x.mean, y.q, y.mean)) for i in range(len(x.atoms))]
        if prod(shape) <= _LARGEST:
            return x, y
        gone = next(i for i in axes if shape[i] > 1)
        x, y = (
            replace(s, q=s.q.mean(axis=gone, keepdims=True), mean=s.mean.mean(axis=gone, keepdims=True)) for s in (x, y)
        )


def _fresh_map(x: Signal, w: Signal, units: int) -> Signal:
    """The contraction of x's last axis with independent zero-mean weights: the common case, without its generality.

    Only equal inputs meet: q' = E w²·Σ_k q_k, correlations between sites are x's, units are uncorrelated.
    """
    gone = axis_atoms(x, x.ndim - 1)
    first, q = gone[0], x.q
    q = (q.reshape(q.shape[:first]) if q.size == 1 else q.sum(axis=gone)) * (count_along(q, x.atoms, gone) * w.q.item())
    same = moments(x)[(..., *(0,) * len(gone))]
    if same.shape != x.corr.shape[:first]:
        same = np.broadcast_to(same, x.corr.shape[:first])
    same = correlations(same, q)
    group = w.groups[units]
    corr = np.zeros((*same.shape, *(2,) * len(group)))
    corr[(..., *(0,) * len(group))] = same
    shape = (*q.shape, *(1,) * len(group))
    out = Signal(
        (*x.groups[:-1], group), np.zeros((1,) * len(shape)), q.reshape(shape), corr,
        (*x.batch[:first], *(False,) * len(group)), gaussian=True, wander=x.wander, lean=x.lean,
    )  # fmt: skip
    fan = _straying_fan(x, gone)
    noise = fresh_linear(out, [(1.0, x.noise)], fan, first if group else None)
    # the source stays: f² of a chain scatters more from site to site than the square of a Gaussian would
    assert w.weights is not None
    made = sites.behind_weights(x.sites, w.weights.name, prod(group))
    wander, out = stray(out, fan), replace(out, angle=x.angle)
    out = replace(out, angle=angle(out, wander, fan), wander=wander, kin=(out.ident, kin.of(x)))
    out = replace(out, noise=noise, scatter=scatter_of(x, gone), split=x.split, sites=made, beside=x.beside)
    return course.mapped(unitwise.with_laws(out), x)


def _straying_fan(x: Signal, summed: Sequence[int]) -> float:
    """Units over which the correlations of x's sites stray: the summed ones; none where the samples are given."""
    return np.inf if x.data and x.wander > 0.0 and x.scatter >= 0.0 else float(prod(x.atoms[a] for a in summed))


def outer_sum(g: Signal, x: Signal, weight: Signal) -> Signal:
    """The gradient of a weight: Σ over sites of g·x, each pair of sites with the product of both correlations."""
    first = len(g.atoms) - len(g.groups[-1])
    if g.groups[:-1] != x.groups[:-1] or g.corr.shape[:first] != x.corr.shape[:first]:
        letters = "abcdefgh"[: g.ndim - 1]
        return contract(g, letters + "y", x, letters + "z", "yz")
    mine = moments(g)[(..., *(0,) * len(g.groups[-1]))]
    other = moments(x)[(..., *(0,) * len(x.groups[-1]))]
    total = mine * other
    for i in range(first - 1, -1, -1):
        total = total @ state_weights(g.atoms[i], g.corr.shape[i]) if total.shape[i] > 1 else total[..., 0] * g.atoms[i]
        total = total * g.atoms[i]
    q, n = max(float(total), 0.0) * g.mean_q * x.mean_q, len(weight.atoms)
    corr = np.zeros(weight.corr.shape)
    corr[(0,) * corr.ndim] = 1.0
    return Signal(weight.groups, number(0.0, n), number(q, n), corr, weight.batch, gaussian=True)


def scatter_of(x: Signal, summed: Sequence[int]) -> float:
    """Relative variance of Σ x² over the summed atoms from site to site and draw to draw.

    The mean energy covariance over pairs of summed entries, plus what the entries' own variance scatters; data do
    not fluctuate beyond what was seen.
    """
    if x.data:
        return max(x.scatter, 0.0)
    cube = energy_cube(x, one_draw=True)
    own = float(np.vdot(summed_pairs(x.atoms, cube.shape, tuple(summed)), cube))
    return max(own + x.scatter + own * max(x.scatter, 0.0), 0.0)  # E V² = (1 + τ²)(1 + own) of the entries' V


def _match(x: Signal, i: int, w: Signal, j: int) -> tuple[Signal, Signal]:
    """Give axis i of x and axis j of w the same atoms."""
    target = common(x.groups[i], w.groups[j])
    x = regroup(x, (*x.groups[:i], target, *x.groups[i + 1 :]))
    w = regroup(w, (*w.groups[:j], target, *w.groups[j + 1 :]))
    return x, w
