"""Dynamical isometry (Pennington et al., 1711.04735): the spectrum of the input-output Jacobian at the start.

- spectra: squared singular values of J = D_L W_L … D_1 W_1 for Gaussian and orthogonal weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from firstlight.lab.draws import check_stack, draw, layer_draw
from firstlight.lab.experiment import Grid, Part, Row
from firstlight.lab.kernels import kernel
from firstlight.lab.models import StackConfig
from firstlight.lab.progress import pieces


@dataclass(frozen=True)
class Spectra:
    """Jacobians of one kind of network.

    Attributes:
        scheme: Law of the weights.
        activation: φ.
        gain: g, or None for the scheme's own.
        depth: Layers.
        width: Units of each, and inputs.
        draws: Networks.
    """

    scheme: str = "orthogonal"
    activation: str = "tanh"
    gain: float | None = None
    depth: int = 20
    width: int = 200
    draws: int = 4


def _stack(config: Spectra) -> StackConfig:
    return StackConfig(
        config.width, 1, config.depth, config.width, activation=config.activation, scheme=config.scheme, bias=False
    )


def check(config: Spectra) -> None:
    """Raise what keeps a run from being started."""
    check_stack(_stack(config))


def spectra(config: Spectra, seeds: Sequence[int]) -> list[list[Row]]:
    """Hundred quantiles of the squared singular values over the mean, their mean and relative variance."""
    stack = _stack(config)
    f = kernel(config.activation)
    results = []
    for seed in pieces(seeds):
        values = []
        for number in range(config.draws):
            generator = torch.Generator().manual_seed(seed * 1000 + number)
            # inputs at the length at which the scheme keeps it; small for the near-linear critical networks
            h = torch.randn(config.width, dtype=torch.float64, generator=generator)
            jacobian = torch.eye(config.width, dtype=torch.float64)
            for layer in range(config.depth):
                target, law = layer_draw(stack, layer)
                w = draw(target, law, seed * 1000 + number, torch.float64)
                if config.gain is not None and law.gain:
                    w = w * (config.gain / law.gain)
                z = w @ h
                h = f.f(z)
                slope = torch.empty_like(z)
                f.derivative(h if f.saves_output else z, slope)
                jacobian = slope[:, None] * (w @ jacobian)
            values.append(torch.linalg.svdvals(jacobian).square().numpy())
        squares = np.concatenate(values)
        mean = float(squares.mean())
        quantiles = np.quantile(squares / mean, (np.arange(100) + 0.5) / 100)
        rows = [{"share": (i + 0.5) / 100, "square": float(q)} for i, q in enumerate(quantiles)]
        results.append([row | {"mean": mean, "variance": float(squares.var() / mean**2)} for row in rows])
    return results


_KINDS = (
    Spectra("lecun", "linear", 1.0),
    Spectra("orthogonal", "linear", 1.0),
    Spectra("lecun", "tanh", 1.05),
    Spectra("orthogonal", "tanh", 1.05),
    Spectra("he", "relu"),
    Spectra("orthogonal", "relu"),
    Spectra("looks-linear", "relu"),
)


def _grid(depths: Sequence[int], width: int, draws: int) -> Grid:
    return [(replace(kind, depth=d, width=width, draws=draws), (0,)) for kind in _KINDS for d in depths]


PARTS = (
    Part(
        "isometry/spectra",
        Spectra,
        spectra,
        quick=lambda: _grid((2, 8, 32), 100, 4),
        full=lambda: _grid((1, 2, 4, 8, 16, 32, 64), 400, 8),
        check=check,
        least={"gain": 0, "depth": 1, "width": 1, "draws": 1},
    ),
)
