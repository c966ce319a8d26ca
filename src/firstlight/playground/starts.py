"""The initializations that the page offers, each as the library's own scheme, and the formula that the page shows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from firstlight import api
from firstlight.graph.ir import Law
from firstlight.playground.config import RunConfig
from firstlight.schemes.context import Context, Draw, Target
from firstlight.schemes.draws import Stream
from firstlight.schemes.others import common

MEANINGS = {
    "zero": "Nothing passes, nothing comes back.",
    "constant": "Every unit of a layer stays the same as its neighbours.",
    "xavier": "Between what keeps the signal and what keeps the gradient.",
    "lecun": "Keeps the mean length of linear layers.",
    "he": "g keeps the mean length under this activation.",
    "orthogonal": "Turns without stretching; g as for He.",
    "random-walk": "g keeps the median length under this activation and width.",
    "centred": "Rows sum to zero: the mean of a layer, the same for every input, does not get through.",
    "torch-default": "What nn.Linear does by itself.",
    "auto": "Of He, random walk, orthogonal, Xavier, LeCun and centred the one that is predicted to start best.",
}
# Schemes among which "auto" chooses: the one whose predicted P(start) is largest, the first one where they tie.
CANDIDATES = ("he", "random-walk", "orthogonal", "xavier", "lecun", "centred")


def spec(config: RunConfig) -> Any:
    """The library's scheme for a config, as `firstlight.initialize` takes it.

    "too-small", "appropriate" and "too-large" are the article's N(0, 1)·√(v/fan_in) with v = `variance_scale` (1 for
    "appropriate"); "gain" is the same with v = g².
    """
    scheme, v = config.scheme, config.variance_scale
    if scheme == "identity":
        return Identity(config.gain)
    if scheme in ("too-small", "too-large"):
        return f"lecun(gain={math.sqrt(v)!r})"
    return {
        "zero": "zeros",
        "constant": f"constant({config.gain!r})",
        "appropriate": "lecun",
        "gain": f"lecun(gain={config.gain!r})",
    }.get(scheme, scheme)


class Identity:
    """W = c·1, ones on the diagonal times c: the article's chain of nine layers. A scheme made by hand.

    Args:
        factor: c.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, target: Target, context: Context) -> Draw | str:
        """The draw of one matrix; vectors are left to the library's common treatment."""
        if len(target.shape) != 2:
            return common(target, context)
        rows, columns = target.shape
        variance = self.factor**2 * min(rows, columns) / (rows * columns)
        law = Law(0.0, variance, 3.0, structure="orthogonal")

        def build(_: Stream, dtype: torch.dtype) -> torch.Tensor:
            return self.factor * torch.eye(rows, columns, dtype=dtype)

        return Draw(law, build=build, reason=f"{self.factor:g} on the diagonal")

    def __str__(self) -> str:
        return f"{self.factor:g}·identity"


def initialize(model: nn.Module, config: RunConfig, problem: Any) -> None:
    """Draw the weights of a run in place; "given" leaves an own model's weights as they are."""
    if config.scheme == "given" and config.data == "own":
        problem.scheme, problem.facts["scheme"] = None, "given"
        problem.facts["laws"] = _live(model)
        return
    chosen = "torch-default" if config.scheme == "given" else spec(config)
    if config.scheme == "auto":
        from firstlight.playground import theory

        chosen = theory.best(model, config, problem, CANDIDATES)
    batch = problem.inputs(slice(0, 2)) if problem.batched else problem.inputs()
    done = api.initialize(model, chosen, batch=batch, seed=config.seed)
    problem.scheme, problem.facts["scheme"] = chosen, str(chosen)
    problem.facts["laws"] = [
        {
            "name": row.name,
            "fan_in": row.fan_in,
            "gain": row.gain,
            "mean": row.law.mean,
            "sd": math.sqrt(row.law.variance),
        }
        for row in done.table.rows
        if row.law is not None and len(row.shape) >= 2
    ]


def _live(model: nn.Module) -> list[dict[str, Any]]:
    """The weights that an own model came with, by their numbers."""
    return [
        {"name": name, "fan_in": None, "gain": None, "mean": float(p.mean()), "sd": float(p.std(correction=0))}
        for name, p in ((name, p.detach()) for name, p in model.named_parameters())
        if p.ndim >= 2 and p.is_floating_point()
    ]


def formula(config: RunConfig, facts: Any) -> dict[str, Any]:
    """The law in symbols, and the standard deviations that it comes to, for the page.

    Returns:
        "text": the law in symbols; "laws": fan, gain, mean and deviation of each weight matrix as it was drawn.
    """
    return {
        "text": text(config),
        "meaning": MEANINGS.get(config.scheme, ""),
        "scheme": facts.get("scheme"),
        "laws": facts.get("laws", []),
    }


def text(config: RunConfig, gain: str = "") -> str:
    """The law in symbols; `gain` stands for the number of the config where given."""
    v, g = f"{config.variance_scale:g}", gain or f"{config.gain:.4g}"
    return {
        "zero": "W = 0",
        "constant": f"W = {g}",
        "appropriate": "W ~ N(0, 1) · √(1/n)",
        "too-small": f"W ~ N(0, 1) · √({v}/n)",
        "too-large": f"W ~ N(0, 1) · √({v}/n)",
        "gain": f"W ~ N(0, {g}²/n)",
        "lecun": "W ~ N(0, 1/n)",
        "xavier": "W ~ N(0, 2/(n + n′))",
        "he": "W ~ N(0, g²/n)",
        "orthogonal": "W = g·Q, QᵀQ = 1",
        "random-walk": "W ~ N(0, g²/n)",
        "centred": "W ~ N(0, g²/n), W·1 = 0",
        "torch-default": "W ~ U(±1/√n)",
        "identity": f"W = {g} · 1",
        "given": "W as it came",
        "auto": "largest P(start)",
    }[config.scheme]
