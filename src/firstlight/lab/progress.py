"""How far the run under way is: told by whoever loops, heard by whoever shows it, and lost where nobody listens.

A part's function knows nothing of bars, and an engine nothing of steps; between them stands one variable of the
context. Telling costs a clock reading, so it may be done at every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Listener = Callable[[float], object]
Item = TypeVar("Item")

_EVERY_S = 0.2
_listener: ContextVar[Listener | None] = ContextVar("firstlight_progress", default=None)
_last: ContextVar[float] = ContextVar("firstlight_progress_last", default=0.0)


def tell(done: int, total: int) -> None:
    """Say that `done` of `total` equal pieces of the run under way are done; passed on five times a second."""
    listener = _listener.get()
    if listener is None:
        return
    now = time.monotonic()
    if now - _last.get() >= _EVERY_S:
        _last.set(now)
        listener(done / total)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Hear what is told inside the block, as a share of one run; None leaves things as they are."""
    if listener is None:
        yield
        return
    before = _listener.get()
    _listener.set(listener)
    try:
        yield
    finally:
        _listener.set(before)


def pieces(items: Sequence[Item]) -> Iterator[Item]:
    """The items one after the other, each an equal piece of what is heard: what is told meanwhile is a share of it."""
    listener = _listener.get()
    for at, item in enumerate(items):
        with listening(None if listener is None else _share(listener, at, len(items))):
            yield item
            tell(1, 1)


def _share(listener: Listener, at: int, count: int) -> Listener:
    return lambda inside: listener((at + inside) / count)
