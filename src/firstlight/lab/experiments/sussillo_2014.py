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

from firstlight.lab.draws import Member
from firstlight.lab.experiment import Grid, Part, Row
from firstlight.lab.experiments._tasks import checkpoint_file, task_data
from firstlight.lab.models import StackConfig
from firstlight.lab.optimizer import Method
from firstlight.lab.progress import pieces
from firstlight.lab.schedules import Reading, Schedule, Shape
from firstlight.lab.simulate import simulate
from firstlight.lab.trainer import Training, train


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


LONG = 5000  # steps from which a run keeps a checkpoint to resume from
SAMPLES = 8  # single walks that are kept


def _log_walks(config: Walk, seed: int) -> np.ndarray:
    """ln(|δ_l|²/|δ_D|²) of each network (draws, depth); -inf where a layer is dead."""
    stack = StackConfig(config.width, 1, config.depth, config.width, activation=config.activation, scheme=config.scheme)
    back = simulate(stack, config.draws, seed=seed, gain=config.gain).backward
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


@dataclass(frozen=True)
class Learning:
    """Training of one deep stack, each seed once per rate.

    Attributes:
        task: "mnist", "speech" (spoken digits) or "timit" (the user's own copy), each also with "-autoencoder".
        depth: Hidden layers.
        width: Units of each; 0 where `parameters` says.
        parameters: Budget of all weights and biases; 0 where `width` says.
        activation: φ.
        scheme: Law of the weights.
        gain: g in place of the scheme's own, or None.
        readout_gain: The same of the readout.
        rates: Learning rates, all tried.
        shape: Of the schedule.
        warmup: Steps of linear warm-up.
        lambda_in: First relative rate of the paper.
        lambda_out: Last relative rate of the paper.
        reading: Over layers, over steps, or of the first layer and the readout alone.
        method: "sgd" or "adam".
        momentum: Of SGD.
        batch: Samples of a step.
        steps: Optimizer steps.
        samples: Training samples; 0 for all.
        reports: Rows of the history.
        count_mistakes: Whether rows hold the mistakes on the whole training set.
    """

    task: str = "mnist"
    depth: int = 16
    width: int = 0
    parameters: int = 0
    activation: str = "relu"
    scheme: str = "random-walk"
    gain: float | None = None
    readout_gain: float | None = None
    rates: tuple[float, ...] = (0.01,)
    shape: Shape = "constant"
    warmup: int = 0
    lambda_in: float = 1.0
    lambda_out: float = 1.0
    reading: Reading = "layers"
    method: Method = "sgd"
    momentum: float = 0.0
    batch: int = 100
    steps: int = 600
    samples: int = 0
    reports: int = 4
    count_mistakes: bool = False


def learning(config: Learning, seeds: Sequence[int]) -> list[list[Row]]:
    """Histories; every row with its rate, and where it overflowed if it did."""
    data, test, outputs, loss = task_data(config.task, config.samples)
    stack = StackConfig(
        data[0].shape[1],
        outputs,
        config.depth,
        config.width or None,
        config.parameters or None,
        config.activation,
        config.scheme,
        config.gain,
        readout_gain=config.readout_gain,
    )
    if config.scheme == "looks-linear" and stack.hidden[0] % 2:
        # mirrored blocks need an even width; an odd one would silently be drawn plainly orthogonal
        stack = replace(stack, width=stack.hidden[0] - 1, parameters=None)
    training = Training(
        steps=config.steps,
        batch=config.batch,
        schedule=Schedule(
            config.rates[0], config.shape, config.warmup, config.lambda_in, config.lambda_out, config.reading
        ),
        method=config.method,
        momentum=config.momentum,
        loss=loss,
        report_every=max(1, config.steps // config.reports),
        count_mistakes=config.count_mistakes,
    )
    members = [Member(seed, rate=rate) for seed in seeds for rate in config.rates]
    kept = checkpoint_file(PARTS[2], config, seeds) if config.steps >= LONG else None
    results, _ = train(stack, training, data, members, test=test, save_to=kept)
    if kept is not None:
        kept.unlink(missing_ok=True)
    rows: list[list[Row]] = []
    for at in range(0, len(members), len(config.rates)):
        mine: list[Row] = []
        for result in results[at : at + len(config.rates)]:
            where = result.divergence
            fate = {
                "rate": result.member.rate,
                "hidden": stack.hidden[0],
                "overflow_step": where.step if where else None,
                "overflow_layer": where.layer if where else None,
            }
            mine += [fate | row for row in result.rows] or [fate]
        rows.append(mine)
    return rows


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


def _depth_full() -> Grid:
    return [
        (
            Learning(task, d, parameters=4_000_000, scheme=s, rates=RATES, steps=6000, count_mistakes=True),
            (0,),
        )
        for task in ("mnist", "mnist-autoencoder", "speech", "speech-autoencoder")
        for s in ("random-walk", "looks-linear")
        for d in (4, 8, 16, 32, 64, 128, 256, 512, 1000)
    ]


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
    Part("sussillo-2014/walks", Walk, walks, quick=_walks_quick, full=_walks_full),
    Part(
        "sussillo-2014/moments",
        Walk,
        moments,
        quick=lambda: _moments(500, (10, 30, 100), (20, 50, 100)) + _gains(300),
        full=lambda: _moments(4000, (10, 30, 100, 300), (10, 20, 50, 100, 200)) + _gains(2000),
        needed=lambda config, figure: (config.gain is None) == (figure == "moments"),
    ),
    Part("sussillo-2014/depth", Learning, learning, quick=_depth_quick, full=_depth_full),
    Part(
        "sussillo-2014/rates",
        Learning,
        learning,
        quick=lambda: _rates(30, 300, 1),
        full=lambda: _rates(100, 3000, 3),
    ),
    Part("sussillo-2014/thousand", Learning, learning, quick=_thousand_quick, full=_thousand_full),
)
