"""Sweeps: a TOML file of a grid × seeds becomes tasks; tasks become runs in a store."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.errors import DataError, InputError
from firstlight.lab.engines import Engine, pending
from firstlight.lab.experiment import Part, Task, check_config, configure, grouped, near, part_of, run_key
from firstlight.lab.store import Store

_KEYS = ("experiment", "store", "seeds", "group", "config", "grid")
Progress = Callable[[float, int], object]


@dataclass(frozen=True)
class Sweep:
    """What a sweep file asks for.

    Attributes:
        part: The experiment's part.
        tasks: One per configuration and group of seeds.
        store: Where the file wants its results, or None.
    """

    part: Part
    tasks: tuple[Task, ...]
    store: str | None


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file.

        experiment = "hanin-2018/start"   # a part's full name
        seeds = 5                         # 0 … 4, or a list
        group = 5                         # seeds that run together as one ensemble (default: as the part asks for)
        store = "results"                 # optional; --out overrides it
        [config]                          # fields with one value
        depth = 50
        [grid]                            # fields with several: all combinations are run
        width = [10, 20, 50]

    Raises:
        DataError: A file that is missing or no TOML.
        InputError: An unknown key (the nearest is offered) or a value of the wrong type; before any work is
            done.
        RegistryError: An unknown experiment.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(str(path), got=f"{type(error).__name__}: {error}", expected="a TOML file of a sweep") from error
    for key in content:
        if key not in _KEYS:
            raise InputError(
                str(path), got=f"key {key!r}", expected="one of " + ", ".join(_KEYS), action=near(key, _KEYS)
            )
    name = content.get("experiment")
    if not isinstance(name, str):
        raise InputError(str(path), got=f"experiment = {name!r}", expected="the name of an experiment")
    part = part_of(name)
    fixed, grid = content.get("config", {}), content.get("grid", {})
    if not isinstance(fixed, dict) or not isinstance(grid, dict):
        raise InputError(str(path), got="config or grid that is no table", expected="[config] and [grid]")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{path}, grid.{key}", got=repr(values), expected="a list of values")
        if key in fixed:
            raise InputError(str(path), got=f"{key!r} in both [config] and [grid]", expected="in one of them")
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    configs = [configure(part, fixed | chosen, str(path)) for chosen in combinations]
    seeds = _seeds(content.get("seeds", 1), path)
    group = content.get("group")
    if group is not None and (isinstance(group, bool) or not isinstance(group, int) or group < 1):
        raise InputError(f"{path}, group", got=repr(group), expected="a whole number of at least 1")
    tasks = tuple(task for config in configs for task in grouped(part, config, seeds, group))
    store = content.get("store")
    if store is not None and not isinstance(store, str):
        raise InputError(f"{path}, store", got=repr(store), expected="a folder or a URL")
    return Sweep(part, tasks, store)


def _seeds(value: Any, path: Path) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return tuple(range(value))
    if isinstance(value, list) and value and all(type(v) is int and v >= 0 for v in value):
        if len(set(value)) < len(value):
            raise InputError(f"{path}, seeds", got=repr(value), expected="each seed once")
        return tuple(value)
    raise InputError(f"{path}, seeds", got=repr(value), expected="a count of at least 1, or a list of seeds")


def run_tasks(
    tasks: Sequence[Task],
    store: Store,
    engine: Engine,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Do what the store does not have yet.

    Args:
        tasks: All tasks of the sweep.
        store: Where runs are kept.
        engine: See `lab.engines.engine`.
        progress: Called with (finished runs and the done share of those under way, all runs).

    Returns:
        Runs that were done now, and runs that the store had.

    Raises:
        FirstlightError: A configuration that cannot be run, data that is missing, or a store that cannot be written;
            before any work is done. A store that has all runs already need not be writable.
    """
    left = pending(tasks, store)
    for config, part in {task.config: part_of(task.part) for task in left}.items():
        check_config(part, config)
    if left:
        store.check_writable()
    total = len({run_key(part_of(task.part), task.config, seed) for task in tasks for seed in task.seeds})
    had = total - sum(len(task.seeds) for task in left)
    done = 0
    if progress is not None:
        progress(had, total)

    def inside(runs: float) -> None:
        if progress is not None:
            progress(had + done + runs, total)

    for count in engine(left, store.url, inside):
        done += count
        if progress is not None:
            progress(had + done, total)
    return done, had
