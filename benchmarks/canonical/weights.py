"""Weights that were drawn wrongly, overwritten or never drawn."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from benchmarks.canonical.case import canonical, linears, mlp
from benchmarks.canonical.problems import Problem, cancer, diabetes, digits, images, moons

Made = tuple[nn.Module, Problem]


def each(model: nn.Module, weight: object, bias: object = None) -> nn.Module:
    """Apply an initializer of torch.nn.init to all linear layers."""
    for m in linears(model):
        weight(m.weight)  # type: ignore[operator]
        if bias is not None:
            bias(m.bias)  # type: ignore[operator]
    return model


@canonical("WGT003")
def zeros_everywhere() -> Made:
    return each(mlp(64, 32, 32, 10), nn.init.zeros_, nn.init.zeros_), digits()


@canonical("WGT003")
def zero_weights_random_biases() -> Made:
    return each(mlp(64, 32, 10, act=nn.Tanh), nn.init.zeros_), digits()


@canonical("WGT003")
def zero_hidden_layer() -> Made:
    model = mlp(784, 64, 32, 10)
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    return model, images("mnist")


@canonical("WGT004")
def constant_small() -> Made:
    return each(mlp(64, 32, 32, 10), lambda w: nn.init.constant_(w, 0.01), nn.init.zeros_), digits()


@canonical("WGT004")
def constant_half() -> Made:
    return each(mlp(64, 32, 32, 10, act=nn.Tanh), lambda w: nn.init.constant_(w, 0.5), nn.init.zeros_), digits()


@canonical("WGT004")
def constant_on_moons() -> Made:
    return each(mlp(2, 16, 16, 2), lambda w: nn.init.constant_(w, 0.3), nn.init.zeros_), moons()


@canonical("WGT004")
def ones_deep() -> Made:
    return each(mlp(64, 32, 32, 32, 32, 32, 10), nn.init.ones_, nn.init.zeros_), digits()


@canonical("FWD001", "LRN002", "OUT002", "WGT005", "GRD004")
def standard_normal_deep() -> Made:
    return each(mlp(64, *[64] * 10, 10), nn.init.normal_, nn.init.zeros_), digits()


@canonical("FWD001", "LRN002", "OUT002", "WGT005", "GRD004")
def standard_normal_shallow() -> Made:
    return each(mlp(64, 64, 64, 10), nn.init.normal_, nn.init.zeros_), digits()


@canonical("ACT002", "FWD001")
def standard_normal_tanh() -> Made:
    return each(mlp(784, 128, 128, 128, 10, act=nn.Tanh), nn.init.normal_, nn.init.zeros_), images("fashion-mnist")


@canonical("FWD002", "FWD004", "WGT005")
def tiny_normal_deep() -> Made:
    return each(mlp(64, *[32] * 6, 10), lambda w: nn.init.normal_(w, 0, 1e-3), nn.init.zeros_), digits()


@canonical("FWD002", "FWD004", "WGT005")
def tiny_normal_shallow() -> Made:
    return each(mlp(64, 64, 10), lambda w: nn.init.normal_(w, 0, 1e-4), nn.init.zeros_), digits()


@canonical("FWD002", "FWD004", "GRD003")
def default_relu_of_40_layers() -> Made:
    return mlp(64, *[32] * 40, 10), digits()


@canonical("FWD002", "FWD004", "GRD003")
def default_relu_of_12_layers() -> Made:
    return mlp(64, *[64] * 12, 10), digits()


@canonical("FWD002", "FWD004", "GRD003", "ACT002")
def sigmoid_of_8_layers() -> Made:
    return mlp(784, *[64] * 8, 10, act=nn.Sigmoid), images("mnist")


@canonical("FWD002", "FWD004", "GRD003", "ACT002")
def sigmoid_of_4_layers() -> Made:
    return each(mlp(64, *[64] * 4, 10, act=nn.Sigmoid), nn.init.xavier_uniform_, nn.init.zeros_), digits()


@canonical("FWD002", "FWD004", "GRD003")
def tanh_default_of_30_layers() -> Made:
    return mlp(64, *[32] * 30, 10, act=nn.Tanh), digits()


@canonical()
def tanh_xavier_of_30_layers() -> Made:
    gain = nn.init.calculate_gain("tanh")
    return each(
        mlp(64, *[64] * 30, 10, act=nn.Tanh), lambda w: nn.init.xavier_normal_(w, gain), nn.init.zeros_
    ), digits()


@canonical("FWD001", "LRN002", "GRD004")
def he_with_the_square_forgotten() -> Made:
    """Standard deviation 2/fan_in or sqrt(2): here the variance was taken for the deviation's square root twice."""
    return each(
        mlp(64, *[64] * 8, 10), lambda w: nn.init.normal_(w, 0, (2.0 / w.shape[1]) ** 0.25), nn.init.zeros_
    ), digits()


