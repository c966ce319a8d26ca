"""Loss and hits of trained stacks on whole sets, and the check that data fits a configuration."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from firstlight.errors import InputError
from firstlight.lab.conv import ConvStack
from firstlight.lab.losses import LOSSES, Loss
from firstlight.lab.models import StackConfig
from firstlight.lab.networks import Network

Data = tuple[NDArray[Any], NDArray[Any]]


def as_tensors(config: StackConfig, loss: Loss, data: Data, what: str) -> tuple[Tensor, Tensor]:
    """Samples (N, inputs) and targets as tensors.

    Raises:
        InputError: They do not fit each other, the configuration or the loss.
    """
    x, y = np.asarray(data[0]), np.asarray(data[1])
    image = config.kind == "conv"
    if x.ndim != (4 if image else 2) or x.shape[1] != config.inputs or x.size == 0:
        expected = f"(N, {config.inputs}{', H, W' if image else ''}), N ≥ 1"
        raise InputError(f"{what}, x", got=f"shape {x.shape}", expected=expected)
    if len(x) != len(y):
        raise InputError(what, got=f"{len(x)} samples and {len(y)} targets", expected="as many targets as samples")
    if not np.isfinite(x).all():
        raise InputError(f"{what}, x", got="NaN or Inf", expected="finite entries")
    if loss == "mse":
        if y.shape != (len(x), config.outputs):
            raise InputError(f"{what}, y", got=f"shape {y.shape}", expected=f"({len(x)}, {config.outputs})")
        return torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(y, dtype=x.dtype))
    classes = config.outputs if loss == "cross-entropy" else 2
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= classes:
        raise InputError(f"{what}, y", got=f"{y.dtype} of shape {y.shape}", expected=f"labels 0 … {classes - 1}")
    if loss == "binary" and config.outputs != 1:
        raise InputError("stack, outputs", got=str(config.outputs), expected="1 for the binary loss")
    return torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))


def outputs(stack: Network, x: Tensor) -> Tensor:
    """Output (E, C, B) of all members for samples (B, inputs), for conv (B, inputs, H, W); any B."""
    config, f = stack.config, stack.kernel.f
    if isinstance(stack, ConvStack):
        return torch.stack(
            [_convolved(stack, member, x.to(stack.device, stack.dtype)) for member in range(stack.members)]
        )
    h = x.T.to(stack.device, stack.dtype).expand(stack.members, -1, -1)
    for layer in range(config.depth + 1):
        w, b = stack.weight(layer), stack.bias(layer)
        z = torch.bmm(w, h) if b is None else torch.baddbmm(b.unsqueeze(-1), w, h)
        if layer == config.depth:
            h = z
        elif config.kind == "residual" and layer > 0:
            h = torch.add(h, f(z), alpha=config.etas[layer - 1])
        else:
            h = f(z)
    return h


def _convolved(stack: ConvStack, member: int, x: Tensor) -> Tensor:
    config, h = stack.config, x
    for layer, (n_in, n_out) in enumerate(pairwise(config.widths)):
        w, b = stack.weight(layer)[member], stack.bias(layer)
        b = None if b is None else b[member]
        if layer == config.depth:
            return F.linear(h.mean((2, 3)), w, b).T
        kernel = w.reshape(n_out, n_in, config.kernel, config.kernel)
        h = stack.kernel.f(F.conv2d(h, kernel, b, padding=config.kernel // 2))
    raise AssertionError("a stack ends with its readout")


def evaluate(stack: Network, x: Tensor, target: Tensor, loss: Loss, batch: int = 1000) -> tuple[Tensor, Tensor]:
    """Loss (E,) and hits (E,) of all members on a whole set."""
    total = torch.zeros(stack.members, dtype=torch.float64)
    hits = torch.zeros(stack.members, dtype=torch.long)
    for at in range(0, len(x), batch):
        part, goal = x[at : at + batch], target[at : at + batch].to(stack.device)
        z = outputs(stack, part).contiguous()
        value, hit = LOSSES[loss](z, goal.T if loss == "mse" else goal, torch.empty_like(z))
        total += value.double().cpu() * len(part)
        hits += hit.cpu()
    return total / len(x), hits
