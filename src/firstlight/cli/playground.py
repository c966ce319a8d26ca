"""``firstlight playground``: the page in the browser, with the built-in networks or the user's own model."""

from __future__ import annotations

import contextlib
import threading
from typing import Annotated

import typer

from firstlight.cli import options


def register(app: typer.Typer) -> None:
    """Enter the verb into the command line."""
    app.command()(playground)


def playground(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:FACTORY]",
            help="Your own model, as for diagnose; without it the page opens on its built-in networks.",
            show_default=False,
        ),
    ] = None,
    inputs: options.Inputs = None,
    batch: options.Batch = None,
    loss: options.Loss = None,
    arg: options.FactoryArgs = None,
    seed: options.Seed = 0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anything but a loopback address lets other machines in.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    link: Annotated[
        str | None, typer.Option(help="What follows # in a copied link: opens the same runs.", metavar="STATE")
    ] = None,
) -> None:
    """Play with initialization in the browser, live; Ctrl-C ends it.

    Example: firstlight playground nets.py:build --input 32,1,28,28 --loss cross-entropy
    """
    from firstlight.playground import launch

    own = None
    if model is not None:
        from firstlight.cli.batch import load_job
        from firstlight.cli.model import load_model
        from firstlight.playground.own import own_model

        job = load_job(inputs, batch, loss, seed=seed, dtype=None)
        own = own_model(load_model(model, arg, seed=seed), job.batch, job.loss, title=model, loss_title=loss or "")
    elif inputs or batch or loss or arg:
        raise typer.BadParameter("Name the model that they belong to: firstlight playground MODULE:FACTORY …")
    with launch.start(own, port=port, host=host) as running:
        url = running.url + ("#" + link.rpartition("#")[2] if link else "")
        typer.echo(f"The playground is at {url}\nCtrl-C ends it.")
        if browser:
            import webbrowser

            webbrowser.open(url)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    typer.echo("Closed.")
