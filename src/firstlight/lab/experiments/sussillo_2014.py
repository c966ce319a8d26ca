"""Random walk initialization of very deep networks (Sussillo & Abbott, 1412.6558).

- walks: ln|δ|² of single networks over depth, with mean and spread of many.
- moments: mean and variance of the whole walk against depth, width, gain and activation.
- depth: training error against depth at equal parameters; MNIST and speech, classification and autoencoding.
- rates: the gain and the two readings of (λ_in, λ_out) at one depth.
- thousand: 1000 and 10,000 layers on MNIST under several schemes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from firstlight.lab.draws import check_stack
from firstlight.lab.experiment import Grid, Part, Row
from firstlight.lab.experiments._learning import LEAST, Learning, check_learning, learning
from firstlight.lab.models import StackConfig
from firstlight.lab.progress import pieces
from firstlight.lab.simulate import simulate


@dataclass(frozen=True)
class Walk:
    """Gradients through random networks.

    Attributes:
        activation: φ.
        depth: Hidden layers.
        width: Units of each, and inputs.
        scheme: Law of the weights.
        gain: g in place of the scheme's own, or None.
        draws: Networks.
    """

    activation: str = "relu"
    depth: int = 100
    width: int = 100
    scheme: str = "random-walk"
    gain: float | None = None
    draws: int = 1000


_LEAST = {"depth": 1, "width": 1, "gain": 0, "draws": 2}
SAMPLES = 8  # single walks that are kept


def _walk_stack(config: Walk) -> StackConfig:
    return StackConfig(config.width, 1, config.depth, config.width, activation=config.activation, scheme=config.scheme)


def _check_walk(config: Walk) -> None:
    check_stack(_walk_stack(config))


def _log_walks(config: Walk, seed: int) -> np.ndarray:
    """ln(|δ_l|²/|δ_D|²) of each network (draws, depth); -inf where a layer is dead."""
    back = simulate(_walk_stack(config), config.draws, seed=seed, gain=config.gain).backward
    with np.errstate(divide="ignore"):
        return np.log(back / back[:, -1:])


def walks(config: Walk, seeds: Sequence[int]) -> list[list[Row]]:
    """Per layer: mean and sd of the walk over living networks, and `SAMPLES` single ones."""
    results = []
    for seed in pieces(seeds):
        log = _log_walks(config, seed)
        alive = np.isfinite(log[:, 0])
        rows = [
            {"layer": layer + 1, "mean": float(column[alive].mean()), "sd": float(column[alive].std(ddof=1))}
            | {f"sample_{i}": float(value) for i, value in enumerate(column[alive][:SAMPLES])}
            for layer, column in enumerate(log.T)
        ]
        results.append([row | {"alive": int(alive.sum())} for row in rows])
    return results


def moments(config: Walk, seeds: Sequence[int]) -> list[list[Row]]:
    """Mean and variance of the whole walk over living networks, with the standard error of both."""
    results = []
    for seed in pieces(seeds):
        end = _log_walks(config, seed)[:, 0]
        end = end[np.isfinite(end)]
        if len(end) < 2:
            results.append([{"alive": len(end)}])
            continue
        square = (end - end.mean()) ** 2
        row = {
            "mean": float(end.mean()),
            "mean_error": float(end.std(ddof=1) / np.sqrt(len(end))),
            "variance": float(end.var(ddof=1)),
            "variance_error": float(square.std() / np.sqrt(len(end))),
            "alive": len(end),
        }
        results.append([row])
    return results


def _walks_quick() -> Grid:
    return [(Walk(scheme=s, draws=500), (0,)) for s in ("random-walk", "random-walk(law='paper')", "he")]


def _walks_full() -> Grid:
    grid = [(Walk(scheme=s, draws=4000), (0,)) for s in ("random-walk", "random-walk(law='paper')", "he")]
    return [*grid, (Walk("linear", 200, 100, "random-walk", None, 4000), (0,))]


def _moments(draws: int, depths: Sequence[int], widths: Sequence[int]) -> Grid:
    return [
        (Walk(act, depth, width, "random-walk", None, draws), (0,))
        for act in ("linear", "relu")
        for depth in depths
        for width in widths
    ]


# g against the drift: depths and widths at which theory has a curve
_GAINS: dict[str, tuple[float, ...]] = {
    "linear": (0.98, 0.99, 1.0, 1.005, 1.01, 1.02, 1.03),
    "relu": (1.38, 1.4, 1.414, 1.43, 1.445, 1.46, 1.48),
    "tanh": (1.0, 1.05, 1.1, 1.135, 1.2, 1.3, 1.4),
    "gelu": (1.35, 1.4, 1.45, 1.5, 1.55, 1.6),
}


def _gains(draws: int) -> Grid:
    return [(Walk(act, 100, 100, "lecun", gain, draws), (0,)) for act, gains in _GAINS.items() for gain in gains]


RATES = (0.001, 0.003, 0.01, 0.03, 0.1)


def _depth_quick() -> Grid:
    schemes = ("torch-default", "he", "random-walk", "looks-linear")
    grid = [
        (Learning(depth=d, parameters=100_000, scheme=s, rates=RATES[::2], steps=600), (0,))
        for s in schemes
        for d in (4, 16, 64, 256)
    ]
    return grid + [
        (Learning("speech", d, parameters=100_000, scheme=s, rates=RATES[::2], steps=600), (0,))
        for s in ("random-walk", "looks-linear")
        for d in (4, 64)
    ]


AUTOENCODER_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # its loss is a mean over some hundred outputs


def _depth_full() -> Grid:
    """A quarter of a million parameters at every depth, every task; of MNIST three seeds and two more starts."""
    base = Learning(parameters=250_000, rates=RATES, pilot=100, shape="cosine", steps=1200)
    starts = {"random-walk": (4, 16, 64, 256, 1000), "looks-linear": (4, 16, 64, 256, 1000)}
    more = {"he": (4, 16, 64, 256), "torch-default": (4, 16)}
    grid: Grid = [
        (replace(base, scheme=s, depth=d), (0, 1, 2)) for s, depths in (starts | more).items() for d in depths
    ]
    for task in ("mnist-autoencoder", "speech", "speech-autoencoder"):
        rates = AUTOENCODER_RATES if task.endswith("autoencoder") else RATES
        other = replace(base, task=task, rates=rates)
        grid += [(replace(other, scheme=s, depth=d), (0,)) for s, depths in starts.items() for d in depths]
    return grid


def _rates(depth: int, steps: int, seeds: int) -> Grid:
    base = Learning(depth=depth, width=64, steps=steps, rates=RATES[1:4])
    gains = [(replace(base, scheme="lecun", gain=g), tuple(range(seeds))) for g in (1.36, 1.414, 1.443, 1.48, 1.52)]
    ends = (0.1, 1.0, 10.0)
    lambdas = [
        (replace(base, lambda_in=a, lambda_out=b, reading=reading), tuple(range(seeds)))
        for reading in ("layers", "steps")
        for a in ends
        for b in ends
    ]
    return gains + lambdas


# Adam with 1e-5 at the thousand layers and 1e-3 at the two ends
_THOUSAND = Learning(
    depth=1000,
    width=32,
    scheme="looks-linear",
    method="adam",
    rates=(1e-5,),
    lambda_in=100.0,
    lambda_out=100.0,
    reading="ends",
    shape="cosine",
    warmup=100,
)


def _schemes(base: Learning) -> Grid:
    """One network from each start, all else equal."""
    starts = (
        {"scheme": "looks-linear"},
        # a gain just above 1 keeps small signals, which the readout's gain makes large again
        {"scheme": "orthogonal", "activation": "tanh", "gain": 1.025, "readout_gain": 6.0},
        {"scheme": "orthogonal"},
        {"scheme": "random-walk"},
        {"scheme": "he"},
        {"scheme": "torch-default"},
    )
    return [(replace(base, **start), (0,)) for start in starts]


def _thousand_quick() -> Grid:
    base = replace(_THOUSAND, steps=300)
    return [(base, (0,)), (replace(base, scheme="random-walk"), (0,))]


def _thousand_full() -> Grid:
    sgd = Learning(depth=1000, width=64, scheme="looks-linear", rates=(2e-3,), shape="cosine", warmup=200)
    long = replace(_THOUSAND, width=64, lambda_in=150.0, lambda_out=150.0, warmup=200, count_mistakes=True)
    deep = replace(_THOUSAND, depth=10_000, rates=(1e-6,), lambda_in=1000.0, lambda_out=1000.0, steps=200, reports=4)
    return [
        (replace(long, steps=15_600, reports=8), (0,)),
        (replace(long, steps=30_000, reports=10), (0,)),
        (replace(sgd, steps=18_000, reports=30, count_mistakes=True), (0,)),
        *_schemes(replace(_THOUSAND, steps=600, reports=6)),
        (deep, (0,)),
        (replace(deep, scheme="orthogonal", activation="tanh", gain=1.003, readout_gain=18.0), (0,)),
        (replace(deep, scheme="random-walk"), (0,)),
    ]


PARTS = (
    Part("sussillo-2014/walks", Walk, walks, quick=_walks_quick, full=_walks_full, check=_check_walk, least=_LEAST),
    Part(
        "sussillo-2014/moments",
        Walk,
        moments,
        quick=lambda: _moments(500, (10, 30, 100), (20, 50, 100)) + _gains(300),
        full=lambda: _moments(4000, (10, 30, 100, 300), (10, 20, 50, 100, 200)) + _gains(2000),
        check=_check_walk,
        least=_LEAST,
        needed=lambda config, figure: (config.gain is None) == (figure == "moments"),
    ),
    Part(
        "sussillo-2014/depth",
        Learning,
        learning,
        quick=_depth_quick,
        full=_depth_full,
        check=check_learning,
        least=LEAST,
        group=lambda config: 1 if config.pilot else 3,  # deep runs are long; each is kept when it ends
    ),
    Part(
        "sussillo-2014/rates",
        Learning,
        learning,
        quick=lambda: _rates(30, 300, 1),
        full=lambda: _rates(100, 600, 3),
        check=check_learning,
        least=LEAST,
    ),
    Part(
        "sussillo-2014/thousand",
        Learning,
        learning,
        quick=_thousand_quick,
        full=_thousand_full,
        check=check_learning,
        least=LEAST,
    ),
)
