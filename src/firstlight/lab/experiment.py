"""What an experiment is, and the list of them.

An experiment is one file in `lab/experiments`: *parts*, each with a frozen configuration, a function from
(configuration, seeds) to rows, and the grids of its quick and its full form. Its figures are one file of the
same name in `lab/figures`. A part is named "experiment/part".
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

from firstlight.errors import InputError, RegistryError

Row = dict[str, Any]
Runner = Callable[[Any, Sequence[int]], list[list[Row]]]
Grid = list[tuple[Any, tuple[int, ...]]]  # (configuration, seeds)


@dataclass(frozen=True)
class Part:
    """One measurement of an experiment.

    Attributes:
        name: "experiment/part".
        config: Frozen dataclass with a default for every field.
        run: (configuration, seeds) → the rows of each seed, in the order of the seeds. The seeds go together
            so that they can be trained as one ensemble; a seed's rows must not depend on the others.
        version: Raised when `run` changes what it returns; part of a run's identity.
        quick: Runs that show the effect in a few minutes.
        full: Runs of the published figure.
        group: Configuration → most seeds of a task; None for all of them. A task's runs are written when it ends,
            and its ensemble goes on until the last member is done.
        check: Raises what keeps a configuration from being run (names that nothing has, data that is missing);
            called before any work is done.
        needed: (configuration, figure) → whether the figure shows the run; None where all figures show all.
        least: Least value of fields that are numbers, or tuples of numbers.
    """

    name: str
    config: type[Any]
    run: Runner
    version: int = 1
    quick: Callable[[], Grid] = list
    full: Callable[[], Grid] = list
    group: Callable[[Any], int] | None = None
    check: Callable[[Any], object] | None = None
    needed: Callable[[Any, str], bool] | None = None
    least: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Runs that are done together: one configuration and some of its seeds."""

    part: str
    config: Any
    seeds: tuple[int, ...]


def grouped(part: Part, config: Any, seeds: Sequence[int], size: int | None = None) -> list[Task]:
    """One configuration's tasks: its seeds in groups of `size`, by default as many as the part asks for."""
    size = size or (part.group(config) if part.group else len(seeds))
    return [Task(part.name, config, tuple(seeds[at : at + size])) for at in range(0, len(seeds), size)]


def check_config(part: Part, config: Any) -> None:
    """Raise what keeps a configuration from being run, before any work is done.

    Raises:
        InputError: A number below the part's least one or not finite, a tuple without entries, or what the part's own
            check refuses.
    """
    for name, value in asdict(config).items():
        entries = value if isinstance(value, tuple) else (value,)
        least = part.least.get(name, -math.inf)
        if not entries:
            raise InputError(f"{part.name}, {name}", got="an empty list", expected="at least one value")
        if any(isinstance(v, int | float) and not (math.isfinite(v) and v >= least) for v in entries):
            expected = "finite" if least == -math.inf else f"at least {least:g}"
            raise InputError(f"{part.name}, {name}", got=repr(value), expected=expected)
    if part.check is not None:
        part.check(config)


def run_key(part: Part, config: Any, seed: int) -> str:
    """Content hash of (experiment, configuration, seed, version): the name of a finished run's file.

    Of the configuration the fields that differ from their defaults count. So a field that is added later, with
    a default that leaves old runs what they were, does not disown them; whoever changes a default raises the
    part's version.
    """
    default = asdict(part.config())
    chosen = {key: value for key, value in asdict(config).items() if value != default[key]}
    identity = {"part": part.name, "config": chosen, "seed": seed, "version": part.version}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


def experiment_names() -> list[str]:
    """Names of all experiments, from the files of `lab/experiments`."""
    import firstlight.lab.experiments as package

    found = (info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))
    return [name.replace("_", "-") for name in found]


def parts(experiment: str) -> dict[str, Part]:
    """The parts of one experiment by their short names.

    Raises:
        RegistryError: Unknown experiment; the nearest name is offered.
    """
    known = experiment_names()
    if experiment not in known:
        raise RegistryError(
            "experiment",
            got=repr(experiment),
            expected="one of " + ", ".join(known),
            action=near(experiment, known),
        )
    module = importlib.import_module(f"firstlight.lab.experiments.{experiment.replace('-', '_')}")
    return {part.name.split("/")[1]: part for part in module.PARTS}


def part_of(name: str) -> Part:
    """The part of a full name "experiment/part" (or "experiment", where it has one part).

    Raises:
        RegistryError: Unknown name; the nearest one is offered.
    """
    experiment, _, short = name.partition("/")
    known = parts(experiment)
    if not short and len(known) == 1:
        return next(iter(known.values()))
    if short not in known:
        names = [f"{experiment}/{key}" for key in known]
        raise RegistryError(
            "experiment", got=repr(name), expected="one of " + ", ".join(names), action=near(name, names)
        )
    return known[short]


def near(name: str, known: Iterable[str]) -> str:
    """The question "Did you mean …?", or nothing."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {match[0]!r}?" if match else ""


def configure(part: Part, values: Mapping[str, Any], where: str) -> Any:
    """The part's configuration with some fields replaced, types checked.

    Raises:
        InputError: Unknown field (the nearest is offered) or a value of another type.
    """
    known = {f.name for f in fields(part.config)}
    hints = get_type_hints(part.config)
    for key, value in values.items():
        if key not in known:
            raise InputError(
                f"{where}, {part.name}",
                got=f"key {key!r}",
                expected="one of " + ", ".join(sorted(known)),
                action=near(key, known),
            )
        if not _fits(value, hints[key]):
            raise InputError(f"{where}, {key}", got=repr(value), expected=_say(hints[key]))
    ready = {k: tuple(v) if isinstance(v, list) else float(v) if hints[k] is float else v for k, v in values.items()}
    base = part.config()
    assert is_dataclass(base)
    return replace(base, **ready)  # type: ignore[type-var]


def _fits(value: Any, hint: Any) -> bool:
    choices = get_args(hint)
    if choices and all(isinstance(c, str) for c in choices):  # Literal
        return value in choices
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_fits(v, choices[0]) for v in value)
    if choices:  # a union
        return any(_fits(value, c) for c in choices)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float)
    if hint is type(None):
        return value is None
    return isinstance(value, hint)


def _say(hint: Any) -> str:
    choices = get_args(hint)
    if choices and all(isinstance(c, str) for c in choices):
        return " or ".join(repr(c) for c in choices)
    if get_origin(hint) is tuple:
        return f"a list, each entry {_say(choices[0])}"
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    return names.get(hint, str(hint))
