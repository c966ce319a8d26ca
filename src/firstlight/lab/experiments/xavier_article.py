"""The article "Initializing neural networks" (Katanforoosh & Kunin, deeplearning.ai): its demos, and its derivation.

- plane: the 2-6-3-1 network on the four planar sets, weights N(0, 1)·√(v/fan_in), rate 0.1, full batch.
- layers: the variance derivation of Xavier initialization, checked layer by layer.
- chain: nine layers of 1.5·I and 0.5·I: exact explosion and vanishing of activations and gradients.
- mnist: 784-300×4-10 tanh with SGD at 0.1, batch 100: zero, uniform ±1/√n, Xavier, standard normal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from firstlight.lab.data import load
from firstlight.lab.draws import Member, check_stack
from firstlight.lab.experiment import Grid, Part, Row
from firstlight.lab.experiments._tasks import task_data
from firstlight.lab.models import StackConfig
from firstlight.lab.modules import module
from firstlight.lab.progress import pieces
from firstlight.lab.schedules import Schedule
from firstlight.lab.simulate import simulate
from firstlight.lab.trainer import Training, train

SETS = ("circle", "moon", "square", "gaussian")
EPOCHS = (0, 10, 100, 1000)


@dataclass(frozen=True)
class Plane:
    """The article's demo.

    Attributes:
        data: "circle", "moon", "square" or "gaussian".
        factor: v of the weights N(0, 1)·√(v/fan_in); 0 is the zero initialization.
        points: Training points; the formula of the moon speaks of 50 a class. Which readings of the set-up give the
            published medians is measured by `python -m benchmarks article`.
        rate: Learning rate.
        activation: Of the hidden layers.
    """

    data: str = "circle"
    factor: float = 1.0
    points: int = 100
    rate: float = 0.1
    activation: str = "relu"


def _plane_stack(config: Plane) -> StackConfig:
    scheme = f"lecun(gain={math.sqrt(config.factor)!r})"
    return StackConfig(2, 1, 2, (6, 3), activation=config.activation, scheme=scheme)


def plane(config: Plane, seeds: Sequence[int]) -> list[list[Row]]:
    """Cost and accuracy after 0, 10, 100 and 1000 epochs, and dead hidden units at the end.

    Every seed draws its own points and weights. A unit counts as dead if it is 0 on all points.
    """
    results, stack = [], _plane_stack(config)
    training = Training(steps=EPOCHS[-1] + 1, batch=None, schedule=Schedule(config.rate), loss="binary", report_every=1)
    for seed in pieces(seeds):
        points, _ = load(config.data, n=config.points, seed=seed)
        (result,), trained = train(stack, training, (points.flat(), points.y), [Member(seed)])
        dead = sum(int((signal[0] == 0).all(1).sum()) for signal in trained.signals)
        # the loss of a step is that before its update: row e holds the cost after e epochs
        history = result.rows
        results.append(
            [
                {
                    "epoch": e,
                    "cost": history[e]["loss"] if e < len(history) else None,
                    "accuracy": history[e]["accuracy"] if e < len(history) else None,
                    "dead_units": dead if e == EPOCHS[-1] else None,
                }
                for e in EPOCHS
            ]
        )
    return results


@dataclass(frozen=True)
class Layers:
    """The derivation's network.

    Attributes:
        scheme: Law of the weights.
        activation: φ.
        depth: Hidden layers.
        width: Units of each, and inputs.
        draws: Networks.
    """

    scheme: str = "xavier"
    activation: str = "linear"
    depth: int = 10
    width: int = 300
    draws: int = 400


def _layers_stack(config: Layers) -> StackConfig:
    return StackConfig(config.width, 1, config.depth, config.width, activation=config.activation, scheme=config.scheme)


def layers(config: Layers, seeds: Sequence[int]) -> list[list[Row]]:
    """Mean square of activations and of gradients in each layer, with standard errors over networks."""
    results = []
    for seed in pieces(seeds):
        out = simulate(_layers_stack(config), config.draws, seed=seed)
        root = math.sqrt(config.draws)
        results.append(
            [
                {
                    "layer": layer + 1,
                    "forward": float((out.forward[:, layer] / out.input).mean()),
                    "forward_error": float((out.forward[:, layer] / out.input).std(ddof=1) / root),
                    "backward": float(out.backward[:, layer].mean()),
                    "backward_error": float(out.backward[:, layer].std(ddof=1) / root),
                }
                for layer in range(config.depth)
            ]
        )
    return results


@dataclass(frozen=True)
class Chain:
    """Layers that are all c·I.

    Attributes:
        factor: c.
        depth: Layers.
    """

    factor: float = 1.5
    depth: int = 9


def chain(config: Chain, seeds: Sequence[int]) -> list[list[Row]]:
    """Length of the activation and of the gradient after each layer of a linear stack of c·I, from autograd."""
    results = []
    for seed in pieces(seeds):
        net = module(StackConfig(2, 2, config.depth, 2, activation="linear", bias=False), Member(seed))
        with torch.no_grad():
            for layer in net.layers:
                layer.weight.copy_(config.factor * torch.eye(2))  # type: ignore[operator]
        h = torch.ones(1, 2, requires_grad=True)
        kept = [h]
        for layer in net.layers[: config.depth]:
            kept.append(layer(kept[-1]))
            kept[-1].retain_grad()
        kept[-1].sum().backward()
        results.append(
            [
                {"layer": at, "activation": float(t.detach().norm()), "gradient": float(t.grad.norm())}
                for at, t in enumerate(kept)
                if t.grad is not None
            ]
        )
    return results


@dataclass(frozen=True)
class Mnist:
    """The article's MNIST demo: four hidden tanh layers of 300 units.

    Attributes:
        scheme: Law of the weights.
        epochs: Passes over the training samples.
        samples: Training samples; 0 for all.
    """

    scheme: str = "xavier"
    epochs: int = 5
    samples: int = 0


def _mnist_stack(config: Mnist, inputs: int, classes: int) -> StackConfig:
    return StackConfig(inputs, classes, 4, 300, activation="tanh", scheme=config.scheme)


def mnist(config: Mnist, seeds: Sequence[int]) -> list[list[Row]]:
    """Loss and test accuracy ten times an epoch."""
    data, test, classes, _ = task_data("mnist", config.samples)
    stack = _mnist_stack(config, data[0].shape[1], classes)
    per_epoch = max(1, len(data[0]) // 100)
    training = Training(
        steps=config.epochs * per_epoch, batch=100, schedule=Schedule(0.1), report_every=max(1, per_epoch // 10)
    )
    results, _ = train(stack, training, data, [Member(s) for s in seeds], test=(test[0][:2000], test[1][:2000]))
    return [[{"overflow_step": r.divergence.step if r.divergence else None} | row for row in r.rows] for r in results]


def _check_plane(config: Plane) -> None:
    load(config.data, n=config.points, seed=0)
    check_stack(_plane_stack(config))


def _check_layers(config: Layers) -> None:
    check_stack(_layers_stack(config))


def _check_mnist(config: Mnist) -> None:
    data, _, classes, _ = task_data("mnist", config.samples)
    check_stack(_mnist_stack(config, data[0].shape[1], classes))


FACTORS = (0.0, 0.01, 1.0, 100.0)
# zero, uniform ±1/√n (variance 1/(3n)), Xavier, standard normal
MNIST_SCHEMES = {
    "zero": "zeros",
    "uniform ±1/√n": f"lecun(gain={1.0 / math.sqrt(3.0)!r}, distribution='uniform')",
    "Xavier": "xavier",
    "standard normal": "normal(1.0)",
}


def _plane(seeds: int) -> Grid:
    return [(Plane(data, v), tuple(range(seeds))) for data in SETS for v in FACTORS]


def _layers(draws: int) -> Grid:
    laws = (("xavier", "linear"), ("xavier", "tanh"), ("xavier", "relu"), ("he", "relu"))
    return [(Layers(scheme, act, draws=draws), (0,)) for scheme, act in laws]


def _chain() -> Grid:
    return [(Chain(factor), (0,)) for factor in (0.5, 1.0, 1.5)]


def _mnist(epochs: int, samples: int, seeds: int) -> Grid:
    return [(Mnist(scheme, epochs, samples), tuple(range(seeds))) for scheme in MNIST_SCHEMES.values()]


PARTS = (
    Part(
        "xavier-article/plane",
        Plane,
        plane,
        quick=lambda: _plane(25),
        full=lambda: _plane(100),
        check=_check_plane,
        least={"factor": 0, "points": 2, "rate": 0},
    ),
    Part(
        "xavier-article/layers",
        Layers,
        layers,
        quick=lambda: _layers(200),
        full=lambda: _layers(2000),
        check=_check_layers,
        least={"depth": 1, "width": 1, "draws": 2},
    ),
    Part("xavier-article/chain", Chain, chain, quick=_chain, full=_chain, least={"depth": 1}),
    Part(
        "xavier-article/mnist",
        Mnist,
        mnist,
        quick=lambda: _mnist(2, 10_000, 1),
        full=lambda: _mnist(5, 0, 5),
        check=_check_mnist,
        least={"epochs": 1, "samples": 0},
    ),
)
