"""How far a gradient goes along a whole image: s = Σ g·x over the channels and positions of a sample, carried along.

The rows of a convolution's patches are more than its weights: given all of z = Wx nothing of W is left that would be
independent of g. What is sure is Euler's identity for the whole image, Σ g·x = Σ g·z, as in `rules.gradients.along`
for the units of a site; without it independent masks would make s smaller from layer to layer, since they make the
gradients of two positions less alike. So Wᵀg has the part s·x/|x|² along the image x whatever W is, and of W'ᵀg with
independent weights W' that part has the mean square V₀ = E (Σ W'ᵀg·x)²: |Wᵀg|² gains (V - V₀)/|x|². A convolution in
groups keeps s group by group, each a share of V and of |x|². (Images moved by some positions keep Σ g·x, too, between
two masks: left out, about a quarter of the gain.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as with_fields
from math import prod

import numpy as np

from firstlight.graph.along import Along, Image
from firstlight.graph.signal import Array, Cotangent, Signal, Source, next_id, replace
from firstlight.rules.chains.source import from_values
from firstlight.rules.gradients import places
from firstlight.rules.gradients.along import fresh, meeting, mixed
from firstlight.rules.gradients.gradient import scaled, whole
from firstlight.rules.linear.contraction import energy_cube
from firstlight.rules.state.layout import axis_atoms, correlations, moments
from firstlight.rules.state.projection import shared_cube
from firstlight.rules.state.summation import sum_atoms

_NOTHING = 1e-9  # share of a function that is not homogeneous which is rounding


def known(g: Cotangent, x: Signal) -> Image | None:
    """How far the gradient of x goes along it, if that has been followed."""
    return None if g.image is None or g.image.ident != x.ident else g.image


def begun(g: Cotangent, x: Signal) -> Image:
    """How far the gradient of x goes along it; as far as independent ones where nothing is known."""
    return known(g, x) or Image(x.ident, fresh(free(g, x)))


def kept(found: Cotangent, g: Cotangent, x: Signal, out: Signal) -> Cotangent:
    """The gradient of x in front of an operation of degree one (a constant factor, pooling): Σ g·x is the same."""
    image = known(g, out)
    return found if image is None else replace(found, image=with_fields(image, ident=x.ident))


def lean_of(g: Cotangent, x: Signal) -> float:
    """How the gradient of x goes with the length of its places, λ."""
    image = known(g, x)
    return 0.0 if image is None else image.lean


def leaning(g: Cotangent, x: Signal, lean: float) -> Cotangent:
    """The gradient of x, which goes with the length of its places by λ."""
    return g if abs(lean) < places.LITTLE else replace(g, image=Image(x.ident, fresh(free(g, x)), lean=lean))


def free(g: Cotangent, x: Signal) -> float:
    """E s² where g is independent of x but for the factors that it has met."""
    met = meeting(g, x)
    return sum_atoms(met, [i for i, batch in enumerate(met.batch) if not batch]).mean_q


def convolved(
    dx: Signal, x: Signal, g: Cotangent, out: Signal, at: int, groups: int, bias: Signal | None, lean: float = 0.0
) -> Cotangent:
    """The gradient dx = Wᵀg of a convolution z = Wx + b, with what is known of Σ g·(z - b).

    Args:
        dx: Wᵀg of independent weights.
        x: The image.
        g: The gradient of z.
        out: z.
        at: Axis of the channels.
        groups: Groups of channels.
        bias: b, with the axes of z behind that of the channels.
        lean: λ of the places of x.
    """
    channels = max(x.shape[at], out.shape[at])
    image, found = begun(g, out), Cotangent(dx)
    own = free(found, x)
    if bias is not None and bias.mean_q > 0.0 and own > 0.0:
        # Σ g·Wx given Σ g·(Wx + b), of which independent g have the mean squares V₀ and B: as V₀ to V₀ + B
        share = own / (own + _on_bias(g, out, bias))
        image = with_fields(image, form=mixed([(share, image.form)], own * (1.0 - share)))
    entries = prod(n for n, batch in zip(x.atoms, x.batch, strict=True) if not batch)
    level = entries**2 * dx.mean_q * x.mean_q
    total = image.form.variance
    if level <= 0.0 or total <= 0.0:
        return found
    mine = image.of_groups(groups, channels)
    more = max(groups * (mine - own) / level, -0.5)
    if groups > image.groups:  # what was along the whole image before still is
        left = Image(x.ident, image.form, min(mine / total, 1.0), image.groups, image.uneven, lean)
    else:
        left = Image(x.ident, image.form, min(own / total, 1.0), groups, _uneven(x, at), lean)
    return Cotangent(_along_image(dx, x, more), image=left)


def _uneven(x: Signal, at: int) -> float:
    """E e²/(E e)² of the energy of one channel of an image, whose positions have squares that go together."""
    gone = [a for k in range(at + 1, x.ndim) for a in axis_atoms(x, k)]
    return 1.0 + max(float(shared_cube(x, gone, energy_cube(x)).flat[0]), 0.0)


def _on_bias(g: Cotangent, out: Signal, bias: Signal) -> float:
    """E (Σ g·b)² over a sample, of a number b for each channel."""
    signal = whole(g)
    channel = out.ndim - bias.ndim
    gone = [a for k in range(channel + 1, signal.ndim) for a in axis_atoms(signal, k)]
    return sum_atoms(signal, gone).mean_q * bias.mean_q * out.shape[channel]


def _along_image(dx: Signal, x: Signal, more: float) -> Signal:
    """A gradient with a component along the image that has `more` of its mean square."""
    if dx.corr.shape != x.corr.shape or dx.atoms != x.atoms:
        return replace(dx, q=dx.q * (1.0 + more), ident=next_id())
    own: Array = np.array(moments(x))
    for i, batch in enumerate(x.batch):
        if batch:
            own[tuple(slice(1, None) if k == i else slice(None) for k in range(own.ndim))] = 0.0
    q = dx.q * (1.0 + more)
    return replace(dx, q=q, corr=correlations(moments(dx) + more * own, q), ident=next_id())


def of_chain(
    g: Cotangent, x: Signal, y: Signal, on: Source, values: Array, before: Array, slope: Array
) -> Image | None:
    """Before a pointwise y = f(x): Σ g·f'(x)x from Σ g·f(x), by the regression of f'(x)·x on f(x).

    Args:
        g: The gradient of y.
        x: The input.
        y: The output.
        on: The source on which both stand.
        values: f(x) on its nodes.
        before: x on its nodes.
        slope: f'(x) on its nodes.
    """
    image = known(g, y)
    if image is None:
        return None
    image = with_fields(image, lean=places.before(image.lean, on, values, before) if image.lean else 0.0)
    inner, w = slope * before, on.grid.weights
    level = float(on.share @ (np.square(values) @ w))
    if level <= 0.0:
        return None
    a = float(on.share @ ((inner * values) @ w)) / level
    rest = inner - a * values
    form = mixed([(a, image.form)])
    if float(on.share @ (np.square(rest) @ w)) <= _NOTHING * level:
        return with_fields(image, ident=x.ident, form=form)
    more = free(g, from_values(y, on, rest))
    kept = form.variance / max(form.variance + more, 1e-300)
    return with_fields(image, ident=x.ident, form=mixed([(1.0, form)], more), apart=image.apart * kept + 1.0 - kept)


def of_sum(
    g: Cotangent, out: Signal, first: tuple[float, Signal, Cotangent], second: tuple[float, Signal, Cotangent]
) -> tuple[Image | None, Image | None]:
    """Before a sum z = a·x + b·y: what Σ g·z says of Σ g·ax and Σ g·by, as E s² of independent g are shared.

    A mask φ(z) that g has met goes along with both terms: with one gradient for all positions Σ φ(z)·ax is a share of
    Σ φ(z)·z, where an independent mask would leave a random sum. So each term comes with the gradient that has it
    seen from there (`through_sum`).

    Args:
        g: The gradient of z.
        out: z.
        first: a, x and the gradient as seen from x.
        second: b, y and the gradient as seen from y.
    """
    image = known(g, out)
    (a, x, mine), (b, y, yours) = first, second
    if image is None or x.shape != out.shape or y.shape != out.shape:
        return None, None
    one, other, total = a * a * free(mine, x), b * b * free(yours, y), free(g, out)
    if total <= 0.0:
        return None, None
    both = 0.5 * (total - one - other)
    share = (one + both) / total
    apart = fresh(max(one - share * (one + both), 0.0))
    forms = mixed([(share, image.form), (1.0, apart)]), mixed([(1.0 - share, image.form), (-1.0, apart)])
    return _part(image, x, forms[0], share), _part(image, y, forms[1], 1.0 - share)


def _part(image: Image, x: Signal, form: Along, share: float) -> Image:
    """The image of a term that has a share of s and something of its own."""
    along = share * share * image.form.variance * (1.0 - image.apart)
    lean = image.lean * min(max(share, 0.0), 1.0)
    return with_fields(
        image, ident=x.ident, form=form, lean=lean, apart=1.0 - min(along / max(form.variance, 1e-300), 1.0)
    )


def of_factor(g: Cotangent, grad: Cotangent, mine: Signal, other: Signal, out: Signal) -> Cotangent:
    """The gradient g of a factor of a product, whose Σ g·x is that of the product's gradient `grad`.

    A factor a of one number for each channel has a gradient of just the size that Σ g·x over the positions has, over a.
    Where it has been repeated over the positions before, that is seen where it was (`repeated`).
    """
    gate = _is_gate(mine, out)
    gated = gate or _is_gate(other, out) or _is_repeated(mine, out) or _is_repeated(other, out)
    image = begun(grad, out) if gated else known(grad, out)
    if image is None or not (gate or mine.numel == out.numel):
        return g
    lean = places.of_gate(grad, out, image) if gate or _is_repeated(mine, out) else 1.0
    if not gate:
        form = image.form if lean == 1.0 else mixed([(lean**0.5, image.form)])
        return replace(g, image=with_fields(image, ident=mine.ident, form=form))
    return _of_gate(g, mine, image, lean)


def repeated(g: Cotangent, grad: Cotangent, x: Signal, out: Signal) -> Cotangent:
    """The gradient g of a number for each channel, from that of the tensor in which all positions have it."""
    image = known(grad, out)
    return g if image is None or not _is_gate(x, out) else _of_gate(g, x, image)


def _of_gate(g: Cotangent, x: Signal, image: Image, lean: float = 1.0) -> Cotangent:
    level, channels = whole(g).mean_q * x.mean_q, x.shape[1]
    square = image.of_groups(channels, channels) / channels * lean
    return scaled(g, (square / level) ** 0.5) if level > 0.0 else g


def _is_repeated(x: Signal, out: Signal) -> bool:
    """Whether a factor is the same at all positions of an image."""
    if x.ndim != out.ndim or x.ndim <= 3 or x.shape != out.shape or not any(x.batch):
        return False
    at = [a for axis in range(2, x.ndim) for a in axis_atoms(x, axis)]
    inside = tuple(slice(None) if i in at else 0 for i in range(x.corr.ndim))
    return bool(at) and x.q.size == 1 and bool(np.all(x.corr[inside] >= 1.0 - _NOTHING))


def _is_gate(x: Signal, out: Signal) -> bool:
    """Whether a factor is one number for each sample and channel of an image."""
    return x.ndim == out.ndim > 3 and x.shape[:2] == out.shape[:2] and x.numel == prod(x.shape[:2]) and any(x.batch)


def together(parts: Sequence[Cotangent], total: Cotangent, x: Signal) -> Cotangent:
    """A sum of gradients that arrive at x: those whose s belong together have their parts along x in common."""
    images = [known(p, x) for p in parts]
    if all(i is None for i in images):
        return replace(total, image=None)
    forms = [fresh(free(p, x)) if i is None else i.form for p, i in zip(parts, images, strict=True)]
    form = mixed([(1.0, f) for f in forms])
    own = sum(f.variance * (1.0 if i is None else i.apart) for f, i in zip(forms, images, strict=True))
    sizes = [whole(p).mean_q for p in parts]
    lean = sum(size * i.lean for size, i in zip(sizes, images, strict=True) if i) / max(sum(sizes), 1e-300)
    apart = min(own / max(form.variance, 1e-300), 1.0)
    image = Image(x.ident, form, apart, max(i.groups for i in images if i), lean=lean)
    entries = prod(n for n, batch in zip(x.atoms, x.batch, strict=True) if not batch)
    level = entries**2 * whole(total).mean_q * x.mean_q
    more = (form.variance - sum(f.variance for f in forms)) / level if level > 0.0 else 0.0
    return replace(scaled(total, max(1.0 + more, 0.5) ** 0.5) if more else total, image=image)
