"""Updates of a stack's weights, chunk by chunk in the middle of the backward pass: SGD with momentum, and Adam.

On a CPU, where all members have one rate, an update is torch's fused kernel: weights, moments and gradient are
read once, while the gradient is still in the cache. Members with rates of their own, and captured CUDA graphs
(whose rates must be tensors), take the same formulas written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from firstlight.lab.networks import Network
from firstlight.lab.schedules import Schedule, layer_factors

Method = Literal["sgd", "adam"]
BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Optimizer:
    """Updates of a stack's runs, with rates per member and layer.

    SGD: v ← μv + g, w ← w - λv. Adam: m ← β₁m + (1-β₁)g, s ← β₂s + (1-β₂)g²,
    w ← w - λ (m / (1-β₁ᵗ)) / (√(s / (1-β₂ᵗ)) + ε). Both as in torch.

    Args:
        stack: Whose weights are updated.
        schedule: Of which the factors of the layers are taken; those of the steps come by `begin`.
        rates: Base rate of each member.
        method: "sgd" or "adam".
        momentum: μ of SGD.

    Attributes:
        moments: Running averages in the layout of the weights: v, or all m and then all s.
    """

    def __init__(
        self, stack: Network, schedule: Schedule, rates: Sequence[float], method: Method = "sgd", momentum: float = 0.0
    ) -> None:
        self.stack, self.method, self.momentum = stack, method, momentum
        factors = layer_factors(schedule, stack.config.depth + 1)
        base = torch.tensor(rates, dtype=torch.float64).view(1, -1, 1, 1)
        self._rates = [
            (torch.tensor(factors[a:b], dtype=torch.float64).view(-1, 1, 1, 1) * base).to(stack.device, stack.dtype)
            for a, b in stack.runs
        ]
        # one number per run where one is enough, else None
        one = len({*rates}) == 1 and stack.device.type == "cpu"
        self._scalars = [rates[0] * factors[a] if one and len({*factors[a:b]}) == 1 else None for a, b in stack.runs]
        copies = 2 if method == "adam" else int(momentum > 0)
        self.moments = [torch.zeros_like(w) for _ in range(copies) for w in stack.weights]
        # what changes with the step lives on the device, so that a captured graph can read it
        self.factor = torch.ones((), device=stack.device, dtype=stack.dtype)
        self._epsilon = torch.full((), EPSILON, device=stack.device, dtype=stack.dtype)
        self._number, self._step = 1.0, torch.ones(())

    def begin(self, step: int, factor: float) -> None:
        """Set the number of the step (from 0) and the schedule's factor."""
        self._number = factor
        self._step.fill_(step + 1)
        self._fill()

    def _fill(self) -> None:
        if None not in self._scalars:
            return
        if self.method == "adam":
            # λ (m/c₁) / (√(s/c₂) + ε) = (λ √c₂/c₁) m / (√s + ε√c₂)
            first, second = (1.0 - beta ** float(self._step) for beta in BETAS)
            self.factor.fill_(self._number * math.sqrt(second) / first)
            self._epsilon.fill_(EPSILON * math.sqrt(second))
        else:
            self.factor.fill_(self._number)

    def silence(self, member: int) -> None:
        """Zero a member's weights and stop updating them, so that its overflow touches no other."""
        self._scalars = [None] * len(self._scalars)
        self._fill()
        for tensors in (self.stack.weights, self.moments):
            for tensor in tensors:
                tensor[:, member] = 0.0
        for rate in self._rates:
            rate[:, member] = 0.0

    def apply(self, run: int, start: int, stop: int, gradient: Tensor) -> None:
        """Update the weights of one chunk; the gradient's buffer is overwritten."""
        weights = self.stack.weights[run][start:stop]
        moments = [m[start:stop] for m in self.moments[run :: len(self.stack.weights)]]
        rate = self._scalars[run]
        if rate is not None:
            self._fused(weights, gradient, moments, rate * self._number)
            return
        if self.method == "adam":
            first, second = moments
            first.lerp_(gradient, 1.0 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
            torch.div(first, torch.sqrt(second).add_(self._epsilon), out=gradient)
        elif moments:
            gradient = moments[0].mul_(self.momentum).add_(gradient)
        weights.addcmul_(gradient, self._rates[run][start:stop] * self.factor, value=-1.0)

    def _fused(self, weights: Tensor, gradient: Tensor, moments: Sequence[Tensor], rate: float) -> None:
        if self.method == "adam":
            torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage]
                [weights],
                [gradient],
                [moments[0]],
                [moments[1]],
                [],
                [self._step],
                lr=rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=0.0,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )
        elif moments:
            torch._fused_sgd_(  # pyright: ignore[reportPrivateImportUsage]
                [weights],
                [gradient],
                [moments[0]],
                weight_decay=0.0,
                momentum=self.momentum,
                lr=rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=False,
            )
        else:
            weights.sub_(gradient, alpha=rate)
