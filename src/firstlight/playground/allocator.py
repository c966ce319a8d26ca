"""Memory that a session no longer uses goes back to the system.

Every training thread allocates from a heap of its own, and glibc keeps what is freed in the middle of a heap. Over
hours of large and small networks a server would seem to grow although nothing is held.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Return the free pages of all heaps to the system: ``malloc_trim(0)``; nothing where the C library has none."""
    _trim()(0)


@cache
def _trim() -> Callable[[int], int]:
    if not sys.platform.startswith("linux"):
        return _nothing
    try:
        return ctypes.CDLL(None).malloc_trim  # ctypes releases the interpreter's lock during the call
    except (OSError, AttributeError):
        return _nothing  # musl


def _nothing(_: int) -> int:
    return 0