@canonical("FWD002", "FWD004", "GRD003", "WGT005")
def variance_for_deviation() -> Made:
    """std = 2/fan_in instead of its root."""
    return each(mlp(64, *[64] * 8, 10), lambda w: nn.init.normal_(w, 0, 2.0 / w.shape[1]), nn.init.zeros_), digits()


@canonical("WGT008", "ACT001")
def dead_by_bias() -> Made:
    return each(mlp(64, 64, 64, 10), nn.init.kaiming_normal_, lambda b: nn.init.constant_(b, -10.0)), digits()


@canonical("WGT008", "ACT001")
def first_layer_dead_by_bias() -> Made:
    model = mlp(784, 64, 10)
    nn.init.constant_(model[0].bias, -10.0)
    return model, images("mnist")


@canonical("WGT008", "ACT002")
def sigmoid_saturated_by_bias() -> Made:
    model = mlp(64, 32, 32, 10, act=nn.Sigmoid)
    nn.init.constant_(model[2].bias, 30.0)
    return model, digits()


@canonical("WGT006", "FWD001", "LRN002")
def all_positive() -> Made:
    return each(mlp(64, *[64] * 4, 10), nn.init.uniform_, nn.init.zeros_), digits()


@canonical("WGT006", "WGT008", "FWD001", "LRN002")
def uniform_biases_too() -> Made:
    return each(mlp(30, 32, 32, 1), nn.init.uniform_, nn.init.uniform_), cancer()


@canonical("WGT002", seeds=3)
def never_drawn() -> Made:
    """A layer of one's own that takes its weight from torch.empty: here with what a heap holds, pointers and zeros."""

    class Mine(nn.Module):
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.empty(b, a)), nn.Parameter(torch.zeros(b))
            with torch.no_grad():
                self.weight.copy_(heap(b, a))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.weight, self.bias)

    return nn.Sequential(Mine(64, 64), nn.ReLU(), nn.Linear(64, 10)), digits()


def heap(rows: int, columns: int) -> torch.Tensor:
    """Memory as malloc hands it out: half zero pages, else 64-bit addresses; NaN patterns are left as they are."""
    rng = np.random.default_rng(int(torch.randint(1 << 30, ())))
    words = rng.integers(0, 1 << 32, rows * columns // 2, dtype=np.uint64) | np.uint64(0x7F3A << 32)
    words[rng.random(len(words)) < 0.5] = 0
    return torch.from_numpy(words.view(np.float32).copy()).view(rows, columns)


@canonical("WGT003", "WGT002")
def initializer_on_a_copy() -> Made:
    """nn.init on w.clone(): the parameter itself stays the zeros that it was made of."""
    model = mlp(64, 32, 32, 10)
    for m in linears(model):
        m.weight = nn.Parameter(torch.zeros_like(m.weight))
        nn.init.kaiming_normal_(m.weight.detach().clone())
    return model, digits()


@canonical("FWD002", "FWD004", "GRD003", "WGT005")
def overwritten_by_post_init() -> Made:
    """A deep stack whose He weights a later hook overwrites with N(0, 0.02²)."""
    model = each(mlp(64, *[64] * 16, 10), nn.init.kaiming_normal_, nn.init.zeros_)
    return each(model, lambda w: nn.init.normal_(w, 0, 0.02), nn.init.zeros_), digits()


@canonical("WGT005", "FWD001", "LRN002", "OUT002")
def one_layer_a_million_times() -> Made:
    model = mlp(64, 64, 64, 10)
    with torch.no_grad():
        model[2].weight.mul_(1e6)
    return model, digits()


@canonical("WGT005", "FWD002", "FWD004")
def one_layer_of_1e_12() -> Made:
    model = mlp(64, 64, 64, 64, 10)
    with torch.no_grad():
        model[2].weight.mul_(1e-12)
        model[2].bias.zero_()
    return model, digits()


@canonical("WGT001")
def one_weight_is_nan() -> Made:
    model = mlp(10, 32, 1)
    with torch.no_grad():
        model[0].weight[3, 2] = math.nan
    return model, diabetes()


@canonical("ACT001", "FWD003", "FWD002", "FWD004", seeds=6)
def narrow_20_of_3() -> Made:
    return each(mlp(2, *[3] * 20, 2), nn.init.kaiming_normal_, nn.init.zeros_), moons()


@canonical("ACT001", "FWD003", "FWD002", "FWD004", seeds=6)
def narrow_8_of_4() -> Made:
    return each(mlp(10, *[4] * 8, 1), nn.init.kaiming_normal_, nn.init.zeros_), diabetes()


@canonical("ACT001", "FWD003", "FWD002", "FWD004", seeds=6)
def narrow_3_of_2() -> Made:
    return mlp(2, 2, 2, 2, 2), moons()
