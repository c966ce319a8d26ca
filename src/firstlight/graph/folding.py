"""Repeated stretches of a long list of operations: 80 equal blocks are shown as one."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

LONGEST = 400  # operations of one repeated block that are looked for


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a list: `times` blocks of `period` items each, from `start` on.

    Attributes:
        start: Index of the first item.
        period: Items of one block.
        times: Number of blocks; 1 for a part that does not repeat.
    """

    start: int
    period: int
    times: int

    @property
    def stop(self) -> int:
        """Index behind the last item."""
        return self.start + self.period * self.times


def signature(name: str) -> str:
    """A name without its numbers: equal for the same place in all blocks."""
    return re.sub(r"\d+", "#", name)


def stretches(keys: Sequence[Hashable], least: int = 4) -> list[Stretch]:
    """Cut a list into parts that repeat at least `least` times and parts that do not, in order.

    At each item the block length is taken whose repetitions cover most items; of equal ones the shortest.

    Args:
        keys: What must be equal for items to count as the same.
        least: Fewest repetitions that are folded.
    """
    n, out, i, begin = len(keys), list[Stretch](), 0, 0
    while i < n:
        found = max((_repeats(keys, i, p, least) for p in range(1, min(LONGEST, (n - i) // least) + 1)), default=(0, 0))
        if found[0]:
            if i > begin:
                out.append(Stretch(begin, i - begin, 1))
            out.append(Stretch(i, -found[1], found[0] // -found[1]))
            i = begin = out[-1].stop
        else:
            i += 1
    if n > begin:
        out.append(Stretch(begin, n - begin, 1))
    return out


def _repeats(keys: Sequence[Hashable], i: int, period: int, least: int) -> tuple[int, int]:
    """(items covered, -period) by blocks of this length from item i on; (0, 0) for fewer than `least` blocks."""
    j = i
    while j + period < len(keys) and keys[j] == keys[j + period]:
        j += 1
    times = (j - i) // period + 1
    return (times * period, -period) if times >= least else (0, 0)
