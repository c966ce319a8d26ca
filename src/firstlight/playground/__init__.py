"""The playground: initialization seen and felt in the browser, computed in Python by the library itself.

The package can be called: ``firstlight.playground(model, batch)`` is `playground` below. Importing it loads nothing.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from firstlight.playground.launch import Playground


def playground(
    model: nn.Module | None = None,
    batch: Any = None,
    loss: Callable[..., Tensor] | None = None,
    *,
    port: int = 0,
    browser: bool = True,
) -> Playground:
    """Open the playground in the browser, on the built-in networks or on the user's own model.

    Args:
        model: Any module; the page trains deep copies of it on `batch`. None: the built-in networks.
        batch: A tensor, a tuple of positional arguments, a mapping of keyword arguments, or ``(args, kwargs)``.
        loss: From the output to a scalar; by default the distance to fixed noise, something to fit.
        port: Port to listen on; 0 takes a free one.
        browser: Open the page.

    Returns:
        The running playground: ``.url`` is its address, ``.close()`` ends it. In a notebook it shows itself.

    Raises:
        InputError: A model without a batch, or arguments that cannot be used.
        ModelError: The model or the loss raises on the batch.
        FirstlightError: The extra `playground` is not installed.
    """
    from firstlight.errors import InputError
    from firstlight.playground import launch

    own = None
    if model is not None:
        if batch is None:
            raise InputError("playground", got="a model without a batch", expected="both", action="Pass a batch.")
        from firstlight.playground.own import own_model

        own = own_model(model, batch, loss)
    return launch.start(own, port=port, browser=browser)


def notebook(
    model: nn.Module | None = None,
    batch: Any = None,
    loss: Callable[..., Tensor] | None = None,
    *,
    height: int = 760,
) -> Any:
    """The same page as a widget inside a notebook; it speaks through the kernel and opens no port.

    Args:
        model: As for `playground`.
        batch: As for `playground`.
        loss: As for `playground`.
        height: Height in pixels.

    Returns:
        An anywidget; ``.close()`` ends its training thread.

    Raises:
        FirstlightError: The extra `notebook` is not installed.
    """
    from firstlight.playground import widget

    own = None
    if model is not None:
        from firstlight.playground.own import own_model

        own = own_model(model, batch, loss)
    return widget.build(own, height)


# `firstlight.playground` is this function until the package is imported, and the package from then on: both have it
setattr(playground, "notebook", notebook)  # noqa: B010


class _Callable(types.ModuleType):
    """A package that can be called, because the verb and the package share their name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Playground:
        """See `playground`."""
        return playground(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
