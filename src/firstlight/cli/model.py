"""From MODULE:FACTORY to a module, with every way in which that can fail told apart."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from firstlight.errors import InputError, ModelError

if TYPE_CHECKING:
    from torch import nn


def load_model(
    spec: str,
    arguments: list[str] | None = None,
    *,
    seed: int = 0,
    train: bool | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    **settings: Any,
) -> nn.Module:
    """Import the user's code and get the module from it.

    Args:
        spec: "MODULE:FACTORY": a dotted module or a path to a .py file, and a (dotted) name in it.
        arguments: "key=value" pairs for the factory; values are Python literals, else text.
        seed: Set before the factory runs, so that the weights it draws can be had again.
        train: Mode to set; None leaves it.
        dtype: Element type to convert to; None leaves it.
        device: Where the factory's weights are made: "cpu", or "meta" for shapes without entries.
        **settings: Further arguments for the factory, stronger than `arguments`.

    Raises:
        InputError: If the spec names nothing, or nothing that gives a module.
        ModelError: If the user's code raises.
    """
    import torch

    where, found = f"MODULE:FACTORY {spec!r}", load_object(spec)
    keywords = {**dict(pair(argument) for argument in arguments or []), **settings}
    torch.manual_seed(seed)
    if isinstance(found, torch.nn.Module):
        if keywords:
            raise InputError(where, got="a module and --arg", expected="a factory, which takes arguments")
        model = found
    elif callable(found):
        expected = f"a call with {keywords or 'no arguments'} that returns a module"
        action = "Leave --meta out if it computes with its weights' entries. " if device == "meta" else ""
        with _user_code(f"factory {spec!r}", expected, action):
            model = _without_weights(found, keywords) if device == "meta" else found(**keywords)
    else:
        model = found
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            where,
            got=f"{'an' if callable(found) else 'the'} object of type {type(model).__name__}",
            expected="a torch.nn.Module, or a callable that returns one",
            action="Return the module itself." if callable(found) else "Name the factory or the module.",
        )
    if train is not None:
        model.train(train)
    return model if dtype is None else model.to(getattr(torch, dtype))


def _without_weights(factory: Any, keywords: dict[str, Any]) -> Any:
    """What a factory gives with its weights on the meta device and, if it can do with that, its constants real."""
    import torch

    from firstlight.capture.weightless import weightless

    try:
        with weightless():
            return factory(**keywords)
    except Exception:  # noqa: BLE001 - it may compute with weights and constants together, which no device can
        with torch.device("meta"):
            return factory(**keywords)


def load_object(spec: str) -> Any:
    """The object that "MODULE:NAME" names.

    Raises:
        InputError: If there is no such module, file or name.
        ModelError: If importing it raises.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise InputError(
            "MODULE:FACTORY",
            got=repr(spec),
            expected="a module and a name in it, with a colon between: package.nets:build or nets.py:build",
        )
    found = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    for part in name.split("."):
        if not hasattr(found, part):
            public = [known for known in dir(found) if not known.startswith("_")]
            names = [known for known in public if not isinstance(getattr(found, known, None), ModuleType)]
            near = get_close_matches(part, names, n=1)
            raise InputError(
                f"MODULE:FACTORY {spec!r}",
                got=f"no {part!r} in {place}",
                expected="one of " + ", ".join(names[:12]) + (" …" if len(names) > 12 else ""),
                action=f"Did you mean {near[0]!r}?" if near else "",
            )
        found = getattr(found, part)
    return found


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(
            f"file {str(path)!r}",
            got="a folder" if path.is_dir() else "no such file",
            expected="a Python file",
            action="Correct the path before the colon.",
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    with _user_code(f"file {str(path)!r}", "a file that can be imported"), _on_path(path.parent):
        sys.modules[path.stem] = module  # classes find their module while it is being run, and when pickled
        try:
            spec.loader.exec_module(module)
        except BaseException:
            if before is None:
                del sys.modules[path.stem]
            else:
                sys.modules[path.stem] = before
            raise
    return module


def _import_module(name: str) -> Any:
    with _user_code(f"module {name!r}", "a module that can be imported"), _on_path(Path.cwd()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise
            raise InputError(
                f"module {name!r}",
                got=f"no module named {error.name!r}",
                expected="an importable module, or a path that ends in .py",
                action="Check the spelling, install it, or run from the folder that holds it.",
            ) from None
        except (TypeError, ValueError) as error:  # "..nets", "": not a dotted name at all
            raise InputError(f"module {name!r}", got=str(error), expected="a dotted module name") from None


@contextmanager
def _user_code(where: str, expected: str, action: str = "") -> Iterator[None]:
    """Run code of the user: what it prints goes to standard error, what it raises becomes a `ModelError`."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_ours(f.filename)]
        # What a library raises is told where the user's code calls it.
        frames = [f for f in frames if "site-packages" not in f.filename] or frames
        line = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        raise ModelError(
            where,
            got=f"{type(error).__name__}{line}: {error}",
            expected=expected,
            action=f"{action}Mend that line; --debug shows the whole traceback.",
        ) from error


def _is_ours(file: str) -> bool:
    return file.startswith("<frozen") or Path(file).is_relative_to(Path(__file__).parents[1])


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Let the user's file find its neighbours; the path stays, since imports may come later."""
    text = str(folder.absolute())
    if text not in sys.path:
        sys.path.insert(0, text)
    yield


def values(sweeps: list[str]) -> dict[str, list[Any]]:
    """The grid that KEY=A,B,C options describe."""
    grid: dict[str, list[Any]] = {}
    for sweep in sweeps:
        key, _, listed = sweep.partition("=")
        if not key.isidentifier() or not all(listed.split(",")):
            raise InputError("--sweep", got=repr(sweep), expected="KEY=A,B,C, for example depth=10,50,100")
        grid[key] = [pair(f"{key}={value}")[1] for value in listed.split(",")]
    return grid


def pair(argument: str) -> tuple[str, Any]:
    """Key and value of KEY=VALUE; the value is a Python literal, else text."""
    key, equals, value = argument.partition("=")
    if not equals or not key.isidentifier():
        raise InputError("--arg", got=repr(argument), expected="KEY=VALUE, for example depth=50")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
