"""Born-dead networks (Lu et al., 1903.06733): relu networks that answer every input with a constant.

- dead: share of networks with a dead layer at one input, and of those whose output is constant over many inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from firstlight.lab.draws import Member, draw_stack
from firstlight.lab.evaluate import outputs
from firstlight.lab.experiment import Grid, Part, Row
from firstlight.lab.models import StackConfig
from firstlight.lab.progress import pieces
from firstlight.lab.stack import Stack


@dataclass(frozen=True)
class Dead:
    """Networks of one shape.

    Attributes:
        depth: Hidden layers.
        width: Units of each, and inputs.
        draws: Networks.
        inputs: Standard normal inputs on which the output's constancy is judged.
    """

    depth: int = 10
    width: int = 4
    draws: int = 1000
    inputs: int = 200


def dead(config: Dead, seeds: Sequence[int]) -> list[list[Row]]:
    """Shares of dead networks, He weights and zero biases: the output is then exactly zero where a layer is dead."""
    results = []
    for seed in pieces(seeds):
        stack = Stack(
            StackConfig(config.width, 1, config.depth, config.width, scheme="he", bias=False), config.draws, 1
        )
        draw_stack(stack, [Member(seed * config.draws + number) for number in range(config.draws)])
        x = np.random.default_rng(seed).standard_normal((config.inputs, config.width), dtype=np.float32)
        silent = (outputs(stack, torch.from_numpy(x))[:, 0] == 0).double()
        results.append([{"dead_at_one": float(silent.mean()), "dead_at_all": float(silent.amin(1).mean())}])
    return results


def _grid(depths: Sequence[int], draws: int) -> Grid:
    return [(Dead(depth, width, draws), (0,)) for width in (2, 3, 4, 6, 8) for depth in depths]


PARTS = (
    Part(
        "born-dead/dead",
        Dead,
        dead,
        quick=lambda: _grid((2, 5, 10, 20, 40), 400),
        full=lambda: _grid((1, 2, 5, 10, 20, 40, 80, 160), 4000),
        least={"depth": 1, "width": 1, "draws": 1, "inputs": 1},
    ),
)
