"""What else could tell who starts: scores that need no theory of the signal, and AnyInit's verdict.

Every score is oriented so that larger means more likely to start; NaN where there is none.
"""

from __future__ import annotations

import copy
import math
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.start.networks import BATCH, Spec, build, inputs
from benchmarks.start.problems import problem

BASELINES = {
    "gradient": "gradient norm at the start",
    "output": "length of the output alone",
    "widths": "Σ1/n alone",
    "anyinit": "AnyInit 0.4.0: its own verdict on the network",
    "anyinit_scale": "AnyInit 0.4.0: distance of the drawn scales from its own",
}
TINY = 1e-300


def scores(s: Spec) -> dict[str, float]:
    """All baselines of one network."""
    model = build(s)
    x, y = inputs(s)[:BATCH], problem(s.data).y[:BATCH]
    out = model(x)
    found = torch.autograd.grad(F.cross_entropy(out, y), list(model.parameters()), allow_unused=True)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in found if g is not None))
    length = float(out.detach().double().square().mean() / x.double().square().mean())
    return {
        "gradient": -abs(math.log(max(norm, TINY))) if math.isfinite(norm) else -math.inf,
        "output": -abs(math.log(max(length, TINY))) if math.isfinite(length) else -math.inf,
        "widths": -s.depth / s.width,
        **_anyinit(model, x),
    }


def _anyinit(model: nn.Module, x: torch.Tensor) -> dict[str, float]:
    """Its verdict (1 healthy, 0 not), and minus the drift that the drawn scales have against those that it chooses.

    AnyInit judges no weights that are already there: it draws anew and judges that (`report.assert_healthy()`). Its
    scales are compared with the drawn ones as the sum over layers of ln(drawn sd/its sd), which is the drift of the
    signal's length through a plain stack.
    """
    try:
        import anyinit  # pyright: ignore[reportMissingImports] - on demand
    except ImportError:
        return {"anyinit": math.nan, "anyinit_scale": math.nan}
    drawn = {name: float(p.detach().std()) for name, p in model.named_parameters() if p.dim() > 1}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = anyinit.initialize(copy.deepcopy(model), "analytic", x, seed=0)
    except Exception:  # noqa: BLE001 - it raises many kinds; a refusal is an answer too: no score
        return {"anyinit": math.nan, "anyinit_scale": math.nan}
    try:
        report.assert_healthy()
        healthy = 1.0
    except AssertionError:
        healthy = 0.0
    drift = 0.0
    for layer in report.layers:
        sd = drawn.get(f"{layer.name}.weight")
        if sd is not None and layer.scale and not layer.is_gain:
            drift += math.log(max(sd, TINY) / layer.scale)
    return {"anyinit": healthy, "anyinit_scale": -abs(drift)}
