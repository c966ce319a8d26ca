"""The lab's verbs on the command line: reproduce, sweep, results. Torch is imported only when one runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Engine(StrEnum):
    """Who does the work."""

    LOCAL = "local"
    RAY = "ray"


class Table(StrEnum):
    """In which form rows are printed."""

    TEXT = "text"
    CSV = "csv"
    JSON = "json"


class Image(StrEnum):
    """File type of figures."""

    PNG = "png"
    SVG = "svg"


Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes, one torch thread each.")]
EngineOption = Annotated[Engine, typer.Option("--engine", help="local, or a Ray cluster.")]
Address = Annotated[
    str | None, typer.Option("--address", metavar="HOST:PORT", help="Ray cluster; by default a local one.")
]


def register(app: typer.Typer) -> None:
    """Enter the lab's verbs into the command line."""
    app.command(rich_help_panel="The lab")(reproduce)
    app.command(rich_help_panel="The lab")(sweep)
    app.command(rich_help_panel="The lab")(results)


def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="Experiment; without it the list of them.", show_default=False)
    ] = None,
    figure: Annotated[str | None, typer.Option(help="Only this figure.")] = None,
    full: Annotated[
        bool, typer.Option("--full/--quick", help="The long form (an hour or two of a core, resumable), or minutes.")
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Figures, and the store unless --store says.")
    ] = Path("out/lab"),
    store: Annotated[str | None, typer.Option(metavar="URL", help="Folder or fsspec URL of the results.")] = None,
    jobs: Jobs = 1,
    engine: EngineOption = Engine.LOCAL,
    address: Address = None,
    image: Annotated[Image, typer.Option("--image", help="File type of the figures.")] = Image.PNG,
) -> None:
    """Run a paper's experiment and draw its figures, theory under the measurement.

    Interrupt it at will: the same command goes on where it stopped. Example: firstlight reproduce hanin-2018
    --figure 1a
    """
    from firstlight.lab import engines
    from firstlight.lab.experiment import experiment_names
    from firstlight.lab.reproduce import figures
    from firstlight.lab.reproduce import reproduce as work
    from firstlight.lab.store import Store

    if name is None:
        for known in experiment_names():
            typer.echo(f"{known}: figures {', '.join(figures(known))}")
        return
    with _bar(f"Reproducing {name}") as progress:
        drawn = work(
            name,
            out,
            store=Store(store) if store else None,
            figure=figure,
            form="full" if full else "quick",
            engine=engines.engine(engine.value, jobs, address),
            progress=progress,
            image=image.value,
        )
    for path in drawn:
        typer.echo(path)


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="Grid and seeds.", show_default=False)],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="URL", help="Store, in place of the file's.")
    ] = None,
    jobs: Jobs = 1,
    engine: EngineOption = Engine.LOCAL,
    address: Address = None,
) -> None:
    """Run a grid × seeds; what the store already has is not run again.

    Example: firstlight sweep start.toml --jobs 8 --out s3://bucket/results
    """
    from firstlight.lab import engines
    from firstlight.lab.store import Store
    from firstlight.lab.sweep import read_sweep, run_tasks

    asked = read_sweep(file)
    store = Store(out or asked.store or "results")
    work = engines.engine(engine.value, jobs, address)
    with _bar(f"Sweeping {asked.part.name}") as progress:
        done, had = run_tasks(asked.tasks, store, work, progress)
    typer.echo(f"{done} runs done, {had} were there: {store.url}")


def results(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="Query over runs, or a view per part.")],
    store: Annotated[str, typer.Option("--store", metavar="URL", help="Folder or fsspec URL.")] = "results",
    form: Annotated[Table, typer.Option("--format", "-f", help="Form of the rows.")] = Table.TEXT,
) -> None:
    """Ask a store of results by SQL (DuckDB). The view of hanin-2018/lengths is hanin_2018_lengths.

    Example: firstlight results "SELECT width, avg(epochs) FROM hanin_2018_start GROUP BY width"
    """
    from firstlight.lab.store import Store

    frame = Store(store).query(sql)
    for line in frame.attrs["left_out"]:
        typer.echo(f"left out: {line} (the view every_version has them)", err=True)
    if form is Table.CSV:
        typer.echo(frame.to_csv(index=False), nl=False)
    elif form is Table.JSON:
        typer.echo(frame.to_json(orient="records"))
    else:
        typer.echo(frame.to_string(index=False, max_rows=200))


@contextmanager
def _bar(title: str) -> Iterator[Callable[[float, int], object]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn("{task.percentage:>5.1f}%"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
