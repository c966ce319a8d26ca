"""Where pandas comes in: only when a frame is asked for."""

from __future__ import annotations

from typing import Any

from firstlight.errors import InputError


def pandas() -> Any:
    """The module.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise InputError(
            "to_frame()",
            got="no pandas in this environment",
            expected="pandas",
            action="pip install 'firstlight[frames]', or use to_json().",
        ) from error
    return pd
