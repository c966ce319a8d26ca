"""The verbs, each a thin function over the same verb in Python. Torch is imported only when a verb runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firstlight.cli import options
from firstlight.cli.errors import Verbs
from firstlight.cli.output import check_writable, write_file, write_rich, write_text
from firstlight.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from firstlight.cli.batch import Job
    from firstlight.graph.prediction import Prediction
    from firstlight.graph.results import Report

app = typer.Typer(
    name="firstlight",
    cls=Verbs,
    help="Does a signal get through this network and back? Told before training, mended and proved.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from firstlight import __version__

        typer.echo(f"firstlight {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of all verbs; `--debug` is read by the group, wherever it stands."""


@app.command()
def diagnose(
    model: options.Model,
    inputs: options.Inputs = None,
    batch: options.Batch = None,
    loss: options.Loss = None,
    arg: options.FactoryArgs = None,
    train: options.Train = None,
    dtype: options.DtypeOption = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    form: options.FormatOption = options.Format.TEXT,
    out: options.Out = None,
    fail_on: Annotated[
        options.FailOn, typer.Option(help="Exit code 1 from this severity on.", rich_help_panel="The result")
    ] = options.FailOn.ERROR,
    theory: Annotated[
        bool, typer.Option("--theory", help="Hold the measurement against predict, and take its P(start).")
    ] = False,
) -> None:
    """Judge a network before training: a verdict, findings worst first, and a remedy for each.

    Example: firstlight diagnose nets.py:build --input 32,1,28,28 --format html --out report.html
    """
    from firstlight import api

    check_writable(out)
    module, job = _load(model, arg, inputs, batch, loss, seed, train, dtype, device)
    with _working("Diagnosing"):
        report = api.diagnose(module, job.batch, loss=job.loss, theory=theory)
    write_report(report, form, out, lambda: _predicted(module, job))
    order = ["info", "warning", "error", "never"]
    if any(order.index(finding.severity) >= order.index(fail_on) for finding in report.findings):
        raise typer.Exit(1)


@app.command()
def measure(
    model: options.Model,
    inputs: options.Inputs = None,
    batch: options.Batch = None,
    loss: options.Loss = None,
    arg: options.FactoryArgs = None,
    train: options.Train = None,
    dtype: options.DtypeOption = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    draws: Annotated[int, typer.Option(min=1, help="Draw the weights anew this many times.")] = 1,
    form: options.FormatOption = options.Format.TEXT,
    out: options.Out = None,
) -> None:
    """Run one forward and one backward pass and print the statistics of every tensor.

    Example: firstlight measure nets.py:build --batch batch.npz --loss cross-entropy --format json
    """
    from firstlight import api

    if form is options.Format.HTML:
        raise InputError("--format", got="html", expected="text or json", action="The page is made by diagnose.")
    check_writable(out)
    module, job = _load(model, arg, inputs, batch, loss, seed, train, dtype, device)
    with _working("Measuring"):
        measured = api.measure(module, job.batch, loss=job.loss, draws=draws, seed=seed)
    if form is options.Format.JSON:
        write_text(measured.to_json(), out)
    else:
        write_rich(measured, out)


@app.command()
def predict(
    model: options.Model,
    inputs: options.Inputs = None,
    batch: options.Batch = None,
    scheme: Annotated[str | None, typer.Option(help="Law of the weights; by default the live ones'.")] = None,
    arg: options.FactoryArgs = None,
    train: options.Train = None,
    dtype: Annotated[
        options.Dtype | None, typer.Option("--dtype", help="Compute type whose range P(start) looks at.")
    ] = None,
    meta: Annotated[bool, typer.Option("--meta", help="Never allocate a weight; needs --scheme.")] = False,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B,C", help="Predict for each value of a factory's argument; repeat it."),
    ] = None,
    seed: options.Seed = 0,
    form: options.FormatOption = options.Format.TEXT,
    out: options.Out = None,
) -> None:
    """Say, without running the network, what its signals and gradients will be and whether it can start.

    Example: firstlight predict nets.py:build --input 32,1,28,28 --scheme he --sweep depth=10,50,100
    """
    from firstlight import api
    from firstlight.cli.batch import load_job, shapes
    from firstlight.cli.devices import together
    from firstlight.cli.model import load_model, values

    check_writable(out)
    kind = None if dtype is None else dtype.torch_name
    job = None if meta and inputs and not batch else load_job(inputs, batch, None, seed=seed, dtype=None)
    given = shapes(inputs or [], seed) if job is None else job.batch

    def build(**settings: Any) -> nn.Module:
        return load_model(model, arg, seed=seed, train=train, device="meta" if meta else "cpu", **settings)

    grid = values(sweep or [])
    module = None if grid else build()
    if module is not None and job is not None:
        given = together(module, job, None)[1].batch
    with _working("Predicting"):
        found = api.predict(build if module is None else module, given, scheme, dtype=kind)
        result = found.sweep(**grid) if grid else found
    if form is options.Format.HTML and grid:
        raise InputError("--format", got="html with --sweep", expected="text or json")
    if form is options.Format.HTML:
        write_text(found.to_html(), out)
    elif form is options.Format.JSON:
        write_text(result.to_json(), out)
    else:
        write_rich(result, out)


