"""Files that are written whole or not at all, and the checkpoints of a training run."""

from __future__ import annotations

import contextlib
import os
import pickle
import uuid
from pathlib import Path
from typing import Any

import torch

from firstlight.errors import DataError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside `path` and rename it over `path`: a reader sees the old bytes or the new.

    Raises:
        DataError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    # a name of its own also beside writers on other machines that share the folder
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise DataError(
            str(path),
            got=f"{type(error).__name__}: {error.strerror or error}",
            expected="a folder with room that can be written",
            action="Free space or choose another folder, then run it again; finished work is kept.",
        ) from error


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        DataError: It cannot be written.
    """
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def load(path: Path, key: str) -> dict[str, Any] | None:
    """The checkpoint at `path`, or None if there is none.

    Args:
        path: Where `save` wrote it.
        key: Description of the run; a checkpoint of another run is refused.

    Raises:
        DataError: The file is damaged or belongs to another run.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise DataError(
            str(path),
            got=f"a file that cannot be read ({error})",
            expected="a checkpoint",
            action="Delete it.",
        ) from error
    if state.get("key") != key:
        raise DataError(
            str(path),
            got="the checkpoint of another run",
            expected="one of this configuration",
            action="Delete it, or give another --out.",
        )
    return state
