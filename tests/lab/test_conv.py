"""The fused convolutional passes equal autograd's; a conv stack trains through the same face as a plain one."""

import itertools
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from firstlight.errors import InputError
from firstlight.lab.conv import ConvStack
from firstlight.lab.draws import Member, draw_stack
from firstlight.lab.evaluate import evaluate
from firstlight.lab.models import StackConfig
from firstlight.lab.modules import module, to_module
from firstlight.lab.networks import network
from firstlight.lab.schedules import Schedule
from firstlight.lab.stack import Stack
from firstlight.lab.trainer import Batches, Training, train
from firstlight.theory import activations

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 2, 6, 5)).astype(np.float32)
Y = (X[:, 0, :3].mean((1, 2)) > X[:, 1, 3:].mean((1, 2))).astype(np.int64)


def _filled(config: StackConfig, members: int, batch: int, size: tuple[int, int], library: str) -> ConvStack:
    stack = ConvStack(config, members, batch, size, dtype=torch.float64, library=library)
    g = torch.Generator().manual_seed(7)
    for w in stack.weights:
        w.normal_(generator=g).mul_(0.2)  # torch calls softplus linear above 20
    stack.input.normal_(generator=g)
    stack.cotangent.normal_(generator=g)
    return stack


def _check(stack: ConvStack) -> None:
    stack.forward()
    grads = stack.gradients()
    x = stack.input.permute(3, 0, 1, 2)
    for member in range(stack.members):
        net = to_module(stack, member)
        out = net(x).T
        torch.testing.assert_close(stack.logits[member], out, rtol=1e-10, atol=1e-12 * out.abs().max().item())
        out.backward(stack.cotangent[member])
        got: list[torch.Tensor] = []
        for grad in grads:
            columns = grad.shape[-1] - int(stack.config.bias)
            got.append(grad[0, member, :, :columns])
            if stack.config.bias:
                got.append(grad[0, member, :, -1])
        for mine, parameter in zip(got, net.parameters(), strict=True):
            theirs = parameter.grad
            assert theirs is not None
            limit = 1e-11 * theirs.abs().max().item()
            torch.testing.assert_close(mine.reshape(theirs.shape), theirs, rtol=1e-9, atol=limit)


@pytest.mark.parametrize("name", activations.names())
def test_gradients_equal_autograds_for_every_activation(name: str) -> None:
    for members, bias, library in itertools.product((1, 3), (True, False), ("numpy", "torch")):
        config = StackConfig(2, 3, 4, 5, activation=name, kind="conv", bias=bias)
        _check(_filled(config, members, 4, (6, 5), library))


@pytest.mark.parametrize(("kernel", "size"), [(1, (3, 4)), (3, (1, 1)), (3, (2, 7)), (5, (4, 4)), (7, (3, 3))])
@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_gradients_equal_autograds_for_any_kernel_and_ragged_channels(
    kernel: int, size: tuple[int, int], name: str
) -> None:
    for members, depth in itertools.product((1, 2), (1, 2, 5)):
        config = StackConfig(3, 2, depth, (4, 7, 1, 3, 6)[:depth], activation=name, kind="conv", kernel=kernel)
        _check(_filled(config, members, 3, size, "numpy"))


def test_a_second_pass_forgets_the_first() -> None:
    stack = _filled(StackConfig(2, 3, 3, 4, kind="conv"), 2, 4, (5, 5), "numpy")
    stack.forward()
    before = stack.gradients()
    stack.input.mul_(4.0)
    stack.forward()
    stack.gradients()
    stack.input.div_(4.0)
    stack.forward()
    for mine, theirs in zip(stack.gradients(), before, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("method", ["sgd", "adam"])
def test_training_equals_torchs(method: Literal["sgd", "adam"]) -> None:
    config = StackConfig(2, 2, 3, 4, kind="conv", scheme="he")
    momentum = 0.9 if method == "sgd" else 0.0
    training = Training(steps=15, batch=10, method=method, momentum=momentum, schedule=Schedule(0.01))
    members = [Member(1), Member(2)]
    results, stack = train(config, training, (X, Y), members, test=(X, Y))
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    for index, member in enumerate(members):
        net = module(config, member)
        optimizer = (
            torch.optim.Adam(net.parameters(), 0.01)
            if method == "adam"
            else torch.optim.SGD(net.parameters(), 0.01, momentum)
        )
        batches = Batches(len(X), 10, 0)
        for step in range(training.steps):
            rows = torch.from_numpy(batches[step])
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
        for mine, theirs in zip(to_module(stack, index).parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=2e-6)  # 15 steps of float32 rounding
        out = to_module(stack, index)(x).detach()
        loss, hits = evaluate(stack, x, y, "cross-entropy", batch=7)
        assert float(loss[index]) == pytest.approx(float(nn.functional.cross_entropy(out, y)), rel=1e-5)
        assert int(hits[index]) == int((out.argmax(1) == y).sum())
        assert results[index].rows[-1]["test_accuracy"] == int(hits[index]) / len(X)


def test_overflow_names_the_layer() -> None:
    # a layer multiplies the length by 1e10·√(fan/2), so float32 (to 3.4e38) ends at the fourth
    config = StackConfig(2, 2, 8, 4, kind="conv", scheme="normal(1e10)", bias=False)
    (result,), _ = train(config, Training(steps=3, batch=10), (X, Y))
    assert result.divergence is not None
    assert (result.divergence.step, result.divergence.layer) == (0, 4)


def test_weights_are_those_of_the_module() -> None:
    config = StackConfig(2, 3, 3, 4, kind="conv", scheme="he")
    stack = ConvStack(config, 1, 2, (5, 5))
    draw_stack(stack, [Member(9)])
    for mine, theirs in zip(to_module(stack).parameters(), module(config, Member(9)).parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_data_and_kinds_that_do_not_fit_are_refused() -> None:
    conv, plain = StackConfig(2, 2, 2, 4, kind="conv"), StackConfig(2, 2, 2, 4)
    with pytest.raises(InputError, match="H, W"):
        train(conv, Training(steps=1), (X.reshape(40, -1), Y))
    with pytest.raises(InputError, match="plain"):
        ConvStack(plain, 1, 1, (3, 3))
    with pytest.raises(InputError, match="at least one"):
        ConvStack(conv, 1, 0, (3, 3))
    assert isinstance(network(plain, 1, 1), Stack)
    assert isinstance(network(conv, 1, 1, (3, 3)), ConvStack)