@app.command()
def init(
    model: options.Model,
    scheme: Annotated[
        str, typer.Option(help="Name of the scheme: random-walk, he, xavier, orthogonal, …")
    ] = "random-walk",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Where the state_dict goes, whole or not at all. Without it the table is printed, nothing is written.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the table of what would change; draw and write nothing.")
    ] = False,
    inputs: options.Inputs = None,
    batch: options.Batch = None,
    arg: options.FactoryArgs = None,
    dtype: options.DtypeOption = None,
    seed: options.Seed = 0,
    form: options.FormatOption = options.Format.TEXT,
) -> None:
    """Initialize a network by a scheme, save its state_dict and print what changed and what was left alone.

    With an input, roles and activations come from the network's graph; without one, from the modules alone.

    Example: firstlight init nets.py:build --scheme he --input 2,1,28,28 --out weights.pt
    """
    import torch

    from firstlight import api
    from firstlight.cli.batch import load_job
    from firstlight.cli.model import load_model

    _text_or_json(form)
    if dry_run and out is not None:
        raise InputError("--out", got="a file to write with --dry-run", expected="one of the two")
    check_writable(out)
    kind = None if dtype is None else dtype.torch_name
    job = load_job(inputs, batch, None, seed=seed, dtype=kind) if inputs or batch else None
    module = load_model(model, arg, seed=seed, dtype=kind)
    with _working("Initializing"):
        data = None if job is None else job.batch
        table = api.initialize(module, scheme, batch=data, seed=seed, dry_run=dry_run)
    if out is not None:
        write_file(out, lambda stream: torch.save(module.state_dict(), stream))
    if form is options.Format.JSON:
        write_text(table.to_json(), None)
    else:
        write_rich(table, None)
        said = "Nothing was drawn." if dry_run else "Nothing was written: --out FILE saves the state_dict."
        typer.echo(f"Written to {out}." if out else said)


@app.command()
def explain(
    code: Annotated[str | None, typer.Argument(help="Code of a finding: FWD001. Without one, all are listed.")] = None,
) -> None:
    """Explain a finding: what is measured, why it matters, when it is harmless, what to do, the source."""
    from rich.markdown import Markdown
    from rich.table import Table

    import firstlight.checks  # noqa: F401 - registers all checks
    from firstlight.checks.registry import SECTIONS, checks, find

    if code is None:
        table = Table("code", "finding", box=None, pad_edge=False)
        for check in checks():
            table.add_row(check.code, check.title)
        write_rich(table, None)
        return
    check = find(code)
    parts = [f"# {check.code} · {check.title}", *(f"## {name}\n\n{check.section(name)}" for name in SECTIONS)]
    write_rich(Markdown("\n\n".join(parts)), None)


@app.command()
def gain(
    activation: Annotated[str, typer.Argument(help="Name of the activation: relu, tanh, gelu, …")],
    fan: Annotated[int | None, typer.Option(help="Number of units of the layer; needed to keep the median.")] = None,
    keep: Annotated[str, typer.Option(help="What stays the same from layer to layer: median or mean.")] = "median",
    law: Annotated[str, typer.Option(help="exact, or the paper's fit.")] = "exact",
    q: Annotated[float, typer.Option(help="Mean square of the pre-activations at which it holds.")] = 1.0,
    form: options.FormatOption = options.Format.TEXT,
) -> None:
    """Print the gain g for weights of variance g²/fan_in.

    Example: firstlight gain relu --fan 64
    """
    from firstlight import api

    _text_or_json(form)
    value = float(api.gain(activation, fan, keep=keep, law=law, q=q))
    record = {"activation": activation, "fan": fan, "keep": keep, "law": law, "q": q, "gain": value}
    write_text(json.dumps(record) if form is options.Format.JSON else f"{value:.10g}", None)


