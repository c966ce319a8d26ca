"""Figure of the born-dead networks."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from firstlight.lab.figures._forms import Frame, one_form
from firstlight.lab.figures._style import COLOURS, MARKS, note, panels
from firstlight.theory import lengths


def dead(frame: Frame) -> Figure:
    """Share of dead networks against depth, with the exact probability at one input."""
    frame = one_form(frame, ["draws"], ["depth", "width"])
    figure, (axis,) = panels(1, 1, "Narrow relu networks are born dead", 6.0, 4.0)
    for colour, mark, (width, run) in zip(COLOURS, MARKS, frame.groupby("width"), strict=False):
        run = run.sort_values("depth")
        share, draws = run["dead_at_one"], run["draws"]
        axis.errorbar(
            run["depth"],
            share,
            2 * np.sqrt(share * (1 - share) / draws),
            fmt=mark,
            color=colour,
            label=f"{width} units",
        )
        axis.plot(run["depth"], run["dead_at_all"], mark, color=colour, mfc="none")
        depth = np.unique(np.geomspace(1, frame["depth"].max(), 60).astype(int))
        axis.plot(depth, [lengths.p_dead([int(width)] * int(d)) for d in depth], color=colour, lw=1)
    axis.set(xscale="log", xlabel="depth", ylabel="share of networks", ylim=(-0.03, 1.03))
    depths = sorted(frame["depth"].unique())
    axis.set_xticks(depths, [f"{d:g}" for d in depths])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.legend()
    note(
        figure,
        frame,
        f"He weights, zero biases, {int(frame['draws'].iloc[0]):,} networks each, bars ± 2 s.e. Filled: the output is "
        "zero at a given input, line: exact probability. Hollow: it is zero at all of "
        f"{int(frame['inputs'].iloc[0])} inputs; no training brings such a network back.",
    )
    return figure


FIGURES = {"dead": (("dead",), dead)}
