"""Figures of Sussillo & Abbott's random walk initialization."""

from __future__ import annotations

import json
import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from firstlight.lab.figures._forms import Frame, one_form
from firstlight.lab.figures._style import COLOURS, GREY, MARKS, note, panels
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


TASKS = {
    "mnist": "MNIST",
    "mnist-autoencoder": "MNIST, autoencoder",
    "speech": "spoken digits",
    "speech-autoencoder": "spoken digits, autoencoder",
    "timit": "TIMIT",
    "timit-autoencoder": "TIMIT, autoencoder",
}
# mean square error of the mean sample as answer: images are standardized by two numbers, speech by bin
MEAN_SAMPLE = {"mnist-autoencoder": 0.708, "speech-autoencoder": 1.0, "timit-autoencoder": 1.0}
_WALK = ["activation", "depth", "width", "scheme"]


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
    frame = one_form(frame, ["draws"], _WALK)
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
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    axes[0].legend(loc="lower right")
    note(
        figure,
        frame,
        f"{int(frame['width'].iloc[0])} units a layer. Grey: single networks. The gradient enters right.",
    )
    return figure


def moments(frame: Frame) -> Figure:
    """Mean and variance of the whole walk against D/N: no drift, variance with the slope of theory."""
    frame = one_form(frame[frame["gain"].isna()], ["draws"], _WALK)
    figure, (left, right) = panels(1, 2, "Random walk gain: the drift is gone, the spread is not")
    for colour, (activation, runs) in zip(COLOURS, frame.groupby("activation"), strict=False):
        for mark, (width, group) in zip(MARKS, runs.groupby("width"), strict=False):
            group = group.sort_values("depth")
            # beside each other, so that no bar hides another
            ratio = (group["depth"] - 1) / width * (0.96 if activation == "linear" else 1.04)
            label = f"{activation}, {width} units"
            left.errorbar(ratio, group["mean"], 2 * group["mean_error"], fmt=mark, color=colour, label=label)
            right.errorbar(
                (group["depth"] - 1) / width, group["variance"], 2 * group["variance_error"], fmt=mark, color=colour
            )
            exact = [random_walk.variance(activation, int(width)) * (d - 1) for d in group["depth"]]
            right.plot((group["depth"] - 1) / width, exact, color=colour, lw=1)
    left.axhline(0.0, color=GREY, lw=1)
    left.set(xscale="log", xlabel="depth / width", ylabel="mean of ln Z ± 2 s.e.", title="mean (theory: 0)")
    right.set(
        xscale="log",
        yscale="log",
        xlabel="depth / width",
        ylabel="variance of ln Z",
        title="variance (lines: exact)",
    )
    right.legend(*left.get_legend_handles_labels(), ncols=1, loc="upper left", fontsize=7.5)
    note(figure, frame, "Z = |δ_1|²/|δ_D|² over normal weights with the exact gain of Sussillo & Abbott's law.")
    return figure


def gains(frame: Frame) -> Figure:
    """Mean of ln Z against the gain, with exact and wide-limit theory and the gains that cancel it."""
    frame = one_form(frame[frame["gain"].notna()], ["draws"], [*_WALK, "gain"])
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
        axis.plot(runs["gain"], runs["mean"], "o", color=COLOURS[1], label="networks, mean ± 2 sd")
        axis.axhline(0.0, color=GREY, lw=0.8, ls=":")
        axis.set(title=activation, xlabel="gain g", ylabel="ln Z")
        axis.legend(fontsize=7, loc="lower right" if record.degree == 1.0 or activation == "tanh" else "upper left")
    note(
        figure,
        frame,
        "100 layers of 100 units. tanh and gelu: theory is the infinitely wide network's; near a gain at "
        "which lengths have two fates, single networks of this width go either way.",
    )
    return figure


def _best(frame: Frame) -> Frame:
    """Last row of each run, with the rate that ended best."""
    last = frame[frame["loss"].notna()].sort_values("step").groupby(["key", "rate"], as_index=False).last()
    return last.sort_values("loss").groupby("key", as_index=False).first()