@app.command()
def demo(
    depth: Annotated[int, typer.Option(min=2, help="Number of layers.")] = 100,
    width: Annotated[int, typer.Option(min=1, help="Units of each hidden layer.")] = 64,
    activation: Annotated[str, typer.Option(help="relu, tanh, gelu, …")] = "relu",
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            help="Scheme to try beside PyTorch's default; repeat it. By default xavier, he, random-walk, orthogonal."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="First of the seeds.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    data: Annotated[
        Path | None, typer.Option(help="Folder with mnist/; by default $FIRSTLIGHT_DATA, then the cache.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="mnist, fashion-mnist or digits.")] = "mnist",
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each run.")] = 700,
    quick: Annotated[bool, typer.Option("--quick", help="One seed and fewer steps: about 20 seconds.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the report goes.")] = Path(
        "out/demo.html"
    ),
) -> None:
    """Show on real images a deep network that cannot start, why, and the same network started.

    A plain network of 100 layers is diagnosed and trained as PyTorch initializes it, then initialized by each
    scheme and trained with the same budget. The story is printed and written as one HTML page.
    """
    from rich.console import Console

    from firstlight.lab.demo import SCHEMES, Settings, run
    from firstlight.report.story import render_story

    check_writable(out)
    seeds_used = tuple(range(seed, seed + seeds))
    settings = Settings(depth, width, activation, tuple(scheme or SCHEMES), seeds_used, steps, dataset=dataset)
    story = run(settings.quick() if quick else settings, data, Console(highlight=False))
    write_text(render_story(story), out)
    typer.echo(f"\nThe whole story with curves and walks: {out}")


def _text_or_json(form: options.Format) -> None:
    if form is options.Format.HTML:
        raise InputError("--format", got="html", expected="text or json", action="diagnose makes a page.")


def _predicted(module: nn.Module, job: Job) -> Prediction | None:
    """The prediction to draw under the walks; none for a network with operations that theory does not know."""
    from firstlight import api
    from firstlight.errors import FirstlightError
    from firstlight.report.text import printable

    try:
        return api.predict(module, job.batch)
    except FirstlightError as error:
        typer.echo(f"No prediction is drawn: {printable(str(error))}", err=True)
        return None


def write_report(
    report: Report, form: options.Format, out: Path | None, predicted: Callable[[], Prediction | None]
) -> None:
    """Write a report in the form that was asked for."""
    if form is options.Format.JSON:
        from firstlight.graph.records import to_json

        write_text(to_json(report), out)
    elif form is options.Format.HTML:
        from firstlight.report.html import render_html

        write_text(render_html(report, predicted()), out)
    else:
        from firstlight.report.text import render_text

        write_rich(render_text(report), out)


def _load(
    model: str,
    arg: list[str] | None,
    inputs: list[str] | None,
    file: Path | None,
    loss: str | None,
    seed: int,
    train: bool | None,
    dtype: options.Dtype | None,
    device: str | None,
) -> tuple[nn.Module, Job]:
    """The module and what to run it on; the batch first, since it is cheaper to refuse."""
    from firstlight.capture.inputs import check_batch, check_model
    from firstlight.cli.batch import load_job
    from firstlight.cli.devices import find_device, together
    from firstlight.cli.labels import with_labels
    from firstlight.cli.model import load_model

    kind = None if dtype is None else dtype.torch_name
    place = None if device is None else find_device(device)
    job = load_job(inputs, file, loss, seed=seed, dtype=kind)
    module = load_model(model, arg, seed=seed, train=train, dtype=kind)
    module, job = together(module, job, place)
    job, said = with_labels(module, job, seed)
    if said:
        check_batch(job.batch, check_model(module))  # what cannot be used is refused before its labels are spoken of
        typer.echo(said, err=True)
    return module, job


@contextmanager
def _working(text: str) -> Iterator[None]:
    """A sign of life on a terminal's standard error."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(text) if console.is_terminal else console:
        yield
