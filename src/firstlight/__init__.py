"""firstlight: does a signal get through this network and back? Told before training, mended and proved.

The public names are listed here and nowhere else. Importing the package loads neither torch nor SciPy;
each name is fetched from its floor at first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from firstlight.api import compare as compare
    from firstlight.api import diagnose as diagnose
    from firstlight.api import explain as explain
    from firstlight.api import gain as gain
    from firstlight.api import initialize as initialize
    from firstlight.api import measure as measure
    from firstlight.api import predict as predict
    from firstlight.capture.trace import shape as shape
    from firstlight.capture.trace import trace as trace
    from firstlight.errors import FirstlightError as FirstlightError
    from firstlight.graph.prediction import Comparison as Comparison
    from firstlight.graph.prediction import Prediction as Prediction
    from firstlight.graph.prediction import Sweep as Sweep
    from firstlight.graph.results import Finding as Finding
    from firstlight.graph.results import Measurement as Measurement
    from firstlight.graph.results import Report as Report
    from firstlight.playground import playground as playground
    from firstlight.schemes.apply import Initialization as Initialization
    from firstlight.theory.phase import PhaseDiagram as PhaseDiagram
    from firstlight.theory.phase import phase_diagram as phase_diagram

# name -> the module that defines it
_PUBLIC = {
    # verbs
    "compare": "firstlight.api",
    "diagnose": "firstlight.api",
    "explain": "firstlight.api",
    "gain": "firstlight.api",
    "initialize": "firstlight.api",
    "measure": "firstlight.api",
    "phase_diagram": "firstlight.theory.phase",
    "playground": "firstlight.playground",
    "predict": "firstlight.api",
    # graphs
    "shape": "firstlight.capture.trace",
    "trace": "firstlight.capture.trace",
    # results
    "Initialization": "firstlight.schemes.apply",
    "Comparison": "firstlight.graph.prediction",
    "Finding": "firstlight.graph.results",
    "Measurement": "firstlight.graph.results",
    "PhaseDiagram": "firstlight.theory.phase",
    "Prediction": "firstlight.graph.prediction",
    "Report": "firstlight.graph.results",
    "Sweep": "firstlight.graph.prediction",
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
