"""Writing results: to standard output, or to a file that is there whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from firstlight.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType


def check_writable(path: Path | None, option: str = "--out") -> None:
    """Refuse a place that cannot be written before any work is done.

    Raises:
        InputError: If it is a folder, or in a folder that is missing and cannot be made, or not writable.
    """
    if path is None:
        return
    if path.is_dir():
        raise InputError(option, got=f"{str(path)!r}, a folder", expected="the path of a file")
    parent = next(folder for folder in (path.parent, *path.absolute().parents) if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(option, got=f"{str(path)!r}", expected="a folder in which files can be written")


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file that appears under `path` only when it is complete.

    Raises:
        InputError: If the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise InputError(str(path), got=f"{error.strerror or error}", expected="a place that can be written") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(str(path), got=f"{error.strerror or error}", expected="a place that can be written") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_text(text: str, out: Path | None) -> None:
    """Write text to a file or, without one, to standard output."""
    if out is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    else:
        write_file(out, lambda stream: stream.write(text.encode()))


def write_rich(view: RenderableType, out: Path | None) -> None:
    """Print to standard output, in colour on a terminal, or to a file as plain text, 100 columns wide."""
    from io import StringIO

    from rich.console import Console

    if out is None:
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100
        Console(width=width, highlight=False).print(view)
        return
    stream = StringIO()
    Console(file=stream, width=100, highlight=False).print(view)
    write_text(stream.getvalue(), out)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
