"""Simulated lengths follow the exact laws; the two ways of drawing agree with each other."""

import numpy as np
import pytest
import torch

from firstlight.errors import InputError
from firstlight.lab.draws import Member
from firstlight.lab.models import StackConfig
from firstlight.lab.modules import module
from firstlight.lab.simulate import simulate
from firstlight.theory import length_law, lengths

DRAWS = 4000


def _log_end(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    return np.log(values / start)


@pytest.mark.parametrize("method", ["weights", "projected"])
def test_the_log_length_has_the_exact_mean_and_variance(method: str) -> None:
    law = length_law.log_law([20] * 8)
    out = simulate(StackConfig(20, 1, 8, 20, scheme="he"), DRAWS, seed=3, method=method)
    walk = _log_end(out.forward[:, -1], out.input)
    assert abs(walk.mean() - law.mean) < 4 * law.sd / DRAWS**0.5
    # the log of a product of mixtures has some excess kurtosis; its own fourth moment gives the standard
    # error
    error = np.sqrt(np.var((walk - walk.mean()) ** 2) / DRAWS)
    assert abs(walk.var() - law.variance) < 4 * error


def test_both_ways_give_one_joint_law_of_lengths_and_gradients() -> None:
    config = StackConfig(12, 1, 6, 12, scheme="he", activation="tanh")
    a, b = (simulate(config, DRAWS, seed=s, method=m) for s, m in ((1, "weights"), (2, "projected")))
    for column in range(5):
        for x, y in ((a.forward, b.forward), (a.backward, b.backward)):
            p, q = np.log(x[:, column]), np.log(y[:, column])
            assert abs(p.mean() - q.mean()) < 4.5 * np.hypot(p.std(), q.std()) / DRAWS**0.5
    joint = [
        np.log(s.forward[:, -1]) * np.log(s.backward[:, 0]) for s in (a, b)
    ]  # their correlation is what the projection could lose
    assert abs(joint[0].mean() - joint[1].mean()) < 4.5 * np.hypot(joint[0].std(), joint[1].std()) / DRAWS**0.5


def test_uniform_weights_follow_the_kurtosis_recursion() -> None:
    widths = [3] * 5
    draws, x = 40000, np.ones(3)
    out = simulate(StackConfig(3, 1, 5, 3, scheme="he-uniform"), draws, seed=5, x=x)
    square, _ = lengths.kurtosis_path(widths, 1.8, x)
    normal, _ = lengths.kurtosis_path(widths, 3.0, x)
    for layer in range(1, 6):
        seen = out.forward[:, layer - 1] ** 2
        assert abs(seen.mean() - square[layer]) < 4 * seen.std() / draws**0.5
    first = out.forward[:, 0] ** 2  # the near miss: the normal law's value lies outside the error already here
    assert abs(first.mean() - normal[1]) > 4 * first.std() / draws**0.5


def test_gradients_have_the_law_of_the_modules() -> None:
    config = StackConfig(6, 2, 5, 30, kind="residual", eta=0.4, scheme="he")
    out = simulate(config, 60, seed=2)
    ends = []
    for seed in range(60):
        net = module(config, Member(seed))
        x = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed))
        h = torch.relu(net.layers[0](x)).detach().requires_grad_()
        first = h
        for layer in range(1, 5):
            h = h + 0.4 * torch.relu(net.layers[layer](h))
        h.backward(torch.randn(h.shape, generator=torch.Generator().manual_seed(1000 + seed)))
        assert first.grad is not None
        ends.append(np.log(first.grad.square().mean().item()))
    mine = np.log(out.backward[:, 0])
    assert abs(mine.mean() - np.mean(ends)) < 4.5 * np.hypot(mine.std(), np.std(ends)) / 60**0.5


def test_what_does_not_apply_is_refused() -> None:
    with pytest.raises(InputError, match="plain stack of normal weights"):
        simulate(StackConfig(4, 1, 2, 4, scheme="orthogonal"), 3, method="projected")
    with pytest.raises(InputError, match="finite"):
        simulate(StackConfig(4, 1, 2, 4), 3, x=np.array([1.0, np.nan, 0.0, 1.0]))
    with pytest.raises(InputError, match="at least 1"):
        simulate(StackConfig(4, 1, 2, 4), 0)
