"""The library's predictions for a run, in the form that the page draws; no formula of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from firstlight import api
from firstlight.errors import FirstlightError
from firstlight.playground.config import RunConfig
from firstlight.theory import activations

SIGMAS = 2.0  # half width of the band
# Schemes without chance: what holds over draws says nothing of them.
FIXED = {
    "identity": "a multiple of the identity is one fixed matrix",
    "constant": "equal weights are one fixed network",
}


def predict(run: Any, rows: int = 64) -> Any | None:
    """The prediction for a run's network under the law of its scheme; None where there is none.

    Args:
        run: The `Run`.
        rows: Training rows that the prediction is made for; an own model's batch is taken whole.
    """
    fixed = FIXED.get(run.config.scheme)
    if fixed is not None:
        run.problem.facts["prediction"] = f"{fixed}: nothing is drawn, and the walk is the same every time"
        return None
    args, kwargs = run.problem.inputs(slice(0, rows) if run.problem.batched else None)
    try:
        return api.predict(run.model, (args, kwargs), scheme=run.problem.scheme)
    except FirstlightError as error:
        run.problem.facts["prediction"] = str(error)
        return None


def best(model: nn.Module, config: RunConfig, problem: Any, candidates: Sequence[str]) -> str:
    """The scheme whose predicted P(start) is largest; the first of `candidates` where they tie or cannot be told."""
    args, kwargs = problem.inputs(slice(0, 64) if problem.batched else None)
    chances: list[float] = []
    for name in candidates:
        try:
            chances.append(api.predict(model, (args, kwargs), scheme=name).p_start)
        except FirstlightError:
            chances.append(0.0)
    return candidates[int(np.argmax(chances))]


def critical(config: RunConfig) -> float | None:
    """Gain that keeps the median length at this width; None where the nonlinearity has no gain."""
    if config.data == "own":
        return None
    try:
        return api.gain(activations.get(config.activation), fan=config.hidden[-1])
    except FirstlightError:
        return None


def band(prediction: Any | None, nodes: Sequence[str]) -> dict[str, Any]:
    """Predicted ln length of every layer over draws of the weights, forward and backward.

    Returns:
        "band_forward" and "band_backward", (layers, 3): mean - 2σ, mean, mean + 2σ; NaN where nothing is predicted.
        Empty without a prediction.
    """
    if prediction is None:
        return {}
    known = {node.name: node for node in prediction.nodes}
    rows = [known.get(name) for name in nodes]
    return {
        "band_forward": _spread([n.output if n else None for n in rows]),
        "band_backward": _from_last(_spread([n.grad if n else None for n in rows])),
    }


def _from_last(band: Any) -> Any:
    """The same band counted from its middle at the last layer, like measured backward walks."""
    return band - band[-1, 1] if len(band) and np.isfinite(band[-1, 1]) else band


def _spread(tensors: Sequence[Any | None]) -> Any:
    middle = np.array([np.nan if t is None else t.log_mean for t in tensors], dtype=np.float32)
    sd = np.array([np.nan if t is None else t.log_sd for t in tensors], dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return np.stack([middle - SIGMAS * sd, middle, middle + SIGMAS * sd], axis=1)


def start(prediction: Any | None, reason: str = "") -> dict[str, Any]:
    """P(start) and what limits it, for the page; without a prediction the reason why there is none."""
    if prediction is None:
        return {"p": None, "limit": reason}
    found = prediction.start
    return {"p": found.p, "limit": found.limit, "where": found.where, "parts": dict(found.parts)}
