"""Figures 1a, 1b, 2a, 2b, 3a, 3b, 4 of Hanin & Rolnick, and the claim about depth 100 × width 100."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from firstlight.errors import DataError
from firstlight.lab.experiments.hanin_2018 import LAWS, Net, needed, widths
from firstlight.lab.figures._forms import Frame, one_form
from firstlight.lab.figures._style import COLOURS, GREY, MARKS, note, panels
from firstlight.theory import lengths, residual
from firstlight.theory.weights import truncated_normal_variance

# multiplier of the mean length per relu layer: c/2 for weights of variance c/fan_in
_FACTOR = {
    "He normal": 1.0,
    "He uniform": 1.0,
    "truncated He": truncated_normal_variance(),
    "LeCun or Glorot size": 0.5,
    "twice He": 2.0,
}
_SPREAD = "Bars: ± 2 standard errors over networks; heavy tails bias the means of deep narrow nets low."


_RUN = ("kind", "shape", "depth", "width", "scheme", "base", "seed")


def _shown(frame: Frame, figure: str) -> Frame:
    """What a figure shows, of one form: long and short trainings are not mixed."""
    frame = frame[[needed(row, figure) for row in frame.itertuples()]]
    if frame.empty:
        raise DataError(f"figure {figure}", got="no run of it", expected="at least one", action="Run it first.")
    return one_form(frame, ("epochs", "samples", "draws"), _RUN)


def _bars(axis: Axes, run: Frame, colour: str, mark: str, name: str) -> None:
    run = run.sort_values("depth")
    # on a log axis a bar must not reach zero
    low = np.minimum(2 * run["error"], 0.9 * run["mean"])
    axis.errorbar(run["depth"], run["mean"], [low, 2 * run["error"]], fmt=mark, color=colour, label=name)


def figure_1a(frame: Frame) -> Figure:
    """Mean length of the last layer against depth = width, five initializations."""
    frame = _shown(frame, "1a")
    figure, (axis,) = panels(1, 1, "1a. Mean length: only variance 2/fan_in keeps it", 6.0, 4.0)
    for colour, mark, name in zip(COLOURS, MARKS, LAWS, strict=False):
        run = frame[frame["scheme"] == LAWS[name]]
        _bars(axis, run, colour, mark, name)
        depth = np.arange(1, int(frame["depth"].max()) + 1)
        # exact at any width: E M_d = (c/2)^d M_0
        exact = [lengths.mean_path(int(d), weight_factor=2.0 * _FACTOR[name])[-1] for d in depth]
        axis.plot(depth, exact, color=colour, lw=1)
    axis.set(yscale="log", xlabel="depth = width", ylabel="mean of M_d / M_0 (line: exact)")
    axis.legend()
    note(figure, frame, f"{int(frame['draws'].iloc[0]):,} networks a point, MNIST images. {_SPREAD}")
    return figure


def figure_2a(frame: Frame) -> Figure:
    """Mean length of residual networks against the number of modules."""
    frame = _shown(frame, "2a")
    figure, (axis,) = panels(1, 1, "2a. Residual networks: the sum of η must stay bounded", 6.0, 4.0)
    for colour, mark, (base, run) in zip(COLOURS, MARKS, frame.groupby("base"), strict=False):
        _bars(axis, run, colour, mark, "η = 1" if base == 1 else f"η = {base:g}^l")
        modules = int(frame["depth"].max())
        eta = np.ones(modules) if base == 1 else residual.geometric_branches(float(base), modules)
        # behind one relu layer the stream has mean square 1 and mean √(1/π)
        path, _ = residual.relu_branch_path(eta, 1.0, float(np.pi**-0.5))
        axis.plot(np.arange(modules + 1), path, color=colour, lw=1)
    axis.set(yscale="log", xlabel="modules", ylabel="mean of M_L / M_0 (line: wide limit)")
    axis.legend()
    note(figure, frame, f"Modules of width 5, {int(frame['draws'].iloc[0]):,} networks a point. {_SPREAD}")
    return figure


def figure_4(frame: Frame) -> Figure:
    """Mean length of convolutional networks."""
    frame = _shown(frame, "4")
    figure, (axis,) = panels(1, 1, "4. Convolutional networks: same order, heavier tails", 6.0, 4.0)
    for colour, mark, (name, scheme) in zip(COLOURS, MARKS, LAWS.items(), strict=False):  # looks as in 1a
        run = frame[frame["scheme"] == scheme]
        if run.empty:
            continue
        _bars(axis, run, colour, mark, name)
        depth = int(frame["depth"].max())
        kept = lengths.zero_padding_path(28, 28, depth)
        scale = lengths.mean_path(depth, weight_factor=2.0 * _FACTOR[name])
        axis.plot(np.arange(1, depth + 1), (kept * scale)[1:], color=colour, lw=1)
    axis.set(yscale="log", xlabel="depth", ylabel="mean of M_d / M_0 (line: exact, padding included)")
    axis.legend()
    note(
        figure,
        frame,
        f"3 × 3 kernels, 28 × 28, zero padding, {int(frame['draws'].iloc[0])} networks a point. With depth/10 "
        "channels, 1 to 5, single lengths spread so widely (the second failure mode) that so few networks miss the "
        "mean, which rare ones carry: the points lie below the exact line.",
    )
    return figure


def _started(axis: Axes, run: Frame, x: Sequence[float], colour: str, mark: str, name: str) -> None:
    """Mean epochs to start with ± 2 standard errors; runs that never start sit at the limit, hollow."""
    limit = float(run["epochs"].iloc[0])
    epochs = run["epochs_to_start"].fillna(limit)
    table = epochs.groupby(np.asarray(x)).agg(["mean", "sem", "count"])
    failed = run["epochs_to_start"].isna().groupby(np.asarray(x)).mean()
    # beside each other, so that no bar hides another
    aside = (COLOURS.index(colour) - 2) * 0.012 * float(np.max(x))
    places = np.asarray(table.index) + aside
    axis.errorbar(places, table["mean"], 2 * table["sem"].fillna(0), fmt=mark + "-", color=colour, label=name, lw=1.2)
    for at, share in failed.items():
        if 0 < share < 1:  # where none starts the point lies on the limit
            axis.annotate(
                f"{100 * share:.0f} %",
                (at + aside, table.loc[at, "mean"]),
                xytext=(3, 4),
                textcoords="offset points",  # type: ignore[arg-type]
                fontsize=7,
                color=colour,
            )


def _limits(figure: Figure, axis: Axes, frame: Frame) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper")  # bars fill the panel
    limit = float(frame["epochs"].iloc[0])
    axis.axhline(limit, color=GREY, lw=0.8, ls=":")
    axis.set(ylim=(0, 1.12 * limit), ylabel="epochs until 20 % test accuracy")
    samples = int(frame["samples"].iloc[0]) or 60_000
    note(
        figure,
        frame,
        f"MNIST, {samples:,} samples, SGD at .01, batch 1024, up to {limit:g} epochs (dotted).\n"
        "Bars: ± 2 standard errors. Percentages: networks that never start, counted at the limit; on it none does.",
    )


def figure_1b(frame: Frame) -> Figure:
    """Epochs to start against depth = width, five initializations."""
    frame = _shown(frame, "1b")
    figure, (axis,) = panels(1, 1, "1b. Wrong mean length: training does not start", 7.6, 4.0)
    for colour, mark, name in zip(COLOURS, MARKS, LAWS, strict=False):
        run = frame[frame["scheme"] == LAWS[name]]
        if len(run):
            _started(axis, run, list(run["depth"]), colour, mark, name)
    axis.set(xlabel="depth = width")
    _limits(figure, axis, frame)
    return figure


def figure_2b(frame: Frame) -> Figure:
    """Epochs to start of residual networks."""
    frame = _shown(frame, "2b")
    figure, (axis,) = panels(1, 1, "2b. Residual networks: too large a sum of η, no start", 7.6, 4.0)
    for colour, mark, (base, run) in zip(COLOURS, MARKS, frame.groupby("base"), strict=False):
        _started(axis, run, list(run["depth"]), colour, mark, "η = 1" if base == 1 else f"η = {base:g}^l")
    axis.set(xlabel="modules of width 5")
    _limits(figure, axis, frame)
    return figure


def _figure_3(frame: Frame, title: str, by_sum: bool) -> Figure:
    frame = _shown(frame, "3a")
    figure, (axis,) = panels(1, 1, title, 7.6, 4.0)
    for colour, mark, ((shape, width), run) in zip(COLOURS, MARKS, frame.groupby(["shape", "width"]), strict=False):
        nets = [Net(depth=int(d), width=int(width), shape=shape) for d in run["depth"]]
        x = [lengths.inverse_width_sum(widths(n)) if by_sum else n.depth for n in nets]
        name = f"constant {width}" if shape == "constant" else f"{shape} (30, 10)"
        _started(axis, run, x, colour, mark, name)
    axis.set(xlabel="Σ 1/n over hidden layers" if by_sum else "depth")
    _limits(figure, axis, frame)
    return figure


def figure_3a(frame: Frame) -> Figure:
    """Epochs to start against depth, five arrangements of widths."""
    return _figure_3(frame, "3a. He weights, five arrangements of widths", by_sum=False)


def figure_3b(frame: Frame) -> Figure:
    """The same against Σ1/n: the curves fall together."""
    return _figure_3(frame, "3b. The same networks against Σ 1/n", by_sum=True)


def claim(frame: Frame) -> Figure:
    """Depth 100, width 100 against depth 10, width 10: who starts first."""
    frame = _shown(frame, "claim")
    figure, (left, right) = panels(1, 2, "Equal Σ 1/n: does the 100 × 100 net start before the 10 × 10 one?", 4.6, 3.6)
    epochs = []
    for number, n in enumerate((10, 100)):
        run = frame[(frame["depth"] == n) & (frame["width"] == n)]
        if len(run) < 2:
            raise DataError("figure claim", got=f"{len(run)} runs of {n} × {n}", expected="at least 2 of each network")
        value = run["epochs_to_start"].fillna(float(run["epochs"].iloc[0])).to_numpy()
        epochs.append(value)
        left.plot(np.full(len(value), number) + np.linspace(-0.12, 0.12, len(value)), value, "o", color=COLOURS[number])
        left.errorbar(number + 0.25, value.mean(), 2 * value.std(ddof=1) / np.sqrt(len(value)), fmt="D", color="black")
        right.step(
            np.sort(value),
            np.arange(1, len(value) + 1) / len(value),
            where="post",
            color=COLOURS[number],
            label=f"{n} × {n}",
        )
    left.set_xticks([0, 1], ["depth 10 × width 10", "depth 100 × width 100"])
    left.set(
        ylim=(0, None), ylabel="epochs until 20 % test accuracy", xlim=(-0.4, 1.5), title="each network; mean ± 2 s.e."
    )
    right.set(xlabel="epochs", ylabel="share of networks that have started", title="distribution")
    right.legend()
    difference = epochs[0].mean() - epochs[1].mean()
    error = np.hypot(*(e.std(ddof=1) / np.sqrt(len(e)) for e in epochs))
    note(
        figure,
        frame,
        f"{len(epochs[0])} networks each, He normal, MNIST, SGD at .01, batch 1024. The deep one is earlier by "
        f"{difference:.2f} ± {2 * error:.2f} epochs (2 s.e.).",
    )
    return figure


FIGURES = {
    "1a": (("lengths",), figure_1a),
    "1b": (("start",), figure_1b),
    "2a": (("lengths",), figure_2a),
    "2b": (("start",), figure_2b),
    "3a": (("start",), figure_3a),
    "3b": (("start",), figure_3b),
    "4": (("lengths",), figure_4),
    "claim": (("start",), claim),
}
