"""How far a gradient goes along its own tensor: s = Σ g·x over the last axis of a site, carried along.

Taking g and x as independent gives E s² = n·E g²·E x². But s is not free (Euler): an operation of degree k hands k·s
on, behind a norm s is zero because its length does not count, both factors of a product and both ends of a reshape
have the same s, and of a sum z = x + y the two parts share what belongs to z. So s is a linear form over numbered
independent sources, one for each place at which something independent came in: paths that meet again add their forms.

What is not fixed by an identity is taken as isotropic: of a tensor r that is independent of g but for its part along a
tensor z with known Σ g·z, Σ g·r = (r·z/z·z)·Σ g·z + e with E e² = E|g|²·(E r² - E(rz)²/E z²).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from firstlight.graph.along import Along
from firstlight.graph.signal import Array, Cotangent, Signal, Source, replace
from firstlight.rules.chains.grids import on_grid
from firstlight.rules.chains.partly import together_on
from firstlight.rules.chains.source import on_source
from firstlight.rules.gradients.gradient import alone, joined, parts_of, scaled, times, times_signal, whole, whole_shape
from firstlight.rules.gradients.unlike import lean_of, shares
from firstlight.rules.state.cross import cross
from firstlight.rules.state.forms import covariance
from firstlight.rules.state.layout import align, axis_atoms, moments
from firstlight.rules.state.projection import shared_cube
from firstlight.rules.state.summation import sum_atoms

_LOADS = 24  # sources that a form tells apart; beyond, the smallest become one

_RELATED = 0.05  # correlation of the log-norms of a gradient and its tensor from which they are not independent
_COMMON = 0.1  # correlation of the gradients of two units from which they are not independent

ITSELF = "with itself"  # tag of the gradient of a matrix that was made from another: E (Σ G·W)²

_numbers = itertools.count(1)


def source() -> int:
    """The number of a new source."""
    return next(_numbers)


def fresh(variance: float) -> Along:
    """A form of one new source."""
    return Along(((source(), variance**0.5),)) if variance > 0.0 else Along()


def mixed(terms: Sequence[tuple[float, Along]], own: float = 0.0, balanced: float = 0.0) -> Along:
    """Σ a·form, and new sources of the given variances, the second one of those that the rows of a site share out."""
    loads: dict[int, float] = {}
    for a, form in terms:
        for k, load in form.loads:
            loads[k] = loads.get(k, 0.0) + a * load
    if own > 0.0:
        loads[source()] = own**0.5
    if balanced > 0.0:
        loads[-source()] = balanced**0.5
    if len(loads) > _LOADS:
        by_size = sorted(loads.items(), key=lambda item: -abs(item[1]))
        rest = sum(load * load for _, load in by_size[_LOADS - 1 :])
        loads = dict(by_size[: _LOADS - 1])
        loads[source()] = rest**0.5
    return Along(tuple((k, v) for k, v in loads.items() if v != 0.0))


def meeting(g: Cotangent, x: Signal) -> Signal:
    """g·x entry by entry, for g independent of x but for the factors it has met."""
    found: list[Cotangent] = []
    for part in parts_of(g):
        values = None if part.source is None else on_source(x, part.source)
        if values is not None and part.source is not None and part.layout is not None:
            found.append(times(part, part.layout, part.source, values))
        else:
            found.append(times_signal(part, x))
    return whole(joined(found))


def against(g: Cotangent, x: Signal) -> Signal:
    """Σ g·x over the last axis, which stays with one entry, for g independent of x but for the factors it has met."""
    out = meeting(g, x)
    return sum_atoms(out, axis_atoms(out, -1)) if out.ndim else out


def met_in_group(g: Cotangent, out: Signal, inner: Signal, atoms: Sequence[int]) -> Array | None:
    """Cube of γg·x̂ = g·(y - β) in units of E (γg)², where the gradient has met a function of y = γx̂ + β.

    Of g·x̂ = a·ψ(x̂), what goes like x̂² - 1 adds up to nothing where all entries have a in common, since Σ x̂² is
    fixed: of ψ's coefficient b₂ the pairs have b₂²·(c² - the group's mean c²), not b₂²c².
    """
    matched = [(p, p.source, on_source(out, p.source)) for p in parts_of(g) if p.source is not None]
    if inner.mean_q <= 0.0 or all(values is None for _, _, values in matched):
        return None
    both = meeting(g, out)
    if both.corr.shape != inner.corr.shape or both.atoms != inner.atoms:
        return None
    cube = moments(both) * both.mean_q
    for p, source, values in matched:
        first = p.values if p.expected is None else p.expected
        if values is None or first is None or p.base.corr.shape != cube.shape:
            continue
        bent = float(source.share @ np.square((first * values) @ source.grid.hermite[:, 2]))
        square = shared_cube(inner, atoms, np.square(source.corr))
        cube = cube - p.base.mean_q * p.base.corr * bent * square.flat[0]
    return cube / inner.mean_q


def independent(g: Cotangent, x: Signal) -> float:
    """E s² where g and x are independent."""
    return against(g, x).mean_q


def along(g: Cotangent, x: Signal) -> Along:
    """The form of s, that of independent factors where nothing is known."""
    return fresh(independent(g, x)) if g.along is None else g.along


def together(parts: Sequence[Cotangent], total: Cotangent, x: Signal) -> Cotangent:
    """A sum of gradients that arrive at x, with its form.

    Parts whose s belong together have their components along x, s·x/|x|², in common: E|g|² gains 2·cov/|x|² a pair.
    """
    if all(p.along is None for p in parts):
        return alone(total)
    forms = [along(p, x) for p in parts]
    form = mixed([(1.0, f) for f in forms])
    both = form.variance - sum(f.variance for f in forms)
    n = x.shape[-1] if x.ndim else 1
    overlap = n > 1 and not all(p.along is not None and p.along.disjoint for p in parts)
    return aligned(total, form, both, energy(total) * n * x.mean_q, overlap)


def aligned(g: Cotangent, form: Along, more: float, free: float, apply: bool = True) -> Cotangent:
    """A gradient with its form, whose component along the tensor has a square larger by `more`.

    Args:
        g: The gradient.
        form: Of s.
        more: Change of E s².
        free: n·E|g|²·E x².
        apply: Whether the component is one of many.
    """
    if not apply or free <= 0.0 or more == 0.0:
        return replace(g, along=form)
    return replace(scaled(g, max(1.0 + more / free, 0.0) ** 0.5), along=form)


def energy(g: Cotangent) -> float:
    """E |g|² over the last axis of a site."""
    signal = whole(g)
    return signal.mean_q * (signal.shape[-1] if signal.ndim else 1)


def begun(g: Cotangent, x: Signal) -> Along | None:
    """The form of s, begun here if nothing is known, g and x are independent and the last axis counts units.

    Positions of a grid are not: what is left beside an identity is not isotropic over them. And where the lengths of g
    and x scatter together from draw to draw (the gradient of a gate is a sum of products with what it gates), V₀ of
    independent ones is no measure of s.
    """
    if g.along is not None or not x.ndim:
        return g.along
    signal = whole(g)
    if covariance(signal.noise, x.noise) ** 2 > _RELATED**2 * signal.noise.variance * x.noise.variance:
        return None
    for atom in axis_atoms(signal, -1):
        at = tuple(1 if i == atom else 0 for i in range(signal.corr.ndim))
        if signal.corr.shape[atom] > 2 or abs(float(signal.corr[at])) > _COMMON:
            return None
    return along(g, x)


def of_chain(g: Cotangent, x: Signal, out: Source, values: Array, before: Array, slope: Array) -> Along | None:
    """Before a pointwise operation y = f(x): Σ g·f'(x)·x from Σ g·f(x), by the regression of f'(x)·x on f(x).

    For a homogeneous f of degree k that is k·s (Euler).

    Args:
        g: The gradient of y.
        x: y.
        out: The source on which y and x stand.
        values: f(x) on its nodes.
        before: x on its nodes.
        slope: f'(x) on its nodes.
    """
    level, square = energy(g), np.ones(())
    if not g.rest and g.values is not None and g.source is not None and g.source.key == out.key:
        level = level / max(whole(g).mean_q, 1e-300) * g.base.mean_q
        square = np.square(on_grid(g.values, g.source, out))
    w, inner = out.grid.weights * square, slope * before
    own = float(out.share @ (np.square(inner) * w).sum(axis=-1))
    if g.along is None:
        return None if begun(g, x) is None else fresh(level * own)
    both = float(out.share @ (inner * values * w).sum(axis=-1))
    known = float(out.share @ (np.square(values) * w).sum(axis=-1))
    if known <= 0.0:
        return fresh(level * own)
    return mixed([(both / known, g.along)], level * (own - both * both / known))


def uneven(g: Cotangent, y: Signal, level: float, kurtosis: float) -> float:
    """Factor of E|g·f|² where the entries of f that are large are those where y is, which has a known Σ g·y.

    What g has more along y than independent factors would, (V - V₀)/|y|², sits where y does:
    E f²·(1 + (1 - γ)·(V/V₀ - 1 + λ)/n·(κ - 1)) with κ = E f²y²/(E f²·E y²), of n entries at most n, λ for gradients
    that are short where y is long (`Signal.lean`), as it is where f is. What all units of g have in common, the
    share γ of it, is where y is small as well: the gradient of a mean over the units is one number.

    Args:
        g: The gradient of y.
        y: Its tensor.
        level: E|g|² over the last axis.
        kurtosis: κ.
    """
    free = level * y.mean_q
    if g.along is None or free <= 0.0 or y.ndim == 0 or y.shape[-1] < 2:
        return 1.0
    n, signal = y.shape[-1], whole(g)
    common = (n * float(shared_cube(signal, axis_atoms(signal, -1)).flat[0]) - 1.0) / (n - 1.0)
    apart = min(max(1.0 - common, 0.0), 1.0)
    fixed = y.source is not None and y.source.scatter < 0.0  # on the sphere behind a norm no unit makes y long
    lean = 0.0 if fixed else lean_of(g)
    return max(1.0 + apart * (g.along.variance / free - 1.0 + lean) / n * (min(kurtosis, n) - 1.0), 0.0)


def beside_factor(g: Cotangent, source: Source, y: Array, f: Array) -> tuple[float, float]:
    """(level, kurtosis) for `uneven` where g = r·φ(u) stands on the source of y and f, so that r is independent, not g.

    r has the variance V/|φy|² along φy and e else, such that E|g|² is what it is. Then V₀ = E|g|²·E φ²y²/E φ², and
    κ - 1 is E φ⁴f²y²/(E φ²f²·E φ²y²) - E φ⁴y²/(E φ²·E φ²y²).

    Args:
        g: The gradient of y.
        source: The source.
        y: y on its nodes.
        f: f there.
    """
    if g.rest or g.values is None or g.source is None or g.source.key != source.key:
        return energy(g), together_on(source, f, y)
    mine = on_grid(g.values, g.source, source)
    kurtosis = 1.0 + together_on(source, mine * f, mine * y) - together_on(source, mine, mine * y)
    return energy(g) * together_on(source, mine, y), kurtosis


def of_sum(g: Cotangent, x: Signal, y: Signal, a: float, b: float) -> tuple[Along | None, Along | None]:
    """Before a sum z = a·x + b·y: a·Σ g·x and b·Σ g·y, which add up to Σ g·z."""
    if g.along is None:
        return None, None
    x, y = align(x, y)
    one, other, both = a * a * x.mean_q, b * b * y.mean_q, a * b * float(cross(x, y)[0].mean())
    total = one + other + 2.0 * both
    if total <= 0.0:
        return None, None
    level = energy(g)
    known = g.along.variance / (level * total) if level > 0.0 else 1.0
    found = shares(x, y, one, other, both, lean_of(g), known)
    apart = fresh(level * found.across + g.along.variance * found.spread)
    return mixed([(found.first, g.along), (1.0, apart)]), mixed([(1.0 - found.first, g.along), (-1.0, apart)])


def shared(g: Cotangent, one: float, other: float, both: float) -> tuple[Along | None, Along | None]:
    """Two terms' parts of Σ g·z from their mean squares and their mean product."""
    total = one + other + 2.0 * both
    if g.along is None or total <= 0.0:
        return None, None
    share = (one + both) / total
    apart = fresh(energy(g) * max(one - share * (one + both), 0.0))
    return mixed([(share, g.along), (1.0, apart)]), mixed([(1.0 - share, g.along), (-1.0, apart)])


