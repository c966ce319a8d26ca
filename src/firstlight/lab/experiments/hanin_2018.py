"""How to start training: the effect of initialization and architecture (Hanin & Rolnick, 1803.01719).

- lengths: mean length of the activations M_d over many networks (Figures 1a, 2a, 4).
- start: epochs until 20 % test accuracy on vectorised MNIST, SGD at rate 0.01 with batch 1024 (Figures 1b,
  2b, 3a, 3b), and whether a deep wide network starts before a shallow narrow one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from firstlight.lab.draws import Member, check_stack
from firstlight.lab.experiment import Grid, Part, Row
from firstlight.lab.experiments._tasks import task_data
from firstlight.lab.models import StackConfig
from firstlight.lab.progress import pieces
from firstlight.lab.schedules import Schedule
from firstlight.lab.simulate import simulate
from firstlight.lab.trainer import Result, Training, train
from firstlight.theory import residual
from firstlight.theory.weights import truncated_normal_variance

Shape = Literal["constant", "alternating", "wide first", "narrow first"]


@dataclass(frozen=True)
class Net:
    """One network of the paper, for both parts.

    Attributes:
        depth: Hidden layers; for residual networks the modules, behind one plain layer.
        width: Units of each layer (conv: channels).
        shape: "constant", or the widths 30 and 10 in an order (then `width` is not read).
        scheme: Law of the weights.
        kind: "plain", "residual" or "conv".
        base: Residual weights η_l = base^l; 1 for all 1.
        draws: Networks (lengths).
        epochs: Most epochs of training (start).
        samples: Training samples; 0 for all (start).
    """

    depth: int = 10
    width: int = 10
    shape: Shape = "constant"
    scheme: str = "he"
    kind: Literal["plain", "residual", "conv"] = "plain"
    base: float = 1.0
    draws: int = 1000
    epochs: int = 100
    samples: int = 0


WIDE, NARROW = 30, 10


def widths(config: Net) -> tuple[int, ...]:
    """Units of each hidden layer."""
    half, d = config.depth // 2, config.depth
    return {
        "constant": (config.width,) * d,
        "alternating": tuple(WIDE if layer % 2 == 0 else NARROW for layer in range(d)),
        "wide first": (WIDE,) * half + (NARROW,) * (d - half),
        "narrow first": (NARROW,) * half + (WIDE,) * (d - half),
    }[config.shape]


def _stack(config: Net, inputs: int, outputs: int) -> StackConfig:
    modules = config.depth
    eta: tuple[float, ...] | float = 1.0
    hidden = widths(config)
    if config.kind == "residual":
        eta = tuple(residual.geometric_branches(config.base, modules)) if config.base < 1 else 1.0
        hidden = (config.width,) * (modules + 1)
    return StackConfig(inputs, outputs, len(hidden), hidden, scheme=config.scheme, kind=config.kind, eta=eta)


def check(config: Net) -> None:
    """Raise what keeps a run from being started."""
    if config.kind == "conv":
        check_stack(_stack(config, 1, 1))
        return
    data, _, outputs, _ = task_data("mnist", config.samples)
    check_stack(_stack(config, data[0].shape[1], outputs))


def lengths(config: Net, seeds: Sequence[int]) -> list[list[Row]]:
    """Mean, median and standard error of M_d/M_0 over the draws; MNIST images, for conv standard normal ones."""
    results = []
    for seed in pieces(seeds):
        if config.kind == "conv":
            x, side, inputs = None, 28, 1
        else:
            (images, _), _, _, _ = task_data("mnist")
            rng = np.random.default_rng(seed)
            x, side = images[rng.integers(len(images), size=config.draws)], 0
            inputs = x.shape[1]
        out = simulate(_stack(config, inputs, 1), config.draws, seed=seed, x=x, backward=False, side=side)
        ratio = out.forward[:, -1] / out.input
        results.append(
            [
                {
                    "mean": float(ratio.mean()),
                    "error": float(ratio.std(ddof=1) / np.sqrt(len(ratio))),
                    "median": float(np.median(ratio)),
                    "dead": int((ratio == 0).sum()),
                }
            ]
        )
    return results


def start(config: Net, seeds: Sequence[int]) -> list[list[Row]]:
    """Epochs until 20 % test accuracy, at a resolution of a quarter epoch; null where it was not reached."""
    data, test, outputs, _ = task_data("mnist", config.samples)
    batch = 1024
    per_epoch = max(len(data[0]) // batch, 1)
    every = max(1, per_epoch // 4)
    training = Training(
        steps=config.epochs * per_epoch,
        batch=batch,
        schedule=Schedule(0.01),
        report_every=every,
        until=0.2,
    )
    held = test[0][:2000], test[1][:2000]
    results, _ = train(_stack(config, data[0].shape[1], outputs), training, data, [Member(s) for s in seeds], test=held)
    return [
        [
            {
                "epochs_to_start": r.started_at / per_epoch if r.started_at is not None else None,
                "accuracy": _accuracy(r),
                "overflow_step": r.divergence.step if r.divergence else None,
            }
        ]
        for r in results
    ]


def needed(net: Net, figure: str) -> bool:
    """Whether a figure shows a network; a row of the store has the same fields."""
    square = net.kind == "plain" and net.shape == "constant" and net.depth == net.width
    return {
        "1a": net.kind == "plain",
        "1b": square and net.depth < 100,
        "2a": net.kind == "residual",
        "2b": net.kind == "residual",
        "3a": net.kind == "plain" and net.scheme == "he" and (net.shape != "constant" or net.width in (15, 20)),
        "4": net.kind == "conv",
        "claim": square and net.scheme == "he" and net.depth in (10, 100),
    }["3a" if figure == "3b" else figure]


def _accuracy(result: Result) -> float | None:
    """Test accuracy where a network started, or at its end; how long others of its ensemble ran has no part in it."""
    rows = [row for row in result.rows if result.started_at is None or row["step"] <= result.started_at]
    return rows[-1]["test_accuracy"] if rows else None


def _group(config: Net) -> int:
    """Networks that are trained as one: small ones, for which calls cost more than products do."""
    return max(1, 60 // max(widths(config)))


# A truncated normal whose parent has He's sd: the cut takes 22.6 % of the variance.
_CUT = f"lecun(gain={math.sqrt(2.0 * truncated_normal_variance()):.9f}, distribution='truncated')"
LAWS = {
    "He normal": "he",
    "He uniform": "he-uniform",
    "truncated He": _CUT,
    "LeCun or Glorot size": "lecun",
    "twice He": "lecun(gain=2.0)",
}


def _figure_1a(depths: Sequence[int], draws: int) -> Grid:
    return [(Net(d, d, scheme=scheme, draws=draws), (0,)) for scheme in LAWS.values() for d in depths]


def _figure_2a(modules: Sequence[int], draws: int) -> Grid:
    return [(Net(m, 5, kind="residual", base=b, draws=draws), (0,)) for b in (1.0, 0.9, 0.75, 0.5) for m in modules]


def _figure_4(depths: Sequence[int], draws: int) -> Grid:
    return [
        (Net(d, max(1, d // 10), kind="conv", scheme=s, draws=draws), (0,))
        for s in (LAWS["He normal"], _CUT, LAWS["LeCun or Glorot size"], LAWS["twice He"])
        for d in depths
    ]


def _figure_1b(depths: Sequence[int], base: Net, seeds: int) -> Grid:
    return [
        (replace(base, depth=d, width=d, scheme=scheme), tuple(range(seeds)))
        for scheme in LAWS.values()
        for d in depths
    ]


def _figure_2b(modules: Sequence[int], base: Net, seeds: int) -> Grid:
    return [
        (replace(base, depth=m, width=5, kind="residual", base=b), tuple(range(seeds)))
        for b in (1.0, 0.9, 0.75, 0.5)
        for m in modules
    ]


def _figure_3(depths: Sequence[int], base: Net, seeds: int) -> Grid:
    shapes: tuple[Shape, ...] = ("alternating", "wide first", "narrow first")
    return [
        *((replace(base, depth=d, shape=s, width=20), tuple(range(seeds))) for s in shapes for d in depths),
        *((replace(base, depth=d, width=n), tuple(range(seeds))) for n in (15, 20) for d in depths),
    ]


def _claim(base: Net, seeds: int) -> Grid:
    return [
        (replace(base, depth=100, width=100), tuple(range(seeds))),
        (replace(base, depth=10, width=10), tuple(range(seeds))),
    ]


_SHORT = Net(epochs=8, samples=20_000)
_LONG = Net(
    epochs=12
)  # the paper: 100; by then nearly all that starts has started, and the rest costs most of the work

PARTS = (
    Part(
        "hanin-2018/lengths",
        Net,
        lengths,
        quick=lambda: [
            *_figure_1a((5, 10, 20, 40), 300),
            *_figure_2a((5, 10, 20, 40), 300),
            *_figure_4((10, 20, 40), 40),
        ],
        full=lambda: [
            *_figure_1a((5, 10, 20, 30, 40, 50, 70, 100), 1000),
            *_figure_2a((5, 10, 20, 30, 40, 50, 75, 100), 1000),
            *_figure_4((10, 20, 30, 40, 50), 300),
        ],
        check=check,
        least={"depth": 1, "width": 1, "base": 0, "draws": 2, "epochs": 1, "samples": 0},
        needed=needed,
    ),
    Part(
        "hanin-2018/start",
        Net,
        start,
        quick=lambda: [
            *_figure_1b((5, 20, 40), _SHORT, 3),
            *_figure_2b((5, 20, 40), _SHORT, 5),
            *_figure_3((10, 20, 40), _SHORT, 4),
            *_claim(Net(), 8),  # the first of the full form's: they end when they have started
        ],
        full=lambda: [
            *_figure_1b((5, 10, 20, 30, 40), _LONG, 5),
            *_figure_2b((5, 10, 20, 30, 40, 50), _LONG, 20),
            *_figure_3((10, 20, 30, 40), _LONG, 8),
            *_claim(Net(), 40),
        ],
        version=2,  # the accuracy is that at the start, not at the end of the ensemble
        group=_group,
        check=check,
        least={"depth": 1, "width": 1, "base": 0, "draws": 2, "epochs": 1, "samples": 0},
        needed=needed,
    ),
)
