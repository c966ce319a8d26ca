"""Figures of Sussillo & Abbott's random walk initialization."""

from __future__ import annotations

import json

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

from firstlight.lab.figures._style import COLOURS, GREY, MARKS, Frame, note, panels
from firstlight.theory import activations, random_walk
from firstlight.theory.random_walk import Walk

NAMES = {
    "he": "He",
    "random-walk": "random walk",
    "random-walk(law='paper')": "random walk, the paper's fit",
    "torch-default": "torch's default",
    "looks-linear": "looks-linear",
    "orthogonal": "orthogonal",
}


def _law(activation: str, steps: int, width: int, scheme: str) -> Walk:
    gain = {
        "he": random_walk.mean_gain(activation),
        "random-walk": random_walk.median_gain(activation, width),
    }
    if "paper" in scheme:
        gain[scheme] = random_walk.paper_gain(activation, width)
    return random_walk.walk(activation, [width] * steps, gain[scheme])


def walks(frame: Frame) -> Figure:
    """ln|δ|² over depth: single networks, mean and ±2σ of many, and the exact law."""
    runs = list(frame.groupby(["activation", "depth", "width", "scheme"], sort=True))
    figure, axes = panels(1, len(runs), "Gradients do a random walk: ln|δ|² from the last layer down")
    for axis, ((activation, depth, width, scheme), run) in zip(axes, runs, strict=True):
        run = run.sort_values("layer")
        layer = run["layer"].to_numpy()
        laws = [_law(activation, int(depth - at), int(width), scheme) for at in layer]
        mean, sd = np.array([law.mean for law in laws]), np.array([law.sd for law in laws])
        axis.fill_between(layer, mean - 2 * sd, mean + 2 * sd, color=COLOURS[4], alpha=0.3, lw=0, label="theory ± 2σ")
        axis.plot(layer, mean, color=COLOURS[0], label="theory, mean")
        for name in [c for c in run if c.startswith("sample_")]:
            axis.plot(layer, run[name], color=GREY, lw=0.6, alpha=0.8)
        at = slice(4, None, 10)
        axis.errorbar(
            layer[at],
            run["mean"].to_numpy()[at],
            2 * run["sd"].to_numpy()[at],
            fmt="o",
            color=COLOURS[1],
            ms=3.5,
            lw=1,
            label=f"measured, {int(run['draws'].iloc[0]):,} networks, ± 2 sd",
        )
        axis.axhline(0.0, color=GREY, lw=0.8, ls=":")
        axis.set(title=f"{activation}, {NAMES.get(scheme, scheme)}", xlabel="layer", ylabel="ln |δ_l|²/|δ_D|²")
    axes[0].legend(loc="lower right")
    note(
        figure,
        f"{int(frame['width'].iloc[0])} units a layer. Grey: single networks. The gradient enters right.",
    )
    return figure


def moments(frame: Frame) -> Figure:
    """Mean and variance of the whole walk against D/N: no drift, variance with the slope of theory."""
    frame = frame[frame["gain"].isna()]
    figure, (left, right) = panels(1, 2, "Random walk gain: the drift is gone, the spread is not")
    for colour, (activation, runs) in zip(COLOURS, frame.groupby("activation"), strict=False):
        for mark, (width, group) in zip(MARKS, runs.groupby("width"), strict=False):
            group = group.sort_values("depth")
            ratio = (group["depth"] - 1) / width
            label = f"{activation}, {width} units"
            left.errorbar(ratio, group["mean"], 2 * group["mean_error"], fmt=mark, color=colour, label=label)
            right.errorbar(ratio, group["variance"], 2 * group["variance_error"], fmt=mark, color=colour)
            exact = [random_walk.variance(activation, int(width)) * (d - 1) for d in group["depth"]]
            right.plot(ratio, exact, color=colour, lw=1)
    left.axhline(0.0, color=GREY, lw=1)
    left.set(xscale="log", xlabel="depth / width", ylabel="mean of ln Z ± 2 s.e.", title="mean (theory: 0)")
    right.set(
        xscale="log",
        yscale="log",
        xlabel="depth / width",
        ylabel="variance of ln Z",
        title="variance (lines: exact)",
    )
    left.legend(ncols=2, loc="lower left", fontsize=7.5)
    note(figure, "Z = |δ_1|²/|δ_D|² over normal weights with the exact gain of Sussillo & Abbott's law.")
    return figure


