"""Multilayer perceptrons: every activation, residual forms, normalisation, sharing, parametrized weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.utils import parametrizations

from tests.zoo.entry import Apply, Entry, Residual, vectors

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "relu_inplace": partial(nn.ReLU, inplace=True),
    "leaky_relu": partial(nn.LeakyReLU, 0.2),
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "relu6": nn.ReLU6,
    "softsign": nn.Softsign,
    "sin": partial(Apply, torch.sin),
    "erf": partial(Apply, torch.erf),
    "abs": partial(Apply, torch.abs),
    "relu_squared": partial(Apply, lambda x: torch.relu(x) ** 2),
    "logsigmoid": nn.LogSigmoid,
    "tanhshrink": nn.Tanhshrink,
    "gelu_by_hand": partial(Apply, lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3)))),
}


def mlp(depth: int, width: int, activation: Callable[[], nn.Module] = nn.ReLU, bias: bool = True) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, bias=bias), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def normed(depth: int, width: int, norm: Callable[[int], nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), norm(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def residual_pre(depth: int, width: int, scale: float = 1.0, norm: bool = False) -> nn.Module:
    def block() -> nn.Module:
        first = nn.LayerNorm(width) if norm else nn.ReLU()
        return Residual(nn.Sequential(first, nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)), scale)

    return nn.Sequential(nn.Linear(width, width), *(block() for _ in range(depth)), nn.Linear(width, 10))


def residual_post(depth: int, width: int) -> nn.Module:
    def block() -> nn.Module:
        branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        return Residual(branch, after=nn.ReLU())

    return nn.Sequential(nn.Linear(width, width), *(block() for _ in range(depth)), nn.Linear(width, 10))


def dropped(depth: int, width: int) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def wrapped(depth: int, width: int, wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [wrap(nn.Linear(width, width)), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


class Shared(nn.Module):
    """One layer used `depth` times."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.depth = depth
        self.layer = nn.Linear(width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.depth):
            x = torch.tanh(self.layer(x))
        return self.head(x)


class Highway(nn.Module):
    """t · h(x) + (1 - t) · x with a learned gate t."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for gate, layer in zip(self.gates, self.layers, strict=True):
            t = torch.sigmoid(gate(x))
            x = t * torch.relu(layer(x)) + (1 - t) * x
        return x


class Variational(nn.Module):
    """An autoencoder with a random code; returns a dict."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.encoder = mlp(depth, width, nn.Tanh)[:-1]
        self.mean, self.log_variance = nn.Linear(width, 8), nn.Linear(width, 8)
        self.decoder = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = self.encoder(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return {"reconstruction": self.decoder(code), "mean": mean, "log_variance": log_variance}


class Gated(nn.Module):
    """Maxout, GLU and slices written in place."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.layers):
            h = layer(x)
            h = nn.functional.glu(h, dim=-1) if i % 2 else h.view(*x.shape, 2).amax(-1)
            out = torch.zeros_like(x)
            out[:, ::2] = h[:, ::2]
            out[:, 1::2] += h[:, 1::2]
            x = out
        return x


_DENSE = frozenset({"dense"})

ENTRIES = (
    *(
        Entry(f"mlp_{name}", partial(mlp, activation=f), vectors, tags=_DENSE | {"activation"})
        for name, f in ACTIVATIONS.items()
    ),
    Entry("mlp_no_bias", partial(mlp, bias=False), vectors, tags=_DENSE),
    Entry("mlp_batch_norm", partial(normed, norm=nn.BatchNorm1d), vectors, tags=_DENSE | {"norm"}),
    Entry("mlp_layer_norm", partial(normed, norm=nn.LayerNorm), vectors, tags=_DENSE | {"norm"}),
    Entry("mlp_rms_norm", partial(normed, norm=nn.RMSNorm), vectors, tags=_DENSE | {"norm"}),
    Entry("mlp_dropout", dropped, vectors, tags=_DENSE | {"dropout"}),
    Entry(
        "mlp_weight_norm", partial(wrapped, wrap=parametrizations.weight_norm), vectors, tags=_DENSE | {"parametrized"}
    ),
    Entry(
        "mlp_spectral_norm",
        partial(wrapped, wrap=parametrizations.spectral_norm),
        vectors,
        tags=_DENSE | {"parametrized"},
    ),
    Entry("residual_pre", residual_pre, vectors, tags=_DENSE | {"residual"}),
    Entry("residual_pre_norm", partial(residual_pre, norm=True), vectors, tags=_DENSE | {"residual", "norm"}),
    Entry("residual_scaled", partial(residual_pre, scale=0.3), vectors, tags=_DENSE | {"residual"}),
    Entry("residual_post", residual_post, vectors, tags=_DENSE | {"residual"}),
    Entry("shared_layer", Shared, vectors, tags=_DENSE | {"tied"}),
    Entry("highway", Highway, vectors, tags=_DENSE | {"residual"}),
    Entry("variational", Variational, vectors, tags=_DENSE | {"random"}),
    Entry("gated_in_place", Gated, vectors, tags=_DENSE | {"in-place"}),
)
