"""Reproduce an experiment: run what the store lacks, then draw its figures from the store."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from firstlight.errors import DataError, InputError, RegistryError
from firstlight.lab.engines import Engine
from firstlight.lab.experiment import Task, grouped, near, part_of, parts, run_key
from firstlight.lab.store import Store
from firstlight.lab.sweep import Progress, run_tasks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Form = Literal["quick", "full"]


def figures(experiment: str) -> dict[str, tuple[tuple[str, ...], Callable[..., Figure]]]:
    """An experiment's figures: name → (short names of the parts that it needs, frames → Figure).

    Raises:
        RegistryError: Unknown experiment.
    """
    parts(experiment)
    return importlib.import_module(f"firstlight.lab.figures.{experiment.replace('-', '_')}").FIGURES


def chosen_figures(experiment: str, figure: str | None) -> dict[str, tuple[tuple[str, ...], Callable[..., Figure]]]:
    """All figures of an experiment, or the one that is asked for.

    Raises:
        RegistryError: Unknown experiment or figure; the nearest name is offered.
    """
    known = figures(experiment)
    if figure is None:
        return known
    if figure not in known:
        raise RegistryError(
            f"{experiment}, figure",
            got=repr(figure),
            expected="one of " + ", ".join(known),
            action=near(figure, known),
        )
    return {figure: known[figure]}


def tasks_of(experiment: str, figure: str | None, form: Form) -> list[Task]:
    """The tasks of an experiment, or of what one figure of it shows; seeds grouped as each part asks for."""
    wanted = chosen_figures(experiment, figure)
    tasks: list[Task] = []
    for name, part in parts(experiment).items():
        shown_in = [figure for figure, (needs, _) in wanted.items() if name in needs]
        for config, seeds in part.quick() if form == "quick" else part.full():
            if any(part.needed is None or part.needed(config, figure) for figure in shown_in):
                tasks += grouped(part, config, seeds)
    return tasks


def reproduce(
    experiment: str,
    out: Path,
    *,
    store: Store | None = None,
    figure: str | None = None,
    form: Form = "quick",
    engine: Engine,
    progress: Progress | None = None,
    image: str = "png",
) -> list[Path]:
    """Run and draw.

    Args:
        experiment: Its name.
        out: Folder of the figures.
        store: Where runs are kept; `out`/store if not given.
        figure: Only this one.
        form: "quick" or "full"; a store may hold both, and figures use all runs of it.
        engine: See `lab.engines.engine`.
        progress: Called with (finished runs and the done share of those under way, all runs).
        image: "png" or "svg".

    Returns:
        The figures' files.

    Raises:
        RegistryError: Unknown experiment or figure.
        DataError: The store or the folder cannot be written, before any work is done; or data is missing.
    """
    if image not in ("png", "svg"):
        raise InputError("figure format", got=repr(image), expected="png or svg")
    wanted = chosen_figures(experiment, figure)
    store = store or Store(out / "store")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(str(out), got=str(error), expected="a folder that can be written") from error
    run_tasks(tasks_of(experiment, figure, form), store, engine, progress)
    return [draw(experiment, name, store, out / f"{experiment}-{name}.{image}") for name in wanted]


def draw(experiment: str, figure: str, store: Store, path: Path) -> Path:
    """Draw one figure from a store.

    Raises:
        DataError: The store lacks a part that the figure needs.
    """
    from firstlight.lab.figures._forms import mark
    from firstlight.lab.figures._style import style

    needs, make = figures(experiment)[figure]
    known = parts(experiment)
    quick, full = (_keys(tasks_of(experiment, figure, form)) for form in ("quick", "full"))
    frames: list[Any] = [mark(store.frame(known[part]), quick, full) for part in needs]
    with style():
        drawn = make(*frames)
        part = path.with_name(f".{path.name}.part")
        try:
            drawn.savefig(part, format=path.suffix[1:])
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise DataError(str(path), got=str(error), expected="a file that can be written") from error
    return path


def _keys(tasks: list[Task]) -> set[str]:
    return {run_key(part_of(task.part), task.config, seed) for task in tasks for seed in task.seeds}