def gains(frame: Frame) -> Figure:
    """Mean of ln Z against the gain, with exact and wide-limit theory and the gains that cancel it."""
    frame = frame[frame["gain"].notna()]
    groups = list(frame.groupby("activation"))
    figure, axes = panels(1, len(groups), "Which gain keeps the gradient: ln Z over 99 layers against g", 3.6)
    for axis, (activation, runs) in zip(axes, groups, strict=True):
        runs = runs.sort_values("gain")
        width, steps = int(runs["width"].iloc[0]), int(runs["depth"].iloc[0]) - 1
        g = np.linspace(runs["gain"].min(), runs["gain"].max(), 41)
        record = activations.get(activation)
        if record.degree == 1.0:
            curve = [random_walk.drift(activation, width, float(x)) * steps for x in g]
            axis.plot(g, curve, color=COLOURS[0], label="exact at this width")
            for gain, colour, name in (
                (random_walk.median_gain(activation, width), COLOURS[2], "exact gain"),
                (random_walk.paper_gain(activation, width), COLOURS[3], "the paper's fit"),
                (random_walk.mean_gain(activation), COLOURS[5], "He"),
            ):
                axis.axvline(gain, color=colour, lw=1, ls="--", label=f"{name} {gain:.4f}")
        else:
            axis.plot(g, random_walk.backward_log_norm(activation, steps, g), color=COLOURS[0], label="wide limit")
        axis.errorbar(
            runs["gain"],
            runs["mean"],
            2 * np.sqrt(runs["variance"]),
            fmt="none",
            color=COLOURS[1],
            lw=0.7,
            alpha=0.6,
        )
        axis.plot(runs["gain"], runs["mean"], "o", color=COLOURS[1], label="measured mean; bar: ± 2 sd of networks")
        axis.axhline(0.0, color=GREY, lw=0.8, ls=":")
        axis.set(title=activation, xlabel="gain g", ylabel="ln Z")
        axis.legend(fontsize=7)
    note(
        figure,
        "100 layers of 100 units. tanh and gelu: theory is the infinitely wide network's; near a gain at "
        "which lengths have two fates, single networks of this width go either way.",
    )
    return figure


def _best(frame: Frame) -> Frame:
    """Last row of each run, with the rate that ended best."""
    last = frame[frame["loss"].notna()].sort_values("step").groupby(["key", "rate"], as_index=False).last()
    return last.sort_values("loss").groupby("key", as_index=False).first()


def depth(frame: Frame) -> Figure:
    """Training error against depth at equal parameters, best of the tried rates."""
    best = _best(frame)
    tasks = list(best.groupby("task"))
    # a scheme looks the same in every panel
    schemes = sorted(str(s) for s in best["scheme"].unique())
    look = {scheme: (COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]) for i, scheme in enumerate(schemes)}
    figure, axes = panels(1, len(tasks), "Training error against depth, the same number of parameters at every depth")
    for axis, (task, runs) in zip(axes, tasks, strict=True):
        measure = "loss" if task.endswith("autoencoder") else "accuracy"
        for scheme, group in runs.groupby("scheme"):
            colour, mark = look[str(scheme)]
            group = group.sort_values("depth")
            value = group["loss"] if measure == "loss" else 100 * (1 - group["accuracy"])
            axis.plot(group["depth"], value, mark + "-", color=colour, label=NAMES.get(scheme, scheme))
        axis.set(
            xscale="log",
            yscale="log",
            xlabel="hidden layers",
            title=task,
            ylabel="mean square error" if measure == "loss" else "training error, %",
        )
        depths = sorted(runs["depth"].unique())
        axis.set_xticks(depths, [f"{int(d):,}" for d in depths])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        if measure == "accuracy":
            axis.axhline(90.0, color=GREY, lw=0.8, ls=":")
            axis.annotate("chance", (1, 90), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY)
        for at, width in runs.groupby("depth")["hidden"].first().items():
            axis.annotate(
                f"{int(width)}",
                (at, 0.01),
                xycoords=("data", "axes fraction"),
                ha="center",
                color=GREY,
                fontsize=7,
            )  # type: ignore[arg-type]
        axis.legend()
    rates = ", ".join(f"{r:g}" for r in json.loads(frame["rates"].iloc[0]))
    note(
        figure,
        f"{int(frame['parameters'].max()):,} parameters, {int(frame['steps'].max()):,} steps of SGD, batch "
        f"100, best of the rates {rates} (the same for all). Error over the last quarter of training.\n"
        "Grey numbers: units a layer. Speech: spoken digits in place of TIMIT.",
    )
    return figure


