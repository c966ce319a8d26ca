"""The demonstration as one HTML page: what failed, why, what was changed, what it did."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

from markupsafe import Markup

from firstlight.lab import telling
from firstlight.lab.trials import DEFAULT
from firstlight.report.charts import Line, chart, plain_strip
from firstlight.report.html import environment
from firstlight.report.numbers import percent, power_of_ten, ratio
from firstlight.report.view import Row, View, build_view

if TYPE_CHECKING:
    from firstlight.lab.demo import Story

_COLOURS = 6


def render_story(story: Story) -> str:
    """The page of a demonstration; it stands alone, like a report."""
    starts = story.settings.starts
    views = {start: build_view(story.reports[start]) for start in starts}
    colours = {start: number % _COLOURS for number, start in enumerate(starts)}
    return (
        environment()
        .get_template("story.html.j2")
        .render(
            story=story,
            default=DEFAULT,
            views=views,
            colours=colours,
            telling=telling,
            moral=telling.moral(story),
            network=_network(story),
            rows=[telling.columns(story, start) for start in starts],
            strips={start: _strip(view) for start, view in views.items()},
            accuracy=_curves(story, colours),
            losses=_losses(story, colours),
            walks=[
                (title, _walks(views, colours, value, title))
                for title, value in (
                    ("Forward: what differs between images", lambda row: row.contrast),
                    ("Backward: the gradient", lambda row: row.backward),
                )
            ],
        )
    )


def _network(story: Story) -> str:
    settings = story.settings
    return f"{settings.depth} layers of {settings.width} units with {settings.activation}"


def _strip(view: View) -> Markup:
    rows = [
        [row.forward for row in view.rows],
        *([[row.contrast for row in view.rows]] if view.contrast_text else []),
        [row.backward for row in view.rows],
    ]
    return plain_strip(rows, f"{view.forward_text} {view.contrast_text} {view.backward_text}")


def _curves(story: Story, colours: dict[str, int]) -> Markup:
    lines: list[Line] = []
    for start, outcomes in story.outcomes.items():
        colour = colours[start]
        lines += [
            Line(
                outcome.accuracy_steps,
                outcome.accuracy,
                f"l{colour} thin",
                f"{start}, seed {outcome.trial.seed}",
            )
            for outcome in outcomes
        ]
        whole = [outcome for outcome in outcomes if outcome.diverged_at is None]
        if whole:
            middle = [median(values) for values in zip(*(outcome.accuracy for outcome in whole), strict=True)]
            lines.append(Line(whole[0].accuracy_steps, middle, f"l{colour}", f"{start}, median"))
    return chart(
        lines,
        title="Test accuracy during training",
        description=telling.moral(story),
        x_label="training step",
        y_range=(0.0, 1.0),
        y_text=percent,
        reference=story.chance,
    )


def _losses(story: Story, colours: dict[str, int]) -> Markup:
    lines = [
        Line(outcome.loss_steps, outcome.loss, f"l{colours[start]}", f"{start}, seed {outcome.trial.seed}")
        for start, outcomes in story.outcomes.items()
        for outcome in outcomes
    ]
    return chart(
        lines,
        title="Training loss",
        description="Loss of every training; the dotted line is the loss of guessing.",
        x_label="training step",
        y_range=(0.0, 1.3 * story.chance_loss),
        y_text=lambda loss: f"{loss:.1f}",
        reference=story.chance_loss,
    )


def _walks(views: dict[str, View], colours: dict[str, int], value: Callable[[Row], float | None], title: str) -> Markup:
    lines: list[Line] = []
    said: list[str] = []
    for start, view in views.items():
        spine = [row for row in view.rows if row.spine]
        ys = [y if (y := value(row)) is not None and math.isfinite(y) else None for row in spine]
        lines.append(Line([row.number for row in spine], ys, f"l{colours[start]}", start))
        seen = [y for y in ys if y is not None]
        if seen:
            said.append(f"{telling.name_of(start)}: from {ratio(min(seen))} to {ratio(max(seen))}")
    return chart(
        lines,
        title=title,
        description="Relative to where the walk starts. " + "; ".join(said) + ".",
        x_label="operation, from input to output",
        y_text=lambda y: power_of_ten(round(y)),
        whole_ticks=True,
        reference=0.0,
    )
