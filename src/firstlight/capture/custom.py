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

from firstlight.capture.shared import Shared

OPERATION = "autograd_function"

Told = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]


_THREAD = threading.local()  # Its `watchers` are told; the innermost recorder is the last.


@contextmanager
def watched_functions(tell: Told) -> Iterator[None]:
    """Call `tell` with (class, args, kwargs, result) of every custom function that this thread applies."""
    watchers: list[Told] = vars(_THREAD).setdefault("watchers", [])
    with _WATCHED.entered():
        watchers.append(tell)
        try:
            yield
        finally:
            watchers.remove(tell)


@contextmanager
def _watched() -> Iterator[None]:
    place: Any = autograd._SingleLevelFunction  # pyright: ignore[reportPrivateUsage]
    before = vars(place).get("apply")  # what stands there of its own, if anything does (another library's patch)

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        plain = super(place, cls).apply if before is None else before.__get__(None, cls)
        result = plain(*args, **kwargs)
        if not cls.__module__.startswith("torch."):
            for tell in reversed(vars(_THREAD).get("watchers", ())):
                tell(cls, args, kwargs, result)
        return result

    place.apply = classmethod(apply)
    try:
        yield
    finally:
        if before is None:
            del place.apply
        else:
            place.apply = before


_WATCHED = Shared(_watched)
