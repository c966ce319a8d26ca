"""The fused passes equal autograd's, for every activation, plain and residual, alone and as an ensemble."""

import itertools

import numpy as np
import pytest
import torch

from firstlight.errors import InputError
from firstlight.lab.draws import Member, draw_stack
from firstlight.lab.kernels import kernel
from firstlight.lab.losses import LOSSES
from firstlight.lab.models import StackConfig
from firstlight.lab.modules import module, to_module
from firstlight.lab.stack import Stack
from firstlight.theory import activations

RAGGED = (4, 4, 6, 6, 6, 3, 7)


@pytest.mark.parametrize("name", activations.names())
def test_kernels_are_the_functions_of_the_theory_floor(name: str) -> None:
    z = torch.linspace(-4.05, 7.1, 1001, dtype=torch.float64)
    record, k = activations.get(name), kernel(name)
    h, slope = k.f(z), torch.empty_like(z)
    k.derivative(h if k.saves_output else z, slope)
    np.testing.assert_allclose(h.numpy(), record(z.numpy()), atol=1e-14, rtol=1e-14)
    np.testing.assert_allclose(slope.numpy(), record.df(z.numpy()), atol=1e-8)  # torch's hardsigmoid has 1/6 in float32


def _autograd(stack: Stack, member: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    net = to_module(stack, member)
    out = net(stack.input.T).T
    out.backward(stack.cotangent[member])
    return out, [p.grad for p in net.parameters() if p.grad is not None]


def _check(stack: Stack) -> None:
    stack.forward()
    grads = stack.gradients()
    place = {
        layer: (run, layer - start) for run, (start, stop) in enumerate(stack.runs) for layer in range(start, stop)
    }
    for member in range(stack.members):
        out, expected = _autograd(stack, member)
        torch.testing.assert_close(stack.logits[member], out, rtol=1e-10, atol=1e-12 * out.abs().max().item())
        got = []
        for layer in range(stack.config.depth + 1):
            run, at = place[layer]
            n_in = stack.config.widths[layer]
            got.append(grads[run][at, member, :, :n_in])
            if stack.config.bias:
                got.append(grads[run][at, member, :, n_in])
        assert len(got) == len(expected)
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11 * theirs.abs().max().item())


def _filled(config: StackConfig, members: int, batch: int, library: str, chunk: int = 3) -> Stack:
    stack = Stack(config, members, batch, dtype=torch.float64, chunk=chunk, library=library)
    g = torch.Generator().manual_seed(7)
    for w in stack.weights:
        w.normal_(generator=g).mul_(0.4)
    stack.input.normal_(generator=g)
    stack.cotangent.normal_(generator=g)
    return stack


@pytest.mark.parametrize("name", activations.names())
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_gradients_equal_autograds_for_every_activation(name: str, kind: str) -> None:
    for members, bias, library in itertools.product((1, 3), (True, False), ("numpy", "torch")):
        config = StackConfig(6, 3, 7, 5, activation=name, kind=kind, bias=bias, eta=0.3)
        _check(_filled(config, members, 9, library))


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu"])
def test_gradients_equal_autograds_for_ragged_widths_and_any_chunk(name: str) -> None:
    for members, chunk, library in itertools.product((1, 2), (1, 2, 64), ("numpy", "torch")):
        _check(_filled(StackConfig(6, 3, 7, RAGGED, activation=name), members, 5, library, chunk))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_gradients_equal_autograds_at_the_least_depths(depth: int, kind: str) -> None:
    _check(_filled(StackConfig(1, 1, depth, 1, kind=kind, activation="tanh"), 2, 1, "numpy"))


def test_each_residual_layer_has_its_own_weight() -> None:
    _check(_filled(StackConfig(4, 2, 5, 6, kind="residual", eta=(1.0, 0.5, 0.25, 0.0)), 2, 3, "numpy"))


@pytest.mark.parametrize("loss", list(LOSSES))
def test_losses_and_cotangents_equal_torchs(loss: str) -> None:
    g = torch.Generator().manual_seed(1)
    classes = 1 if loss == "binary" else 4
    logits = torch.randn(3, classes, 11, dtype=torch.float64, generator=g).requires_grad_()
    labels = torch.randint(2 if loss == "binary" else classes, (11,), generator=g)
    target = torch.randn(11, classes, dtype=torch.float64, generator=g)
    goal = target.T if loss == "mse" else labels
    cotangent = torch.empty_like(logits)
    value, hits = LOSSES[loss](logits.detach(), goal, cotangent)
    for member in range(3):
        z = logits[member].T
        expected = {
            "cross-entropy": lambda z=z: torch.nn.functional.cross_entropy(z, labels),
            "mse": lambda z=z: torch.nn.functional.mse_loss(z, target),
            "binary": lambda z=z: torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], labels.double()),
        }[loss]()
        (grad,) = torch.autograd.grad(expected, logits)
        torch.testing.assert_close(value[member], expected.detach())
        torch.testing.assert_close(cotangent[member], grad[member])
    if loss == "cross-entropy":
        assert hits.tolist() == (logits.argmax(1) == labels).sum(1).tolist()


@pytest.mark.parametrize("scheme", ["he", "random-walk", "orthogonal", "xavier-uniform"])
def test_a_members_weights_depend_on_its_seed_alone(scheme: str) -> None:
    config = StackConfig(6, 3, 4, 8, scheme=scheme)
    pair, alone = Stack(config, 2, 1), Stack(config, 1, 1)
    draw_stack(pair, [Member(5), Member(9)])
    draw_stack(alone, [Member(9)])
    for together, single in zip(pair.weights, alone.weights, strict=True):
        assert torch.equal(together[:, 1], single[:, 0])
        assert not torch.equal(together[:, 0], together[:, 1])
    net = module(config, Member(9))
    for layer, part in enumerate(net.layers):
        assert torch.equal(part.weight, alone.weight(layer)[0])


def test_a_gain_rescales_the_hidden_layers_only() -> None:
    config = StackConfig(6, 3, 3, 50, scheme="he")
    plain, scaled = Stack(config, 1, 1), Stack(config, 1, 1)
    draw_stack(plain, [Member(1)])
    draw_stack(scaled, [Member(1, gain=2 * 2**0.5)])
    for layer in range(3):
        torch.testing.assert_close(scaled.weight(layer), 2 * plain.weight(layer))
    assert torch.equal(scaled.weight(3), plain.weight(3))


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_budget_gives_the_widest_stack_that_fits(kind: str) -> None:
    for depth in (1, 4, 50):
        config = StackConfig(20, 5, depth, parameters=9000, kind=kind)
        count = sum(p.numel() for p in module(config).parameters())
        wider = StackConfig(20, 5, depth, config.hidden[0] + 1, kind=kind)
        assert count <= 9000 < sum(p.numel() for p in module(wider).parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 0},
        {"width": None},
        {"width": 5, "parameters": 100},
        {"width": (3, 4)},
        {"width": 0},
        {"width": None, "parameters": 3},
        {"kind": "recurrent"},
        {"kind": "residual", "eta": "1/L"},
        {"kind": "residual", "eta": (1.0,)},
        {"kind": "residual", "width": (3, 4, 5)},
        {"kernel": 2},
        {"gain": float("nan")},
    ],
)
def test_a_configuration_that_describes_no_network_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        StackConfig(**({"inputs": 4, "outputs": 2, "depth": 3, "width": 5} | change))
