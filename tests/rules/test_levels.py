"""Chains times numbers: e^-cδ of a step δ = softplus(u), as in selective state spaces, forward and backward."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight

SAMPLES, WIDTH, NUMBERS, DRAWS = 8, 48, 6, 300
ACCURATE = 0.03  # of what is left: E over the places of δ and of c is exact, that lengths of sites scatter is not


class Decay(nn.Module):
    """u → e^-cδ for each of some numbers c, weighed by a tensor that is independent of it."""

    def __init__(self):
        super().__init__()
        self.step, self.beside = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, NUMBERS, bias=False)
        self.log_c = nn.Parameter(torch.arange(1.0, NUMBERS + 1.0).log().repeat(WIDTH, 1))

    def forward(self, x):
        delta = F.softplus(self.step(x))
        c = -torch.exp(self.log_c)
        return torch.exp(delta[:, :, None] * c[None]) * self.beside(x)[:, None, :]


def drawn(model, x):
    """Mean squares of e^-cδ and of the gradients of e^-cδ's exponent, of c, δ and u, with their standard errors."""
    found = {}
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        for p in (model.step.weight, model.beside.weight):
            nn.init.normal_(p, std=p.shape[1] ** -0.5)
        u = model.step(x).detach().requires_grad_()
        delta, c = F.softplus(u), -torch.exp(model.log_c.detach()).requires_grad_()
        exponent = delta[:, :, None] * c[None]
        decay = torch.exp(exponent)
        y = decay * model.beside(x).detach()[:, None, :]
        grads = torch.autograd.grad(y.flatten() @ torch.randn(y.numel()), (exponent, c, delta, u))
        for name, t in zip(("decay", "step", "exponent", "c", "delta", "u"), (decay, delta, *grads), strict=True):
            found.setdefault(name, []).append(float(t.detach().double().square().mean()))
    return {k: (np.mean(v), np.std(v) / DRAWS**0.5) for k, v in found.items()}


@pytest.fixture(scope="module")
def both():
    torch.manual_seed(0)
    x = torch.randn(SAMPLES, WIDTH)
    model = Decay()
    return firstlight.predict(model, x, scheme="lecun"), drawn(model, x)


def test_a_function_of_numbers_times_a_chain_is_one_of_its_source(both):
    found, truth = both
    at = {n.op: n for n in reversed(found.nodes)}
    last = [n for n in found.nodes if n.op == "exp"][-1]
    shown = {
        "decay": last.output.q,
        "exponent": at["mul"].grad.q,
        "c": at["neg"].grad.q,
        "delta": at["softplus"].grad.q,
        "u": at["linear"].grad.q,
    }
    for name, predicted in shown.items():
        mean, error = truth[name]
        assert abs(predicted - mean) < 4.0 * error + ACCURATE * mean, (name, predicted, mean, error)


def test_independent_factors_would_be_far_off(both):
    """The gradient of c, Σ g·e^-cδ·δ over the samples, is small where either factor is."""
    _, truth = both
    mean, error = truth["c"]
    assert SAMPLES * truth["exponent"][0] * truth["step"][0] > 1.5 * (mean + 4.0 * error)


class Classes(nn.Module):
    """ln of a binomial law without its coefficients, k·ln p + (n - k)·ln(1 - p), among the classes k: its softmax."""

    def __init__(self):
        super().__init__()
        self.first, self.classes = nn.Linear(WIDTH, WIDTH), torch.arange(8.0) / 8.0

    def forward(self, x):
        p = torch.sigmoid(self.first(x))[:, :, None]
        return (self.classes * torch.log(p)).softmax(-1)


def test_gradients_that_sum_to_nothing_do_not_times_numbers():
    """Gradients of a softmax sum to nothing, so that the sum's correlations were 0/0 (ZoeDepth had P(start) 0)."""
    x, model = torch.randn(SAMPLES, WIDTH), Classes()
    seen = []
    for seed in range(DRAWS // 4):
        firstlight.initialize(model, "lecun", seed=seed, batch=x)
        log = torch.log(torch.sigmoid(model.first(x))).detach().requires_grad_()
        y = (model.classes * log[:, :, None]).softmax(-1)
        seen.append(float(torch.autograd.grad(y.flatten() @ torch.randn(y.numel()), log)[0].square().mean()))
    found = next(n for n in firstlight.predict(model, x, "lecun").nodes if n.op == "log").grad.q
    assert abs(found - np.mean(seen)) < 4.0 * np.std(seen) / len(seen) ** 0.5 + 0.15 * np.mean(seen)
