"""Normalisations: what the group has in common is removed, its mean square set to one; their adjoints project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from firstlight.graph.along import Along
from firstlight.graph.signal import SILENT, Array, Cotangent, Signal, next_id, replace
from firstlight.rules.chains import two_samples
from firstlight.rules.chains.side_by_side import by_row, follows_rows
from firstlight.rules.convolutions import borders, grouped, steep
from firstlight.rules.gradients import images
from firstlight.rules.gradients.along import along, energy, met_in_group, mixed
from firstlight.rules.gradients.gradient import scale, whole
from firstlight.rules.gradients.leaning import with_length
from firstlight.rules.linear.contraction import energy_cube, product
from firstlight.rules.linear.past_weights import PER_ROW
from firstlight.rules.pointwise.merge import plus, reduce_to
from firstlight.rules.reductions import epsilon, spectrum, unlike_entries
from firstlight.rules.reductions.sphere import followed, is_site, on_nodes, on_sphere, over_places, weights_of
from firstlight.rules.registry import BACKWARD_INDEPENDENT, CONCENTRATED, Call, Grads, rule, several
from firstlight.rules.state import course, pieces, placed
from firstlight.rules.state.cross import with_rest
from firstlight.rules.state.forms import combine, joint
from firstlight.rules.state.layout import align, axis_atoms, correlations, moments
from firstlight.rules.state.projection import group_pairs, of_few, projected, shared_cube

_SMALL = 64  # entries of a group up to which effects of order 1/n can add up to per cents
_EPSILON = 1e-3  # share of ε in the variance from which the length before a norm counts behind it
_SHARED = 0.03  # share of a tensor that its groups have in common from which it counts that they differ in it
_COMMON = 0.1  # share of a gradient that a group has in common from which its dependence on the tensor shows


@dataclass(slots=True)
class Normalised:
    """A normalised signal with what its adjoint needs.

    Attributes:
        signal: x̂.
        scale: 1/√(v+ε), a field.
        kept: v/(v+ε).
        spread: Relative variance of the group's v̂ for the entries that it has.
        apart: The share of v̂ that scatters (`spectrum`).
    """

    signal: Signal
    scale: Array
    kept: float
    spread: float
    apart: float


def normalise(call: Call, x: Signal, atoms: Sequence[int], *, centre: bool, eps: float) -> Normalised:
    """(x - mean)/√(var + ε) over the atoms: shared part r̄ = mean pair moment of the group, v = q - r̄ (RMS: r̄ kept)."""
    gone = tuple(atoms)
    if not gone:
        call.caveat("a normalisation over one entry: its output is constant")
    group_q = x.q.mean(axis=gone, keepdims=True) if gone else x.q
    group_mean = x.mean.mean(axis=gone, keepdims=True) if gone else x.mean
    raw = moments(x)
    shared = shared_cube(x, gone, np.broadcast_to(raw, x.corr.shape))
    origin = (0,) * shared.ndim
    common = float(shared[origin]) if centre else 0.0
    part = pieces.common(x, gone, common) if centre else 0.0
    if isinstance(part, float) and common > _SHARED and float(group_q.max()) > 1.5 * float(group_q.min()):
        call.caveat(
            f"groups of different size (side by side in one tensor): each is taken to have {100 * common:.0f} % in "
            "common, as they have on average; the gradient in front can come out some per cent too small"
        )
    known = unlike_entries.by_means(x, gone, common) if centre and isinstance(part, float) else None
    v = np.maximum(group_q * (1.0 - part), 0.0) if known is None else known[0]
    v = np.where(v <= 1e-12 * group_q, 0.0, v)
    inverse = 1.0 / np.sqrt(v + eps) if eps > 0 else 1.0 / np.sqrt(np.maximum(v, 1e-300))
    q, taken = x.q, shared
    border = borders.centred(x, gone, common * group_q.item()) if centre and group_q.size == 1 else None
    if border is not None:
        q, taken = border.q, shared * border.taken
    elif known is not None:
        q = known[1]
    elif centre:  # E (x - x̄)² = q_s - 2 E x_s x̄ + E x̄², E x_s x̄ in proportion to √q_s
        root = np.sqrt(x.q)
        level = root.mean(axis=gone, keepdims=True) if gone else root
        q = np.maximum(x.q - part * group_q * (2.0 * root / np.maximum(level, 1e-300) - 1.0), 0.0)
        if group_q.size == 1:  # and from pairs E x_s x̄ + E x_s' x̄ - E x̄²: neighbours lie where √q is larger
            taken = shared * (2.0 * borders.met_by_pairs(root, x) - 1.0)
    q = q * np.square(inverse)
    mean = (x.mean - group_mean if centre else x.mean) * inverse
    corr, rest = x.corr, 1.0 - common
    if centre:
        corr = correlations(raw - taken, q) if rest > 1e-12 else np.ones_like(raw)
        if rest < 1e-6:
            call.caveat("what the group has not in common is below rounding: the output is amplified noise")
    values, source, uncut = x.values, x.source, None
    if source is not None and values is not None and all(follows_rows(source, f) for f in (group_mean, v)):
        values = unlike_entries.of_length(source, values - (by_row(source, group_mean)[:, None] if centre else 0.0), q)
        source = unlike_entries.centred(source, values, corr) if centre and group_q.size > 1 else source
        if group_q.size == 1 and followed(x, gone) and eps <= _EPSILON * v.item():
            uncut, values = (values,), on_sphere(values, weights_of(source), x.atoms[gone[0]], q.item(), centre=centre)
    else:
        values, source = None, None
    out = replace(
        x, mean=mean, q=np.maximum(q, np.square(mean)), corr=corr, source=source, values=values, noise=SILENT,
        scatter=0.0, split=None, data=False, cumulants=_normal_cumulants(x, float(inverse.mean())), tag=None,
        terms=(), weights=None, value=None, integer=False, ident=next_id(), sites=None,
    )  # fmt: skip
    total_v = float(v.mean())
    # images of which each channel has its own v (for single sites `wander` is too large in deep stacks), which differs
    # from channel to channel of one draw, not by what sites or places differ in
    of_channels = len(gone) > 1 and x.ndim > 2 and not any(a in gone for a in axis_atoms(x, 1))
    energy = energy_cube(out, one_draw=of_channels)
    if of_channels:
        energy = energy + grouped.strayed_elsewhere(out) if out.source is None else energy - grouped.by_place(out)
    spread = min(max(float(np.sum(group_pairs(out, gone) * energy)), 0.0), 1.0) if gone else 1.0
    apart = spectrum.share(out, gone, spread)
    own, site = 0.0, is_site(x, gone)
    # what has been normalised before has lengths that hardly scatter: nothing goes with them
    alike = of_few(out, gone, max(spread + min(x.scatter, 0.0), 0.0) if site else spread)
    if site:  # correlations of moments are less than those of samples of one length
        alike = two_samples.of_one_length(x, alike, two_samples.apart(x), 0.0)
    out = replace(out, corr=alike, data=len(gone) == 1)
    if of_channels:
        out, own = grouped.normalised(out, x, spread)
    elif len(gone) > 1:  # sites of a group keep what they scatter beside each other, not what a whole draw does
        out = replace(out, scatter=max(x.scatter - x.noise.variance, 0.0))
    elif site:  # on the sphere Σ x̂² does not scatter; a kurtosis of 3(1 - 2/n)
        out = replace(out, scatter=-spread)
    if x.course and not any(c.atom in gone for c in x.course):
        out = course.normalised(out, x, max(common, 0.0), shared, corr)
    if border is not None:  # what the border adds is shared by its own entries only
        spread = min(max(spread, border.spread), 1.0)
    spread = min(spread + own, 1.0)
    kept = total_v / (total_v + eps) if total_v + eps > 0 else 0.0
    out = replace(out, q=out.q * epsilon.shares(kept, spread)[0])
    if inverse.size == 1 and (not centre or abs(common) < 0.05):
        left = float(inverse.reshape(-1)[0]) * (1.0 - common)  # E x·(x - x̄) = E x² - E x̄²
        out = replace(out, terms=_along(out, x, left, kept, spread + (x.scatter if site else 0.0)))
    out = placed.given(pieces.reweighed(out, x, gone, centred=centre), None if border is None else border.alike)
    return Normalised(replace(out, uncut=uncut and (out.ident, uncut[0])), inverse, kept, spread, apart)


def _along(out: Signal, x: Signal, scale: float, kept: float, scatter: float) -> tuple[tuple[float, Signal], ...]:
    """A normalised tensor as a·x and what is left of it: lengths that scatter leave more than nothing.

    Σ x̂·x = n·v/√(v + ε) over a group, v log-normal of the relative variance τ²: E v^p is (1 + τ²)^(p(p - 1)/2) times
    (E v)^p, so that a is (1 + τ²)^(-1/8) of what it is for groups of one length.
    """
    return with_rest(out, x, scale * (1.0 + max(scatter, 0.0)) ** (-0.125 * kept))


def _normal_cumulants(x: Signal, a: float) -> tuple[float, float]:
    a = min(a, 1e60)
    return x.cumulants[0] * a**3, x.cumulants[1] * a**4


def normalise_back(
    call: Call, g: Signal, x: Signal, atoms: Sequence[int], *, centre: bool, eps: float, known: float | None = None,
    met: Array | None = None,
) -> Signal:  # fmt: skip
    """Gradient before a normalisation: (g - mean g - x̂·mean(g x̂))/√(v+ε).

    The projection takes the shared part of g and the part along x̂; E[v/v̂] = n/(n-2) for n effective entries,
    n = 2/(relative variance of v̂), of which centring has already taken one. Over a batch, v̂ = wᵀΣw of the row of
    weights w in front, which the gradient meets again on its way down (`past_weights`).
    """
    g, x = align(g, x)
    hat = normalise(call, x, atoms, centre=centre, eps=eps)
    share, corr = projected(g, hat.signal, atoms, centre=centre, kept=hat.kept, met=met)
    common = float(shared_cube(g, atoms).flat[0]) if centre else 0.0
    if known is not None:
        share = max(1.0 - common - (2.0 - hat.kept) * hat.kept * known, 0.0)
    # v scatters from site to site: a group that spans sites has the mean of it
    single = len(set(atoms)) == 1 and not any(x.batch[a] for a in atoms)
    spread = x.scatter if x.data else hat.spread + (x.scatter if single else 0.0)
    if 1 < (entries := prod(x.atoms[a] for a in set(atoms))) <= _SMALL:
        call.caveat(
            f"a group of {entries} entries: parts of the gradient of order 1/{entries} that depend on the tensor "
            "itself, or on lengths that scatter by maps along another axis, are left out and add up"
        )
    if centre and common > _COMMON and met is None:
        call.caveat(
            f"{100 * common:.0f} % of the gradient is common to the group: how far the rest goes along with the "
            "normalised tensor is left out"
        )
    lift = epsilon.shares(hat.kept, spread)[1]
    if lift == 1.0:  # no ε
        lift = 1.0 + hat.kept * (spectrum.inverse(spread, hat.apart) - 1.0)
    q = g.q * np.square(hat.scale) * share * lift * joint(g.noise, x.noise, -hat.kept)
    q = q * with_length(g, x, spread, -hat.kept)
    tag = (PER_ROW, 0, lift) if x.gaussian and any(x.batch[a] for a in atoms) else None
    out = replace(
        g, mean=np.zeros_like(g.mean), q=q, corr=corr, source=None, values=None, terms=(), lean=0.0, ident=next_id(),
        beside=(0, 0.0, 0.0), noise=combine([(1.0, g.noise), (-hat.kept, x.noise)]), tag=tag,
    )  # fmt: skip
    out = out if any(c.atom in atoms for c in g.course) else course.mapped(out, g)
    if hat.scale.size == 1:  # of g the share that the projection leaves, over √v: E 1/√v is (1 + τ²)^(3/8)/√(E v)
        out = replace(out, terms=with_rest(out, g, hat.scale.item() * share * (1.0 + spread) ** (0.375 * hat.kept)))
    return out


def _trailing(x: Signal, shape: Any) -> list[int]:
    count = len(shape) if several(shape) else 1
    return [a for axis in range(x.ndim - count, x.ndim) for a in axis_atoms(x, axis)]


def _is_one(w: Signal | None) -> bool:
    return w is None or (w.mean.size == 1 and w.q.size == 1 and w.mean_mean == 1.0 and w.mean_q == 1.0)


def _is_zero(w: Signal | None) -> bool:
    return w is None or not np.any(w.q)


def affine_after(call: Call, x: Signal, weight: Signal | None, bias: Signal | None, axes: int) -> Signal:
    """γ·x̂ + β with γ, β along an axis that has `axes` axes behind it."""
    out = x
    if weight is not None and not _is_one(weight):
        w = replace(weight, groups=(*weight.groups, *((),) * axes), value=None)
        constant = w.mean.size == 1 and abs(w.mean_q - w.mean_mean**2) <= 1e-12 * w.mean_q
        out = scale(out, w.mean_mean) if constant else replace(product(out, w), gaussian=x.gaussian)
    if bias is not None and not _is_zero(bias):
        out = replace(plus(call, out, replace(bias, groups=(*bias.groups, *((),) * axes))), gaussian=x.gaussian)
    return out


def affine_back(
    g: Signal, hat: Signal, weight: Signal | None, bias: Signal | None, axes: int
) -> tuple[Signal, dict[str, Any]]:
    """The gradient in front of γ·x̂ + β, and those of γ and β."""
    grads: dict[str, Any] = {}
    inner = g
    if weight is not None:
        w = replace(weight, groups=(*weight.groups, *((),) * axes), value=None)
        if not _is_one(weight):
            inner = product(g, w)
        grads["weight"] = Cotangent(_drop(reduce_to(Cotangent(product(g, hat)), w).base, axes))
    if bias is not None:
        b = replace(bias, groups=(*bias.groups, *((),) * axes), value=None)
        grads["bias"] = Cotangent(_drop(reduce_to(Cotangent(g), b).base, axes))
    return inner, grads


def _drop(x: Signal, axes: int) -> Signal:
    return replace(x, groups=x.groups[: len(x.groups) - axes]) if axes else x


@rule("layer_norm", assumes=(CONCENTRATED, BACKWARD_INDEPENDENT), refs=("ba2016",), example="F.layer_norm(x, (64,))")
def layer_norm(
    call: Call, input: Signal, normalized_shape: Any, weight: Signal | None = None, bias: Signal | None = None,
    eps: float = 1e-5,
) -> Signal:  # fmt: skip
    """LayerNorm over the last axes: the features' shared part goes, the site's mean square becomes one."""
    hat = normalise(call, input, _trailing(input, normalized_shape), centre=True, eps=eps).signal
    return affine_after(call, hat, weight, bias, 0)


@layer_norm.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, normalized_shape: Any, weight: Signal | None = None,
    bias: Signal | None = None, eps: float = 1e-5,
) -> Grads:  # fmt: skip
    atoms = _trailing(input, normalized_shape)
    return _back(call, grad, out, input, atoms, weight, bias, 0, centre=True, eps=eps)


def _back(
    call: Call, grad: Cotangent, out: Signal, x: Signal, atoms: Sequence[int], weight: Signal | None,
    bias: Signal | None, axes: int, *, centre: bool, eps: float,
) -> dict[str, Any]:  # fmt: skip
    g = whole(grad)
    if g.groups != x.groups:
        names = [axis for axis in range(x.ndim) if any(a in atoms for a in axis_atoms(x, axis))]
        g, x = align(g, x)
        atoms = [a for axis in names for a in axis_atoms(x, axis)]
    hat = normalise(call, x, atoms, centre=centre, eps=eps)
    inner, grads = affine_back(g, hat.signal, weight, bias, axes)
    known, form = None, None
    if list(atoms) == list(axis_atoms(x, -1)):  # all units of a site: Σ g·x = (1 - kept)·Σ g·y is left by ε alone
        if grad.along is not None:  # E (Σ g·y)²/(n·E|g|²·E y²)
            known = grad.along.variance / max(x.shape[-1] * energy(grad) * out.mean_q, 1e-300)
        form = mixed([(1.0 - hat.kept, along(grad, out))]) if 1.0 - hat.kept > _EPSILON else Along()
    met = met_in_group(grad, out, inner, atoms) if known is None else None
    back = normalise_back(call, inner, x, atoms, centre=centre, eps=eps, known=known, met=met)
    if list(atoms) == list(axis_atoms(x, -1)):
        back = replace(back, lean=-hat.kept)
        seen = Cotangent(back)
        if _is_one(weight) and 1.0 - hat.kept <= _EPSILON and followed(x, atoms):
            seen = on_nodes(grad, back, out, x, x.atoms[atoms[0]], centre=centre, known=known is not None) or seen
        grads["input"] = replace(seen, along=form)
        return grads
    bent = steep.of_factors(grad, out)
    back = back if bent == 0.0 else replace(back, steep=(back.ident, bent))
    lean = bent + images.lean_of(grad, out) if len(atoms) > 1 else 0.0  # many places in a norm keep their lengths
    seen = over_places(grad, back, x) if len(atoms) > 1 else None
    seen = Cotangent(back, along=form) if seen is None else replace(seen, along=form)
    grads["input"] = images.leaning(seen, x, lean)
    return grads


@rule("rms_norm", assumes=(CONCENTRATED, BACKWARD_INDEPENDENT), refs=("zhang2019",), example="F.rms_norm(x, (64,))")
def rms_norm(
    call: Call, input: Signal, normalized_shape: Any, weight: Signal | None = None, eps: float | None = None
) -> Signal:
    """RMSNorm: nothing is removed, the site's mean square becomes one."""
    atoms = _trailing(input, normalized_shape)
    hat = normalise(call, input, atoms, centre=False, eps=1.2e-7 if eps is None else eps).signal
    return affine_after(call, hat, weight, None, 0)


