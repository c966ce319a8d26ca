"""Shapes that are known without torch's shape functions: those of torch, its complaints included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import firstlight
from firstlight.capture.known_shapes import argument_like
from firstlight.errors import ModelError

X, Y = torch.randn(4, 6, 8), torch.randn(4, 6, 8)
ROW, COLUMN, WIDE = torch.randn(8), torch.randn(4, 6, 1), torch.randn(2, 4, 6, 8)


def _heads(x: Tensor) -> Tensor:
    return x.view(4, 6, 2, 4).transpose(1, 2)


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "gelu": F.gelu, "leaky_relu": lambda x: F.leaky_relu(x, 0.1), "softplus": F.softplus,
    "hardswish": F.hardswish, "in place": lambda x: F.relu(x.clone(), inplace=True), "neg": lambda x: -x,
    "sum": lambda x: x + Y, "row": lambda x: x * ROW, "row first": lambda x: ROW - x, "column": lambda x: x / COLUMN,
    "wider": lambda x: x + WIDE, "both": lambda x: COLUMN * ROW + x[:1], "number": lambda x: 2.0 / x,
    "power": lambda x: x**2, "types": lambda x: x + Y.double(), "integers": lambda x: x * torch.arange(8),
    "heads": lambda x: _heads(x) * COLUMN[:, None] + _heads(x),
    "attention": lambda x: F.scaled_dot_product_attention(_heads(x), _heads(x), _heads(x)),
    "masked attention": lambda x: F.scaled_dot_product_attention(_heads(x), _heads(x), _heads(x), torch.ones(6, 6)),
    "transposed": lambda x: F.relu(x.transpose(1, 2)) + x.transpose(1, 2), "halves": lambda x: F.gelu(x.half()),
    "layer_norm": lambda x: F.layer_norm(x, (8,), ROW, ROW), "rms_norm": lambda x: F.rms_norm(x, (6, 8)),
    "norm of heads": lambda x: F.layer_norm(_heads(x), (4,)),
    "group norm of heads": lambda x: F.group_norm(_heads(x), 1),
    "group_norm": lambda x: F.group_norm(x, 3), "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_shape_and_type_are_those_of_the_real_call(name: str) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return CASES[name](x)

    real = CASES[name](X)
    graph = firstlight.trace(Model(), X)
    spec = graph.nodes[-1].outputs[0]
    assert (spec.shape, spec.dtype) == (tuple(real.shape), str(real.dtype).removeprefix("torch."))


@pytest.mark.parametrize("name", ["heads", "attention", "norm of heads", "group norm of heads"])
def test_a_result_lies_in_memory_as_the_real_one_does(name: str) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            strides.append(CASES[name](x).stride())
            return x

    strides: list[tuple[int, ...]] = []
    firstlight.trace(Model(), X)
    assert strides == [CASES[name](X).stride()]


@pytest.mark.parametrize("name", ["relu", "row", "column", "layer_norm", "number", "attention"])
def test_a_result_needs_a_gradient_where_the_real_one_does(name: str) -> None:
    seen: list[bool] = []

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = CASES[name](x)
            seen.append(y.requires_grad)
            return y

    for needed in (False, True):
        firstlight.trace(Model(), X.clone().requires_grad_(needed))
    assert seen == [False, True]


def test_weights_that_alone_need_a_gradient_are_left_to_torch() -> None:
    x, w = torch.empty(4, 8, device="meta"), torch.empty(8, device="meta", requires_grad=True)
    assert argument_like("layer_norm", F.layer_norm, (x, (8,), w), {}) is None
    assert argument_like("mul", torch.mul, (x, w), {}) is None
    assert argument_like("mul", torch.mul, (x, w.detach()), {}) is x


@pytest.mark.parametrize(
    "broken",
    [
        nn.LayerNorm(7),
        nn.GroupNorm(7, 7),
        nn.BatchNorm1d(5),
        nn.RMSNorm(7),
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(7)),
    ],
    ids=lambda m: type(m).__name__,
)
def test_what_does_not_fit_is_refused_as_before(broken: nn.Module) -> None:
    with pytest.raises(ModelError):
        firstlight.trace(broken, X)
