"""Single faults put into a network that may otherwise be sound."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.diagnosis.weights import biases, matrices


class Cut(nn.Module):
    """Passes the values and stops the gradient: what a stray ``.detach()`` or ``.data`` does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


class Add(nn.Module):
    """Adds a fixed number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.value


class Root(nn.Module):
    """sqrt of the input: NaN for negative entries."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sqrt()


@torch.no_grad()
def inject(model: nn.Module, fault: str, seed: int) -> nn.Module:
    """Put `fault` ("" for none) into `model`; the place is the middle matrix unless the name says otherwise."""
    if not fault:
        return model
    torch.manual_seed(20_000 + seed)
    name, _, value = fault.partition(":")
    ws, bs = matrices(model), biases(model)
    middle, last = ws[len(ws) // 2 if len(ws) > 2 else 0], ws[-1]
    match name:
        case "zero_layer":
            middle.zero_()
        case "zero_head":  # harmless
            last.zero_()
        case "zero_ends":  # harmless: the last matrix of each residual branch
            for m in model.modules():
                inner = getattr(m, "branch", None) or getattr(m, "mlp", None)
                if isinstance(inner, nn.Sequential):
                    for p in inner[-1].parameters():
                        p.zero_()
        case "all_zero":
            for p in model.parameters():
                p.zero_()
        case "scale_layer":
            middle.mul_(float(value))
        case "scale_head":
            last.mul_(float(value))
        case "identical_rows":
            for p in ws[:-1]:
                p.copy_(p[:1].expand_as(p))
        case "bias":
            for b in bs[:-1]:
                b.fill_(float(value))
        case "bias_layer":
            bs[len(bs) // 2 if len(bs) > 2 else 0].fill_(float(value))
        case "garbage":  # what torch.empty leaves behind: zeros, subnormals, a few huge values, repeated blocks
            _garbage(middle)
        case "nan_weight":
            middle.view(-1)[0] = float("nan")
        case "inf_weight":
            middle.view(-1)[0] = float("inf")
        case "frozen_all":
            for p in model.parameters():
                p.requires_grad_(False)
        case "frozen_but_head":  # harmless where the features are alive
            for p in ws[:-1] + bs[:-1]:
                p.requires_grad_(False)
        case "cut_end":
            model = nn.Sequential(model, Cut())
        case "cut_before_head":
            model = _before_head(model, Cut())
        case "zero_gain":
            for m in model.modules():
                if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
                    m.weight.zero_()
        case "root":
            model = _before_head(model, Root())
        case "shift":  # before the head: a saturated or dead input to it
            model = _before_head(model, nn.Sequential(Add(float(value)), nn.Sigmoid()))
        case "dead_head":
            model = _before_head(model, nn.Sequential(Add(-float(value)), nn.ReLU()))
        case "head_relu_dead":
            bs[-1].fill_(-float(value))
            model = nn.Sequential(model, nn.ReLU())
        case "float16":
            model = model.half()
        case "bfloat16":
            model = model.bfloat16()
        case _:
            raise KeyError(fault)
    return model


def _before_head(model: nn.Module, extra: nn.Module) -> nn.Module:
    if isinstance(model, nn.Sequential):
        *body, head = model
        return nn.Sequential(*body, extra, head)
    head = model.get_submodule("head")
    model.add_module("head", nn.Sequential(extra, head))
    return model


def _garbage(p: torch.Tensor) -> None:
    flat = p.view(-1)
    flat.zero_()
    n = len(flat)
    pattern = torch.tensor([0.0, 1e-41, 0.0, 4.6e-41, 0.0, 0.0, 3e-38, 0.0])
    flat.copy_(pattern.repeat(n // 8 + 1)[:n])
    if n > 20 and torch.rand(()) < 0.5:
        flat[torch.randint(n, (max(1, n // 200),))] = 1.8e28
