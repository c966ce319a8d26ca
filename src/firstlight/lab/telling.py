"""The demonstration's story in plain words, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from firstlight import api
from firstlight.graph.results import Report
from firstlight.lab.trials import DEFAULT, Net
from firstlight.report.numbers import count, factor, number, percent
from firstlight.report.text import render_view
from firstlight.report.view import build_view
from firstlight.schemes import schemes
from firstlight.theory import activations

if TYPE_CHECKING:
    from firstlight.lab.demo import Settings, Story


def name_of(start: str) -> str:
    """The start in words."""
    return "PyTorch's default" if start == DEFAULT else start


def network(net: Net) -> str:
    """The network in words."""
    return f"a plain network of {net.depth} layers with {net.width} units each and {net.activation} between them"


def law(activation: str) -> str:
    """What PyTorch's default does to the mean square, where theory gives one number for it; "" elsewhere."""
    if activations.get(activation).degree != 1.0:
        return ""
    keeps = api.gain(activation, keep="mean") ** 2
    share = 1.0 / (3.0 * keeps)
    return (
        f"PyTorch draws the weights of a linear layer with variance 1/(3·fan_in). With {activation}, "
        f"{number(keeps)}/fan_in would keep the mean square of what depends on the input; each layer hands "
        f"on {number(share)} of it, and of the gradient on its way back too."
    )


def why(report: Report) -> list[str]:
    """The walks of a network in sentences."""
    view = build_view(report)
    return [text for text in (view.contrast_text or view.forward_text, view.backward_text) if text]


def what_changed(start: str) -> str:
    """What a start does to the weights."""
    if start == DEFAULT:
        return "nothing: the weights as PyTorch draws them"
    name = start.partition("(")[0]
    return next(scheme.note for scheme in schemes() if name == scheme.name or name in scheme.variants)


def result(story: Story, start: str) -> str:
    """What became of a start, in one sentence."""
    seeds = len(story.settings.seeds)
    right = percent(story.accuracy(start))
    if story.started(start) == 0:
        return (
            f"{name_of(start)}: stays at chance. After {story.settings.steps} steps {right} of the test "
            f"images are right; always naming the commonest class gives {percent(story.chance)}."
        )
    return f"{name_of(start)}: {story.started(start)} of {seeds} start; {right} of the test images are right."


def title(story: Story) -> str:
    """The story in one line."""
    if story.started(DEFAULT) == 0 and story.started(story.best):
        return f"{count(story.settings.depth, 'layer')} that cannot start, and then do"
    return f"{count(story.settings.depth, 'layer')}, {count(len(story.settings.starts), 'start')}"


def moral(story: Story) -> str:
    """What the story shows, from its own numbers."""
    best, default = story.best, story.started(DEFAULT)
    if best == DEFAULT:
        return result(story, DEFAULT)
    same = "Same network, same images, same number of steps, learning rate chosen by the same rule."
    if default == 0 and story.started(best):
        return (
            f"{same} As PyTorch draws it, the network learns nothing: {percent(story.accuracy(DEFAULT))}. "
            f"Initialized by {best}, it recognises {percent(story.accuracy(best))} of the test images."
        )
    if default:
        return f"{same} Here PyTorch's default starts too: {percent(story.accuracy(DEFAULT))} against {best}'s " + (
            f"{percent(story.accuracy(best))}. Make the network deeper to see it fail."
        )
    return f"{same} No start gets this network going within {story.settings.steps} steps."


def choice_of_rate(story: Story) -> str:
    """How the learning rates were chosen."""
    settings = story.settings
    grid = ", ".join(f"{rate:g}" for rate in settings.rates)
    return (
        f"Optimizer: Adam, batches of 128. Learning rate: each start was first trained for "
        f"{settings.pilot_steps} steps with each of {grid} on a seed that is not in the table; the rate with "
        "the lowest training loss was taken for all of its seeds. Started means: training loss below 0.9 of "
        f"{number(story.chance_loss)}, the loss of guessing by the classes' frequencies."
    )


def grade(story: Story, start: str) -> str:
    """How many seeds started: "good" all, "some", "poor" none."""
    started = story.started(start)
    return "poor" if started == 0 else "good" if started == len(story.settings.seeds) else "some"


def columns(story: Story, start: str) -> tuple[str, ...]:
    """One row of the table of results."""
    view = build_view(story.reports[start])
    outcomes = story.outcomes[start]
    gradient = next((row.backward for row in view.rows if row.backward is not None), None)
    accuracies = sorted(outcome.accuracy[-1] for outcome in outcomes)
    spread = f" ({percent(accuracies[0])} … {percent(accuracies[-1])})" if len(accuracies) > 1 else ""
    return (
        name_of(start),
        story.reports[start].verdict,
        percent(story.accuracy(start)) + spread,
        f"{story.started(start)} of {len(outcomes)}",
        number(median(outcome.final_loss for outcome in outcomes)),
        f"{story.rates[start]:g}",
        factor(gradient),
    )


HEADINGS = ("start", "verdict", "test accuracy", "started", "training loss", "rate", "gradient at layer 1")
STARTED = 3  # column of `started`


class Teller:
    """Tells the story on a console while it happens; without one it is silent."""

    def __init__(self, console: Console | None, settings: Settings) -> None:
        self._console = console or Console(quiet=True)
        self._settings = settings

    def opening(self, source: str, net: Net) -> None:
        """Say what is looked at."""
        self._console.print(Text(f"Data: {source}.", style="dim"))
        self._console.print(
            f"\n[bold]1. What fails[/bold]  {network(net)}, weights as PyTorch draws them", highlight=False
        )

    def diagnosis(self, report: Report) -> None:
        """Show why PyTorch's default fails, or that it does not."""
        self._console.print(render_view(build_view(report), most=2))
        text = law(self._settings.activation)
        if text:
            self._console.print(Text(f"Why: {text}\n"))
        self._console.print("[bold]2. What is changed[/bold]  the weights that training starts from, nothing else")
        for start in self._settings.starts[1:]:
            self._console.print(Text.assemble("  ", (start, "bold"), f": {what_changed(start)}"))
        self._console.print("\n[bold]3. What that does[/bold]")

    @contextmanager
    def progress(self, steps: int) -> Iterator[Callable[[int], object]]:
        """A bar over all training steps."""
        shape = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} steps"),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        with Progress(*shape, console=self._console, transient=True) as bar:
            starts = count(len(self._settings.starts), "start")
            task = bar.add_task(f"Training {starts} × {count(len(self._settings.seeds), 'seed')}", total=steps)
            yield lambda done: bar.update(task, completed=min(done, steps))

    def ending(self, story: Story) -> None:
        """Show the table and what it says."""
        table = Table(*HEADINGS, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for start in story.settings.starts:
            style = {"good": "green", "some": "yellow", "poor": "red"}[grade(story, start)]
            table.add_row(
                *(Text(cell, style=style if i == STARTED else "") for i, cell in enumerate(columns(story, start)))
            )
        self._console.print(table)
        self._console.print(Text(f"\n{moral(story)}", style="bold"))
        self._console.print(Text(choice_of_rate(story), style="dim"))
        self._console.print(Text(f"{story.seconds:.0f} seconds in all.", style="dim"))
