"""What the user sees when something goes wrong: one message, no traceback unless it is asked for."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from firstlight.errors import FirstlightError

USAGE, BUG = 2, 3
_DEBUG = "--debug"


class Verbs(TyperGroup):
    """The group of all verbs; it turns errors into messages and exit codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--debug`` out wherever it stands."""
        ctx.meta[_DEBUG] = _DEBUG in args
        return super().parse_args(ctx, [arg for arg in args if arg != _DEBUG])

    def invoke(self, ctx: Any) -> Any:
        """Run the verb.

        Raises:
            typer.Exit: 2 for an error of the input, 3 for an error in firstlight itself, after the message.
        """
        try:
            return super().invoke(ctx)
        except FirstlightError as error:
            if ctx.meta[_DEBUG]:
                raise
            show_error(error)
            raise typer.Exit(USAGE) from None
        except (typer.Exit, typer.Abort, KeyboardInterrupt, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta[_DEBUG] or type(error).__module__.startswith(("click.", "typer.")):
                raise
            print_error(
                f"firstlight failed: {type(error).__name__}: {error}",
                "This is an error in firstlight. Run it again with --debug and report what it prints.",
            )
            raise typer.Exit(BUG) from None


def show_error(error: FirstlightError) -> None:
    """Print where, what came, what was expected and what to do, on standard error."""
    lines = [f"got       {error.got}", f"expected  {error.expected}"]
    print_error(error.where, *lines, *([f"→ {error.action}"] if error.action else []))


def print_error(head: str, *lines: str) -> None:
    """Print a message on standard error; nothing in it is read as markup or as control characters."""
    from rich.console import Console
    from rich.text import Text

    from firstlight.report.text import printable

    console = Console(stderr=True, highlight=False, soft_wrap=True, file=sys.stderr)
    console.print(Text.assemble(("error ", "bold red"), (printable(head), "bold")))
    for line in lines:
        console.print(Text("  " + printable(line)))
