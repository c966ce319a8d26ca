"""The table of checks: one torch-free function per code, from evidence to findings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from firstlight.checks.evidence import Evidence
from firstlight.errors import RegistryError
from firstlight.graph.results import Finding

SECTIONS = ("What it measures", "Why it matters", "When it is harmless", "Remedy", "Source")

CheckFunction = Callable[[Evidence], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One registered check.

    Attributes:
        code: Stable identifier: three letters for the family, three digits.
        title: The docstring's first line.
        run: From the evidence to any number of findings.
        stage: Place in the chain from cause to consequence; among findings of one severity the smaller stage
            comes first (data 0, weights 10, wiring 20, arithmetic 30, signal 40, output 50, learning 60).
        module: Where it is written.
    """

    code: str
    title: str
    run: CheckFunction
    stage: int
    module: str

    def explain(self) -> str:
        """The docstring, which holds the five sections."""
        return f"{self.code}: {inspect.getdoc(self.run)}"

    def section(self, name: str) -> str:
        """The text of one section, without its heading."""
        lines = (inspect.getdoc(self.run) or "").splitlines()
        start = lines.index(f"{name}:") + 1
        taken: list[str] = []
        for line in lines[start:]:
            if line and not line.startswith(" "):
                break
            taken.append(line.strip())
        return "\n".join(taken).strip()


_CHECKS: dict[str, Check] = {}


def check(code: str, stage: int) -> Callable[[CheckFunction], CheckFunction]:
    """Register a check under `code`.

    Raises:
        RegistryError: If the code is taken, or the docstring lacks one of the five sections.
    """

    def register(function: CheckFunction) -> CheckFunction:
        text = inspect.getdoc(function) or ""
        missing = [name for name in SECTIONS if f"\n{name}:\n" not in f"\n{text}\n"]
        if missing:
            raise RegistryError(
                f"check {code}",
                got=f"a docstring without {', '.join(missing)}",
                expected=f"the sections {', '.join(SECTIONS)}",
                action="Write them: `firstlight explain` and the documentation print them.",
            )
        if code in _CHECKS:
            raise RegistryError(
                f"check {code}",
                got=f"a second function ({function.__module__}.{function.__name__})",
                expected=f"one; {_CHECKS[code].module} has it",
                action="Choose the next free number.",
            )
        _CHECKS[code] = Check(code, text.splitlines()[0], function, stage, function.__module__)
        return function

    return register


def checks() -> tuple[Check, ...]:
    """All checks, causes before consequences."""
    return tuple(sorted(_CHECKS.values(), key=lambda c: (c.stage, c.code)))


def find(code: str) -> Check:
    """The check of that code, in any case.

    Raises:
        RegistryError: If there is none.
    """
    wanted = code.strip().upper()
    entry = _CHECKS.get(wanted)
    if entry is None:
        near = get_close_matches(wanted, sorted(_CHECKS), n=1)
        raise RegistryError(
            "check code",
            got=repr(code),
            expected=f"one of {', '.join(sorted(_CHECKS))}",
            action=f"Did you mean {near[0]}?" if near else "Choose one of these.",
        )
    return entry


def findings(evidence: Evidence) -> Iterator[Finding]:
    """Run every check, causes first."""
    for entry in checks():
        yield from entry.run(evidence)
