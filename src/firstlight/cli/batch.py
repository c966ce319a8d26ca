"""Batches for the command line: random ones of a given shape, real ones from a file, and losses on them."""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from firstlight.capture.measure import takes_two
from firstlight.cli.model import load_object
from firstlight.errors import DataError, InputError

if TYPE_CHECKING:
    from torch import Tensor

_INPUT = re.compile(r"^(?:(?P<name>[^\W\d]\w*)=)?(?P<shape>\d+(?:,\d+)*)(?::(?P<dtype>\w+)(?::(?P<below>\d+))?)?$")
_TARGETS = ("y", "target", "targets", "label", "labels")
_MOST_ENTRIES = 1 << 31
_MOST_INTEGERS = 1 << 24  # beyond, they are given by their shape alone where weights are


@dataclass(frozen=True, slots=True)
class Job:
    """What is run: the batch as the verbs take it, the loss on the model's output if one was named, and the labels."""

    batch: Any
    loss: Callable[[Any], Tensor] | None
    target: Tensor | None = None
    target_name: str = ""


def load_job(inputs: list[str] | None, file: Path | None, loss: str | None, *, seed: int, dtype: str | None) -> Job:
    """Make or read the batch and bind the loss to its target.

    Raises:
        InputError: If the options contradict each other or cannot be read.
        DataError: If the file is missing, damaged or holds something else.
    """
    if (file is None) == (not inputs):
        raise InputError(
            "batch",
            got="both --input and --batch" if inputs else "neither --input nor --batch",
            expected="one of them",
            action="Give --input 32,1,28,28 for random numbers or --batch FILE for real data.",
        )
    kind = None if dtype is None else getattr(torch, dtype)
    if file is None:
        batch, target, name = _random(inputs or [], torch.Generator().manual_seed(seed)), None, ""
    else:
        batch, target, name = _split(read_batch(file), loss)
    return Job(_converted(batch, kind), None if loss is None else bind_loss(loss, target, seed), target, name)


def _random(specs: list[str], generator: torch.Generator) -> Any:
    named = [_random_input(spec, generator) for spec in specs]
    positional = tuple(tensor for name, tensor in named if not name)
    keywords = {name: tensor for name, tensor in named if name}
    if keywords:
        return (positional, keywords) if positional else keywords
    return positional[0] if len(positional) == 1 else positional


def shapes(specs: list[str], seed: int) -> Any:
    """The inputs in the form in which `predict` takes them: numbers as shapes, drawn integers and truth values.

    What integers say (tokens that differ, a mask) is no matter of shapes, and they take little memory.
    """
    from firstlight.capture.trace import shape

    generator = torch.Generator().manual_seed(seed)
    made: list[tuple[str, Any]] = []
    for spec in specs:
        name, sizes, dtype, _ = _read(spec)
        if dtype.is_floating_point or dtype.is_complex or math.prod(sizes) > _MOST_INTEGERS:
            made.append((name, shape(*sizes, dtype=str(dtype).removeprefix("torch."))))
        else:
            made.append(_random_input(spec, generator))
    keywords = {name: value for name, value in made if name}
    positional = tuple(value for name, value in made if not name)
    if keywords and positional:
        return positional, keywords
    return keywords or positional


def _read(spec: str) -> tuple[str, tuple[int, ...], torch.dtype, int]:
    """Name, sizes, element type and bound of one --input."""
    match = _INPUT.match(spec)
    dtype = getattr(torch, match["dtype"] or "float32", None) if match else None
    if match is None or not isinstance(dtype, torch.dtype):
        raise InputError(
            "--input",
            got=repr(spec),
            expected="sizes, then :dtype and :bound if needed: 32,1,28,28 or ids=8,128:int64:50257",
        )
    shape = tuple(int(size) for size in match["shape"].split(","))
    if 0 in shape or np.prod(shape, dtype=float) > _MOST_ENTRIES:
        raise InputError("--input", got=repr(spec), expected="sizes of at least 1, and at most 2³¹ entries in all")
    below = int(match["below"] or 2)
    if below < 1:
        raise InputError("--input", got=repr(spec), expected="a bound of at least 1")
    return match["name"] or "", shape, dtype, below


