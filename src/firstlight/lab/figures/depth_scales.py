"""Figure of the depth scales."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from firstlight.lab.figures._forms import Frame, one_form
from firstlight.lab.figures._style import COLOURS, note, panels
from firstlight.theory import mean_field


def trained(frame: Frame) -> Figure:
    """Accuracy over (σ_w², depth) with multiples of ξ_c."""
    frame = one_form(frame, ["steps", "width"], ["weight_variance", "depth"])
    best = frame.groupby(["weight_variance", "depth"])["accuracy"].max().unstack("weight_variance")
    bias = float(frame["bias_variance"].iloc[0])
    figure, (axis,) = panels(1, 1, "How deep a tanh network trains: about 6 ξ_c", 6.6, 4.4)
    x, depth = np.array(best.columns, dtype=float), np.array(best.index, dtype=float)
    grid = np.meshgrid(x, depth)
    dots = axis.scatter(
        grid[0], grid[1], c=best.to_numpy(), s=260, cmap="cividis", vmin=0.1, vmax=1.0, edgecolors="white"
    )
    for (row, column), value in np.ndenumerate(best.to_numpy()):
        shade = "black" if value > 0.55 else "white"
        axis.annotate(f"{100 * value:.0f}", (x[column], depth[row]), ha="center", va="center", fontsize=7, color=shade)
    fine = np.linspace(x.min(), x.max(), 121)
    scale = np.array([mean_field.fixed_point("tanh", float(v), bias).correlation_scale for v in fine])
    for times, line in ((1, ":"), (6, "-")):
        axis.plot(fine, times * scale, line, color=COLOURS[1], label=f"{times} ξ_c" if times > 1 else "ξ_c")
    critical = mean_field.critical_point("tanh", bias)[1]
    axis.axvline(critical, color=COLOURS[2], ls="--", lw=1, label=f"critical σ_w² = {critical:.3f}")
    axis.set(yscale="log", ylim=(0.5 * depth.min(), 1.5 * depth.max()), xlabel="σ_w²", ylabel="depth")
    axis.grid(visible=False)
    axis.legend(loc="lower center", ncols=3)
    figure.colorbar(dots, label="training accuracy")
    note(
        figure,
        frame,
        f"tanh, {int(frame['width'].iloc[0])} units, σ_b² = {bias:g}, MNIST, {int(frame['steps'].iloc[0])} steps of "
        "SGD, best of the tried rates. The number of steps moves the border; its shape follows ξ_c.",
    )
    return figure


FIGURES = {"trained": (("trained",), trained)}