def depth(frame: Frame) -> Figure:
    """Training error against depth at equal parameters, each network at the best of the tried rates."""
    frame = one_form(frame, ["parameters", "steps"], ["task", "depth", "scheme", "seed"])
    best = _best(frame)
    lost = frame[~frame["key"].isin(best["key"])].drop_duplicates("key")  # overflowed at every rate
    tasks = [(task, best[best["task"] == task]) for task in TASKS if task in set(best["task"])]
    # a scheme looks the same in every panel
    schemes = sorted(str(s) for s in best["scheme"].unique())
    look = {scheme: (COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]) for i, scheme in enumerate(schemes)}
    figure, axes = panels(
        math.ceil(len(tasks) / 2), min(2, len(tasks)), "Training error against depth, equal parameters at every depth"
    )
    for axis, (task, runs) in zip(axes, tasks, strict=False):
        chance = MEAN_SAMPLE.get(task, 90.0)
        measure = "loss" if task.endswith("autoencoder") else "accuracy"
        runs = runs.assign(value=runs["loss"] if measure == "loss" else 100 * (1 - runs["accuracy"]))
        for scheme, group in runs.groupby("scheme"):
            colour, mark = look[str(scheme)]
            value = group.groupby("depth")["value"].agg(["median", "min", "max"])
            middle = value["median"]
            spread = [middle - value["min"], value["max"] - middle]
            axis.errorbar(value.index, middle, spread, fmt=mark + "-", color=colour, mfc="none", capsize=2)
        axis.set(
            xscale="log",
            yscale="log",
            xlabel="hidden layers, and units of each",
            title=TASKS[task],
            ylabel="mean square error" if measure == "loss" else "training error, %",
        )
        hidden = (
            frame[frame["task"] == task].groupby("depth")["hidden"].max()
        )  # mirrored weights need an even number: one less for some
        axis.set_xticks(list(hidden.index), [f"{int(d):,}\n{int(n)}" for d, n in hidden.items()])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_ylim(bottom=0.8 * runs["value"].min())
        axis.axhline(chance, color=GREY, lw=0.8, ls=":")
        for scheme, group in lost[lost["task"] == task].groupby("scheme"):
            axis.plot(group["depth"], [chance] * len(group), "x", color=look[str(scheme)][0], ms=8, mew=1.8)
    for axis in axes[len(tasks) :]:
        axis.set_visible(False)
    handles = [Line2D([], [], color=c, marker=m, mfc="none", label=NAMES.get(s, s)) for s, (c, m) in look.items()]
    handles.append(Line2D([], [], color=GREY, lw=0.8, ls=":", label="chance; the mean sample as answer"))
    if len(lost):
        handles.append(Line2D([], [], color=GREY, marker="x", ms=8, mew=1.8, ls="", label="overflow at every rate"))
    axes[min(1, len(tasks) - 1)].legend(handles=handles, loc="lower right", fontsize="small")
    note(figure, frame, _depth_note(frame))
    return figure


def _depth_note(frame: Frame) -> str:
    steps, pilot = int(frame["steps"].iloc[0]), int(frame["pilot"].iloc[0])
    shape = {"cosine": ", half a cosine to zero"}.get(frame["shape"].iloc[0], "")
    grids = [
        ", ".join(f"{rate:g}" for rate in json.loads(text)) + kind
        for kind, group in frame.groupby(
            frame["task"].str.endswith("autoencoder").map({True: " (autoencoders)", False: ""})
        )
        for text in group["rates"].iloc[:1]
    ]
    chosen = f"each network at the best of {'; '.join(grids)}"
    how = f"chosen by {pilot} steps at each" if pilot else "all trained to the end"
    seeds = frame.groupby("task")["seed"].nunique()
    bars = (
        f" Points: median of up to {seeds.max()} seeds, bars from least to largest."
        if seeds.max() > 1
        else " One seed."
    )
    return (
        f"{int(frame['parameters'].iloc[0]):,} parameters, {steps:,} steps of SGD{shape}, batch 100; rate: {chosen}, "
        f"{how}. Error over the last quarter of training.{bars}\nSpeech: spoken digits in place of TIMIT."
    )


def rates(frame: Frame) -> Figure:
    """Training loss against the gain, and against (λ_in, λ_out) in both readings."""
    frame = one_form(frame, ["depth", "steps"], ["gain", "lambda_in", "lambda_out", "reading", "seed"])
    best = _best(frame)
    gain = best[best["gain"].notna()].sort_values("gain")
    lambdas = best[best["gain"].isna()]
    figure, axes = panels(1, 3, "Gain and learning rates at one depth", 4.0)
    width, seeds = int(frame["hidden"].iloc[0]), int(frame["seed"].nunique())
    over = gain.groupby("gain")["loss"].agg(["mean", "min", "max"])
    spread = [over["mean"] - over["min"], over["max"] - over["mean"]]
    axes[0].errorbar(over.index, over["mean"], spread, fmt="o-", color=COLOURS[1], capsize=2)
    runs = frame[frame["gain"].notna()].drop_duplicates("key")
    for value, group in runs.groupby("gain"):
        lost = int((~group["key"].isin(best["key"])).sum())
        if lost:  # at every base rate: they have no loss at the end
            words = "all overflow" if lost == len(group) else f"{lost} of {len(group)} overflow"
            at = (value, float(over["mean"].get(value, over["max"].max())))
            axes[0].plot(*at, "x" if lost == len(group) else "", color=COLOURS[1])
            axes[0].annotate(
                words, at, (0, -8), textcoords="offset points", rotation=90, ha="center", va="top", fontsize="small"
            )
    for value, colour, name in (
        (random_walk.median_gain("relu", width), COLOURS[2], "random walk"),
        (random_walk.mean_gain("relu"), COLOURS[5], "He"),
    ):
        axes[0].axvline(value, color=colour, ls="--", lw=1, label=f"{name} {value:.3f}")
    axes[0].set(xlabel="gain g", ylabel="training loss at the end", title="gain")
    axes[0].legend()
    means = lambdas.groupby(["reading", "lambda_in", "lambda_out"])["loss"].mean()
    low, high = means.min(), means.max()
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
        frame,
        f"{int(frame['depth'].iloc[0])} layers of {width} units, MNIST, {int(frame['steps'].iloc[0]):,} "
        "steps, best of the base rates "
        + ", ".join(f"{r:g}" for r in json.loads(frame["rates"].iloc[0]))
        + (". One seed." if seeds == 1 else f". Means over {seeds} seeds; bars from least to largest.")
        + "\nThe available text does not define the paper's λ: both readings, relative to the base rate.",
    )
    return figure