def _random_input(spec: str, generator: torch.Generator) -> tuple[str, Tensor]:
    name, sizes, dtype, below = _read(spec)
    if dtype == torch.bool:
        return name, torch.ones(sizes, dtype=dtype)
    if dtype.is_floating_point:
        return name, torch.randn(sizes, generator=generator).to(dtype)
    return name, torch.randint(below, sizes, generator=generator).to(dtype)


def read_batch(path: Path) -> Any:
    """Read a batch from a .pt, .pth or .npz file; no code in the file is run.

    Raises:
        DataError: If it is missing, damaged, of another kind, or holds objects other than tensors and arrays.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise DataError(str(path), got=got, expected="a .pt or .npz file", action="Correct --batch.")
    if path.suffix == ".npz" and not zipfile.is_zipfile(path):  # NumPy would advise to load it as a pickle
        raise DataError(
            str(path),
            got="a file that is no .npz archive",
            expected="a whole .npz file",
            action="np.savez(FILE, x=x, y=y)",
        )
    try:
        if path.suffix in (".pt", ".pth"):
            return torch.load(path, map_location="cpu", weights_only=True)
        if path.suffix == ".npz":
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}
    except pickle.UnpicklingError:
        raise DataError(
            str(path),
            got="a file with Python objects other than tensors, lists, tuples and dicts (or no torch file)",
            expected="plain tensors, which can be read without running code",
            action="Save it again: torch.save((x, y), FILE).",
        ) from None
    except (OSError, ValueError, EOFError, RuntimeError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = type(error).__name__ if len(str(error)) < 5 else str(error).splitlines()[0]  # torch says "101"
        raise DataError(
            str(path),
            got=f"a file that cannot be read ({reason})",
            expected=f"a whole {path.suffix} file",
            action="Write it again.",
        ) from None
    raise DataError(str(path), got=f"the suffix {path.suffix!r}", expected=".pt, .pth or .npz")


def _split(batch: Any, loss: str | None) -> tuple[Any, Tensor | None, str]:
    """Take the target out: the entry with a target's name, or the last of a tuple if a loss is asked for."""
    if isinstance(batch, list):
        batch = tuple(batch)
    if isinstance(batch, Mapping):
        name = next((name for name in _TARGETS if name in batch), None)
        rest = {str(key): value for key, value in batch.items() if key != name}
        target = batch[name] if name is not None else None
        # np.savez(FILE, x) and np.savez(FILE, x=x) mean a positional argument
        if len(rest) == 1 or (rest and all(re.fullmatch(r"arr_\d+", key) for key in rest)):
            values = tuple(rest.values())
            return (values[0] if len(values) == 1 else values), target, name or ""
        return rest, target, name or ""
    needs_target = loss is not None and (_spelled(loss) in _LOSSES or (":" in loss and _takes_labels(_function(loss))))
    if isinstance(batch, tuple) and len(batch) >= 2 and needs_target and isinstance(batch[-1], torch.Tensor):
        rest = batch[:-1]
        return (rest[0] if len(rest) == 1 else rest), batch[-1], "the last entry"
    return batch, None, ""


