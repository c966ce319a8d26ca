"""The laws from which the labelled networks draw: sound ones and the usual mistakes."""

from __future__ import annotations

import math

import torch
from torch import nn

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.RNNBase)


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weight matrices and kernels of linear, conv and recurrent layers, in order."""
    return [
        p
        for m in model.modules()
        if isinstance(m, _MATRICES)
        for n, p in m.named_parameters(recurse=False)
        if p.dim() > 1 and "weight" in n
    ]


def biases(model: nn.Module) -> list[nn.Parameter]:
    """Biases of the same layers."""
    return [
        p
        for m in model.modules()
        if isinstance(m, _MATRICES)
        for n, p in m.named_parameters(recurse=False)
        if "bias" in n
    ]


@torch.no_grad()
def draw(model: nn.Module, scheme: str, seed: int) -> None:
    """Fill the matrices by `scheme`; "default" leaves what the modules drew."""
    if scheme == "default":
        return
    torch.manual_seed(10_000 + seed)
    name, _, value = scheme.partition(":")
    for p in matrices(model):
        fan_in = p[0].numel()
        fan_out = p.numel() // p.shape[1]
        match name:
            case "he":
                p.normal_(0, math.sqrt(float(value or 2) / fan_in))
            case "he_uniform":
                nn.init.kaiming_uniform_(p, nonlinearity="relu")
            case "xavier":
                nn.init.xavier_normal_(p)
            case "xavier_uniform":
                nn.init.xavier_uniform_(p)
            case "lecun":
                p.normal_(0, fan_in**-0.5)
            case "truncated":
                nn.init.trunc_normal_(
                    p, 0, math.sqrt(2 / fan_in), -2 * math.sqrt(2 / fan_in), 2 * math.sqrt(2 / fan_in)
                )
            case "orthogonal":
                nn.init.orthogonal_(p, float(value or 1))
            case "fan_out":
                p.normal_(0, math.sqrt(2 / fan_out))
            case "normal":
                p.normal_(0, float(value))
            case "uniform":
                p.uniform_(-float(value), float(value))
            case "positive":
                p.uniform_(0, float(value))
            case "constant":
                p.fill_(float(value))
            case "zeros":
                p.zero_()
            case _:
                raise KeyError(scheme)
    if name not in {"zeros"}:
        for b in biases(model):
            b.zero_()
