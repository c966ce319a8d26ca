"""firstlight phase: where wide networks of an activation are ordered, critical or chaotic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import options
from firstlight.cli.output import write_text
from firstlight.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(phase)


def phase(
    activation: Annotated[str, typer.Argument(help="Name of the activation: tanh, relu, gelu, …")],
    sigma_w: Annotated[str, typer.Option(help="σ_w as FROM:TO:COUNT; weights have the variance σ_w²/fan_in.")] = (
        "0.5:3:6"
    ),
    sigma_b: Annotated[str, typer.Option(help="σ_b as FROM:TO:COUNT.")] = "0:0.5:3",
    figure: Annotated[Path | None, typer.Option(help="Write a figure here (.png, .svg, .pdf).")] = None,
    form: options.FormatOption = options.Format.TEXT,
) -> None:
    """Print the mean field's fixed points and depth scales ξ_c, ξ_q over a grid of weight and bias scales.

    Example: firstlight phase tanh --sigma-w 0.8:2.4:5 --figure tanh.png
    """
    from firstlight.report import phase as report
    from firstlight.theory.phase import phase_diagram

    if form is options.Format.HTML:
        raise InputError("--format", got="html", expected="text or json")
    found = phase_diagram(activation, _range("--sigma-w", sigma_w), _range("--sigma-b", sigma_b))
    write_text(report.as_json(found) if form is options.Format.JSON else report.text(found), None)
    if figure is not None:
        report.draw(found, figure)


def _range(name: str, given: str) -> list[float]:
    parts = given.split(":")
    try:
        if len(parts) == 1:
            return [float(parts[0])]
        low, high, count = float(parts[0]), float(parts[1]), int(parts[2])
        if len(parts) > 3 or count < 2:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise InputError(name, got=repr(given), expected="FROM:TO:COUNT with COUNT ≥ 2, or one number") from error
    return [low + (high - low) * k / (count - 1) for k in range(count)]
