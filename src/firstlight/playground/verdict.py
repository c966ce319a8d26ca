"""The verdict line: what the library's checks say of the start, and what the course of training says since."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from firstlight.playground.config import RunConfig
from firstlight.playground.problems import LEARNED

FloatArray = npt.NDArray[np.float64]
# Shares above which a layer is called dead or saturated in the verdict line; the checks that decide the report have
# thresholds of their own.
MANY = 0.5
NEARLY_ALL = 0.9
# A cost so many times its first value was thrown there by its steps.
THROWN = 10.0


@dataclass(frozen=True, slots=True)
class Status:
    """One word, its evidence and the name under which the page can ask for a remedy.

    Attributes:
        word: "symmetric", "non-finite", "dead units", "saturated", "plateau", "oscillating", "starting", "healthy" or
            "learned".
        evidence: The numbers behind it, as one sentence.
        code: What `remedy` takes; "" where there is nothing to mend.
    """

    word: str
    evidence: str
    code: str = ""


def judge(run: Any, names: list[str], layers: Mapping[str, FloatArray]) -> Status:
    """The verdict on a run as it stands, the gravest first.

    Args:
        run: The `Run`.
        names: Names of the layers.
        layers: Per-layer arrays of `views.layers`: "zero_units" and "saturated" (shares), "same_units" (largest
            share of units equal to another), "act_bad" (entries that are not finite), "forward" (ln of the mean
            square).
    """
    if run.failure is not None:
        where = _first(names, layers.get("act_bad"), 0.0, " First in {}.")
        return Status("non-finite", run.failure + where, "rate" if run.step_count else "init")
    bad = _first(names, layers.get("act_bad"), 0.0, "NaN or infinite entries, first in {}.")
    if bad:
        return Status("non-finite", bad, "rate" if run.step_count else "init")
    same = np.asarray(layers.get("same_units", ()))
    if same.size and float(same.max()) >= 1.0:
        where = names[int(same.argmax())]
        return Status("symmetric", f"All units of {where} carry the same weights and will learn the same.", "init")
    course = _course(run)
    # where all samples have become alike, half of a rectifier layer is zero for all of them and nothing is lost:
    # a share above MANY is a verdict only when the cost stands still too
    limit = MANY if course.word == "plateau" else NEARLY_ALL
    dead = np.asarray(layers.get("zero_units", ()))
    if dead.size and float(dead.max()) > limit:
        where, share = names[int(dead.argmax())], float(dead.max())
        return Status("dead units", f"{share:.0%} of the units of {where} are zero for every sample.", _blame(run))
    flat = np.asarray(layers.get("saturated", ()))
    if flat.size and float(np.nanmax(flat, initial=0.0)) > limit:
        where, share = names[int(np.nanargmax(flat))], float(np.nanmax(flat))
        return Status("saturated", f"{share:.0%} of the entries of {where} lie on a flat piece.", _blame(run))
    return course


def _blame(run: Any) -> str:
    """Which remedy a network needs that has come to a standstill: "rate" where the steps threw it there.

    Steps that are small enough bring the cost down. A cost that rose to many times its first value was thrown by steps
    that are too large, whatever weights it began from; one that began large, as of weights that are too large, was not.
    """
    return "rate" if run.history.peak > THROWN * run.history.first else "init"


def _course(run: Any) -> Status:
    cost, first, step = run.history.last, run.history.first, run.step_count
    floor = run.problem.learned_cost
    course = run.history.course(LEARNED * first if floor is None else floor)
    if course == "plateau":
        return Status("plateau", f"The cost has stood at {cost:.4g} for 50 steps (step {step}).", _blame(run))
    if course == "oscillating":
        return Status("oscillating", f"The cost jumps up and down around {cost:.4g} (step {step}).", "rate")
    if course == "learned":
        return Status("learned", f"The cost came down from {first:.4g} to {cost:.4g} in {step} steps.")
    if course == "starting" or math.isnan(cost):
        return Status("starting", f"Fewer than 50 steps so far (step {step}).")
    falls = f"The cost falls: {first:.4g} at the start, {cost:.4g} at step {step}"
    guess = run.problem.guess_cost
    if guess is not None and cost >= guess:
        return Status("healthy", f"{falls}, not yet below the {guess:.4g} of an even guess.")
    return Status("healthy", f"{falls}.")


def _first(names: list[str], values: FloatArray | None, above: float, text: str) -> str:
    if values is None or not len(values):
        return ""
    bad = np.flatnonzero(np.asarray(values) > above)
    return text.format(names[int(bad[0])]) if bad.size else ""


def remedy(code: str, config: RunConfig) -> dict[str, Any]:
    """Settings to change for a verdict or a finding; empty where no setting helps.

    "rate": a smaller step. Everything else that the checks find at the start of a built network is a matter of its
    weights: the scheme whose predicted P(start) is largest, and layer normalization where even that one does not do.
    """
    if code == "rate":
        rate = max(config.learning_rate / 10.0, 1e-9)
        return {"learning_rate": rate} if rate < config.learning_rate else {}
    if code in ("init", "auto") or code[:3] in ("FWD", "BWD", "SYM", "WGT", "ACT", "DEA", "SAT", "LAW", "FLU"):
        if config.scheme != "auto":
            return {"scheme": "auto"}
        if config.data != "own" and config.normalization == "none":
            return {"normalization": "layer"}
    return {}