def thousand(frame: Frame) -> Figure:
    """Training error of networks of 1000 and 10,000 layers: the first epoch from every start, and the long runs."""
    frame = frame.reindex(columns=[*frame.columns, *{"loss", "epoch", "mistakes"}.difference(frame.columns)])
    frame = frame[frame["loss"].notna()]  # networks that overflowed at once have none
    last = frame.groupby("key")["epoch"].transform("max")
    short, long = frame[last <= 1.0], frame[last > 1.0]
    kinds = [(_starts, short)] * bool(len(short)) + [(_long_runs, long)] * bool(len(long))
    figure, axes = panels(1, max(len(kinds), 1), "MNIST with 1000 and 10,000 layers", 5.6, 4.4)
    for axis, (show, runs) in zip(axes, kinds, strict=False):
        show(axis, runs)
        axis.axhline(90, color=GREY, lw=0.8, ls=":")
        axis.set(xscale="log", yscale="log", xlabel="epochs", ylabel="training error, %")
        low, right = axis.get_ylim()[0], float(runs["epoch"].max())
        # room for the legend, and for the counts beside the ends
        axis.set(ylim=(0.6 * low, None), xlim=(None, (1.2 if show is _starts else 3.0) * right))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    note(
        figure,
        frame,
        "Batch 100, warm-up, then half a cosine; with Adam the first layer and the readout have 100 times the rate "
        "(150 in the long runs, 1000 with 10,000 layers). Lines: running error; dotted: all 60,000 images. Dotted "
        "grey: chance. One seed each.",
    )
    return figure


def _starts(axis: Axes, frame: Frame) -> None:
    names = sorted({*zip(frame["scheme"], frame["activation"], strict=True)})
    for (scheme, activation), colour, mark in zip(names, COLOURS, MARKS, strict=False):
        runs = frame[(frame["scheme"] == scheme) & (frame["activation"] == activation)]
        # starts that stay at chance lie on one line: marks of several sizes are all seen
        size = 3.0 + names.index((scheme, activation))
        for (depth, _), run in runs.groupby(["depth", "key"]):
            run = run.sort_values("step")
            error, line = 100 * (1 - run["accuracy"]), "-" if depth <= 1000 else "--"
            axis.plot(run["epoch"], error, mark + line, color=colour, ms=size, mfc="none")
        gain = runs["gain"].dropna()
        name = f"{NAMES.get(scheme, scheme)} {activation}" + (", gain just above 1" if len(gain) else "")
        axis.plot([], [], mark + "-", color=colour, ms=size, mfc="none", label=name)
    axis.plot([], [], "--", color=GREY, label="dashed: 10,000 layers")
    axis.set(title="the first epoch, Adam, 32 units: which start")
    axis.legend(fontsize=7.5, loc="lower left")


def _long_runs(axis: Axes, frame: Frame) -> None:
    for (_, run), colour, mark in zip(frame.groupby("key"), COLOURS, MARKS, strict=False):
        run = run.sort_values("step")
        first, end = run.iloc[0], run.iloc[-1]
        method = "Adam" if first["method"] == "adam" else "SGD"
        name = f"{method} {first['rate']:g}, {end['epoch']:.0f} epochs"
        axis.plot(run["epoch"], 100 * (1 - run["accuracy"]), mark + "-", color=colour, ms=3, label=name)
        counted = run[run["mistakes"].notna()]
        axis.plot(counted["epoch"], counted["mistakes"] / 600, color=colour, ls=":", lw=1)
        if len(counted):
            aside = method == "SGD" or end["epoch"] == frame["epoch"].max()  # there no other run is in the way
            where = (end["epoch"], counted["mistakes"].iloc[-1] / 600)
            axis.annotate(
                f"{counted['mistakes'].iloc[-1]:.0f} mistakes",
                where,
                xytext=(6, 0) if aside else (-5, -9),
                textcoords="offset points",
                ha="left" if aside else "right",
                va="center",
                fontsize=8.5,
                color=colour,
            )
    axis.set(title="1000 looks-linear layers of 64 relu, long runs")
    axis.legend(fontsize=7.5, loc="lower left")


FIGURES = {
    "walks": (("walks",), walks),
    "moments": (("moments",), moments),
    "gains": (("moments",), gains),
    "depth": (("depth",), depth),
    "rates": (("rates",), rates),
    "thousand": (("thousand",), thousand),
}