def rates(frame: Frame) -> Figure:
    """Training loss against the gain, and against (λ_in, λ_out) in both readings."""
    best = _best(frame)
    gain = best[best["gain"].notna()].sort_values("gain")
    lambdas = best[best["gain"].isna()]
    figure, axes = panels(1, 3, "Gain and learning rates at one depth", 4.0)
    width = int(frame["hidden"].iloc[0])
    mean = gain.groupby("gain")["loss"].mean()
    axes[0].plot(mean.index, mean.to_numpy(), "o-", color=COLOURS[1])
    for value, colour, name in (
        (random_walk.median_gain("relu", width), COLOURS[2], "random walk"),
        (random_walk.mean_gain("relu"), COLOURS[5], "He"),
    ):
        axes[0].axvline(value, color=colour, ls="--", lw=1, label=f"{name} {value:.3f}")
    axes[0].set(xlabel="gain g", ylabel="training loss at the end", title="gain")
    axes[0].legend()
    low, high = lambdas["loss"].min(), lambdas["loss"].max()
    for axis, reading, words in (
        (axes[1], "layers", "first and last layer"),
        (axes[2], "steps", "first and last step"),
    ):
        table = lambdas[lambdas["reading"] == reading].pivot_table(
            index="lambda_out", columns="lambda_in", values="loss"
        )
        image = axis.imshow(table.to_numpy(), origin="lower", cmap="cividis_r", vmin=low, vmax=high)
        for (i, j), value in np.ndenumerate(table.to_numpy()):
            dark = value > (low + high) / 2
            axis.annotate(f"{value:.2f}", (j, i), ha="center", va="center", color="white" if dark else "black")
        axis.set_xticks(range(len(table.columns)), [f"{v:g}" for v in table.columns])
        axis.set_yticks(range(len(table.index)), [f"{v:g}" for v in table.index])
        axis.grid(visible=False)
        axis.set(xlabel="λ_in", ylabel="λ_out", title=f"rates at the {words}")
    figure.colorbar(image, ax=axes[1:], label="training loss", shrink=0.8)
    note(
        figure,
        f"{int(frame['depth'].iloc[0])} layers of {width} units, MNIST, {int(frame['steps'].iloc[0]):,} "
        "steps, best of the base rates "
        + ", ".join(f"{r:g}" for r in json.loads(frame["rates"].iloc[0]))
        + ".\nThe available text does not define the paper's λ: both readings, relative to the base rate.",
    )
    return figure


def thousand(frame: Frame) -> Figure:
    """Training error of networks of 1000 and 10,000 layers over epochs."""
    figure, (axis,) = panels(1, 1, "MNIST with 1000 and 10,000 layers", 7.0, 4.4)
    runs: list[Frame] = sorted(frame.groupby("key"), key=lambda item: -item[1]["steps"].iloc[0])
    for number, (_, run) in enumerate(runs):
        run = run[run["loss"].notna()].sort_values("step") if "loss" in run else run
        first = run.iloc[0]
        name = f"{int(first['depth']):,} × {int(first['hidden'])} {first['activation']}, "
        name += NAMES.get(str(first["scheme"]), str(first["scheme"]))
        name += f", g = {first['gain']:g}" if first["gain"] == first["gain"] else ""
        name += ", Adam" if first["method"] == "adam" else ", SGD"
        name += f" {first['rate']:g}"
        error = 100 * (1 - run["accuracy"])
        colour = COLOURS[number % len(COLOURS)]
        mark = MARKS[number % len(MARKS)] + ("-" if first["depth"] == 1000 else "--")
        axis.plot(run["epoch"], error.clip(lower=1e-3), mark, color=colour, ms=3, label=name)
        counted = run[run["mistakes"].notna()] if "mistakes" in run else run[:0]
        if len(counted):
            last = counted.iloc[-1]
            axis.plot(
                counted["epoch"],
                (counted["mistakes"] / 600).clip(lower=1e-3),
                color=colour,
                ls=":",
                lw=1,
            )
            axis.annotate(
                f"{int(last['mistakes'])} mistakes",
                (last["epoch"], max(last["mistakes"] / 600, 1e-3)),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=colour,
            )
    axis.axhline(90, color=GREY, lw=0.8, ls=":")
    axis.set(xscale="log", yscale="log", xlabel="epochs", ylabel="training error, %")
    axis.set_xlim(right=2.2 * float(frame["epoch"].max()))  # room for the counts
    axis.margins(y=0.12)
    axis.legend(fontsize=7.5, loc="lower left")
    note(
        figure,
        "Batch 100, warm-up, then half a cosine; with Adam the first layer and the readout have 100 times the rate\n"
        "(150 in the long run, 1000 with 10,000 layers). Lines: running error; dotted: the 60,000 images.",
    )
    return figure


FIGURES = {
    "walks": (("walks",), walks),
    "moments": (("moments",), moments),
    "gains": (("moments",), gains),
    "depth": (("depth",), depth),
    "rates": (("rates",), rates),
    "thousand": (("thousand",), thousand),
}
