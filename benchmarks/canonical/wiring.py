"""Networks whose weights are sound and whose graph, head or loss is not; and the ones that only look so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.canonical.case import canonical, mlp
from benchmarks.canonical.problems import (
    Problem,
    binary,
    binary_of_probability,
    cancer,
    diabetes,
    digits,
    images,
    rings,
    waves,
)

Made = tuple[nn.Module, Problem]


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.f(x)


@canonical("OUT001")
def softmax_over_one_unit() -> Made:
    return nn.Sequential(mlp(30, 32, 1), nn.Softmax(-1)), cancer().changed(loss=binary_of_probability)


@canonical()
def softmax_before_cross_entropy() -> Made:
    return nn.Sequential(mlp(64, 64, 10), nn.Softmax(-1)), digits()


@canonical()
def log_softmax_before_cross_entropy() -> Made:
    return nn.Sequential(mlp(64, 64, 10), nn.LogSoftmax(-1)), digits()


@canonical()
def softmax_twice() -> Made:
    return nn.Sequential(mlp(64, 64, 10), nn.Softmax(-1), nn.Softmax(-1)), digits()


@canonical()
def sigmoid_before_cross_entropy() -> Made:
    return nn.Sequential(mlp(64, 64, 10), nn.Sigmoid()), digits()


@canonical()
def sigmoid_twice() -> Made:
    return nn.Sequential(mlp(30, 32, 1), nn.Sigmoid()), cancer().changed(loss=binary)


@canonical("ACT001", "WGT008")
def relu_behind_the_logits() -> Made:
    """A rectified output of a regression whose last bias is negative: dead for all samples."""
    model = mlp(10, 32, 1)
    nn.init.constant_(model[-1].bias, -5.0)
    return nn.Sequential(model, nn.ReLU()), diabetes()


@canonical()
def relu_behind_healthy_logits() -> Made:
    return nn.Sequential(mlp(64, 64, 10), nn.ReLU()), digits()


@canonical("OUT003", "OUT004")
def tanh_cannot_reach_the_targets() -> Made:
    return nn.Sequential(mlp(10, 32, 1), nn.Tanh()), diabetes(raw=True)


@canonical("OUT004", "OUT003")
def sigmoid_cannot_reach_the_targets() -> Made:
    return nn.Sequential(mlp(10, 32, 1), nn.Sigmoid()), diabetes(raw=True)


@canonical("OUT003")
def raw_targets() -> Made:
    return mlp(10, 32, 32, 1), diabetes(raw=True)


@canonical("OUT004")
def targets_broadcast() -> Made:
    """Outputs (64, 1) against targets (64,): the squared error compares each with all."""
    table = diabetes()
    return mlp(10, 32, 1), replace(table, y=table.y[:, 0])


@canonical("FWD008")
def no_function_between_layers() -> Made:
    return nn.Sequential(nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 2)), rings()


@canonical()
def no_function_but_linearly_separable() -> Made:
    return nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 10)), digits()


@canonical("GRD001")
def detach_at_the_end() -> Made:
    return nn.Sequential(mlp(64, 64, 10), Function(torch.Tensor.detach)), digits()


@canonical("GRD001")
def through_numpy() -> Made:
    return nn.Sequential(mlp(64, 64, 10), Function(lambda x: torch.from_numpy(x.detach().numpy().copy()))), digits()


@canonical()
def detach_in_the_middle() -> Made:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), Function(torch.Tensor.detach), nn.Linear(64, 10)), digits()


@canonical("GRD002", "GRD005", "ACT001")
def detach_behind_a_dead_layer() -> Made:
    first = nn.Linear(64, 64)
    nn.init.constant_(first.bias, -5.0)
    return nn.Sequential(first, nn.ReLU(), Function(torch.Tensor.detach), nn.Linear(64, 10)), digits()


@canonical("GRD001")
def all_frozen() -> Made:
    return mlp(64, 64, 10).requires_grad_(False), digits()


@canonical("GRD005", "GRD001")
def all_but_the_last_bias_frozen() -> Made:
    model = mlp(64, 64, 10).requires_grad_(False)
    model[-1].bias.requires_grad_(True)
    return model, digits()


@canonical()
def features_frozen() -> Made:
    model = mlp(784, 128, 10)
    model[0].requires_grad_(False)
    return model, images("mnist")


@canonical("GRD001", "GRD006")
def nothing_registered() -> Made:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    return Hidden(), digits()


@canonical()
def only_the_head_registered() -> Made:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = [nn.Linear(64, 64), nn.ReLU()], nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return self.head(x)

    return Hidden(), digits()


@canonical("GRD001")
def argmax_in_the_middle() -> Made:
    class Hard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(64, 32), torch.randn(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.one_hot(self.a(x).argmax(-1), 32).float() @ self.b

    return Hard(), digits()


@canonical("NUM001")
def logarithm_of_relu() -> Made:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), Function(torch.log), nn.Linear(32, 10)), digits()


@canonical("NUM001")
def root_of_negative() -> Made:
    return nn.Sequential(nn.Linear(64, 32), Function(torch.sqrt), nn.Linear(32, 10)), digits()


@canonical("ACT002", "FWD004", "GRD003", "GRD005")
def gates_closed() -> Made:
    """Features times sigmoid(z - 100), which is zero in single precision."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h, self.z, self.head = nn.Linear(64, 32), nn.Linear(64, 32), nn.Linear(32, 10)
            nn.init.constant_(self.z.bias, -110.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.h(x)) * torch.sigmoid(self.z(x)))

    return Gate(), digits()


@canonical("ACT002", "FWD004", "GRD003", "GRD005", "FWD002")
def gates_nearly_closed() -> Made:
    """Sixteen highway layers whose features pass a gate of 0.0001."""

    class Gates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(8))
            self.gates = nn.ModuleList(nn.Linear(64, 64) for _ in range(8))
            self.head = nn.Linear(64, 10)
            for g in self.gates:
                nn.init.constant_(g.bias, -9.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for h, z in zip(self.layers, self.gates, strict=True):
                x = torch.tanh(h(x)) * torch.sigmoid(z(x))
            return self.head(x)

    return Gates(), digits()


@canonical("OUT005", "GRD005", "FWD002", "FWD004")
def logits_times_a_millionth() -> Made:
    return nn.Sequential(mlp(64, 64, 10), Function(lambda x: 1e-6 * x)), digits()


@canonical("OUT002", "LRN002")
def temperature_of_a_thousandth() -> Made:
    return nn.Sequential(mlp(64, 64, 10), Function(lambda x: x / 1e-3)), digits()


@canonical("OUT005", "GRD003")
def loss_times_1e_12() -> Made:
    def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 1e-12 * F.cross_entropy(out, y)

    return mlp(64, 64, 10), digits().changed(loss=loss, unit=1e-12)


@canonical("LRN001")
def dropout_of_all_but_a_hundredth() -> Made:
    layers = [m for a in (64, 32, 32, 32) for m in (nn.Linear(a, 32), nn.ReLU(), nn.Dropout(0.99))]
    return nn.Sequential(*layers, nn.Linear(32, 10)), digits()


@canonical("FWD004")
def mean_over_the_samples() -> Made:
    """A mean over the batch's axis in place of the time's."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = nn.Linear(1, 32), nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.relu(self.a(x))
            return self.head(h.mean(0, keepdim=True).expand_as(h)[:, 0])

    return Pooled(), waves()
