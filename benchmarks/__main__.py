"""Run benchmarks by name, or all of them: ``python -m benchmarks [name ...] [--list]``.

A benchmark is a module (or package) beside this file with a function ``run()`` that returns something that rich can
print; its docstring's first line says what it measures. Timings are CPU seconds and ratios taken within one run.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
from pathlib import Path

from rich.console import Console

import benchmarks


def available() -> dict[str, str]:
    """Name -> first line of the docstring, for every module here that has a ``run`` function."""
    found: dict[str, str] = {}
    for info in pkgutil.iter_modules([str(Path(benchmarks.__file__).parent)]):
        path = Path(benchmarks.__file__).parent / info.name
        source = (path / "__init__.py" if info.ispkg else path.with_suffix(".py")).read_text(encoding="utf-8")
        if not info.name.startswith("_") and ("def run(" in source or "import run" in source):
            found[info.name] = source.lstrip().removeprefix('"""').splitlines()[0].rstrip('"') if source.strip() else ""
    return found


def main(arguments: list[str]) -> int:
    console = Console(width=None if sys.stdout.isatty() else 110)
    known = available()
    names = [a for a in arguments if not a.startswith("-")]
    unknown = [n for n in names if n not in known]
    if unknown or any(a.startswith("-") and a != "--list" for a in arguments):
        console.print(f"unknown: {' '.join(unknown or arguments)}; benchmarks are: {', '.join(known)}", style="red")
        return 2
    if "--list" in arguments:
        for name, what in known.items():
            console.print(f"[bold]{name}[/]  {what}")
        return 0
    for name in names or known:
        console.rule(f"{name}: {known[name]}")
        start = time.process_time()
        console.print(importlib.import_module(f"benchmarks.{name}").run())
        console.print(f"[dim]{time.process_time() - start:.0f} CPU-seconds[/]")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
