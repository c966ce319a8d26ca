"""How the mean square of a tensor scatters from site to site: a recipe, worked out where something needs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Units:
    """The law of x² over the units of a site.

    Attributes:
        seed: Which tensor it is of.
        values: x on nodes, shape (rows, n); None for a Gaussian x.
        share: Of the rows, shape (rows,).
        weights: Of the nodes, shape (n,).
    """

    seed: int
    values: Array | None = None
    share: Array | None = None
    weights: Array | None = None


@dataclass(slots=True, eq=False)
class Sites:
    """The mean square V over the units of a site, in units of its mean over sites, from what it follows.

    V = own·Π V_k^w_k, own·Σ w_k V_k or, of tensors side by side, each V_k at its share of the sites. Recipes that
    follow from one tensor share it, so that E V·V' of two of them needs no more than both recipes.

    Attributes:
        kind: "product", "sum", "mixture", or "row" for one place of another.
        of: Recipes of the tensors that it follows from.
        weights: Exponents, or shares (which may differ from place to place), one for each; of a "row", which one.
        own: Relative variance of what the units of a site add, independent of `of`, or -1: from `factors`.
        pair: Where `own` is that of a product of two tensors over their units: the laws of both.
        inner: Of a function f(u) with `own` -1, the law of u.
        angle: n, where `own` is n·cos² of two independent directions in n dimensions; 0 where it is a mean of squares.
        common: Of an angle, the share of the mean square that is there at every site (directions around a mean).
        seed: Which tensor it is of: sampled values of `own` are equal wherever it is equal.
        units: Units of a site, where they are independent of each other; 0 where not.
        factors: Laws of the tensors that stand in it unit by unit.
        row: (seed, n, (E b)²/E b²) of vectors of n numbers b a site that stand as factors in the entries, the same for
            all units.
        flat: (Σ x)²/(n Σ x²) of the n units of a site, but for what stands in `row`.
        toward: (seed, cos²) of a tensor along which the units of a site go, and the seed of their sign (+ or -).
        apart: Share of V, place by place, that came from elsewhere: neither in `row` nor along that tensor.
        together: Of a sum of two, cos² of the angle between them at a site.
        crossed: Of a sum of two, E cos² of the angle between them at a site, where they are independent.
        heavy: Whether it scatters so much that laws of first order do not do.
        places: Places of a sample that have laws of their own.
        depth: Recipes below, one after the other.
        across: Of a gradient, ρ at the sampled sites: E (Σ g·x)² over that of independent g and x (see
            `rules.gradients.across`).
        left: Of a gradient, what it has along its tensor, against one that is at no right angles to anything.
        level: V at the sampled sites, once it has been worked out, shape (places, sites).
    """

    kind: str = "product"
    of: tuple[Sites, ...] = ()
    weights: tuple[float | Array, ...] = ()
    own: float = 0.0
    pair: tuple[Units, Units] | None = None
    inner: Units | None = None
    angle: int = 0
    common: float = 0.0
    seed: int = 0
    units: int = 0
    factors: tuple[Units, ...] = ()
    row: tuple[tuple[int, int, float], ...] = ()
    flat: float = 0.0
    toward: tuple[int, float, int] = (0, 0.0, 0)
    apart: tuple[float, ...] = (0.0,)
    together: float = 0.0
    crossed: float = 0.0
    heavy: bool = False
    places: int = 1
    depth: int = 0
    across: npt.NDArray[np.float32] | None = None
    left: npt.NDArray[np.float32] | None = None
    level: npt.NDArray[np.float32] | None = None
