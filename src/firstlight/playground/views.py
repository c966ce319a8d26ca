"""What the page draws of a run: arrays for its charts, computed from a recorded pass and the library's predictions."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch

from firstlight import api
from firstlight.capture.preserve import preserved
from firstlight.playground import measures, problems, starts, taps, theory
from firstlight.playground.layers import Layer, record, walks_alone
from firstlight.playground.run import Run
from firstlight.playground.verdict import judge, remedy

PANELS = ("cost", "boundary", "network", "strip", "histograms", "walks")
GRID = 48
# Multiplications that a picture of the boundary may cost; above it the grid is half as fine.
GRID_COST = 2e8
PROBE_SAMPLES = 256
# A network drawing shows every weight; beyond this many it would be a grey block.
DRAWN_WEIGHTS = 1500

Header = dict[str, Any]
Arrays = dict[str, Any]


def opening(run: Run) -> tuple[Header, Arrays]:
    """What does not change while a run trains: its points, its layers' names, the law of its weights."""
    found, _ = look(run)
    header: Header = {
        "layers": _names(run, found),
        "units": [layer.z.shape[1 if layer.z.ndim >= 4 else -1] for layer in found],
        "bins": [measures.LOG10_LOW, measures.LOG10_HIGH, measures.BINS],
        "formula": starts.formula(run.config, run.problem.facts),
    }
    arrays: Arrays = {}
    problem = run.problem
    if problem.planar and problem.x is not None and problem.y is not None:
        low, high = _window(problem.x)
        header["window"] = [low, high]
        rows = slice(None, None, max(1, len(problem.x) // 1000))
        arrays["points"] = problem.x[rows].numpy()
        arrays["labels"] = problem.y[rows].numpy().astype(np.uint8)
        if problem.x_test is not None and problem.y_test is not None and len(problem.x_test):
            arrays["test_points"] = problem.x_test[:1000].numpy()
            arrays["test_labels"] = problem.y_test[:1000].numpy().astype(np.uint8)
    return header, arrays


def predicted(run: Run) -> tuple[Header, Arrays]:
    """The library's prediction for the law of this run's weights: the walks' band and P(start).

    Weights that are not drawn have no law but one walk; it is the band, of no width.
    """
    if run.config.scheme == "identity":
        theory.predict(run)  # notes why there is no P(start)
        found, _ = look(run, run.fresh_model(run.config.seed))
        walks = measures.walks_of(found, alone=walks_alone(run))
        band = {f"band_{way}": np.repeat(walk[:, None], 3, axis=1) for way, walk in walks.items()}
        return {"start": theory.start(None, run.problem.facts["prediction"])}, band
    nodes = [layer.node for layer in look(run)[0]]
    prediction = theory.predict(run)
    header = {"start": theory.start(prediction, run.problem.facts.get("prediction", ""))}
    alone = theory.predict(run, rows=1) if walks_alone(run) else prediction
    return header, theory.band(alone, nodes)


def report(run: Run) -> Header:
    """What the library's checks say of the network as it stands, worst first."""
    args, kwargs, cost = problems.probe(run.problem, PROBE_SAMPLES // 4)
    found = api.diagnose(run.model, (args, kwargs), cost)
    return {
        "step": run.step_count,
        "verdict": found.verdict,
        "headline": found.headline,
        "p_start": found.p_start,
        "findings": [
            {
                "code": f.code,
                "severity": f.severity,
                "where": f.where,
                "measured": f.measured,
                "meaning": f.meaning,
                "remedy": f.remedy,
                "fix": remedy(f.code, run.config),
            }
            for f in found.findings[:6]
        ],
    }


def _names(run: Run, found: list[Layer]) -> list[str]:
    """Layers by number where the playground built the network, by module path where the user did."""
    if run.problem.own is not None:
        return [layer.name for layer in found]
    return [f"layer {number + 1}" for number in range(len(found) - 1)] + ["readout"]


def cost(run: Run) -> tuple[Header, Arrays]:
    """The cost so far; cheap, a part of every frame."""
    header = {"step": run.step_count, "cost_now": run.history.last, "failure": run.failure}
    return header, dict(run.history.arrays())


def layers(run: Run, panels: AbstractSet[str]) -> tuple[Header, Arrays]:
    """The layers of the network as it is now, and the verdict; as much of it as the page shows."""
    found, output = look(run)
    z, h, delta = (measures.stacks([getattr(layer, name) for layer in found]) for name in ("z", "h", "delta"))
    activation = measures.histograms(h, len(found))
    arrays: Arrays = {
        "zero_units": measures.gathered(h, len(found), measures.zero_units),
        "saturated": measures.saturated(found, z),
        "same_units": measures.gathered(z, len(found), measures.same_units),
        **measures.walks(z, delta, len(found), alone=walks_alone(run)),
        "act_bad": activation["bad"],
    }
    if "histograms" in panels:
        gradient = measures.histograms(delta, len(found))
        arrays |= {"act_hist": activation["shares"], "act_zero": activation["zero"]}
        arrays |= {"grad_hist": gradient["shares"], "grad_zero": gradient["zero"], "grad_bad": gradient["bad"]}
    status = judge(run, _names(run, found), arrays)
    fix = remedy(status.code, run.config)
    header: Header = {
        "status": {"word": status.word, "evidence": status.evidence, "code": status.code if fix else "", "fix": fix},
        "scores": run.problem.scores(run.model, output),
    }
    if run.step_count == 0:
        with preserved(run.model), torch.no_grad():
            header["first_cost"] = float(run.problem.loss(run.model))
    if "boundary" in panels and run.problem.planar:
        arrays["boundary"] = _boundary(run)
    if "network" in panels:
        arrays |= _weights(run)
    return header, arrays


def look(run: Run, model: torch.nn.Module | None = None) -> tuple[list[Layer], Any]:
    """The layers of a run's network, or of another draw of it, during one pass over the probe.

    Returns:
        The layers, and the network's output where it is known: for the playground's own networks.
    """
    chosen = run.model if model is None else model
    args, kwargs, cost = problems.probe(run.problem, PROBE_SAMPLES)
    if not run.planned:
        found = record(chosen, args, kwargs, cost)
        run.taps = taps.plan(found, chosen, args, kwargs, cost) if run.problem.own is None else None
        run.planned = True
        return found, None
    if run.taps is None:
        return record(chosen, args, kwargs, cost), None
    return taps.tapped(chosen, run.taps, args, kwargs, cost)


def _window(x: torch.Tensor) -> tuple[list[float], list[float]]:
    """Corners of a square around the points, with a margin of a tenth."""
    low, high = x.min(dim=0).values, x.max(dim=0).values
    half = max(float((high - low).max()) / 2 * 1.1, 1e-6)
    middle = (low + high) / 2
    return (middle - half).tolist(), (middle + half).tolist()


@torch.no_grad()
def _boundary(run: Run) -> Any:
    """What the network says on a grid: P(second class) for two classes, else class number plus confidence."""
    problem = run.problem
    assert problem.x is not None
    if run.grid is None:
        cost = GRID**2 * sum(p.numel() for p in run.model.parameters())
        side = GRID if cost <= GRID_COST else GRID // 2
        axes = [torch.linspace(a, b, side) for a, b in zip(*_window(problem.x), strict=True)]
        y, x = torch.meshgrid(axes[1], axes[0], indexing="ij")
        run.grid = torch.stack([x.reshape(-1), y.reshape(-1)], dim=1)
    output = problem.evaluated(run.model, run.grid)
    if output.shape[1] == 1:
        value = output[:, 0].clamp(0, 1) if problem.loss_name == "mse" else output[:, 0].sigmoid()
    else:
        chance = output.softmax(dim=1).max(dim=1)
        value = chance.indices + chance.values.clamp(0, 0.999)
    side = math.isqrt(len(run.grid))
    return value.reshape(side, side).numpy()


def _weights(run: Run) -> Arrays:
    """Weights and gradients of a small network, matrix after matrix, for the drawing."""
    matrices = [p for p in run.model.parameters() if p.ndim == 2]
    if not matrices or sum(p.numel() for p in matrices) > DRAWN_WEIGHTS:
        return {}
    shapes = np.array([p.shape for p in matrices], dtype=np.int32)
    weights = torch.cat([p.detach().reshape(-1) for p in matrices])
    pulls = [torch.zeros_like(p) if p.grad is None else p.grad for p in matrices]
    return {
        "weight_shapes": shapes,
        "weights": weights.float().numpy(),
        "weight_grads": torch.cat([g.reshape(-1) for g in pulls]).float().numpy(),
    }
