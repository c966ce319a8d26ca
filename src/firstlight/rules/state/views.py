"""Changes of layout as steps, and which of them take each other back.

A view is its tensor's ident and the steps since, each ``(kind, …)``: ("permute", dims), ("reshape", shape before,
shape after), ("flip" | "roll", axis, how far), and others that nothing takes back. Two views are the same entries in
the same places where both are the same, so that y + y.mT.mT is 2y, and relu(y.mT).mT stands on y's own source.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

from firstlight.graph.signal import Signal

Steps = tuple[Hashable, ...]


def source_key(x: Signal) -> Hashable:
    """The identity of the source that a tensor is, with the atoms that it had where the steps began."""
    return ("source", *x.viewed, x.root.atoms)


def eldest(key: Hashable) -> float:
    """The ident of the tensor that a source is (a view of): what is older does not depend on it."""
    known = parts(key)
    return known[1] if known[:1] == ("source",) and isinstance(known[1], int) else float("inf")


def moved_key(key: Hashable, step: Hashable) -> tuple[Hashable, ...]:
    """The identity of a source after a change of layout."""
    known = parts(key)
    return (*known[:2], then(known[2], step), known[3]) if known[:1] == ("source",) else (key, step)


def origin(x: Signal, step: Hashable) -> tuple[int, ...] | None:
    """The atoms of the source that a step brings a chain back to; None where it goes elsewhere."""
    if x.source is None:
        return None
    known = parts(moved_key(x.source.key, step))
    return known[3] if known[0] == "source" and known[2] == () else None


def unchanged(x: Signal) -> bool:
    """Whether a view still has its tensor's lengths: rules may say more of one than of the tensor itself."""
    return abs(x.mean_q - x.root.mean_q) <= 1e-9 * x.root.mean_q


def same_view(x: Signal, y: Signal) -> bool:
    """Whether two are the same entries of one tensor in the same places."""
    return bool(x.viewed[1]) and x.viewed == y.viewed and abs(x.mean_q - y.mean_q) <= 1e-9 * x.mean_q


def then(steps: Steps, step: Hashable) -> Steps:
    """The steps with one more, as few as that takes."""
    one, last = parts(step), parts(steps[-1]) if steps else ()
    both = _together(last, one) if last and one and last[0] == one[0] else None
    if _is_nothing(one):
        return steps
    if both is None:
        return (*steps, step)
    return steps[:-1] if _is_nothing(both) else (*steps[:-1], both)


def parts(step: Hashable) -> tuple[Any, ...]:
    """A step, or the identity of a source, as a tuple; empty if it is none."""
    return cast("tuple[Any, ...]", step) if isinstance(step, tuple) else ()


def _is_nothing(step: tuple[Any, ...]) -> bool:
    """Whether a step leaves every entry where it is."""
    kind = step[0] if step else ""
    if kind == "permute":
        return step[1] == tuple(range(len(step[1])))
    if kind == "reshape":
        return step[1] == step[2]
    return kind in ("roll", "flip") and step[2] == 0


def _together(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Two steps of one kind as one; None where they stay two."""
    kind = one[0]
    if kind == "permute":
        return kind, tuple([one[1][d] for d in other[1]])
    if kind == "reshape":
        return kind, one[1], other[2]
    if kind in ("roll", "flip") and one[1] == other[1]:
        return kind, one[1], one[2] + other[2] if kind == "roll" else 0
    return None