def _converted(batch: Any, dtype: torch.dtype | None) -> Any:
    if dtype is None:
        return batch
    if isinstance(batch, torch.Tensor):
        return batch.to(dtype) if batch.is_floating_point() else batch
    if isinstance(batch, Mapping):
        return {key: _converted(value, dtype) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(_converted(value, dtype) for value in batch)
    return batch


def _spelled(loss: str) -> str:
    """torch.nn.functional's spelling, cross_entropy, is taken too."""
    return loss if ":" in loss else loss.replace("_", "-")


def bind_loss(name: str, target: Tensor | None, seed: int) -> Callable[[Any], Tensor]:
    """A loss as a function of the output alone.

    Without a target, one is drawn once the output's shape is known: a class for each sample, or N(0, 1).
    """
    if ":" in name:
        given = _function(name)
        if target is None or not _takes_labels(given):
            return given

        def on_labels(output: Any) -> Tensor:
            return given(output, _beside(target, output))

        on_labels.__name__ = getattr(given, "__name__", type(given).__name__)
        return on_labels
    function = _LOSSES.get(_spelled(name))
    if function is None:
        raise InputError("--loss", got=repr(name), expected=", ".join(_LOSSES) + " or MODULE:FUNCTION")

    def loss(output: Any) -> Tensor:
        logits = output
        if not isinstance(logits, torch.Tensor):
            raise InputError(
                f"--loss {name}",
                got=f"an output of type {type(output).__name__}",
                expected="a tensor",
                action="Write a loss of your own and give it as MODULE:FUNCTION.",
            )
        return function(logits, target, torch.Generator().manual_seed(seed))

    loss.__name__ = name
    return loss


def _beside(target: Tensor, output: Any) -> Tensor:
    """The target on the output's device."""
    tensor = next((x for x in tree_leaves(output) if isinstance(x, torch.Tensor)), target)
    return target.to(tensor.device)


def _function(name: str) -> Callable[..., Tensor]:
    """The callable named MODULE:FUNCTION; an instance of it, where it is a class of torch's losses."""
    function = load_object(name)
    if isinstance(function, type) and issubclass(function, torch.nn.Module):
        function = function()
    if not callable(function):
        raise InputError(f"--loss {name!r}", got=type(function).__name__, expected="a function of the output")
    return cast("Callable[..., Tensor]", function)


def _takes_labels(function: Callable[..., Tensor]) -> bool:
    return takes_two(function.forward if isinstance(function, torch.nn.Module) else function)


def _cross_entropy(logits: Tensor, target: Tensor | None, generator: torch.Generator) -> Tensor:
    classes = logits.shape[1] if logits.dim() > 1 else logits.shape[0]
    if target is None:
        shape = (logits.shape[0], *logits.shape[2:])
        target = torch.randint(classes, shape, generator=generator)
    if not target.is_floating_point():
        low, high = int(target.min()), int(target.max())
        if (low < 0 and low != -100) or high >= classes:  # -100: the label that torch leaves out
            raise InputError(
                "target",
                got=f"labels from {low} to {high}",
                expected=f"0 to {classes - 1}: the output has {classes} classes",
                action="Check the labels, or the width of the last layer.",
            )
        target = target.long()
    _check_target("cross-entropy", target, (logits.shape[0], *logits.shape[2:]), tuple(logits.shape))
    return torch.nn.functional.cross_entropy(logits, _beside(target, logits))


def _nll(output: Tensor, target: Tensor | None, generator: torch.Generator) -> Tensor:
    classes = output.shape[1] if output.dim() > 1 else output.shape[0]
    shape = (output.shape[0], *output.shape[2:])
    target = torch.randint(classes, shape, generator=generator) if target is None else target
    _check_target("nll", target, shape)
    return torch.nn.functional.nll_loss(output, _beside(target, output).long())


def _mse(output: Tensor, target: Tensor | None, generator: torch.Generator) -> Tensor:
    target = torch.randn(output.shape, generator=generator) if target is None else target
    _check_target("mse", target, tuple(output.shape))
    return torch.nn.functional.mse_loss(output, target.to(output))


def _bce(output: Tensor, target: Tensor | None, generator: torch.Generator) -> Tensor:
    target = torch.randint(2, output.shape, generator=generator) if target is None else target
    _check_target("bce", target, tuple(output.shape))
    return torch.nn.functional.binary_cross_entropy_with_logits(output, target.to(output))


def _check_target(name: str, target: Tensor, *shapes: tuple[int, ...]) -> None:
    if tuple(target.shape) not in shapes:
        raise InputError(
            f"target of --loss {name}",
            got=f"a tensor of shape {tuple(target.shape)}",
            expected=" or ".join(str(shape) for shape in dict.fromkeys(shapes)) + " to fit the output",
        )


_LOSSES: dict[str, Callable[[Tensor, Tensor | None, torch.Generator], Tensor]] = {
    "cross-entropy": _cross_entropy,
    "nll": _nll,
    "mse": _mse,
    "bce": _bce,
}
