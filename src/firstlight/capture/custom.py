"""Calls of custom ``torch.autograd.Function`` classes, told to the recorder as they return.

What runs inside the forward pass of such a function is recorded operation by operation; its gradient is not theirs
but whatever its backward pass says. So an operation "autograd_function" closes the call: it hands the results on, and
knows how to run the function again.

A call goes through ``Function.apply``, of which models keep references (``self.round = Round.apply``), and from there
to ``apply`` of the class below it, looked up anew every time: that is where it can be seen. Torch's own functions
(checkpointing, backward hooks) are left alone: their backward pass is the derivative of what runs inside them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.autograd import function as autograd

OPERATION = "autograd_function"

Told = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]


# Who is told, by thread; the innermost recorder is the last. One patch serves all threads: a patch for each, put back
# by each in its own time, would leave the one that was put in first behind for ever.
_WATCHERS: dict[int, list[Told]] = {}
_LOCK = threading.Lock()


@contextmanager
def watched_functions(tell: Told) -> Iterator[None]:
    """Call `tell` with (class, args, kwargs, result) of every custom function that this thread applies.

    Torch's class is patched while any thread watches, and is as before when the last one has ended.
    """
    thread = threading.get_ident()
    with _LOCK:
        if not _WATCHERS:
            _patch()
        _WATCHERS.setdefault(thread, []).append(tell)
    try:
        yield
    finally:
        with _LOCK:
            watchers = _WATCHERS[thread]
            watchers.remove(tell)
            if not watchers:
                del _WATCHERS[thread]
            if not _WATCHERS:
                _restore()


_PLACE: Any = autograd._SingleLevelFunction
_BEFORE: list[Any] = []  # What stood there of its own, if anything did (another library's patch).


def _patch() -> None:
    before = vars(_PLACE).get("apply")
    _BEFORE[:] = [] if before is None else [before]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        plain = super(_PLACE, cls).apply if before is None else before.__get__(None, cls)
        result = plain(*args, **kwargs)
        watchers = _WATCHERS.get(threading.get_ident(), [])
        if not cls.__module__.startswith("torch."):
            for tell in reversed(watchers):
                tell(cls, args, kwargs, result)
        return result

    _PLACE.apply = classmethod(apply)


def _restore() -> None:
    if _BEFORE:
        _PLACE.apply = _BEFORE[0]
    else:
        del _PLACE.apply
