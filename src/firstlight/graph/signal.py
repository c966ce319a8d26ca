"""The state that the rules move: statistics of one tensor under random weights, without the tensor.

See docs/signal.md for what each field means, how each kind of operation moves it and what it cannot express.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from firstlight.graph.alone import Alone
from firstlight.graph.along import Along, Image
from firstlight.graph.border import Border
from firstlight.graph.course import Course
from firstlight.graph.filled import Kept, filled_at_once
from firstlight.graph.keyed import Keyed
from firstlight.graph.made import Made
from firstlight.graph.nodes import Grid, Powers, powers
from firstlight.graph.noise import SILENT, Noise
from firstlight.graph.pieces import Pieces
from firstlight.graph.sites import Sites
from firstlight.graph.sway import STILL, Sway
from firstlight.graph.unitwise import Common
from firstlight.theory.quantiles import bent

Array = npt.NDArray[np.float64]
INFINITY = 1e30  # what stands for an infinite entry, so that sums and squares stay finite
FILLER = 5e3  # what hides entries from a softmax is larger: 1e4, 1e9, a type's lowest number, infinity
Groups = tuple[tuple[int, ...], ...]

_counter = itertools.count(1)


def next_id() -> int:
    """A number larger than every number given before: later signals depend on earlier ones, never the reverse."""
    return next(_counter)


@filled_at_once
@dataclass(frozen=True, eq=False)
class Source:
    """A Gaussian tensor u = mean + sd·z on which a chain of pointwise operations stands.

    Where entries differ in (mean, sd) they are represented by a few rows; `row` says, entry by entry, which one
    (a fraction lies between two neighbouring rows).

    Attributes:
        key: Identity; two chains may be multiplied node by node if their keys are equal.
        mean: Mean of each row, shape (rows,).
        sd: Standard deviation of each row, shape (rows,).
        share: Share of the entries on each row, shape (rows,).
        row: Fractional row of each entry, broadcastable to the atoms; None with one row.
        corr: Correlation of z between pairs of entries, a cube like `Signal.corr`.
        grid: Quadrature nodes of z.
        noise, wander, angle, courses, kin: As in `Signal`, of u (courses of z, kin behind the key).
        scatter: Relative variance of the variance of u from site to site (see `Signal.scatter`).
        skew, excess: Third cumulant of u over sd³, and fourth over sd⁴, the scatter's part not counted.
        quantiles: u on the nodes in units of sd and around the mean, where its law is known; None for the bent
            Gaussian.
        table: `values`, once they have been worked out.
        sites: How the mean square of u scatters from site to site.
        apart, bias: Of two samples (`rules.chains.two_samples`): how their lengths part, and the bias that they share.
        of: (key, u) of the source with that key, for cross moments behind shared weights (`rules.state.twins`).
    """

    key: Hashable
    mean: Array
    sd: Array
    share: Array
    row: Array | None
    corr: Array
    grid: Grid
    noise: Noise = SILENT
    scatter: float = 0.0
    skew: float = 0.0
    excess: float = 0.0
    quantiles: Array | None = None
    table: Array | None = None
    wander: float = 0.0
    sites: Sites | None = None
    courses: tuple[Course, ...] = ()
    kin: tuple[Hashable, Hashable] | None = None
    angle: float = 1.0
    apart: float = 0.0
    bias: float = 0.0
    of: ClassVar[tuple[Hashable, Signal] | None] = None

    @property
    def values(self) -> Array:
        """Values of u on the nodes, shape (rows, n).

        Where the variance scatters from site to site the law is a mixture of Gaussians; skewness and kurtosis beyond
        that bend it (`theory.quantiles.bent`).
        """
        return self.bent(self.scatter) if self.table is None else self.table

    def bent(self, scatter: float) -> Array:
        """`values`, had the variance another scatter."""
        if self.quantiles is not None:
            return self.mean[:, None] + self.sd[:, None] * self.quantiles
        z = bent(self.grid.z, self.grid.weights, scatter, self.skew, self.excess)
        return self.mean[:, None] + self.sd[:, None] * z

    def average(self, field: Array) -> float:
        """Mean over all entries of what stands on the nodes, shape (rows, n)."""
        per_row = field @ self.grid.weights
        return float(self.share @ per_row)

    @property
    def powers(self) -> Powers:
        """Powers of the correlations, worked out once."""
        return once(self, "_powers", self.corr, lambda: powers(self.corr, self.grid.hermite.shape[1]))


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What a signal that is a parameter, or a view of one, knows of its law.

    Attributes:
        name: Qualified name of the parameter.
        kurtosis: Of its entries.
        structure: "iid", "orthogonal", "centred", ...
        fan_shape: Shape of the parameter itself.
    """

    name: str
    kurtosis: float = 3.0
    structure: str = "iid"


