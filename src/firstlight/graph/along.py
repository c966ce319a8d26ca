"""How far a gradient goes along its own tensor: the record; the rules are in `rules.gradients.along`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
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
