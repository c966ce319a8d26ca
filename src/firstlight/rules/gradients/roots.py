"""What gradients have in common: each as a combination of the tensors that they were made from."""

from __future__ import annotations

from collections.abc import Sequence

from firstlight.graph.signal import Signal

_SCALES = 64  # multiples of multiples that are looked through
_EXPANSIONS = 24  # bases that are taken apart in search of a common root


def roots_of(bases: Sequence[Signal]) -> list[list[tuple[float, Signal]]]:
    """Each base as a combination of roots: bases are taken apart, latest first, until they have met or cannot."""
    open_: list[dict[int, tuple[float, Signal]]] = [{r.ident: (a, r)} for a, r in (multiple_of(1.0, b) for b in bases)]
    closed: list[list[tuple[float, Signal]]] = [[] for _ in bases]
    for _ in range(_EXPANSIONS):
        waiting = [i for i, d in enumerate(open_) if d]
        if len(waiting) < 2:
            break
        latest = max(max(open_[i]) for i in waiting)
        holders = [i for i in waiting if latest in open_[i]]
        signal = open_[holders[0]][latest][1]
        alone = len(holders) == 1 and bool(signal.terms)
        for i in holders:
            coefficient, signal = open_[i].pop(latest)
            if not alone:
                closed[i].append((coefficient, signal))
                continue
            for factor, term in signal.terms:
                factor, term = multiple_of(coefficient * factor, term)
                old = open_[i].get(term.ident)
                open_[i][term.ident] = (factor + (old[0] if old else 0.0), term)
    return [found + list(left.values()) for found, left in zip(closed, open_, strict=True)]


def multiple_of(coefficient: float, signal: Signal) -> tuple[float, Signal]:
    """A multiple of a signal as that: g - g/2 is g/2, not two gradients that have met."""
    for _ in range(_SCALES):
        if len(signal.terms) != 1:
            break
        ((a, of),) = signal.terms
        if abs(signal.mean_q - a * a * of.mean_q) > 1e-9 * signal.mean_q:  # a mask on its way (dropout)
            break
        coefficient, signal = coefficient * a, of
    return coefficient, signal