def of_summands(g: Cotangent, x: Signal, out: Signal, axes: Sequence[int]) -> Along | None:
    """Before a sum y of k exchangeable x over an axis of sites: Σ g·x = s/k + e, E e² = E|g|²·(E x² - E y²/k²)."""
    if g.along is None or any(axis % x.ndim == x.ndim - 1 for axis in axes) or out.numel == x.numel:
        return None
    k = x.numel / out.numel
    return mixed([(1.0 / k, g.along)], balanced=energy(g) * max(x.mean_q - out.mean_q / k**2, 0.0))


def of_pieces(g: Cotangent, tensors: Sequence[Signal], dim: int) -> list[Along | None]:
    """Before a concatenation: pieces of the units share Σ g·x by their energy, pieces of the sites have it whole."""
    rank = tensors[0].ndim
    if g.along is None or dim % rank != rank - 1:
        return [g.along for _ in tensors]
    n = sum(t.shape[-1] for t in tensors)
    energies = [t.mean_q * t.shape[-1] / n for t in tensors]
    found: list[Along | None] = []
    rest: Along | None = g.along
    for i, one in enumerate(energies[:-1]):
        form, rest = shared(replace(g, along=rest), one, sum(energies[i + 1 :]), 0.0)
        found.append(form)
    return [*found, rest]