@filled_at_once
@dataclass(frozen=True, eq=False)
class Signal:
    """Statistics of one tensor.

    The tensor's axes are split into *atoms*: sizes whose product is the axis. Merging axes only regroups atoms.
    Fields are arrays with one axis per atom, of size 1 where the statistic does not vary along it.
    A *cube* has one axis per atom, with index 0 for "same index", 1 for "another index" and, where neighbours
    matter, 2 for "the next index": corr[d] = E x_i x_j / √(q_i q_j) over pairs (i, j) that differ as d says.

    Attributes:
        groups: Atom sizes of each tensor axis; an axis of size 1 has no atoms.
        mean: E x, a field.
        q: E x², a field.
        corr: Normalised pair moments (means included), a cube; corr[0, …, 0] = 1.
        batch: Per atom, whether it counts samples.
        source: The Gaussian source of a pointwise chain.
        values: Values on the source's nodes, shape (rows, n).
        gaussian: Whether the entries are (close to) jointly Gaussian.
        noise: Log-norm noise over weight draws.
        scatter: Relative variance of the entries' variance from site to site and draw to draw: a Gaussian mixture.
        split: Of `scatter`, (what all positions of one sample have in common, what attention has brought each row for
            itself); None where positions are not told apart.
        reach: Share of `scatter` that places which one window sees have in common, on average over their pairs.
        wander: How far the correlation of two samples strays from its mean over draws: E c² = c² + wander·(1 - c²).
        angle: Share of `wander` that the angle of two samples strays by; the rest is what their lengths do.
        kin: (ident, a tensor's identity) if weights made the signal with that ident of that tensor.
        sway: How correlations of positions that share a few channels' weights stray over draws.
        data: Whether the entries are data, the same in every draw.
        cumulants: Third and fourth cumulants of the entries beyond what `scatter` says.
        terms: The signal as a linear combination of earlier ones of the same shape, for cross moments.
        factors: (ident, x, y) if the signal with that ident is x·y of independent x and y, for its law.
        weights: The law, if the signal is a parameter or a view of one.
        lean: Of a gradient, how it goes with the length of its own tensor x from site to site: d ln|g|²/d ln|x|².
        beside: (ident, the same of the tensor with that ident, its share of the sum) where its own was added to it.
        steep: Of a gradient, (ident, d ln E[g²|V]/d ln V) of the energies V of windows that its tensor came from.
        tag: What the signal is of an earlier one: ("square" | "mean square" | "inverse rms", ident, level).
        keyed: Of the weights of a softmax, and the gradient of its logits (as long as the tag says that it is one).
        sites: How the mean square over the units of a site scatters, where it is followed.
        view: (ident, a tensor, changes of layout) if the signal with that ident is that tensor, laid out anew.
        border: (ident, what the zeros around an image do) if the signal with that ident comes out of a convolution.
        alone: (ident, what channels have each for themselves) if that one comes out of a convolution.
        common: The law given what a unit has in common at all places, for products of slices of one tensor.
        placed: (ident, correlations of two samples at each place) if that signal is a norm behind a convolution, or a
            function of one.
        pieces: (ident, pieces) if the signal with that ident was put together from tensors that are not equally alike.
        mapped: (ident, matrix of each atom, tensors by ident with polynomials in the matrices) if that signal is a sum
            of windows of the tensors, of windows of these, or of the tensors moved.
        largest: (ident, a tensor, windows of each axis) if that signal is the largest entries of windows of the tensor.
        courses: (ident, how alike positions are, pair by pair) if that signal is of tokens or lies behind a mask.
        uncut: (ident, values) if the signal with that ident comes out of a norm of few entries: its values on the nodes
            had they one length, for sums in which entries make up for each other.
        value: Entries, for tensors that depend on no weight and are known (masks, indices).
        given: (ident, entries by atoms) if the signal with that ident is an input that is given, or a part of one.
        integer: Whether the entries are integers or booleans.
        complex: Whether they are complex numbers; then q is E|x|², corr of Re E x x̄', mean is Re E x.
        cartesian: (ident, a, b) if the complex tensor with that ident is a + ib, and both are followed.
        chosen: (ident, x, y, x - y, sign) if the signal with that ident is the larger (sign 1) or smaller (-1) of two.
        made: (ident, how) if the signal with that ident lies behind shared weights (`rules.state.twins`).
        ident: Order of creation.
    """

    groups: Groups
    mean: Array
    q: Array
    corr: Array
    batch: tuple[bool, ...] = ()
    source: Source | None = None
    values: Array | None = None
    gaussian: bool = False
    noise: Noise = SILENT
    scatter: float = 0.0
    split: tuple[float, float] | None = None
    reach: float = 0.5
    wander: float = 0.0
    sway: Sway = STILL
    data: bool = False
    cumulants: tuple[float, float] = (0.0, 0.0)
    terms: tuple[tuple[float, Signal], ...] = ()
    factors: tuple[int, Signal, Signal] | None = None
    weights: Weights | None = None
    lean: float = 0.0
    beside: tuple[int, float, float] = (0, 0.0, 0.0)
    steep: tuple[int, float] | None = None
    tag: tuple[str, int, float] | None = None
    keyed: Keyed | None = None
    sites: Sites | None = None
    view: tuple[int, Signal, tuple[Hashable, ...]] | None = None
    border: tuple[int, Border] | None = None
    alone: tuple[int, Alone] | None = None
    placed: tuple[int, Array] | None = None
    pieces: tuple[int, Pieces] | None = None
    courses: tuple[int, tuple[Course, ...]] | None = None
    uncut: tuple[int, Array] | None = None
    mapped: tuple[int, dict[int, bytes], dict[int, tuple[Signal, Array]]] | None = None
    largest: tuple[int, Signal, dict[int, Array]] | None = None
    value: npt.NDArray[Any] | None = None
    integer: bool = False
    complex: bool = False
    cartesian: tuple[int, Signal, Signal] | None = None
    chosen: tuple[int, Signal, Signal, Signal, float] | None = None
    ident: int = field(default_factory=next_id)
    common: ClassVar[tuple[Common, ...]] = ()  # few have one: no entry of every dictionary
    angle: ClassVar[float] = 1.0
    kin: ClassVar[tuple[int, Hashable] | None] = None
    made: ClassVar[tuple[int, Made] | None] = None
    given: ClassVar[tuple[int, Array] | None] = None

    # only these two are kept of what follows from the groups: 42 entries fill a dictionary, one more doubles its memory
    @Kept
    def atoms(self) -> tuple[int, ...]:
        """All atom sizes in order."""
        return _atoms(self.groups)

    @Kept
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return _shape(self.groups)

    @property
    def ndim(self) -> int:
        """Number of tensor axes."""
        return len(self.groups)

    @property
    def numel(self) -> int:
        """Number of entries."""
        return math.prod(self.atoms)

    @property
    def viewed(self) -> tuple[int, tuple[Hashable, ...]]:
        """The tensor that it is a view of, by its ident, and the changes of layout since."""
        root = self.root
        return root.ident, self.view[2] if self.view is not None and root is not self else ()

    @property
    def root(self) -> Signal:
        """The tensor that it is a view of; itself if of none."""
        return self.view[1] if self.view is not None and self.view[0] == self.ident else self

    @property
    def course(self) -> tuple[Course, ...]:
        """How alike its positions are, pair by pair, for each atom of which that is known."""
        return self.courses[1] if self.courses is not None and self.courses[0] == self.ident else ()

    @property
    def mean_q(self) -> float:
        """Mean square over all entries."""
        return _mean(self, "_mean_q", self.q)

    @property
    def mean_mean(self) -> float:
        """Mean over all entries."""
        return _mean(self, "_mean_mean", self.mean)


