"""firstlight: does a signal get through this network and back? Told before training, mended and proved.

The public names are listed here and nowhere else. Importing the package loads neither torch nor SciPy;
each name is fetched from its floor at first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from firstlight.api import gain as gain
    from firstlight.api import initialize as initialize
    from firstlight.api import measure as measure
    from firstlight.errors import FirstlightError as FirstlightError
    from firstlight.graph.results import Measurement as Measurement
    from firstlight.schemes.apply import Initialization as Initialization

# name -> the module that defines it
_PUBLIC = {
    # verbs
    "gain": "firstlight.api",
    "initialize": "firstlight.api",
    "measure": "firstlight.api",
    # results
    "Initialization": "firstlight.schemes.apply",
    "Measurement": "firstlight.graph.results",
    # errors
    "FirstlightError": "firstlight.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'firstlight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
