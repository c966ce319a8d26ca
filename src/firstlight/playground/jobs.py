"""Long pictures, made in pieces between the frames: many walks, one run from many seeds, the search for the gain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from firstlight.errors import InputError
from firstlight.playground import measures, theory, views
from firstlight.playground.layers import Layer, walks_alone
from firstlight.playground.run import Run

PART_EVERY = 4
STARTED = 0.9


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a picture, ready for the page."""

    slot: str
    header: dict[str, Any]
    arrays: dict[str, Any]


def drawn(run: Run) -> Run:
    """The run itself, where another seed means other weights.

    Raises:
        InputError: Its weights are those that an own model came with.
    """
    if run.config.scheme == "given":
        raise InputError(
            "scheme",
            got="weights as they came, the same from every seed",
            expected="weights that are drawn",
            action="Choose a scheme under Initialization first.",
        )
    return run


def many_walks(run: Run, draws: int) -> Iterator[Part]:
    """Walks of ln length, forward and backward, of `draws` fresh draws of this run's weights.

    Arrays: "forward" and "backward", (draws so far, layers).
    """
    forward: list[Any] = []
    backward: list[Any] = []
    for number in range(draws):
        found = _layers(run, run.fresh_model(run.config.seed + 1 + number))
        walk = measures.walks_of(found, alone=walks_alone(run))
        forward.append(walk["forward"])
        backward.append(walk["backward"])
        if (number + 1) % PART_EVERY == 0 or number + 1 == draws:
            header = {"type": "walks", "done": number + 1, "draws": draws, "end": number + 1 == draws}
            yield Part(
                "walks",
                header,
                {"forward": np.array(forward, dtype=np.float32), "backward": np.array(backward, dtype=np.float32)},
            )


def seed_strip(run: Run, seeds: int, steps: int) -> Iterator[Part]:
    """The cost of this run from `seeds` seeds, `steps` updates each: how much is luck.

    Arrays: "cost", (seeds so far, points), "step", (points,).
    """
    points = np.unique(np.geomspace(1, steps, num=min(60, steps)).astype(int))
    table = np.full((seeds, len(points)), np.nan, dtype=np.float32)
    for number in range(seeds):
        twin = run.twin(seed=run.config.seed + number)
        for column, point in enumerate(points):
            while twin.step_count < point and twin.advance():
                pass
            table[number, column] = twin.history.last
            if twin.failure is not None:
                break
            yield _NOTHING
        done = table[: number + 1]
        header = {"type": "seeds", "done": number + 1, "seeds": seeds, "end": number + 1 == seeds}
        header["words"] = _fates(done)
        with np.errstate(invalid="ignore"):
            middle = np.nanmedian(np.where(np.isnan(done), np.inf, done), axis=0)
        yield Part("strip", header, {"cost": done, "step": points.astype(np.float32), "median": middle})


def _fates(costs: Any) -> str:
    """How many seeds brought the cost below `STARTED` of its first value, in words."""
    first, last = costs[:, 0], costs[:, -1]
    failed = int(np.sum(~np.isfinite(last)))
    started = int(np.sum(last < STARTED * first))
    text = f"{started} of {len(costs)} brought the cost below nine tenths of its first value"
    return text + (f", {failed} ended in NaN or infinity." if failed else ".")


# a breath between two pieces: commands are obeyed, nothing is published
_NOTHING = Part("", {}, {})


def critical_gain(run: Run, count: int = 25) -> Iterator[Part]:
    """Drift of ln length per layer against the gain g (weight variance g²/fan_in), forward and backward.

    Arrays: "gain", "forward", "backward"; the drift is the slope of a straight line through the walk. Where the
    curve crosses zero lies the critical gain; `theory.critical` gives the predicted one.
    """
    gains = np.geomspace(0.25, 8.0, count)
    forward = np.full(count, np.nan, dtype=np.float32)
    backward = np.full(count, np.nan, dtype=np.float32)
    for number, gain in enumerate(gains):
        twin = run.twin(scheme="gain", gain=float(gain))
        found = _layers(twin, twin.model)
        hidden = measures.walks_of(found[:-1], alone=False)  # the readout has a fan of its own
        forward[number] = _slope(hidden["forward"])
        backward[number] = -_slope(hidden["backward"])
        header = {"type": "critical", "predicted": theory.critical(run.config), "end": number + 1 == count}
        yield Part("critical", header, {"gain": gains.astype(np.float32), "forward": forward, "backward": backward})


def _slope(walk: Any) -> float:
    values = np.array(walk)
    keep = np.isfinite(values)
    if keep.sum() < 2:
        return float("nan")
    return float(np.polyfit(np.flatnonzero(keep), values[keep], 1)[0])


def _layers(run: Run, model: nn.Module) -> list[Layer]:
    return views.look(run, model)[0]