@functools.lru_cache(maxsize=4096)
def _atoms(groups: Groups) -> tuple[int, ...]:
    return tuple([n for group in groups for n in group])


@functools.lru_cache(maxsize=4096)
def _shape(groups: Groups) -> tuple[int, ...]:
    return tuple([math.prod(g) for g in groups])


def number(value: float, atoms: int) -> Array:
    """A field that is the same everywhere: `np.full` takes three times as long."""
    return np.array(value, dtype=np.float64, ndmin=atoms)


def average(field: Array) -> float:
    """The mean of a field: what its own `mean` gives, without the bookkeeping, which costs more than the sum."""
    return field.item() if field.size == 1 else float(np.add.reduce(field, axis=None)) / field.size


# Most fields are one number, of which a reduction takes ten times as long to ask.


def largest(field: Array) -> float:
    """The largest entry."""
    return field.item() if field.size == 1 else float(field.max())


def smallest(field: Array) -> float:
    """The smallest entry."""
    return field.item() if field.size == 1 else float(field.min())


def vanishes(field: Array) -> bool:
    """Whether a field is zero everywhere."""
    return not field.item() if field.size == 1 else not field.any()


def _mean(x: Signal, name: str, field: Array) -> float:
    return field.item() if field.size == 1 else once(x, name, field, lambda: average(field))


