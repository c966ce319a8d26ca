"""Losses over an ensemble: value and hits per member, and the cotangent that the backward pass starts from.

Axes: E members, C outputs, B samples. All three are means over samples, so that their gradients equal
torch's with `reduction="mean"`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Literal["cross-entropy", "mse", "binary"]
LossFn = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def cross_entropy(logits_ECB: Tensor, y_B: Tensor, cotangent_ECB: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax cross-entropy -mean_b ln p_b[y_b]; ∂/∂logits = (p - onehot)/B.

    Returns:
        Loss (E,) and number of samples (E,) whose largest logit is the label's.
    """
    E, _, B = logits_ECB.shape
    torch.log_softmax(logits_ECB, 1, out=cotangent_ECB)
    index = y_B.view(1, 1, B).expand(E, 1, B)
    loss = -cotangent_ECB.gather(1, index).mean((1, 2))
    cotangent_ECB.exp_().mul_(1.0 / B)
    cotangent_ECB.scatter_add_(1, index, cotangent_ECB.new_full((), -1.0 / B).expand(E, 1, B))
    return loss, (logits_ECB.argmax(1) == y_B).sum(1)


def mse(output_ECB: Tensor, target_CB: Tensor, cotangent_ECB: Tensor) -> tuple[Tensor, Tensor]:
    """Mean square over entries and samples; ∂/∂output = 2(output - target)/(C·B). Nothing counts as a hit."""
    E, C, B = output_ECB.shape
    torch.sub(output_ECB, target_CB, out=cotangent_ECB)
    loss = cotangent_ECB.square().mean((1, 2))
    cotangent_ECB.mul_(2.0 / (C * B))
    return loss, torch.zeros(E, dtype=torch.long, device=output_ECB.device)


def binary(logit_E1B: Tensor, y_B: Tensor, cotangent_E1B: Tensor) -> tuple[Tensor, Tensor]:
    """Sigmoid cross-entropy of one logit per sample; ∂/∂logit = (σ(logit) - y)/B."""
    E, _, B = logit_E1B.shape
    y = y_B.to(logit_E1B.dtype).view(1, 1, B).expand(E, 1, B)
    loss = F.binary_cross_entropy_with_logits(logit_E1B, y, reduction="none").mean((1, 2))
    torch.sigmoid(logit_E1B, out=cotangent_E1B)
    cotangent_E1B.sub_(y).mul_(1.0 / B)
    return loss, ((logit_E1B[:, 0] > 0) == (y[:, 0] > 0.5)).sum(1)


LOSSES: dict[str, LossFn] = {"cross-entropy": cross_entropy, "mse": mse, "binary": binary}
