"""The command line: one thin function per verb, the same verbs as in Python.

Exit codes: 0 clean, 1 findings at or above ``--fail-on``, 2 a usage or input error, 3 an error in firstlight.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys

from firstlight.cli.errors import Verbs
from firstlight.cli.verbs import app

__all__ = ["Verbs", "app", "main"]

# Verbs of their own files; each module has ``register(app)`` and imports torch only when a verb runs.
_FACES = ("firstlight.lab.commands", "firstlight.cli.playground", "firstlight.cli.phase")

for _face in _FACES:
    if importlib.util.find_spec(_face) is not None:
        importlib.import_module(_face).register(app)


def main() -> None:
    """Run the command line on the process' arguments."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without UTF-8 gets "?" for a sign, not a traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="firstlight")
