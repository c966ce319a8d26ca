"""Networks that somebody else drew: does P(start) tell which of them start?

They come from a Python file with a function ``networks()`` that yields ``(name, model, x, y)``: the model with its
drawn weights, all training samples x and their targets y, classes (whole numbers, cross entropy) or numbers (mean
square error). A network is predicted from its weights and the first 64 samples and then trained from exactly these
weights as the benchmark's own are (`benchmarks.start.label`), one rate after the other. Where a CSV file with the
columns name and starts (0 or 1) says which of them started, nothing is trained and y may be left out.
"""

from __future__ import annotations

import copy
import csv
import importlib.util
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.start.label import RATES, SHARE, STEPS, Watch
from benchmarks.start.networks import BATCH
from benchmarks.start.score import PARTS, Named, Row, told
from firstlight.errors import DataError, InputError

FIELDS: tuple[str, ...] = ("name", "starts", "best", "p_start", *PARTS, "limit", "gradient", "output", "seconds")


def read(path: Path) -> Iterator[tuple[str, nn.Module, Tensor, Tensor | None]]:
    """The file's networks, each built when it is its turn.

    Raises:
        DataError: A file that is not there or defines no function ``networks``.
        InputError: Something else than (name, model, x, y), or a name that comes twice.
    """
    found = importlib.util.spec_from_file_location("foreign_networks", path) if path.is_file() else None
    if found is None or found.loader is None:
        raise DataError(str(path), got="no such Python file", expected="a file with a function networks()")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    if not hasattr(module, "networks"):
        raise DataError(str(path), got="no function networks", expected="one that yields (name, model, x, y)")
    seen: set[str] = set()
    for item in module.networks():
        parts = tuple(item) if isinstance(item, tuple | list) else ()
        name, model, x, y = parts if len(parts) == 4 else (*parts, None) if len(parts) == 3 else (None,) * 4
        if not (isinstance(name, str) and isinstance(model, nn.Module) and isinstance(x, Tensor)) or name in seen:
            raise InputError(
                f"{path}, network {len(seen) + 1}",
                got=repr(name) + " for the second time" if name in seen else type(item).__name__,
                expected="(name, model, x, y): a name of its own, a module, tensors of samples and of targets",
            )
        seen.add(name)
        yield name, model, x, y


def _loss(out: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(out.view_as(y), y) if y.is_floating_point() else F.cross_entropy(out, y)


def chance(y: Tensor) -> float:
    """Loss of the best answer that does not look at the input: entropy of the classes, or variance of the targets."""
    if y.is_floating_point():
        return float((y - y.mean(0)).square().mean())
    share = torch.bincount(y).double() / len(y)
    return float(-torch.special.xlogy(share, share).sum())


def lowest(model: nn.Module, x: Tensor, y: Tensor, optimizer: str) -> float:
    """Lowest loss over a window as a share of chance, at the best rate; ends where one starts."""
    best, level = math.inf, chance(y)
    for rate in RATES[optimizer]:
        twin = copy.deepcopy(model).train()
        step = (torch.optim.Adam if optimizer == "adam" else torch.optim.SGD)(twin.parameters(), rate)
        order, watch = torch.Generator().manual_seed(0), Watch(1, level)
        for i in range(1, STEPS + 1):
            pick = torch.randint(len(x), (BATCH,), generator=order)
            loss = _loss(twin(x[pick]), y[pick])
            step.zero_grad()
            loss.backward()
            step.step()
            if watch.over(i, loss.cpu().view(1)):
                break
        best = min(best, watch.best.item())
        if best < SHARE:
            break
    return best


def baselines(model: nn.Module, x: Tensor, y: Tensor | None) -> dict[str, float]:
    """Distance of the gradient's norm and of the output's length from 1, as in `benchmarks.start.baselines`."""
    twin = copy.deepcopy(model).train()
    out = twin(x[:BATCH])
    length = float(out.detach().double().square().mean() / x[:BATCH].double().square().mean())
    norm = math.nan
    if y is not None:
        found = torch.autograd.grad(_loss(out, y[:BATCH]), list(twin.parameters()), allow_unused=True)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in found if g is not None))
    return {key: -abs(math.log(max(v, 1e-300))) if math.isfinite(v) else v for key, v in
            (("gradient", norm), ("output", length))}  # fmt: skip


def labels(path: Path) -> dict[str, bool]:
    """Which networks started, by name.

    Raises:
        DataError: No file with the columns name and starts.
    """
    try:
        found = {row["name"]: {"0": False, "1": True}[row["starts"].strip()] for row in _rows(path)}
    except (OSError, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise DataError(
            str(path), got=f"{type(error).__name__}: {error}", expected="a CSV file with name and starts (0 or 1)"
        ) from error
    if not found:
        raise DataError(str(path), got="no rows", expected="a CSV file with name and starts (0 or 1)")
    return found


def judge(path: Path, out: Path, known: dict[str, bool] | None = None, optimizer: str = "adam") -> list[Row]:
    """Predict the networks of a file, train those without a label, and write all of it to a CSV file, row by row.

    Args:
        path: The file of the networks.
        out: Where the rows go; those that are there are kept and not done again.
        known: Labels by name; None to train here.
        optimizer: "adam" or "sgd".

    Raises:
        DataError: A network without a label where labels are given.
        InputError: A network without targets where it is to be trained.
    """
    torch.set_num_threads(1)
    done = {row["name"] for row in _rows(out)} if out.exists() else set()
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not done:
            writer.writeheader()
        for name, model, x, y in read(path):
            if name in done:
                continue
            if known is not None and name not in known:
                raise DataError(f"labels of {path}", got=f"none of {name!r}", expected="a label of every network")
            if known is None and y is None:
                raise InputError(f"{path}, {name!r}", got="no targets", expected="(name, model, x, y), or --labels")
            row = told(model.train(), x[:BATCH]) | baselines(model, x, y) | {"name": name}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                best = math.nan if known is not None or y is None else lowest(model, x, y, optimizer)
            starts = known[name] if known is not None else best < SHARE
            writer.writerow(row | {"starts": int(starts), "best": f"{best:.4f}"})
            file.flush()
    told_before = known or {}
    return [
        Row(
            Named(r["name"]),
            told_before.get(r["name"], r["starts"] == "1"),
            float(r["best"]),
            float(r["p_start"]),
            r["limit"],
            {key: float(r[key]) for key in (*PARTS, "gradient", "output")},
            float(r["seconds"]),
        )
        for r in _rows(out)
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