def once(x: Signal | Source, name: str, field: Array, make: Callable[[], K]) -> K:
    """What follows from a field, worked out once: a copy with the same field has it as well."""
    known = x.__dict__.get(name)
    if known is None or known[0] is not field:
        known = x.__dict__[name] = (field, make())
    return known[1]


@dataclass(eq=False)
class Cotangent:
    """A gradient: a base that came through a random map, times what it has met on its way since, plus more of these.

    Attributes:
        base: Gradient that is independent of the factor.
        source: Forward source of the factor, where that is a function of one; None for any other factor.
        values: The factor on the source's nodes, shape (rows, n); its root mean square where it is not fixed by them.
        expected: E[factor | node] where it is not fixed by the node, shape (rows, n); None where it is.
        stray: Correlations of what the factor is beside that, a cube.
        forked: Whether it came through a product on its source: one of several paths through one chain.
        layout: The forward signal on whose source the factor stands.
        whole: The product as a signal, once it has been asked for.
        factor: A factor that is no function of one source; None for the factor 1.
        rest: Further summands.
        along: How far the whole goes along its own tensor; None where nothing is known.
        image: How far the whole goes along its tensor over channels and positions of a sample.
    """

    base: Signal
    source: Source | None = None
    values: Array | None = None
    layout: Signal | None = None
    whole: Signal | None = None
    factor: Signal | None = None
    rest: tuple[Cotangent, ...] = ()
    along: Along | None = None
    expected: Array | None = None
    stray: Array | None = None
    forked: bool = False
    image: Image | None = None


K = TypeVar("K")
T = TypeVar("T", Signal, Source, Cotangent)
# what was worked out once, by the field that it follows from
_DERIVED = {
    "q": ("_mean_q",),
    "mean": ("_mean_mean",),
    "corr": ("_powers", "_mean_powers"),
    "table": ("_draw",),
    "terms": ("_rows",),
    "groups": ("atoms", "shape"),
}


def replace(x: T, **changes: Any) -> T:
    """A copy with other fields: `dataclasses.replace` without its bookkeeping, which costs more than the rules."""
    values = x.__dict__.copy()  # one block of memory: half the time of filling an empty dictionary
    values.update(changes)
    for name, derived in _DERIVED.items():
        if name in changes:
            for one in derived:
                values.pop(one, None)  # or the old field would live as long as the copy
    new = object.__new__(type(x))
    object.__setattr__(new, "__dict__", values)
    return new
