"""How findings are worded: numbers, places, and the severity of what explains a failure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from firstlight.graph.results import Severity


def number(x: float) -> str:
    """Three significant digits, as short as possible."""
    if math.isnan(x):
        return "nan"
    return f"{x:.3g}"


def factor(x: float) -> str:
    """A ratio in words: "12 times larger", "300 times smaller"."""
    if x <= 0.0 or math.isinf(x):
        return "infinitely smaller" if x <= 0.0 else "infinitely larger"
    return f"{number(x)} times larger" if x >= 1.0 else f"{number(1.0 / x)} times smaller"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(n or "(root)" for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(n: int, one: str, many: str) -> str:
    """The number with the words that agree with it."""
    return f"{n} {one if n == 1 else many}"


def severity(fatal: bool, otherwise: Severity = "warning") -> Severity:
    """An error only where it is why the network cannot start."""
    return "error" if fatal else otherwise
