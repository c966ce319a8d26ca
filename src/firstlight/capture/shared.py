"""Changes to torch itself, which all threads share: made when the first thread wants one, taken back after the last."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager


class Shared:
    """A context of the whole process, entered for as long as any thread is inside.

    Were each thread to put back what it had found, of two that overlap the second would put back the first one's
    change, and it would stay for ever.

    Args:
        change: Makes the change on entering and takes it back on leaving.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[object]]) -> None:
        self._change, self._made = change, ExitStack()
        self._inside: Counter[int] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside, as often as one likes."""
        thread = threading.get_ident()
        with self._lock:
            if not self._inside:
                self._made.enter_context(self._change())
            self._inside[thread] += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside[thread] -= 1
                self._inside += Counter()  # without threads that have left
                if not self._inside:
                    self._made.close()

    def is_mine(self) -> bool:
        """Whether the thread that asks is inside."""
        return threading.get_ident() in self._inside


@contextmanager
def replaced(place: object, name: str, new: object) -> Iterator[None]:
    """Let `name` in a module or class mean `new`."""
    before = getattr(place, name)
    setattr(place, name, new)
    try:
        yield
    finally:
        setattr(place, name, before)
