"""Which of a store's runs a figure shows, where the store holds quick and full ones."""

from __future__ import annotations

from collections.abc import Sequence

from firstlight.lab.figures._style import Frame


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
