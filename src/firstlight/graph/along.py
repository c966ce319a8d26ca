"""How far a gradient goes along its own tensor: the record; the rules are in `rules.along`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Along:
    """s = Σ g·x of a gradient g and its tensor x over the last axis of a site, as a linear form.

    Attributes:
        loads: (number, load) of independent sources of variance 1; none of them: s = 0.
    """

    loads: tuple[tuple[int, float], ...] = ()

    @property
    def variance(self) -> float:
        """E s²."""
        return sum([load * load for _, load in self.loads])
