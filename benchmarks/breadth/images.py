"""Convolutional networks as people type them from the papers, small: mobile blocks, gates, attention over channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.breadth.candidate import Candidate, tensor

Activation = Callable[[], nn.Module]


def conv_norm(i: int, o: int, k: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias and its batch norm."""
    return [nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]


def head(channels: int, classes: int = 10) -> list[nn.Module]:
    """The mean over the image, and a classifier."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def kaiming(model: nn.Module) -> nn.Module:
    """torchvision's initialization of convolutions."""
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return model


class DropPath(nn.Module):
    """Stochastic depth: whole samples of a branch are left out."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep


class SqueezeExcite(nn.Module):
    """A gate for each channel from the means of all channels."""

    def __init__(self, channels: int, inner: int, act: Activation, gate: Activation) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.act = nn.Conv2d(channels, inner, 1), act()
        self.fc2, self.gate = nn.Conv2d(inner, channels, 1), gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.act(self.fc1(self.pool(x)))))


class Inverted(nn.Module):
    """The block of MobileNetV2, MobileNetV3 and EfficientNet: wide in the middle, one window a channel."""

    def __init__(
        self, i: int, o: int, ratio: int, k: int, stride: int, act: Activation,
        gate: Activation | None = None, drop: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        h = i * ratio
        layers = [*conv_norm(i, h, 1), act()] if ratio > 1 else []
        layers += [*conv_norm(h, h, k, stride, groups=h), act()]
        if gate is not None:
            layers.append(SqueezeExcite(h, max(i // 4, 4), act, gate))
        self.block = nn.Sequential(*layers, *conv_norm(h, o, 1))
        self.drop, self.residual = DropPath(drop), stride == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.block(x)) if self.residual else self.block(x)


def mobile(
    act: Activation, gate: Activation | None = None, drop: float = 0.0, sizes: Sequence[int] = (16, 24, 24, 40, 40)
) -> nn.Module:
    """A stack of inverted blocks."""
    layers = [*conv_norm(3, sizes[0], 3, 2), act()]
    for i, o in pairwise(sizes):
        layers.append(Inverted(i, o, 4, 3, 1 if i == o else 2, act, gate, drop))
    return nn.Sequential(*layers, *conv_norm(sizes[-1], 128, 1), act(), *head(128))


class ShuffleUnit(nn.Module):
    """Half of the channels goes round the convolutions; then halves are shuffled."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        half, self.stride = o // 2, stride
        inner = i if stride > 1 else half
        if stride > 1:
            self.left = nn.Sequential(*conv_norm(i, i, 3, stride, groups=i), *conv_norm(i, half, 1), nn.ReLU(True))
        self.right = nn.Sequential(
            *conv_norm(inner, half, 1), nn.ReLU(True), *conv_norm(half, half, 3, stride, groups=half),
            *conv_norm(half, half, 1), nn.ReLU(True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            a, b = x.chunk(2, dim=1)
            out = torch.cat((a, self.right(b)), dim=1)
        else:
            out = torch.cat((self.left(x), self.right(x)), dim=1)
        b, c, h, w = out.size()
        return out.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


class RepBlock(nn.Module):
    """RepVGG in training: a window, a point and the identity, each with its norm."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.window, self.point = nn.Sequential(*conv_norm(i, o, 3, stride)), nn.Sequential(*conv_norm(i, o, 1, stride))
        self.same = nn.BatchNorm2d(i) if i == o and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        same = 0 if self.same is None else self.same(x)
        return F.relu(self.window(x) + self.point(x) + same)


class ChannelSpatial(nn.Module):
    """CBAM: gates of channels from means and maxima, then of places."""

    def __init__(self, channels: int, ratio: int = 8) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(channels, channels // ratio), nn.ReLU(), nn.Linear(channels // ratio, channels)
        )
        self.place = nn.Sequential(*conv_norm(2, 1, 7))

    def forward(self, x: Tensor) -> Tensor:
        size = (x.size(2), x.size(3))
        scale = torch.sigmoid(self.mlp(F.avg_pool2d(x, size)) + self.mlp(F.max_pool2d(x, size)))
        x = x * scale[:, :, None, None].expand_as(x)
        pooled = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return x * torch.sigmoid(self.place(pooled))


class Residual(nn.Module):
    """A ResNet's basic block with something at the end of its branch."""

    def __init__(self, i: int, o: int, stride: int, end: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.branch = nn.Sequential(*conv_norm(i, o, 3, stride), nn.ReLU(), *conv_norm(o, o), end(o))
        self.short = nn.Sequential(*conv_norm(i, o, 1, stride)) if stride > 1 or i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.short(x))


def residual(end: Callable[[int], nn.Module]) -> nn.Module:
    """Three basic blocks."""
    blocks = [Residual(24, 24, 1, end), Residual(24, 48, 2, end), Residual(48, 48, 1, end)]
    return nn.Sequential(*conv_norm(3, 24), nn.ReLU(), *blocks, *head(48))


class NonLocal(nn.Module):
    """Attention over all places of an image, added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = channels // 2
        self.g, self.theta, self.phi = (nn.Conv2d(channels, self.inner, 1) for _ in range(3))
        self.out = nn.Sequential(nn.Conv2d(self.inner, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        b = x.size(0)
        g = self.g(x).view(b, self.inner, -1).permute(0, 2, 1)
        theta = self.theta(x).view(b, self.inner, -1).permute(0, 2, 1)
        weights = F.softmax(torch.matmul(theta, self.phi(x).view(b, self.inner, -1)), dim=-1)
        y = torch.matmul(weights, g).permute(0, 2, 1).contiguous().view(b, self.inner, *x.size()[2:])
        return self.out(y) + x


class Standardised(nn.Conv2d):
    """A convolution whose kernels are standardised in the forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        std = weight.view(weight.size(0), -1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        return F.conv2d(input, weight / std, self.bias, self.stride, self.padding, self.dilation, self.groups)


def standardised() -> nn.Module:
    """Weight standardization with GroupNorm."""
    layers: list[nn.Module] = []
    for i, o, stride in ((3, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)):
        layers += [Standardised(i, o, 3, stride, 1), nn.GroupNorm(8, o), nn.ReLU()]
    return nn.Sequential(*layers, *head(64))


class Sum(nn.Module):
    """f(x) + x."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


def conv_mixer(dim: int = 48, depth: int = 3) -> nn.Module:
    """ConvMixer, as in the paper's figure."""
    return nn.Sequential(
        nn.Conv2d(3, dim, 4, stride=4), nn.GELU(), nn.BatchNorm2d(dim),
        *[
            nn.Sequential(
                Sum(nn.Sequential(nn.Conv2d(dim, dim, 5, groups=dim, padding="same"), nn.GELU(), nn.BatchNorm2d(dim))),
                nn.Conv2d(dim, dim, 1), nn.GELU(), nn.BatchNorm2d(dim),
            )
            for _ in range(depth)
        ],
        *head(dim),
    )  # fmt: skip


class Autoencoder(nn.Module):
    """A variational autoencoder: noise inside, three outputs."""

    def __init__(self, latent: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.mean, self.log_variance, self.up = nn.Linear(512, latent), nn.Linear(512, latent), nn.Linear(latent, 512)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (32, 4, 4)), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        std = torch.exp(0.5 * log_variance)
        z = mean + std * torch.randn_like(std)
        return self.decoder(F.relu(self.up(z))), mean, log_variance


def make(name: str, build: Callable[[], nn.Module], *sizes: int) -> Candidate:
    """A network for images."""
    return Candidate(name, "written", build, tensor(*(sizes or (8, 3, 32, 32))))


def _shuffled() -> nn.Module:
    units = [ShuffleUnit(24, 48, 2), ShuffleUnit(48, 48, 1), ShuffleUnit(48, 96, 2), ShuffleUnit(96, 96, 1)]
    return nn.Sequential(*conv_norm(3, 24), nn.ReLU(True), *units, *head(96))


def _represented() -> nn.Module:
    return nn.Sequential(RepBlock(3, 24, 2), RepBlock(24, 24, 1), RepBlock(24, 48, 2), RepBlock(48, 48, 1), *head(48))


CANDIDATES: tuple[Candidate, ...] = (
    make("MobileNetV2 by hand", lambda: mobile(nn.ReLU6)),
    make("MobileNetV3 by hand", lambda: kaiming(mobile(nn.Hardswish, nn.Hardsigmoid))),
    make("EfficientNet by hand", lambda: kaiming(mobile(nn.SiLU, nn.Sigmoid, 0.1))),
    make("ShuffleNet by hand", _shuffled),
    make("RepVGG by hand", _represented),
    make("SE-ResNet by hand", lambda: residual(lambda c: SqueezeExcite(c, c // 8, nn.ReLU, nn.Sigmoid))),
    make("CBAM by hand", lambda: residual(ChannelSpatial)),
    make("non-local by hand", lambda: residual(NonLocal)),
    make("weight standardization by hand", standardised),
    make("ConvMixer by hand", conv_mixer),
    make("VAE by hand", Autoencoder, 8, 3, 16, 16),
)
