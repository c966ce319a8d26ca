"""Convolutional networks: plain, grouped, transposed, residual, dense, U-shaped, squeezed, pooled, mixed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.entry import Arguments, Entry, Residual, images

Norm = Callable[[int], nn.Module]


def head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


def plain(depth: int, width: int, body: Callable[[int], nn.Module]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(depth):
        layers += [body(width), nn.ReLU()]
    return nn.Sequential(*layers, *head(width))


def conv(width: int, **options: object) -> nn.Module:
    return nn.Conv2d(width, width, 3, padding=1, **options)  # type: ignore[arg-type]


def depthwise(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1))


def vgg(depth: int, width: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for stage in range(2):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width << stage, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width << stage
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, width), nn.ReLU(), nn.Linear(width, 10))


def no_norm(_width: int) -> nn.Module:
    return nn.Identity()


def group_norm(width: int) -> nn.Module:
    return nn.GroupNorm(4, width)


def resnet(depth: int, width: int, norm: Norm) -> nn.Module:
    def block() -> nn.Module:
        branch = nn.Sequential(conv(width, bias=False), norm(width), nn.ReLU(), conv(width, bias=False), norm(width))
        return Residual(branch, after=nn.ReLU())

    stem = [nn.Conv2d(3, width, 3, padding=1), norm(width), nn.ReLU()]
    return nn.Sequential(*stem, *(block() for _ in range(depth)), *head(width))


def resnet_pre(depth: int, width: int) -> nn.Module:
    def block() -> nn.Module:
        return Residual(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), conv(width), nn.BatchNorm2d(width), nn.ReLU(), conv(width))
        )

    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *(block() for _ in range(depth)), *head(width))


class Dense(nn.Module):
    """Each layer reads the concatenation of all earlier ones."""

    def __init__(self, depth: int, width: int, growth: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width + i * growth), nn.ReLU(), nn.Conv2d(width + i * growth, growth, 3, padding=1)
            )
            for i in range(depth)
        )
        self.head = nn.Linear(width + depth * growth, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x.mean((2, 3)))


class UNet(nn.Module):
    """Down, up, and skips by concatenation."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        depth = min(depth, 3)
        sizes = [width * (i + 1) for i in range(depth + 1)]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(sizes))
        self.join = nn.ModuleList(nn.Conv2d(2 * a, a, 3, padding=1) for a in sizes[:-1])
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        kept: list[torch.Tensor] = []
        for down in self.down:
            kept.append(x)
            x = F.relu(down(x))
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            x = F.relu(join(torch.cat([kept.pop(), up(x)], dim=1)))
        return self.out(x)


class Squeeze(nn.Module):
    """Channel weights from the mean over positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.down, self.up = nn.Linear(width, width // 4), nn.Linear(width // 4, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv(x)
        s = torch.sigmoid(self.up(F.relu(self.down(h.mean(dim=(-2, -1))))))
        return h * s[:, :, None, None]


def pooled(depth: int, width: int, pool: Callable[[], nn.Module]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    for i in range(depth):
        layers += [nn.ReLU(), conv(width)]
        if i < 2:
            layers.append(pool())
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10))


def materialised(build: Callable[..., nn.Module], **options: object) -> Callable[[int, int], nn.Module]:
    def make(depth: int, width: int) -> nn.Module:
        model = build(depth, width, **options)
        with torch.no_grad():
            model(torch.zeros(2, 3, 16, 16))
        return model

    return make


def decoder(depth: int, width: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    for i in range(depth):
        stride = 2 if i == 0 else 1
        layers += [nn.ReLU(), nn.ConvTranspose2d(width, width, 3, stride, 1, output_padding=stride - 1)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(width, 3, 1))


def signal_1d(depth: int, width: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv1d(2, width, 5, padding=2)]
    for i in range(depth):
        layers += [nn.GELU(), nn.Conv1d(width, width, 3, padding=2 ** (i % 3), dilation=2 ** (i % 3))]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(width, 4))


def waves(_width: int) -> Arguments:
    return (torch.randn(8, 2, 40),), {}


class MixerBlock(nn.Module):
    def __init__(self, width: int, places: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.places = nn.Sequential(nn.Linear(places, 32), nn.GELU(), nn.Linear(32, places))
        self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.places(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class Mixer(nn.Module):
    """MLP-Mixer on 4×4 patches."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(*(MixerBlock(width, 16) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


def _entry(name: str, build: Callable[[int, int], nn.Module], *tags: str, width: int = 32, deep: int = 6) -> Entry:
    return Entry(name, build, images, width, (2, deep), frozenset({"conv", *tags}))


ENTRIES = (
    _entry("conv_plain", partial(plain, body=conv)),
    _entry("conv_vgg", vgg, "pool", "in-place", deep=3, width=16),
    _entry("conv_depthwise", partial(plain, body=depthwise)),
    _entry("conv_grouped", partial(plain, body=partial(conv, groups=4))),
    _entry("conv_dilated", partial(plain, body=lambda w: nn.Conv2d(w, w, 3, padding=2, dilation=2))),
    _entry("conv_circular", partial(plain, body=partial(conv, padding_mode="circular"))),
    _entry("conv_transposed", decoder),
    Entry("conv_1d_dilated", signal_1d, waves, 32, (2, 6), frozenset({"conv", "pool"})),
    _entry("resnet_plain", partial(resnet, norm=no_norm), "residual"),
    _entry("resnet_batch_norm", partial(resnet, norm=nn.BatchNorm2d), "residual", "norm"),
    _entry("resnet_group_norm", partial(resnet, norm=group_norm), "residual", "norm"),
    _entry("resnet_instance_norm", partial(resnet, norm=nn.InstanceNorm2d), "residual", "norm"),
    _entry("resnet_pre", resnet_pre, "residual", "norm"),
    _entry("densenet", Dense, "norm"),
    _entry("unet", UNet, width=16, deep=3),
    _entry("squeeze_excitation", partial(plain, body=Squeeze)),
    _entry("pool_max", materialised(pooled, pool=partial(nn.MaxPool2d, 2)), "pool"),
    _entry("pool_avg", materialised(pooled, pool=partial(nn.AvgPool2d, 3, 2, 1)), "pool"),
    _entry("pool_adaptive_max", materialised(pooled, pool=partial(nn.AdaptiveMaxPool2d, 6)), "pool"),
    _entry("mixer", Mixer, "residual", "norm"),
)
