"""Figures of the article "Initializing neural networks"."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from firstlight.lab.experiments.xavier_article import EPOCHS, FACTORS, MNIST_SCHEMES
from firstlight.lab.figures._forms import Frame, one_form
from firstlight.lab.figures._style import COLOURS, GREY, MARKS, note, panels
from firstlight.theory import lengths, mean_field

# Median cost over 25 seeds after 0, 10, 100 and 1000 epochs, as published with the article's own code.
ORACLE = {
    ("circle", 1.0): (0.722, 0.641, 0.446, 0.017),
    ("circle", 0.01): (0.693, 0.693, 0.693, 0.035),
    ("circle", 100.0): (152.0, 0.694, 0.586, 0.553),
    ("square", 1.0): (0.764, 0.603, 0.222, 0.014),
    ("square", 100.0): (350.0, 0.642, 0.470, 0.457),
} | {(data, 0.0): (0.693,) * 4 for data in ("circle", "moon", "square", "gaussian")}


def plane(frame: Frame) -> Figure:
    """Cost over epochs for each set and factor, with the oracle's medians."""
    frame = one_form(frame, ["points"], ["data", "factor", "seed"])
    sets = [s for s in ("circle", "moon", "square", "gaussian") if (frame["data"] == s).any()]
    figure, axes = panels(
        1, len(sets), "2-6-3-1 on four sets: too small waits, too large starts far off and sticks", 3.9
    )
    for axis, data in zip(axes, sets, strict=True):
        for colour, mark, factor in zip(COLOURS, MARKS, FACTORS, strict=False):
            run = frame[(frame["data"] == data) & (frame["factor"] == factor)]
            table = run.groupby("epoch")["cost"].quantile([0.25, 0.5, 0.75]).unstack()
            x = np.array(table.index, dtype=float) + 1.0
            axis.plot(x, table[0.5], mark + "-", color=colour, label=f"v = {factor:g}")
            axis.fill_between(x, table[0.25], table[0.75], color=colour, alpha=0.15, lw=0)
            if (data, factor) in ORACLE:
                axis.plot(np.array(EPOCHS) + 1.0, ORACLE[data, factor], "x", color="black", ms=6, mew=1.2, zorder=5)
        axis.axhline(math.log(2), color=GREY, lw=0.8, ls=":")
        axis.set(xscale="log", yscale="log", xlabel="epoch + 1", ylabel="cost", title=data)
    axes[0].plot([], [], "x", color="black", label="published medians")
    axes[0].legend(loc="lower left")
    seeds = frame.groupby(["data", "factor"])["seed"].nunique().max()
    note(
        figure,
        frame,
        f"Weights N(0, 1)·√(v/fan_in), ReLU, full batch, rate 0.1; median and quartiles of {seeds} seeds, each with "
        "its own points. Dotted: ln 2, a guess. v = 0 stays there for ever.",
    )
    return figure


def layers(frame: Frame) -> Figure:
    """Mean squares forward and backward, layer by layer, with the derivation's prediction."""
    frame = one_form(frame, ["draws"], ["scheme", "activation"])
    groups = list(frame.groupby(["scheme", "activation"], sort=False))
    figure, axes = panels(1, 2, "Xavier's derivation, layer by layer", 5.4, 3.8)
    for axis, which in zip(axes, ("forward", "backward"), strict=True):
        for number, (colour, mark, ((scheme, act), run)) in enumerate(zip(COLOURS, MARKS, groups, strict=False)):
            run = run.sort_values("layer")
            # laws that keep the length lie on one line: hollow marks of two sizes are all seen
            axis.errorbar(
                run["layer"],
                run[which],
                2 * run[f"{which}_error"],
                fmt=mark,
                color=colour,
                mfc="none",
                ms=5 if number % 2 else 9,
                label=f"{scheme}, {act}",
            )
            depth = int(run["layer"].max())
            factor = {("xavier", "linear"): 2.0, ("xavier", "relu"): 1.0, ("he", "relu"): 2.0}.get((scheme, act))
            if factor is not None:
                path = lengths.mean_path(depth, weight_factor=factor)
                line = path[1:] if which == "forward" else path[:-1][::-1]
                axis.plot(run["layer"], line, color=colour, lw=1)
            elif act == "tanh":
                # unit inputs and weights of variance 1/n: the wide limit's pre-activations, squared tanh, and slopes
                q = mean_field.length_path("tanh", 1.0, 1.0, depth=depth - 1)
                slopes = np.cumprod(mean_field.chi("tanh", q[1:], 1.0)[::-1])[::-1]
                line = mean_field.q_map("tanh", q, 1.0) if which == "forward" else [*slopes, 1.0]
                axis.plot(run["layer"], line, color=colour, lw=1, ls="--")
        axis.set(yscale="log", xlabel="layer", ylabel="mean square, relative to where it enters", title=which)
    axes[0].legend()
    note(
        figure,
        frame,
        f"{int(frame['width'].iloc[0])} units, {int(frame['draws'].iloc[0]):,} networks; lines: exact means, dashed: "
        "wide limit. The derivation assumes a linear layer: relu loses half of the mean square per layer, "
        "tanh loses some.",
    )
    return figure


def chain(frame: Frame) -> Figure:
    """Nine layers of c·I."""
    figure, axes = panels(1, 2, "Nine layers of 1.5·I and 0.5·I", 4.6, 3.4)
    for axis, which in zip(axes, ("activation", "gradient"), strict=True):
        for colour, mark, (factor, run) in zip(COLOURS, MARKS, frame.groupby("factor"), strict=False):
            run = run.sort_values("layer")
            layer, depth = run["layer"].to_numpy(), int(run["layer"].max())
            axis.plot(layer, run[which], mark, color=colour, label=f"{factor:g}·I")
            power = layer if which == "activation" else depth - layer
            axis.plot(
                layer, run[which].to_numpy()[0 if which == "activation" else -1] * factor**power, color=colour, lw=1
            )
        axis.set(yscale="log", xlabel="after layer", ylabel=f"length of the {which}", title=which)
    axes[0].legend()
    note(figure, frame, "Input (1, 1). Points: autograd; lines: c to the power of the number of layers passed.")
    return figure


def mnist(frame: Frame) -> Figure:
    """Test error over epochs of four initializations."""
    figure, (axis,) = panels(1, 1, "MNIST, 784-300×4-10 tanh, SGD at 0.1", 6.0, 4.0)
    frame = one_form(frame, ["samples", "epochs"], ["scheme", "seed"])
    for colour, mark, (name, scheme) in zip(COLOURS, MARKS, MNIST_SCHEMES.items(), strict=False):
        run = frame[frame["scheme"] == scheme]
        table = (100 * (1 - run["test_accuracy"])).groupby(run["epoch"]).agg(["mean", "min", "max"])
        axis.plot(table.index, table["mean"], mark + "-", color=colour, label=name, ms=3.5)
        axis.fill_between(table.index, table["min"], table["max"], color=colour, alpha=0.15, lw=0)
    axis.set(yscale="log", xlabel="epoch", ylabel="test error, %")
    for ticks in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        ticks(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "125" else ""))
    axis.legend()
    seeds = frame["seed"].nunique()
    note(
        figure,
        frame,
        "Batch 100, the same batches for all; error on the first 2,000 test images; "
        + ("one seed." if seeds == 1 else f"mean of {seeds} seeds, bands from least to largest."),
    )
    return figure


FIGURES = {
    "plane": (("plane",), plane),
    "layers": (("layers",), layers),
    "chain": (("chain",), chain),
    "mnist": (("mnist",), mnist),
}
