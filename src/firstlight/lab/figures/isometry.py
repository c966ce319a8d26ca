"""Figure of the Jacobian's spectra."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from firstlight.lab.figures._forms import Frame, one_form
from firstlight.lab.figures._style import COLOURS, MARKS, note, panels
from firstlight.theory import weights


def spectra(frame: Frame) -> Figure:
    """Quantiles of the squared singular values at the largest common depth, and their variance against depth."""
    frame = one_form(frame, ["width", "draws"], ["activation", "scheme", "depth"])
    figure, (left, right) = panels(1, 2, "Dynamical isometry: is the Jacobian's spectrum one line?", 5.4, 4.0)
    deepest = int(frame["depth"].max())
    for number, ((act, scheme), run) in enumerate(frame.groupby(["activation", "scheme"], sort=False)):
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
        name = f"{act}, {'Gaussian' if scheme in ('lecun', 'he') else scheme}"
        at = run[run["depth"] == deepest].sort_values("share")
        left.plot(at["share"], np.sqrt(at["square"]), color=colour, label=name)
        by_depth = run.groupby("depth")["variance"].first()
        right.plot(by_depth.index, by_depth.clip(lower=1e-3), mark, color=colour, label=name)
        if act in ("linear", "relu") and scheme in ("lecun", "he", "orthogonal"):
            depth = np.arange(1, deepest + 1)
            s1 = 0.0 if scheme == "orthogonal" else weights.GAUSSIAN_S1
            law = [weights.singular_value_variance(act, int(d), 1.0, s1) for d in depth]
            right.plot(depth, np.maximum(law, 1e-3), color=colour, lw=1)
    left.set(yscale="log", ylim=(1e-4, 30), xlabel="share of singular values below", ylabel="singular value / rms")
    left.set_title(f"spectrum at depth {deepest}")
    right.set(xscale="log", yscale="log", xlabel="depth", ylabel="relative variance of squared singular values")
    right.set_title("variance (lines: theory; 0 drawn at .001)")
    right.legend(loc=(0.02, 0.1), fontsize=7.5, ncols=2)
    note(
        figure,
        frame,
        f"{int(frame['width'].iloc[0])} units, {int(frame['draws'].iloc[0])} networks each; tanh at g = 1.05; colours "
        "as on the right. Left: flat at 1 is isometry. Right: L(μ₂/μ₁² - 1 - s₁), s₁ = -1 for Gaussian weights and 0 "
        "for orthogonal ones, the law of infinite width: at this one the deepest lie above it.\nLooks-linear: half of "
        "the units mirror the others, so half of the singular values are 0.",
    )
    return figure


FIGURES = {"spectra": (("spectra",), spectra)}
