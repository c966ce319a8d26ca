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


@contextmanager
def watched_functions(tell: Told) -> Iterator[None]:
    """Call `tell` with (class, args, kwargs, result) of every custom function that this thread applies."""
    place: Any = autograd._SingleLevelFunction
    before = vars(place).get("apply")
    thread = threading.get_ident()

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        plain = super(place, cls).apply if before is None else before.__get__(None, cls)
        result = plain(*args, **kwargs)
        if threading.get_ident() == thread and not cls.__module__.startswith("torch."):
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
