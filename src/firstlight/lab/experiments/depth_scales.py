"""Deep information propagation (Schoenholz et al., 1611.01232): networks train to about six depth scales ξ_c.

- trained: training accuracy of tanh networks over (σ_w², depth) at one σ_b², MNIST, SGD.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from firstlight.lab.draws import Member, check_stack
from firstlight.lab.experiment import Grid, Part, Row
from firstlight.lab.experiments._tasks import task_data
from firstlight.lab.models import StackConfig
from firstlight.lab.schedules import Schedule
from firstlight.lab.trainer import Training, train


@dataclass(frozen=True)
class Trained:
    """One point of the plane.

    Attributes:
        weight_variance: σ_w².
        bias_variance: σ_b².
        depth: Hidden layers.
        width: Units of each.
        rates: Learning rates; the figure takes the best.
        steps: Optimizer steps of batch 100.
        samples: Training samples; 0 for all.
    """

    weight_variance: float = 1.76
    bias_variance: float = 0.05
    depth: int = 20
    width: int = 100
    rates: tuple[float, ...] = (0.001, 0.01)
    steps: int = 300
    samples: int = 0


def trained(config: Trained, seeds: Sequence[int]) -> list[list[Row]]:
    """Training accuracy over the last quarter of the steps, for each rate."""
    data, _, classes, _ = task_data("mnist", config.samples)
    stack = _stack(config, data[0].shape[1], classes)
    training = Training(
        steps=config.steps, batch=100, schedule=Schedule(config.rates[0]), report_every=max(1, config.steps // 4)
    )
    members = [Member(seed, rate=rate) for seed in seeds for rate in config.rates]
    results, _ = train(stack, training, data, members)
    rows = [{"rate": r.member.rate, "accuracy": r.rows[-1]["accuracy"] if r.rows else None} for r in results]
    count = len(config.rates)
    return [rows[at : at + count] for at in range(0, len(rows), count)]


def _stack(config: Trained, inputs: int, classes: int) -> StackConfig:
    scheme = f"lecun(gain={math.sqrt(config.weight_variance)!r}, bias_std={math.sqrt(config.bias_variance)!r})"
    return StackConfig(inputs, classes, config.depth, config.width, activation="tanh", scheme=scheme)


def check(config: Trained) -> None:
    """Raise what keeps a run from being started."""
    data, _, classes, _ = task_data("mnist", config.samples)
    check_stack(_stack(config, data[0].shape[1], classes))


_LEAST = {"weight_variance": 0, "bias_variance": 0, "depth": 1, "width": 1, "rates": 0, "steps": 1, "samples": 0}
VARIANCES = (1.0, 1.3, 1.6, 1.76, 2.0, 2.4, 3.0, 4.0)


def _grid(variances: Sequence[float], depths: Sequence[int], base: Trained) -> Grid:
    return [(replace(base, weight_variance=v, depth=d), (0,)) for v in variances for d in depths]


PARTS = (
    Part(
        "depth-scales/trained",
        Trained,
        trained,
        quick=lambda: _grid((*VARIANCES[::2], 1.76), (10, 20, 40, 80), Trained(width=50, steps=200)),
        full=lambda: _grid(VARIANCES, (10, 20, 40, 80, 160), Trained(width=100, steps=1000)),
        check=check,
        least=_LEAST,
    ),
)
