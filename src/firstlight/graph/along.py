"""How far a gradient goes along its own tensor: the record; the rules are in `rules.gradients.along`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Along:
    """s = Σ g·x of a gradient g and its tensor x over the last axis of a site, as a linear form.

    Attributes:
        loads: (number, load) of independent sources of variance 1; none of them: s = 0. Sources with a negative
            number add up to nothing over the rows that make up a site (`rules.gradients.rows`).
        balanced: Variance beside them of one of several pieces that make up a tensor, which the others take back.
        disjoint: Whether the pieces have different entries.
        complete: E x² when all rows have been added, of a tensor from which some are missing; 0 where none are.
    """

    loads: tuple[tuple[int, float], ...] = ()
    balanced: float = 0.0
    disjoint: bool = False
    complete: float = 0.0

    @property
    def variance(self) -> float:
        """E s²."""
        return sum([load * load for _, load in self.loads]) + self.balanced


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """s = Σ g·x over the channels and positions of a sample (`rules.gradients.images`).

    Attributes:
        ident: Of the tensor x.
        form: Of s.
        apart: Share of E s² that channels have each for itself; the rest is along x.
        groups: Groups of channels that are along x each for itself.
        uneven: E e²/(E e)² of the energy e that x has in one channel: what is along x is large where x is.
        lean: d ln|g|²/d ln|x|² from position to position (`rules.gradients.places`).
    """

    ident: int
    form: Along
    apart: float = 1.0
    groups: int = 1
    uneven: float = 1.0
    lean: float = 0.0

    def of_groups(self, count: int, channels: int) -> float:
        """Σ over the groups of channels, `count` of them, of E s² of each."""
        spread = 1.0 + (self.uneven - 1.0) * count / channels
        joint = min(self.groups / count * spread, 1.0)
        return self.form.variance * (self.apart + (1.0 - self.apart) * joint)
