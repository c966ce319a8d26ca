"""The phase diagram as a table and as a figure."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.errors import InputError
from firstlight.theory.phase import PhaseDiagram


def text(d: PhaseDiagram) -> str:
    """One line per (σ_w, σ_b)."""
    lines = [f"{d.activation}: {'σ_w':>6} {'σ_b':>6} {'q*':>9} {'χ₁':>7} {'ξ_q':>8} {'ξ_c':>8}  phase"]
    for i, b in enumerate(d.sigma_b):
        for j, w in enumerate(d.sigma_w):
            chi = float(d.chi[i, j])
            phase = "lengths grow without end" if math.isnan(chi) else "ordered" if chi < 1.0 else "chaotic"
            phase = "critical" if abs(chi - 1.0) < 1e-9 else phase
            numbers = (d.q[i, j], chi, d.length_scale[i, j], d.correlation_scale[i, j])
            cells = " ".join(f"{_number(float(v)):>{n}}" for v, n in zip(numbers, (9, 7, 8, 8), strict=True))
            lines.append(f"{'':{len(d.activation) + 1}} {w:6.3g} {b:6.3g} {cells}  {phase}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.3g}"


def as_json(d: PhaseDiagram) -> str:
    """All arrays by name; what is not finite is null."""

    def clean(values: Any) -> Any:
        if isinstance(values, list):
            return [clean(v) for v in values]
        return values if math.isfinite(values) else None

    record: dict[str, Any] = {"activation": d.activation, "sigma_w": list(d.sigma_w), "sigma_b": list(d.sigma_b)}
    for name in ("q", "chi", "length_scale", "correlation_scale", "critical"):
        record[name] = clean(getattr(d, name).tolist())
    return json.dumps(record)


def draw(d: PhaseDiagram, path: str | Path) -> Path:
    """ξ_c and ξ_q over (σ_w, σ_b), with the critical line, written to a file whose ending names the format.

    Raises:
        InputError: Fewer than two values on an axis, or matplotlib is not installed.
    """
    if len(d.sigma_w) < 2 or len(d.sigma_b) < 2:
        raise InputError("figure", got="one value on an axis", expected="at least two σ_w and two σ_b")
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "figure",
            got="no matplotlib",
            expected="matplotlib",
            action='Install it with pip install "firstlight[lab]".',
        ) from error
    figure = Figure(figsize=(9.6, 4.0), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    colours: Any = mpl.colormaps["cividis"].with_extremes(bad="#dddddd")  # the same to the colour-blind
    scales = (("ξ_c: inputs told apart over", d.correlation_scale), ("ξ_q: lengths settle over", d.length_scale))
    for place, (title, values) in enumerate(scales):
        axes: Any = figure.add_subplot(1, 2, place + 1)
        shown = np.log10(np.clip(values, 0.3, 300.0))
        mesh = axes.pcolormesh(d.sigma_w, d.sigma_b, np.ma.masked_invalid(shown), cmap=colours, shading="nearest")
        bar = figure.colorbar(mesh, ax=axes, ticks=[0.0, 1.0, 2.0])
        bar.ax.set_yticklabels(["1", "10", "100"])
        bar.set_label("layers")
        inside = (d.critical >= min(d.sigma_w)) & (d.critical <= max(d.sigma_w))
        if inside.any():
            axes.plot(d.critical[inside], np.array(d.sigma_b)[inside], color="white", lw=3.2)
            axes.plot(d.critical[inside], np.array(d.sigma_b)[inside], color="black", lw=1.4, label="critical: χ₁ = 1")
            axes.legend(loc="upper left", fontsize=8)
        axes.set(xlabel="σ_w", ylabel="σ_b", title=f"{d.activation}, {title}")
    target = Path(path)
    figure.savefig(target)
    return target