@rms_norm.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, normalized_shape: Any, weight: Signal | None = None,
    eps: float | None = None,
) -> Grads:  # fmt: skip
    atoms = _trailing(input, normalized_shape)
    return _back(call, grad, out, input, atoms, weight, None, 0, centre=False, eps=1.2e-7 if eps is None else eps)


def all_but(x: Signal, axes: Sequence[int]) -> list[int]:
    """The atoms of all axes but these."""
    return [a for axis in range(x.ndim) if axis not in axes for a in axis_atoms(x, axis)]


@rule(
    "batch_norm", "instance_norm", assumes=(CONCENTRATED, BACKWARD_INDEPENDENT), refs=("ioffe2015",),
    example="F.batch_norm(x, None, None, training=True)",
)  # fmt: skip
def batch_norm(
    call: Call, input: Signal, running_mean: Signal | None = None, running_var: Signal | None = None,
    weight: Signal | None = None, bias: Signal | None = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5, use_input_stats: bool = True,
) -> Signal:  # fmt: skip
    """BatchNorm: in training the part that the whole batch shares goes; in evaluation an affine map."""
    del momentum
    axes = input.ndim - 2
    if not _on_batch(call, training, use_input_stats, running_mean):
        return affine_after(call, _running(call, input, running_mean, running_var, eps), weight, bias, axes)
    hat = normalise(call, input, _batch_atoms(call, input), centre=True, eps=eps).signal
    out = affine_after(call, hat, weight, bias, axes)
    return placed.given(out, placed.known(hat)) if bias is None or bias.mean_q <= 0.0 else out


