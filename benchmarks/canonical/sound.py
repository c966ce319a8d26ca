"""Images and residual networks: what looks odd and is sound, and depth that is not."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.canonical.case import canonical, linears, mlp
from benchmarks.canonical.problems import Problem, digits, images, pictures_again, pixels
from benchmarks.diagnosis.nets import Residual

Made = tuple[nn.Module, Problem]


@canonical()
def plain_classifier() -> Made:
    return mlp(784, 64, 64, 10), images("mnist")


@canonical()
def zero_classifier() -> Made:
    model = mlp(64, 64, 64, 10)
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    return model, digits()


class Lora(nn.Module):
    """A frozen layer with a trained low-rank correction."""

    def __init__(self, a: int, b: int, zero_a: bool = False, rank: int = 4) -> None:
        super().__init__()
        self.base = nn.Linear(a, b).requires_grad_(False)
        self.A = nn.Parameter(torch.zeros(rank, a) if zero_a else torch.randn(rank, a) / a**0.5)
        self.B = nn.Parameter(torch.zeros(b, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.A.T @ self.B.T


@canonical()
def lora_with_zero_b() -> Made:
    return nn.Sequential(Lora(64, 64), nn.ReLU(), Lora(64, 10)), digits()


@canonical("WGT003")
def lora_with_zero_a_and_b() -> Made:
    return nn.Sequential(Lora(64, 64, True), nn.ReLU(), Lora(64, 10, True)), digits()


def resnet(channels: int = 8, blocks: int = 3, zero_ends: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    for _ in range(blocks):
        branch = [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
                  nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)]  # fmt: skip
        if zero_ends:
            nn.init.zeros_(branch[-1].weight)
        layers += [Residual(nn.Sequential(*branch)), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


@canonical()
def resnet_with_zero_gains() -> Made:
    return resnet(zero_ends=True), digits(flat=False)


@canonical("WGT003", "WGT008", "FWD004")
def batch_norm_gains_all_zero() -> Made:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    for m in model:
        if isinstance(m, nn.BatchNorm2d):
            nn.init.zeros_(m.weight)
    return model, digits(flat=False)


@canonical("WGT008", "FWD004", "ACT001")
def layer_norm_gain_zero() -> Made:
    model = nn.Sequential(
        nn.Linear(64, 32),
        nn.LayerNorm(32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.LayerNorm(32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    nn.init.zeros_(model[4].weight)
    return model, digits()


@canonical("FWD001", "FWD006", "LRN002")
def residual_sum_of_60_he_blocks() -> Made:
    blocks = [Residual(mlp(32, 32, 32)) for _ in range(60)]
    model = nn.Sequential(nn.Linear(64, 32), *blocks, nn.Linear(32, 10))
    for m in linears(model):
        nn.init.kaiming_normal_(m.weight)
    return model, digits()


@canonical()
def residual_sum_of_60_scaled_blocks() -> Made:
    blocks = [Residual(mlp(32, 32, 32), 60**-0.5) for _ in range(60)]
    return nn.Sequential(nn.Linear(64, 32), *blocks, nn.Linear(32, 10)), digits()


def convs(depth: int, channels: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(channels if i else 1, channels, 3, padding=1), act()]
        if i == 1:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 10))


@canonical("FWD002", "FWD004", "GRD003")
def vgg_of_16_default_convs() -> Made:
    return convs(16, 8), digits(flat=False)


@canonical()
def vgg_of_16_he_convs() -> Made:
    model = convs(16, 8)
    for m in model:
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
            nn.init.zeros_(m.bias)
    return model, digits(flat=False)


@canonical()
def lenet() -> Made:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 10)
    )
    return model, images("fashion-mnist", False, 14)


@canonical("FWD001", "LRN002", "GRD004")
def depthwise_by_fan_out_of_torch() -> Made:
    """torch takes a depthwise kernel's fan_out for channels x 9: weights are too small by the number of channels."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU()]
    for m in layers:
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out")
            nn.init.zeros_(m.bias)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)), digits(flat=False)


@canonical()
def depthwise_separable() -> Made:
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)), digits(flat=False)


@canonical()
def autoencoder_with_transposed_convs() -> Made:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, 2, 1),
    )  # fmt: skip
    return model, pictures_again()


@canonical("ACT001", "FWD004", "WGT008")
def autoencoder_with_a_dead_code() -> Made:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 64), nn.Unflatten(1, (1, 8, 8)),
    )  # fmt: skip
    nn.init.constant_(model[1].bias, -10.0)
    return model, pictures_again()


class Sine(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x)


@canonical()
def siren() -> Made:
    model = mlp(2, 64, 64, 1, act=Sine)
    with torch.no_grad():
        model[0].weight.uniform_(-15.0, 15.0)
        for m in linears(model)[1:]:
            m.weight.uniform_(-((6 / m.in_features) ** 0.5), (6 / m.in_features) ** 0.5)
    return model, pixels()


@canonical()
def coordinates_through_relu() -> Made:
    return mlp(2, 64, 64, 1), pixels()


@canonical()
def weight_norm() -> Made:
    model = mlp(64, 64, 64, 10)
    for m in linears(model):
        nn.utils.parametrizations.weight_norm(m)
    return model, digits()


@canonical()
def selu_lecun() -> Made:
    model = mlp(64, *[32] * 12, 10, act=nn.SELU)
    for m in linears(model):
        nn.init.normal_(m.weight, 0, m.in_features**-0.5)
        nn.init.zeros_(m.bias)
    return model, digits()


@canonical()
def orthogonal_tanh_of_60_layers() -> Made:
    model = mlp(64, *[32] * 60, 10, act=nn.Tanh)
    for m in linears(model):
        nn.init.orthogonal_(m.weight)
        nn.init.zeros_(m.bias)
    return model, digits()


@canonical()
def experts_with_a_zero_router() -> Made:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.head = nn.Linear(64, 4), nn.Linear(32, 10)
            self.experts = nn.ModuleList(nn.Linear(64, 32) for _ in range(4))
            nn.init.zeros_(self.router.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            share = self.router(x).softmax(-1)
            return self.head(F.relu(sum(share[:, i, None] * e(x) for i, e in enumerate(self.experts))))

    return Experts(), digits()


@canonical("WGT004")
def copies_of_one_expert() -> Made:
    """Four copies of one layer, averaged: wide only in name, but sound."""

    class Copies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(64, 16) for _ in range(4))
            self.head = nn.Linear(16, 10)
            for part in self.parts:
                part.load_state_dict(self.parts[0].state_dict())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(F.relu(sum(part(x) for part in self.parts) / 4))

    return Copies(), digits()
