"""Data as it comes: raw pixels, raw tables, holes in it, constant features divided by their deviation."""

from __future__ import annotations

import math

import torch
from torch import nn

from benchmarks.canonical.case import canonical, mlp
from benchmarks.canonical.problems import Problem, cancer, digits, images

Made = tuple[nn.Module, Problem]


def _bytes(x: torch.Tensor) -> torch.Tensor:
    return (255.0 * x).round()


@canonical("INP002", "INP004", "ACT002")
def raw_pixels_sigmoid() -> Made:
    return mlp(784, 64, 10, act=nn.Sigmoid), images("mnist").changed(_bytes)


@canonical("INP002", "INP004", "ACT002")
def raw_pixels_tanh_normal() -> Made:
    model = mlp(784, 64, 64, 10, act=nn.Tanh)
    nn.init.normal_(model[0].weight)
    return model, images("fashion-mnist").changed(_bytes)


@canonical("INP002", "INP004")
def raw_pixels_relu() -> Made:
    return mlp(784, 64, 10), images("mnist").changed(_bytes)


@canonical("INP002", "INP004", "ACT002")
def raw_table_sigmoid() -> Made:
    return mlp(30, 16, 1, act=nn.Sigmoid), cancer(raw=True)


@canonical("INP002", "INP004")
def raw_table_relu() -> Made:
    return mlp(30, 16, 1), cancer(raw=True)


@canonical("INP002", "INP003")
def pixels_divided_twice() -> Made:
    return mlp(64, 32, 10), digits().changed(lambda x: x / 255.0 / 255.0)


@canonical("INP002", "INP003")
def inputs_of_1e_9() -> Made:
    return mlp(64, 32, 10), digits().changed(lambda x: x * 1e-9)


@canonical("INP003")
def the_same_picture_always() -> Made:
    return mlp(64, 32, 10), digits().changed(lambda x: x[:1].expand_as(x).contiguous())


@canonical("INP003")
def blank_pictures() -> Made:
    return mlp(64, 32, 10), digits().changed(torch.zeros_like)


@canonical("error: batch")
def divided_by_a_deviation_of_zero() -> Made:
    """Some pixels of the digits are always white: 0/0."""
    return mlp(64, 32, 10), digits().changed(lambda x: (x - x.mean(0)) / x.std(0))


@canonical("error: batch")
def holes_in_the_table() -> Made:
    def holes(x: torch.Tensor) -> torch.Tensor:
        gone = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.01
        return x.masked_fill(gone, math.nan)

    return mlp(30, 32, 1), cancer().changed(holes)


@canonical("INP002")
def far_from_zero() -> Made:
    """Sensor readings around 100,000 that differ by one."""
    return mlp(64, 32, 10), digits().changed(lambda x: x + 1e5)


@canonical()
def batch_norm_takes_raw_pixels() -> Made:
    return nn.Sequential(nn.BatchNorm1d(784), mlp(784, 64, 10)), images("mnist").changed(_bytes)
