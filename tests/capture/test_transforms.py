"""Derivatives inside a network or its loss: `torch.func`, `torch.autograd.grad`, losses of differential equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, func, nn

import firstlight
from firstlight.capture.evidence import gather
from firstlight.errors import ModelError

#: torch's own forward mode imports what it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def energy(width: int = 32, inputs: int = 3, outputs: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )


class Derivative(nn.Module):
    """How a derivative of an inner network is written."""

    def __init__(self, derive: Callable[[nn.Module, Tensor], Tensor], outputs: int = 1) -> None:
        super().__init__()
        self.net, self.derive = energy(outputs=outputs), derive

    def forward(self, x: Tensor) -> Tensor:
        return self.derive(self.net, x)


def by_autograd(net: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    return -torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]


def value_beside(net: nn.Module, x: Tensor) -> Tensor:
    gradient, value = func.grad_and_value(lambda z: net(z).sum())(x)
    return torch.cat([gradient, value.expand(len(x), 1)], 1)


def pulled_back(net: nn.Module, x: Tensor) -> Tensor:
    y, pull = func.vjp(net, x)
    return pull(torch.ones_like(y))[0]


def of_weights(net: nn.Module, x: Tensor) -> Tensor:
    """Gradients of each sample's output by the last layer's weights."""
    weights = {k: v for k, v in net.named_parameters() if k == "4.weight"}

    def one(weights: dict[str, Tensor], z: Tensor) -> Tensor:
        return func.functional_call(net, weights, (z[None],)).sin().sum()

    return func.vmap(func.grad(one), (None, 0))(weights, x)["4.weight"].flatten(1)


WAYS: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], int]] = {
    "autograd.grad": (by_autograd, 1),
    "grad": (lambda net, x: func.grad(lambda z: net(z).sum())(x), 1),
    "grad_and_value": (value_beside, 1),
    "vjp": (pulled_back, 2),
    "jvp": (lambda net, x: func.jvp(net, (x,), (torch.ones_like(x),))[1], 2),
    "jacrev": (lambda net, x: func.vmap(func.jacrev(net))(x).flatten(1), 2),
    "jacfwd": (lambda net, x: func.vmap(func.jacfwd(net))(x).flatten(1), 2),
    "hessian": (lambda net, x: func.vmap(func.hessian(lambda z: net(z).squeeze()))(x).flatten(1), 1),
    "twice": (lambda net, x: func.grad(lambda z: func.grad(lambda w: net(w).sum())(z).sin().sum())(x), 1),
    "of weights": (of_weights, 1),
}


@pytest.fixture(params=WAYS)
def derivative(request: Any) -> Derivative:
    torch.manual_seed(0)
    return Derivative(*WAYS[request.param])


X = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))


def test_what_is_measured_is_the_derivative_and_its_gradient(derivative: Derivative) -> None:
    out = derivative(X)
    out.square().sum().backward()
    expected = {k: p.grad.square().mean() for k, p in derivative.named_parameters() if p.grad is not None}
    derivative.zero_grad()
    found = firstlight.measure(derivative, X, loss=lambda y: y.square().sum())
    assert found.nodes[-1].output.q == pytest.approx(float(out.detach().square().mean()), rel=1e-4)
    assert {p.name for p in found.parameters if p.grad_q} == {k for k, q in expected.items() if q > 0}
    for p in found.parameters:
        if p.grad_q:
            assert p.grad_q == pytest.approx(float(expected[p.name]), rel=1e-4)
    assert torch.equal(derivative(X), out)  # torch.func itself is back


def test_every_verb(derivative: Derivative) -> None:
    assert firstlight.diagnose(derivative, X).verdict in ("starts", "at risk", "mis-scaled")
    assert firstlight.predict(derivative, X, "xavier").p_start > 0.5
    firstlight.initialize(derivative, "xavier", batch=X).undo()


def test_a_gradient_inside_is_none_of_the_backward_pass() -> None:
    """The last layer's output is not what the forces depend on: only its weight is."""
    torch.manual_seed(0)
    frame = firstlight.measure(Derivative(by_autograd), X).to_frame().set_index("name")
    assert frame["grad_q"].isna()[["net.4:linear", ":sum"]].all()
    assert frame["grad_q"]["net.2:linear"] > 0


def residual(x: Tensor) -> Callable[[Tensor], Tensor]:
    """u_t + u·u_x = 0.1·u_xx at the batch's points."""

    def burgers(u: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first[:, 0].sum(), x, create_graph=True)
        return (first[:, 1:2] + u * first[:, :1] - 0.1 * second[:, :1]).square().mean()

    return burgers


def test_the_loss_of_a_differential_equation() -> None:
    torch.manual_seed(0)
    net, x = energy(inputs=2), torch.rand(64, 2, requires_grad=True)
    loss = residual(x)
    expected = torch.autograd.grad(loss(net(x)), list(net.parameters()), allow_unused=True)
    found = firstlight.measure(net, x, loss=loss)
    assert found.loss == pytest.approx(float(loss(net(x)).detach()), rel=1e-5)
    for p, g in zip(found.parameters, expected, strict=True):
        assert g is not None
        assert p.grad_q == pytest.approx(float(g.square().mean()), rel=1e-4)
    assert x.grad is None
    assert gather(net, x, loss, None).probe.usable
    assert firstlight.diagnose(net, x, loss).verdict == "starts"


def test_without_a_gradient_at_the_batch_its_loss_is_refused_with_the_way_out() -> None:
    x = torch.rand(64, 2)
    with pytest.raises(ModelError, match=r"requires_grad"):
        firstlight.measure(energy(inputs=2), x, loss=residual(x))


def test_a_derivative_needs_a_pass_with_gradients() -> None:
    with pytest.raises(ModelError, match="backward=False"):
        firstlight.measure(Derivative(by_autograd), X, backward=False)


def test_a_derivative_is_predicted_from_the_graph() -> None:
    """Forces of 64 draws, whose mean square scatters over draws: within four standard errors of their mean."""
    model, x = Derivative(by_autograd), torch.randn(16, 3, generator=torch.Generator().manual_seed(2))
    drawn: list[float] = []
    for seed in range(64):
        firstlight.initialize(model, "xavier", seed=seed, batch=x)
        drawn.append(firstlight.measure(model, x).nodes[-1].output.q)
    q = torch.tensor(drawn)
    found = firstlight.predict(model, x, "xavier")
    assert abs(found.nodes[-1].output.q - float(q.mean())) < 4 * float(q.std()) / 8
    assert any("not followed" in c for n in found.nodes for c in n.caveats)