def of_parts(parts: Sequence[tuple[Cotangent, Signal]], like: Signal, last: bool) -> Along | None:
    """Before a tensor is taken apart, from the pieces that have a gradient: units add up, sites are a share of all."""
    if all(g.along is None for g, _ in parts):
        return None
    return mixed([(1.0 if last else (x.numel / like.numel) ** 0.5, along(g, x)) for g, x in parts])


def of_view(g: Cotangent, x: Signal) -> Along | None:
    """Before a view of x: units that were split into heads are together again, or are split into heads.

    Heads are taken as independent; of one of H heads, Σ g·x is s/H and what isotropic g and x leave beside that.
    """
    shape, like = whole_shape(g), x.shape
    if g.along is None or not shape or not like:
        return None
    if like[-1] < shape[-1] and like[-2:-1] == (shape[-1] // like[-1],) and shape[-1] % like[-1] == 0:
        heads = like[-2]
        return mixed([(1.0 / heads, g.along)], energy(g) * x.mean_q * (heads - 1.0) / heads**2)
    size = 1
    for n in reversed(shape):
        part = math.gcd(n, like[-1] // size)
        size *= part
        if part < n or size == like[-1]:  # heads may share an axis with samples
            break
    together = size == like[-1] >= shape[-1] > 1
    return mixed([((like[-1] / shape[-1]) ** 0.5, g.along)]) if together else None


def of_rows(form: Along | None, ratio: float) -> Along | None:
    """The form of a mean site if only a part of the sites, or some sites repeatedly, are seen: E s² in proportion."""
    return None if form is None else mixed([(ratio**0.5, form)])


def of_shifted(g: Cotangent, x: Signal, out: Signal) -> Along | None:
    """Before a shift z = x + c: Σ g·x."""
    if g.along is None or out.mean_q <= 0.0:
        return g.along
    with_out = x.mean_q + (out.mean_mean - x.mean_mean) * x.mean_mean
    share = with_out / out.mean_q
    return mixed([(share, g.along)], energy(g) * (x.mean_q - share * with_out))


def behind_map(dx: Signal, x: Signal, g: Cotangent, out: Signal, bias: Signal | None) -> Cotangent:
    """The gradient dx = Wᵀg of a linear map z = Wx + b, with what is known of Σ dx·x = Σ g·(z - b).

    W maps x to z and, independently of that, all that is at right angles to x to something else. So of the n parts of
    dx one, that along x, is s/|x| whatever W is, and the others are as of independent factors.
    """
    if g.along is None or not dx.ndim:
        return Cotangent(dx)
    form = g.along
    if bias is not None and bias.mean_q > 0.0 and out.mean_q > 0.0:
        share = max(1.0 - bias.mean_q / out.mean_q, 0.0)
        form = mixed([(share, form)], energy(g) * out.mean_q * share * (1.0 - share))
    n = dx.shape[-1]
    free = n * dx.mean_q * x.mean_q
    if free <= 0.0:
        return Cotangent(dx, along=form)
    return aligned(Cotangent(dx), form, form.variance - free, n * free)


def on_weights(g: Cotangent, out: Signal, bias: Signal | None) -> float:
    """E (Σ G·W)² over a whole matrix W with the gradient G = Σ g·xᵀ of z = Wx + b: of Σ g·(z - b) over all sites.

    G is not independent of W: behind tanh, say, g is small where z is large. Of z - b only what z has of it,
    ρ = 1 - E b²/E z², is met again in g; where Σ g·z is known, sites are independent with just that.
    """
    met = meeting(g, out)
    square = sum_atoms(met, range(len(met.atoms))).mean_q
    if g.along is not None:
        free = independent(g, out)
        square *= g.along.variance / free if free > 0.0 else 1.0
    if bias is None or bias.mean_q <= 0.0 or out.mean_q <= 0.0:
        return square
    share = max(1.0 - bias.mean_q / out.mean_q, 0.0)
    return share * share * square + share * (1.0 - share) * out.mean_q * whole(g).mean_q * out.numel
