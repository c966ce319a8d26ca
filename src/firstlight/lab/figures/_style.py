"""One look for all figures: colours that the colour-blind tell apart, theory as lines, data as points."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from firstlight.lab.figures._forms import Frame, form_of

# Okabe & Ito, without the yellow that is lost on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKS = "os^Dv<>"
INK, GREY = "#222222", "#777777"


@contextmanager
def style() -> Iterator[None]:
    """Settings of every figure, taken back afterwards; figures are closed."""
    settings: Any = {
        "figure.dpi": 110,
        "savefig.dpi": 150,
        "savefig.bbox": "tight",
        "font.size": 10,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        # a veil, so that a legend can be read where it must lie over lines
        "legend.frameon": True,
        "legend.framealpha": 0.85,
        "legend.edgecolor": "none",
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "svg.fonttype": "none",
        "svg.hashsalt": "firstlight",
    }
    with mpl.rc_context(settings):
        try:
            yield
        finally:
            plt.close("all")


def panels(rows: int, columns: int, title: str, width: float = 4.6, height: float = 3.5) -> tuple[Figure, list[Axes]]:
    """A figure of rows × columns panels in reading order, with a title."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows + 0.4), squeeze=False, layout="constrained"
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure, list(axes.flat)


def note(figure: Figure, frame: Frame, text: str) -> None:
    """A line under the figure: form of the runs that it shows, set-up, data, what stands in for what."""
    room = int(figure.get_figwidth() * 17)
    lines = [line for paragraph in (form_of(frame) + text).split("\n") for line in textwrap.wrap(paragraph, room)]
    figure.text(0.01, -0.02, "\n".join(lines), fontsize=8, color=GREY, va="top")
