"""Which of a store's runs a figure shows, where the store holds quick and full ones."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

Frame = Any  # a pandas data frame; its stubs know less of groupby than is used here


def one_form(frame: Frame, effort: Sequence[str], run: Sequence[str]) -> Frame:
    """The runs of one form, so that short and long ones are not mixed in one figure.

    Args:
        frame: Rows of a part.
        effort: Columns that differ between forms, the first being the most telling; 0 in "samples" means all.
        run: Columns that tell the runs of one form apart.

    Returns:
        The rows of the form with the most different runs, so that a grid that is only begun does not displace a
        complete one; of equals that with the greater effort.
    """

    def rank(item: tuple[tuple[float, ...], Frame]) -> tuple[float, ...]:
        values, rows = item
        size = [float("inf") if name == "samples" and v == 0 else v for name, v in zip(effort, values, strict=True)]
        return (len(rows[list(run)].drop_duplicates()), *size)

    return max(frame.groupby(list(effort), sort=True), key=rank)[1]


def mark(frame: Frame, quick: AbstractSet[str], full: AbstractSet[str]) -> Frame:
    """The frame with a column `form` that says of which of a figure's grids a run is.

    Args:
        frame: Rows of a part.
        quick: Keys of the runs of the figure's quick form.
        full: The same of its full form; where the forms are the same, all runs are of it.
    """
    names = {
        (True, True): "both" if quick != full else "full",
        (True, False): "quick",
        (False, True): "full",
        (False, False): "own",
    }
    return frame.assign(form=[names[key in quick, key in full] for key in frame["key"]])


def form_of(frame: Frame) -> str:
    """The sentence of a caption that says which form the shown runs are of; empty for frames that are not marked."""
    if "form" not in frame:
        return ""
    runs = frame.drop_duplicates("key")["form"]
    forms = set(runs)
    name = {
        frozenset({"both"}): "Quick form",  # or the first seeds of the full one
        frozenset({"quick"}): "Quick form",
        frozenset({"quick", "both"}): "Quick form",
        frozenset({"full"}): "Full form",
        frozenset({"full", "both"}): "Full form",
        frozenset({"own"}): "Of a sweep",
    }.get(frozenset(forms), "Of several forms")
    return f"{name}, {len(runs)} runs. "
