"""Between the training thread and the socket: texts queue up to a bound, frames keep only the newest of each kind."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

MAX_TEXTS = 256


class Mailbox:
    """One slot for each kind of frame, latest wins: a slow page gets fewer frames, never old ones.

    The training thread puts, the socket takes; neither waits for the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: deque[str] = deque(maxlen=MAX_TEXTS)
        self._frames: dict[str, bytes] = {}
        self._notify: Callable[[], None] = _nobody
        self.dropped = 0

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Name the function that is called, from any thread, when something lies ready."""
        with self._lock:
            self._notify = notify
            waiting = bool(self._texts or self._frames)
        if waiting:
            notify()

    def put_text(self, text: str) -> None:
        """Add a message that must arrive, in order."""
        with self._lock:
            self._texts.append(text)
            notify = self._notify
        notify()

    def put_frame(self, slot: str, frame: bytes) -> None:
        """Replace the frame that waits in `slot`; the new one takes its turn behind all that wait."""
        with self._lock:
            self.dropped += self._frames.pop(slot, None) is not None
            self._frames[slot] = frame
            notify = self._notify
        notify()

    def take(self) -> list[str | bytes]:
        """Everything that waits: texts first, then frames in the order in which their slots were filled."""
        with self._lock:
            messages: list[str | bytes] = [*self._texts, *self._frames.values()]
            self._texts.clear()
            self._frames.clear()
        return messages


def _nobody() -> None:
    """Nobody listens yet; what is put waits."""