def _on_batch(call: Call, training: bool, use_input_stats: bool, running_mean: Signal | None) -> bool:
    if call.node.op == "instance_norm":
        return bool(use_input_stats)
    return bool(training) or running_mean is None


def _batch_atoms(call: Call, x: Signal) -> list[int]:
    return all_but(x, (0, 1) if call.node.op == "instance_norm" else (1,))


def _running(call: Call, x: Signal, mean: Signal | None, var: Signal | None, eps: float) -> Signal:
    v = 1.0 if var is None else var.mean_mean
    m = 0.0 if mean is None else mean.mean_mean
    out = plus(call, x, -m) if m else x
    return scale(out, (v + eps) ** -0.5)


@batch_norm.adjoint
def _(
    call: Call, grad: Cotangent, out: Signal, input: Signal, running_mean: Signal | None = None,
    running_var: Signal | None = None, weight: Signal | None = None, bias: Signal | None = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5, use_input_stats: bool = True,
) -> Grads:  # fmt: skip
    del momentum
    axes = input.ndim - 2
    if not _on_batch(call, training, use_input_stats, running_mean):
        hat = _running(call, input, running_mean, running_var, eps)
        inner, grads = affine_back(whole(grad), hat, weight, bias, axes)
        v = 1.0 if running_var is None else running_var.mean_mean
        grads["input"] = Cotangent(scale(inner, (v + eps) ** -0.5))
        return grads
    return _back(call, grad, out, input, _batch_atoms(call, input), weight, bias, axes, centre=True, eps=eps)
